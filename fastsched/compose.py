"""Schedulers made of schedulers: one after another, or all at once. A plateau scheduler may be one of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from .engine import refuse_capture


def _check_children(owner: object, optimizer: Any, schedulers: Sequence[Any]) -> None:
    name = type(owner).__name__
    if len(schedulers) < 1:
        raise ValueError(f"{name} expects at least one scheduler, but got none")
    for index, scheduler in enumerate(schedulers):
        if not hasattr(scheduler, "optimizer"):
            raise TypeError(f"{name}: schedulers[{index}] has no attribute `optimizer`; it is no scheduler")
        if optimizer is not scheduler.optimizer:
            raise ValueError(
                f"{name}: schedulers[{index}], a {type(scheduler).__name__}, belongs to another optimizer; "
                "make all of them with the same one"
            )


def _initial_lr(optimizer: Optimizer) -> None:
    """Set every group's LR back to where it began; a group whose schedulers kept no note of that begins now."""
    for group in optimizer.param_groups:
        lr = group["lr"]
        initial = group.setdefault("initial_lr", lr.clone() if isinstance(lr, Tensor) else lr)
        if isinstance(lr, Tensor):
            lr.fill_(initial)
        else:
            group["lr"] = initial


def _lrs(optimizer: Optimizer) -> list[Any]:
    lrs = [group["lr"] for group in optimizer.param_groups]
    return [lr.clone() if isinstance(lr, Tensor) else lr for lr in lrs]


def _is_plateau(scheduler: Any) -> bool:
    return isinstance(scheduler, torch_lr_scheduler.ReduceLROnPlateau)


def _needs_metric(scheduler: Any) -> bool:
    """Whether the scheduler's next step reads a metric."""
    if isinstance(scheduler, (SequentialLR, ChainedScheduler)):
        return scheduler._needs_metric()
    return _is_plateau(scheduler)


def _step(scheduler: Any, metrics: Any) -> None:
    if _is_plateau(scheduler) or isinstance(scheduler, (SequentialLR, ChainedScheduler)):
        scheduler.step(metrics)
    else:
        scheduler.step()


def _begin(scheduler: Any) -> None:
    """The scheduler's initial step, from learning rates that are set back already."""
    if not _is_plateau(scheduler):
        scheduler._initial_step()


def _restart(scheduler: Any, metrics: Any) -> None:
    """Begin the scheduler anew, at its epoch 0, in the middle of a run."""
    if _is_plateau(scheduler):
        _initial_lr(scheduler.optimizer)
        if metrics is not None:
            scheduler.step(metrics)
    elif isinstance(scheduler, (SequentialLR, ChainedScheduler)):
        scheduler._restart(metrics)
    else:
        scheduler._update_lr(0)


def _require_metric(scheduler: SequentialLR | ChainedScheduler, metrics: Any) -> None:
    if metrics is None and scheduler._needs_metric():
        raise ValueError(
            f"{type(scheduler).__name__}.step() steps a ReduceLROnPlateau now and needs its metric: call step(metrics)"
        )


class _LastLR:
    """``_last_lr`` of a composite: what was written there since the last step, else what its last child holds.

    Kept by the child, because copying hundreds of tensors at every step would cost more than the step.
    """

    def __get__(self, scheduler: Any, owner: type | None = None) -> Any:
        if scheduler is None:
            return self
        written = vars(scheduler).get("_last_lr")
        return scheduler._last_child().get_last_lr() if written is None else written

    def __set__(self, scheduler: Any, value: Any) -> None:
        vars(scheduler)["_last_lr"] = value


def _plain_state(scheduler: SequentialLR | ChainedScheduler, state: dict[str, Any]) -> dict[str, Any]:
    lrs = [lr.item() if isinstance(lr, Tensor) else lr for lr in scheduler.get_last_lr()]
    return {**state, "_last_lr": lrs}


