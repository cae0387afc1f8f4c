"""Reduce on plateau, after a warm-up."""

from __future__ import annotations

import operator
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, SupportsFloat

from torch import Tensor

from ..engine import lr_buffer
from ..engine.program import instance_dict
from ..engine.reduction import ReduceOp
from ..engine.selection import Groups, Optimizers
from .plateau import ReduceLROnPlateau

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class WarmupReduceLROnPlateau(ReduceLROnPlateau):
    """Warm the learning rates up on a line, then reduce them when a metric has stopped improving.

    Up to step ``warmup_steps``, with ``s = warmup_start_factor``::

        lr = base * (s + (1 - s) * t / warmup_steps)

    The metrics of these steps are not looked at. After them it is :class:`ReduceLROnPlateau`.

    It is one, also to ``isinstance``: frameworks that hand the metric to a plateau (Lightning, skorch, catalyst,
    transformers' ``Trainer``) hand it to this one. Elsewhere ``SequentialLR([LinearLR(...), ReduceLROnPlateau(...)])``
    is more general.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, eps: as in :class:`ReduceLROnPlateau`.
        warmup_steps: how many calls of ``step()`` the warm-up takes; 0 for none.
        warmup_start_factor: what to multiply the learning rates by at the beginning, from 0 to 1.
        accumulate, smoothing, patience_counts, param_name, groups, process_group, reduce_op, deferred: as in
            :class:`ReduceLROnPlateau`. What is deferred, the warm-up goes on with as well, a step or two later.

    Raises:
        ValueError, TypeError: an argument is out of its range, or as in :class:`ReduceLROnPlateau`.

    The base learning rates are the groups' ``initial_lr``, or else what they have at construction; they are in
    ``base_lrs``. A group that is added later begins with the learning rate that it comes with, and warms up along.
    While it warms up, what is written to learning rates lasts until the next step.

    Waiting for the device, capture and compilation are as in :class:`ReduceLROnPlateau`.

    Example::

        scheduler = fastsched.WarmupReduceLROnPlateau(optimizer, patience=5, warmup_steps=10)
        for epoch in range(100):
            ...
            scheduler.step(validation_loss)
    """

    _schedule: ClassVar[str] = "WarmupReduceLROnPlateau"

    base_lrs: list[Any]
    warmup_steps: int
    warmup_start_factor: float

    def __init__(
        self,
        optimizer: Optimizers,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs", "rel_abs"] = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0,
        eps: float = 1e-8,
        *,
        warmup_steps: int,
        warmup_start_factor: float = 0.1,
        accumulate: int = 1,
        smoothing: float = 0.0,
        patience_counts: Literal["torch", "keras"] = "torch",
        param_name: str = "lr",
        groups: Groups = None,
        process_group: ProcessGroup | None = None,
        reduce_op: ReduceOp = "mean",
        deferred: bool = False,
    ) -> None:
        self.warmup_steps, self.warmup_start_factor = _checked_steps(warmup_steps), _checked_factor(warmup_start_factor)
        super().__init__(
            optimizer,
            mode,
            factor,
            patience,
            threshold,
            threshold_mode,
            cooldown,
            min_lr,
            eps,
            accumulate=accumulate,
            smoothing=smoothing,
            patience_counts=patience_counts,
            param_name=param_name,
            groups=groups,
            process_group=process_group,
            reduce_op=reduce_op,
            deferred=deferred,
        )

    def _begin(self) -> None:
        groups = self.optimizer.param_groups
        if groups and isinstance(groups[0]["lr"], Tensor):
            lr_buffer.bind(self.optimizer)  # the warm-up begins from float64 learning rates
        self.base_lrs = []
        self._fit_groups()
        self._begin_warm_up()
        super()._begin()

    def _begin_warm_up(self) -> None:
        """Also in the middle of a run, where a composition begins it."""
        self.last_epoch = 0
        if self.warmup_steps > 0:
            self._warm_up(0)
        self._last_lr = lr_buffer.copied_lrs(self.optimizer)

    def _warm_up(self, epoch: int) -> None:
        start, steps = self.warmup_start_factor, self.warmup_steps
        factor = start + (1.0 - start) * epoch / steps if epoch < steps else 1.0
        lr_buffer.set_lrs(self.optimizer, lr_buffer.scaled(self.base_lrs, factor))

    def _decide_as_torch(self, metrics: SupportsFloat) -> None:
        self._fit_groups()
        epoch = self.last_epoch + 1
        if epoch > self.warmup_steps:
            super()._decide_as_torch(metrics)
            return
        float(metrics)  # raises for what is no metric
        self._warm_up(epoch)
        self.last_epoch = epoch
        self._last_lr = lr_buffer.copied_lrs(self.optimizer)

    def _fit_groups(self) -> None:
        super()._fit_groups()
        groups = self.optimizer.param_groups
        bases = instance_dict(self).get("base_lrs")  # None while it is constructed
        if bases is not None and len(bases) != len(groups):
            lrs = lr_buffer.exact(self.optimizer)
            for group, lr in zip(groups, lrs, strict=True):
                group.setdefault("initial_lr", lr)
            came = [group["initial_lr"] for group in list(groups)[len(bases) :]]
            self.base_lrs = [*bases[: len(groups)], *lr_buffer.copies(came)]

    def _checked(self, state_dict: Any, where: str) -> dict[str, Any]:
        state = super()._checked(state_dict, where)
        if "warmup_steps" in state:
            state["warmup_steps"] = _checked_steps(state["warmup_steps"], f"{where}['warmup_steps']")
        if "warmup_start_factor" in state:
            factor = state["warmup_start_factor"]
            state["warmup_start_factor"] = _checked_factor(factor, f"{where}['warmup_start_factor']")
        return state


def _checked_steps(value: Any, where: str = "warmup_steps") -> int:
    try:
        steps = operator.index(value)
    except TypeError:
        raise TypeError(f"{where} must be an int, the number of steps, got {value!r}") from None
    if isinstance(value, bool) or not 0 <= steps < 2**53:
        raise ValueError(f"{where} must be 0 or more, the number of steps, got {value!r}")
    return steps


def _checked_factor(value: Any, where: str = "warmup_start_factor") -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{where} must be a number from 0 to 1, got {value!r}")
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{where} must be from 0 to 1, got {value!r}")
    return float(value)
