"""Reduce on plateau."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, SupportsFloat

from torch import Tensor
from torch.optim import lr_scheduler as torch_lr_scheduler
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING

from .. import _C
from ..engine import arrivals, lr_buffer
from ..engine.arrivals import Arrivals, check_deferred
from ..engine.checkpoint import number
from ..engine.judged_metric import SETTINGS, checked_setting, judge, patience_for_torch
from ..engine.metric import as_plain, completed
from ..engine.program import LAST_LR, instance_dict
from ..engine.reduction import ReduceOp, reduction
from ..engine.selection import Groups, Optimizers, select
from ..engine.untraced import OFF_PATH, untraced
from .base import one_element
from .ranks import _MetricScheduler

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

if TYPE_CHECKING:
    from typing_extensions import Never


class _Plateau(_MetricScheduler, torch_lr_scheduler.ReduceLROnPlateau):
    """A scheduler that frameworks hand the metric to, because it is a plateau: how it is stepped."""

    _takes_metrics: ClassVar[bool] = True

    def step(  # type: ignore[override]
        self,
        metrics: SupportsFloat,
        epoch: int | None = None,
        weight: Tensor | float | None = None,  # by position, too: to look up a default by name takes longest here
        *,
        found_inf: Tensor | float | None = None,
    ) -> None:
        """Take note of a metric and reduce the learning rates if it has stopped improving.

        Args:
            metrics: a number, a numpy scalar, or a tensor with one element of any real dtype on any device. A DTensor
                is gathered first, on all of its ranks; with a ``process_group`` the metric is reduced.
            epoch: deprecated, as in torch: the epoch to note down in ``last_epoch``.
            found_inf: whether this step is to be skipped, because a GradScaler skipped the optimizer's: a number, or a
                tensor with one element, which is read on the device if the learning rates are there. With a
                ``process_group`` all ranks skip the step if one of them does.
            weight: how much this rank's metric counts in the mean over the ``process_group``, the number of its samples
                for instance; the same for all by default. 0 leaves the metric out, NaN included.

        Raises:
            TypeError, ValueError, RuntimeError: as ``float(metrics)`` does where that is not a number.
            ValueError: ``weight`` is negative, or there is no mean over a ``process_group``; ``epoch`` is given, and
                ``deferred=True``.
            RuntimeError: ``min_lr`` is a list and param groups have been added since; with Python-number learning
                rates only when a reduction fires, as in torch.

        Sync: with tensor learning rates it never waits for the device, unless the metric is on a GPU and the
        learning rates are not. With Python-number learning rates a metric on a GPU is read, which waits; with
        ``deferred=True`` it is copied to the host behind the step's back. Where there are several ranks such a step
        waits for the metric of the step before, so that all decide alike.

        Capture: with tensor learning rates it may be captured in a CUDA graph. Anything that would be frozen into
        the graph raises RuntimeError: a metric on the host, attributes or groups that changed since the last step, a
        metric that is deferred.

        Compile: with tensor learning rates and a tensor metric it traces under ``fullgraph=True`` and does not
        recompile; after ``use_tensor_lr``, step once before compiling. A compiled step follows whatever was done to
        attributes and groups since the step before, as an eager one does; it is compiled again if groups were added.
        A Python-number metric recompiles once, at its second value. What is deferred breaks the graph.
        """
        if self._is_attended or weight is not None:
            if epoch is not None and self._deferred is not None:
                raise ValueError("epoch= is deprecated, and not for a plateau with deferred=True: leave it out")
            metrics, found_inf = self._reduced(metrics, found_inf, weight)
            if self._deferred is not None and self._is_put_off(metrics, found_inf):
                return
        if epoch is not None:
            if not found_inf:
                self._step_noting(metrics, epoch)
            return
        if found_inf is not None:
            self._step_unless(found_inf, metrics)
            return
        declined = self._engine.step(self, metrics)
        if declined is not None:
            self._step_off_path(declined, metrics)

    @property
    def deferred(self) -> bool:
        """Whether a metric on an accelerator is decided by once it has arrived on the host, as at construction."""
        return self._deferred is not None

    def flush(self) -> None:
        """Have all decided that metrics were given for; without ``deferred=True`` that has been done.

        Waits for the device. ``state_dict()``, pickling and copying do so by themselves. Raises RuntimeError inside
        CUDA graph capture, and what a step raises.

        Example::

            scheduler = fastsched.ReduceLROnPlateau(optimizer, deferred=True)
            for inputs, targets in loader:
                loss = train(model, optimizer, inputs, targets)
                scheduler.step(loss)
            scheduler.flush()
        """
        self._catch_up()

    def _catch_up(self) -> None:
        if self._deferred:
            self._deferred.settle(self, wait=True)

    def _is_put_off(self, metrics: Any, found_inf: Any) -> bool:
        """Whether it is left to a later step to decide by this metric: one that is noted down then."""
        engine = self._engine
        if engine.steps_tensors and engine.device.type != "cpu":
            self._catch_up()  # by what was given while the learning rates were elsewhere
            return False
        if not self._deferred and not arrivals.is_away(metrics) and not arrivals.is_away(found_inf):
            return False
        self._put_off(metrics, found_inf)
        return True

    @untraced("the metric is sent to the host, where a later step decides by it")
    def _put_off(self, metrics: Any, found_inf: Any) -> None:
        metric = as_plain(metrics)
        if found_inf is not None and not isinstance(found_inf, Tensor):
            if found_inf:
                return
            found_inf = None
        skipped = [] if found_inf is None else [one_element(found_inf)]
        self._deferred.put_off(self, metric, *skipped)  # type: ignore[union-attr]

    def _decide(self, metric: float, found_inf: float = 0.0) -> None:
        """A step that was put off."""
        if not found_inf:
            self._step_plainly(float(metric))

    @untraced(OFF_PATH)
    def _step_noting(self, metrics: SupportsFloat, epoch: int) -> None:
        metrics = metrics if isinstance(metrics, Tensor) else float(metrics)
        warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=3)
        self._step_plainly(metrics)
        self.last_epoch = epoch


_C.quick_call(_Plateau.step, 2, 2)


class ReduceLROnPlateau(_Plateau):
    """Multiply every learning rate by ``factor`` when a metric has stopped improving.

    A drop-in for :class:`torch.optim.lr_scheduler.ReduceLROnPlateau` (the formulas are those of torch 2.13).
    Per step an epoch is good if its metric ``m`` is better than the best so far, ``b``, by ``threshold``::

        mode   rel                      abs                  rel_abs
        min    m < b * (1 - threshold)  m < b - threshold    m < b - threshold * abs(b)
        max    m > b * (1 + threshold)  m > b + threshold    m > b + threshold * abs(b)

    and bad otherwise, NaN included. Below zero ``rel`` counts a metric that got slightly worse, by less than
    ``threshold * abs(b)``, as better: then use ``rel_abs``, which torch does not have. Above zero the two are the same.
    More than ``patience`` bad epochs in a row, not counting those in a cooldown, set every group's learning rate to
    ``max(lr * factor, min_lr)`` where that is lower by more than ``eps``.

    With Python-number learning rates every step is bit-identical to torch's. With tensor learning rates
    (:func:`fastsched.use_tensor_lr`) the decision is made on their device, in float64: each LR is torch's float
    trajectory rounded to the tensor's dtype, and nothing is read back.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        mode: whether the metric should fall (``"min"``) or rise (``"max"``).
        factor: what to multiply the learning rates by, below 1.
        patience: number of bad epochs that are tolerated.
        threshold: how much better than the best counts as better.
        threshold_mode: whether ``threshold`` is relative to the best (``"rel"``), absolute (``"abs"``), or relative to
            the absolute value of the best (``"rel_abs"``), for metrics that may be negative.
        cooldown: number of epochs after a reduction in which bad ones are not counted.
        min_lr: lower bound of the learning rate, one for all groups or one per group.
        eps: a reduction smaller than this is not made.
        accumulate: how many metrics make one: their mean is judged, once for all of them. For a plateau that is stepped
            at every iteration (as ``accumulation_size`` in optax). ``patience`` and ``cooldown`` count what is judged,
            ``last_epoch`` counts steps.
        smoothing: how much of an exponential average stays at each metric, or mean of metrics; the average is judged.
            0 does not smooth. It is divided by ``1 - smoothing**n``, so that it does not begin near 0. A metric that
            is not finite is judged as it is, and not averaged.
        patience_counts: ``"torch"`` if the epoch *after* ``patience`` bad ones reduces, ``"keras"`` if the last of
            ``patience`` bad ones does. (A ``cooldown`` of n is one of n + 1 in Keras.)
        param_name: the entry of each group that it drives: ``"weight_decay"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.
        process_group: the ranks, for instance ``torch.distributed.group.WORLD``, whose metrics are reduced to one by a
            collective before each decision, so that all decide alike. Every rank has to step. Without one, each rank
            decides by its own metric; where there are several ranks a warning says so once.
        reduce_op: what is made of the ranks' metrics: ``"mean"``, ``"sum"``, ``"min"`` or ``"max"``.
        deferred: with Python-number learning rates, do not wait for a metric on an accelerator: a later step decides by
            it, the first that finds it arrived. For a plateau that is stepped at every iteration. Decisions are those
            of ``deferred=False``, in order, a step or two later; of several ranks all decide one step later. With
            learning rates on the metric's device there is nothing to defer, and it changes nothing.

    Raises:
        ValueError: ``factor`` is 1 or more, ``min_lr`` is not one per group, a mode is unknown, ``accumulate``,
            ``smoothing`` or ``patience_counts`` is out of its range, or this rank is not in ``process_group``.
        TypeError: ``optimizer`` is not an Optimizer, ``accumulate`` or ``smoothing`` is not a number, or ``deferred``
            is not True or False.
        RuntimeError: the learning rates are on a CUDA device and fastsched has no CUDA operators.

    ``best``, ``num_bad_epochs``, ``cooldown_counter``, ``last_epoch`` and ``get_last_lr()`` may be read and
    written as in torch. With learning rates on a CUDA device, reading one of the first four waits for the
    device; ``get_last_lr()`` returns tensors on the device without waiting. With ``deferred=True`` all of them tell
    what has been decided so far, without waiting; what is written counts for decisions that are still to come.

    Example::

        scheduler = fastsched.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
        for epoch in range(epochs):
            train(model, optimizer)
            scheduler.step(validation_loss(model))
    """

    _schedule: ClassVar[str] = "ReduceLROnPlateau"
    _replaces: ClassVar[tuple[str, ...]] = ("_is_better", "_reduce_lr", "in_cooldown")

    last_epoch: int
    best: float
    num_bad_epochs: int
    cooldown_counter: int
    # torch does not have these. One that is as here is in no state and in no ``__dict__``.
    accumulate: int = 1
    smoothing: float = 0.0
    patience_counts: Literal["torch", "keras"] = "torch"
    accumulated_metric: float  # the mean of the metrics that wait to be judged
    accumulated_count: int
    smoothed_metric: float
    smoothed_weight: float

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
        accumulate: int = 1,
        smoothing: float = 0.0,
        patience_counts: Literal["torch", "keras"] = "torch",
        param_name: str = "lr",
        groups: Groups = None,
        process_group: ProcessGroup | None = None,
        reduce_op: ReduceOp = "mean",
        deferred: bool = False,
    ) -> None:
        check_deferred(deferred)
        for name, value in zip(SETTINGS, (accumulate, smoothing, patience_counts), strict=True):
            if checked_setting(name, value) != SETTINGS[name]:
                setattr(self, name, value)
        optimizer = select(optimizer, param_name, groups)
        reduced = reduction(type(self).__name__, process_group, reduce_op)
        super().__init__(optimizer, mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, eps)  # type: ignore[arg-type]
        self._attend(_reduction=reduced, _deferred=Arrivals() if deferred else None)
        self._begin()

    def _begin(self) -> None:
        """Choose the first engine, for the learning rates that torch's constructor has copied."""
        attributes = instance_dict(self)
        copied = attributes[LAST_LR]
        if copied and isinstance(copied[0], Tensor):
            del attributes[LAST_LR]  # an engine of tensors begins with them
        if not self._attach():
            attributes[LAST_LR] = copied

    def __setattr__(self, name: str, value: Never) -> None:  # no value: a checker takes no name that is not declared
        super().__setattr__(name, checked_setting(name, value) if name in SETTINGS else value)

    def _init_is_better(self, mode: Any, threshold: Any, threshold_mode: Any) -> None:
        extra = threshold_mode == "rel_abs"
        super()._init_is_better(mode, threshold, "rel" if extra else threshold_mode)
        if extra:
            self.threshold_mode = threshold_mode

    def _is_better(self, a: Any, best: Any) -> Any:
        # For torch's code, which asks this where no engine steps; ``Improvement`` in csrc/schedule/formulas/plateau.h.
        if self.threshold_mode != "rel_abs":
            return super()._is_better(a, best)  # type: ignore[no-untyped-call]
        threshold = 0.0 if math.isinf(best) else self.threshold if best >= 0 else -self.threshold
        return a > best * (threshold + 1.0) if self.mode == "max" else a < best * (1.0 - threshold)

    def _step_as_torch(self, metrics: SupportsFloat) -> None:
        numbers = [group for group in self.optimizer.param_groups if not isinstance(group["lr"], Tensor)]
        self._decide_as_torch(completed(metrics) if isinstance(metrics, Tensor) else metrics)
        for group in numbers:
            if isinstance(group["lr"], Tensor):  # torch has made the bound itself the learning rate
                group["lr"] = group["lr"].detach().clone()

    def _decide_as_torch(self, metrics: SupportsFloat) -> None:
        attributes = instance_dict(self)
        given = SETTINGS.keys() & attributes.keys()
        if not given:
            torch_lr_scheduler.ReduceLROnPlateau.step(self, metrics)
            return
        settings = {name: checked_setting(name, getattr(self, name)) for name in SETTINGS}
        judged = judge(attributes, float(metrics), settings)
        if judged is None:
            self.last_epoch += 1
            self._last_lr = lr_buffer.copied_lrs(self.optimizer)
            return
        patience = attributes["patience"]
        attributes["patience"] = patience_for_torch(patience, settings["patience_counts"])
        try:
            torch_lr_scheduler.ReduceLROnPlateau.step(self, judged)
        finally:
            attributes["patience"] = patience

    def _checked(self, state_dict: Mapping[str, Any], where: str) -> dict[str, Any]:
        state = super()._checked(state_dict, where)
        if state.get("default_min_lr") is not None:
            number(f"{where}['default_min_lr']", state["default_min_lr"])
        for name in SETTINGS.keys() & state.keys():
            state[name] = checked_setting(name, state[name], f"{where}[{name!r}]")
        return state

    def _load(self, state: dict[str, Any]) -> None:
        if self._deferred is not None:
            self._deferred.forget()  # metrics of the run that is given up
        super()._load(state)
        self._init_is_better(self.mode, self.threshold, self.threshold_mode)

    def _fit_groups(self) -> None:
        groups = len(self.optimizer.param_groups)
        if len(self.min_lrs) == groups:
            return
        if self.default_min_lr is None:
            raise RuntimeError(
                f"min_lrs has {len(self.min_lrs)} values for {groups} param groups: a group was added to the "
                "optimizer, or a state of another one loaded; set scheduler.min_lrs to one minimum per group"
            )
        self.min_lrs = [self.default_min_lr] * groups