class SequentialLR(torch_lr_scheduler.SequentialLR):
    """One scheduler after another, changing over at ``milestones``.

    A drop-in for :class:`torch.optim.lr_scheduler.SequentialLR` that takes ``ReduceLROnPlateau`` children, hands
    ``step(metrics)`` to them, and nests: warm-up, then plateau is ::

        SequentialLR(optimizer, [LinearLR(optimizer, total_iters=5), ReduceLROnPlateau(optimizer)], milestones=[5])

    At its milestone a child begins at its epoch 0, a plateau from the initial learning rates.

    Each child is stepped by its own engine. With tensor learning rates ``step`` does not wait for the device, but it
    counts epochs in Python, so it cannot be captured in a CUDA graph: there it raises RuntimeError.

    Args:
        optimizer: the optimizer of all the schedulers.
        schedulers: the children, in order.
        milestones: the epochs at which the second, third, ... child begins; one fewer than children.
        last_epoch: as in torch, the epoch before the one to begin at.

    Raises:
        ValueError: no children, children of several optimizers, or a wrong number of milestones.
        TypeError: a child is no scheduler.
    """

    _last_lr = _LastLR()

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[LRScheduler],
        milestones: list[int],
        last_epoch: int = -1,
    ) -> None:
        _check_children(self, optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"{type(self).__name__} expects one milestone fewer than schedulers, but got {len(milestones)} "
                f"milestones for {len(schedulers)} schedulers"
            )
        self._schedulers = schedulers
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        self.optimizer = optimizer
        _initial_lr(optimizer)
        self.recursive_undo()
        self._initial_step()

    def recursive_undo(self, sched: Any = None) -> None:
        """Take the initial steps of all children back, as deep as they are nested; their LRs are reset by then."""
        scheduler = self if sched is None else sched
        if hasattr(scheduler, "_schedulers"):
            for child in scheduler._schedulers:
                self.recursive_undo(child)
        elif not _is_plateau(scheduler):
            scheduler.last_epoch -= 1

    def _last_child(self) -> Any:
        return self._schedulers[bisect_right(self._milestones, self.last_epoch)]

    def _initial_step(self) -> None:
        _begin(self._schedulers[bisect_right(self._milestones, 0)])
        self._last_lr = _lrs(self.optimizer)

    def _restart(self, metrics: Any) -> None:
        self.last_epoch = 0
        _restart(self._last_child(), metrics)
        self._last_lr = _lrs(self.optimizer)

    def _next(self) -> tuple[Any, bool]:
        """The child that the next step belongs to, and whether it begins with it."""
        epoch = self.last_epoch + 1
        index = bisect_right(self._milestones, epoch)
        return self._schedulers[index], index > 0 and self._milestones[index - 1] == epoch

    def _needs_metric(self) -> bool:
        child, begins = self._next()
        return not begins and _needs_metric(child)

    def step(self, metrics: Any = None) -> None:
        """Step the child whose turn it is.

        Args:
            metrics: what a ``ReduceLROnPlateau`` whose turn it is takes note of; not needed otherwise.

        Raises:
            ValueError: there is no metric and a ``ReduceLROnPlateau`` needs one; nothing is changed then.
            RuntimeError: inside CUDA graph capture.
        """
        refuse_capture("SequentialLR counts epochs in Python")
        _require_metric(self, metrics)
        child, begins = self._next()
        self.last_epoch += 1
        if begins:
            _restart(child, metrics)
            self._last_lr = _lrs(self.optimizer)
        else:
            vars(self).pop("_last_lr", None)
            _step(child, metrics)

    def state_dict(self) -> dict[str, Any]:
        """The state under torch's keys, as plain Python values; with LRs on a CUDA device this waits for it."""
        return _plain_state(self, super().state_dict())


class ChainedScheduler(torch_lr_scheduler.ChainedScheduler):
    """Several schedulers at every step, each going on from the learning rates of the one before.

    A drop-in for :class:`torch.optim.lr_scheduler.ChainedScheduler` that takes ``ReduceLROnPlateau`` children and
    hands ``step(metrics)`` to them. Each child is stepped by its own engine.

    Args:
        schedulers: the children, in order.
        optimizer: their optimizer; by default the first child's.

    Raises:
        ValueError: no children, or children of several optimizers.
        TypeError: a child is no scheduler.
    """

    _last_lr = _LastLR()

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        _check_children(self, optimizer or getattr(next(iter(schedulers), None), "optimizer", None), schedulers)
        self._schedulers = schedulers
        self.optimizer = optimizer or schedulers[0].optimizer
        self._last_lr = _lrs(self.optimizer)

    def _last_child(self) -> Any:
        return self._schedulers[-1]

    def _initial_step(self) -> None:
        for child in self._schedulers:
            _begin(child)
        self._last_lr = _lrs(self.optimizer)

    def _restart(self, metrics: Any) -> None:
        _initial_lr(self.optimizer)
        for child in self._schedulers:
            if _is_plateau(child):
                if metrics is not None:
                    child.step(metrics)
            elif isinstance(child, (SequentialLR, ChainedScheduler)):
                child._restart(metrics)
            else:
                child.last_epoch = -1
                child._initial_step()
        self._last_lr = _lrs(self.optimizer)

    def _needs_metric(self) -> bool:
        return any(_needs_metric(child) for child in self._schedulers)

    def step(self, metrics: Any = None) -> None:
        """Step every child.

        Args:
            metrics: what ``ReduceLROnPlateau`` children take note of; not needed without such.

        Raises:
            ValueError: there is no metric and a ``ReduceLROnPlateau`` needs one; nothing is changed then.
        """
        _require_metric(self, metrics)
        vars(self).pop("_last_lr", None)
        for child in self._schedulers:
            _step(child, metrics)

    def state_dict(self) -> dict[str, Any]:
        """The state under torch's keys, as plain Python values; with LRs on a CUDA device this waits for it."""
        return _plain_state(self, super().state_dict())
