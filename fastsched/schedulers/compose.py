"""Schedulers made of schedulers: one after another, or all at once. A plateau scheduler may be one of them."""

from __future__ import annotations

import logging
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, SupportsFloat

import torch
from torch import Tensor
from torch.optim import lr_scheduler as torch_lr_scheduler
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts as TorchWarmRestarts
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchReduceLROnPlateau

from .. import _C
from ..engine import lr_buffer
from ..engine.capture import in_capture, refuse_capture
from ..engine.host import DETACHED, ChildByChild
from ..engine.metric import as_number
from ..engine.program import LAST_LR, instance_dict
from ..engine.reduction import ReduceOp, Reduction, reduction
from ..engine.selection import LR, Optimizers, Selection, optimizers_of, positions, union
from .base import _EngineScheduler, _log, _plain
from .epoch import warn_about_order
from .ranks import _MetricScheduler
from .warmup_plateau import WarmupReduceLROnPlateau

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def _check_children(owner: object, optimizer: Any, schedulers: Sequence[Any]) -> None:
    name = type(owner).__name__
    owned = optimizer if isinstance(optimizer, (list, tuple)) else optimizers_of(optimizer)
    if len(schedulers) < 1:
        raise ValueError(f"{name} expects at least one scheduler, but got none")
    for index, scheduler in enumerate(schedulers):
        if not hasattr(scheduler, "optimizer"):
            raise TypeError(f"{name}: schedulers[{index}] has no attribute `optimizer`; it is not a scheduler")
        if not all(any(one is own for own in owned) for one in optimizers_of(scheduler.optimizer)):
            raise ValueError(
                f"{name}: schedulers[{index}], a {type(scheduler).__name__}, belongs to another optimizer; "
                "make all of them with the same one"
            )
        if isinstance(scheduler, _EngineScheduler) and scheduler._deferred is not None:
            raise ValueError(
                f"{name}: schedulers[{index}], a {type(scheduler).__name__}, has deferred=True, and the steps of a "
                f"{name} are not put off: make it without, or with use_tensor_lr(optimizer), which waits for nothing "
                "either; a plateau with a warm-up is WarmupReduceLROnPlateau(..., deferred=True)"
            )


def _reduction_for(
    owner: object, schedulers: Sequence[Any], process_group: Any, reduce_op: ReduceOp
) -> Reduction | None:
    """What the composition does to metrics: it is asked to, or its children are, and it steps them."""
    name = type(owner).__name__
    of_children = [
        child._reduction
        for child in schedulers
        if isinstance(child, _EngineScheduler) and child._reduction is not None and child._reduction.group is not None
    ]
    if process_group is None and of_children:
        process_group, reduce_op = of_children[0].group, of_children[0].op
    if any(other.group is not process_group or other.op != reduce_op for other in of_children):
        raise ValueError(
            f"{name}: a child has another process_group or reduce_op; one metric is reduced, once, for all of them: "
            f"give them to the {name} only"
        )
    decides = any(map(_reads_metric, schedulers))
    return reduction(name, process_group, reduce_op, decides=decides)


def _is_plateau(scheduler: Any) -> bool:
    return isinstance(scheduler, TorchReduceLROnPlateau)


def _needs_metric(scheduler: Any) -> bool:
    """Whether the scheduler's next step reads a metric."""
    if isinstance(scheduler, _Composite):
        return scheduler._needs_metric()
    return _is_plateau(scheduler)


def _will_need_metric(scheduler: Any) -> bool:
    """Whether a step of the scheduler that is to come, as far as it has got, reads a metric."""
    if isinstance(scheduler, _Composite):
        return scheduler._will_need_metric()
    return _is_plateau(scheduler)


def _reads_metric(scheduler: Any) -> bool:
    """Whether some step of it does, from its beginning on."""
    return scheduler._reads_metric() if isinstance(scheduler, _Composite) else _is_plateau(scheduler)


def _first_steps(scheduler: Any) -> int:
    """How many schedulers in it make their first step when it makes its own."""
    if isinstance(scheduler, ChainedScheduler):
        return sum(map(_first_steps, scheduler._schedulers))
    if isinstance(scheduler, SequentialLR):
        return _first_steps(scheduler._schedulers[0])
    return int(getattr(scheduler._engine, "order_unchecked", False))


def _making_first_step(scheduler: Any) -> Iterator[Any]:
    """Those in it with engines of the host whose first step is part of its next one, if nobody has looked yet.

    The others look for themselves.
    """
    for child in scheduler._next_to_step():
        if isinstance(child, _Composite):
            yield from _making_first_step(child)
            continue
        engine = getattr(child, "_engine", None)
        unchecked = isinstance(engine, _C.HostEngine) and not engine.order_checked
        if unchecked and "_step_count" in child._counters and child._step_count == 1:
            yield child


def _step_child(scheduler: Any, metrics: Any) -> None:
    """Step any scheduler, with the metric if it takes one."""
    if _reads_metric(scheduler):
        scheduler.step(metrics)
    else:
        scheduler.step()


def _begin(scheduler: Any) -> None:
    """The scheduler's initial step, from learning rates that are set back already."""
    if _is_plateau(scheduler):
        _begin_plateau(scheduler, None)
    else:
        scheduler._initial_step()


def _construct(scheduler: Any) -> None:
    """The initial steps, as making the schedulers does them: a sequence first sets the learning rates back."""
    if isinstance(scheduler, ChainedScheduler):
        for child in scheduler._schedulers:
            _construct(child)
    else:
        if isinstance(scheduler, SequentialLR):
            lr_buffer.set_lrs(scheduler.optimizer, scheduler._initial_lrs())
        _begin(scheduler)


def _begin_plateau(scheduler: Any, metrics: Any) -> None:
    """From learning rates that are set already; without a metric its first step is the next one."""
    if isinstance(scheduler, WarmupReduceLROnPlateau):
        scheduler._begin_warm_up()
        return
    scheduler._last_lr = lr_buffer.copied_lrs(scheduler.optimizer)
    if metrics is not None:
        scheduler.step(metrics)


class _Composite(_MetricScheduler):
    """A scheduler made of schedulers.

    With tensor learning rates the children's schedules are parts of one program, which one operator call steps: the
    epochs are counted on the device, ``step`` never waits for it, may be captured in a CUDA graph and traces under
    torch.compile. With Python numbers one pass of compiled code steps them, and writes each group once. Where a child
    cannot be part of that (one of torch's own schedulers, a subclass with a ``get_lr`` of its own, a LambdaLR in a
    chain, or one without ``total_steps`` on tensors), the children are stepped one by one.
    """

    _replaces: ClassVar[tuple[str, ...]] = ()
    _takes_metrics: ClassVar[bool] = True
    _unsaved: ClassVar[tuple[str, ...]] = ("optimizer", "_schedulers")

    __slots__ = ("_began_with", "_metric_noticed")

    _metric_noticed: bool  # whether somebody was told that a step went without a metric; not there: no
    _schedulers: Any
    _began_with: list[Any]  # each group's LR where its schedule began

    def step(
        self,
        metrics: SupportsFloat | None = None,
        weight: Tensor | float | None = None,
        *,
        found_inf: Tensor | float | None = None,
    ) -> None:
        """Step the children whose turn it is.

        Args:
            metrics: what a ``ReduceLROnPlateau`` among them takes note of; not needed without one. The first step
                without it warns if one of them is still going to need it.
            found_inf: whether this step is to be skipped, because a GradScaler skipped the optimizer's: a number, or a
                tensor with one element, which is read on the device if the learning rates are there. With a
                ``process_group`` all ranks skip the step if one of them does.
            weight: how much this rank's metric counts in the mean over the ``process_group``, the number of its samples
                for instance; the same for all by default. 0 leaves the metric out, NaN included.

        Raises:
            ValueError: there is no metric and a ``ReduceLROnPlateau`` needs one; nothing is changed then. Whose turn it
                is, is known on the device: with tensor learning rates a step without a metric waits for it if there is
                a ``ReduceLROnPlateau``, and is refused inside graph capture and under torch.compile.
            ValueError: ``weight`` is negative, or there is no mean over a ``process_group``.
            RuntimeError: inside CUDA graph capture, if Python has to step some child.
        """
        if self._is_attended or weight is not None:
            metrics, found_inf = self._reduced(metrics, found_inf, weight)
        engine = self._engine
        if metrics is None:
            if engine.reads_metric:
                self._require_metric()
        elif type(metrics) is not float and not engine.steps_tensors and self._reads_metric():
            metrics = as_number(metrics)  # before any child steps, and once for all of them
        if found_inf is not None:
            self._step_unless(found_inf, metrics)
            return
        declined = engine.step(self, metrics)
        if declined is not None:
            self._step_off_path(declined, metrics)

    def _check_order(self, metrics: Any, looked: bool) -> None:
        engine = self._engine
        if metrics is None and engine.reads_metric:
            self._require_metric()
        if engine.steps_tensors:
            # For all whose first step this is, and for those whose turn is yet to come, which a device knows.
            if engine.order_unchecked:
                for _ in range(_first_steps(self)):
                    warn_about_order(self.optimizer, stacklevel=5)
                engine.check_order()
        elif engine.holds_state:
            for child in _making_first_step(self):
                warn_about_order(self.optimizer, stacklevel=5)
                child._engine.check_order()

    def _fall_back(self) -> None:
        if lr_buffer.has_tensors(self.optimizer) or not self._decides_natively():
            super()._fall_back()
            return
        _C.put_in_charge(self, DETACHED, ChildByChild(self, for_now=True), ())
        if _log.isEnabledFor(logging.INFO):
            self._tell_log(f"its schedulers are stepped one by one: {_C.take_reason()}")

    def _step_as_torch(self, metrics: Any) -> None:
        if metrics is None:
            self._require_metric()
        self._step_children(metrics)

    def _step_children(self, metrics: Any) -> None:
        """What an engine's program does; by Python, whatever the values and the children are."""
        raise NotImplementedError

    def _next_to_step(self) -> Sequence[Any]:
        """The children that the next step steps, and does not begin; none where it raises because there is none."""
        raise NotImplementedError

    def _begin_child(self, child: Any, metrics: Any) -> None:
        self._restart_child(child, metrics)
        self._keep_last_lr(child)

    def _restart_child(self, child: Any, metrics: Any) -> None:
        """Start it over, at its epoch 0, in the middle of a run."""
        if _is_plateau(child):
            lr_buffer.set_lrs(self.optimizer, self._initial_lrs())
            _begin_plateau(child, metrics)
        elif isinstance(child, _Composite):
            child._restart(metrics)
        else:
            child._update_lr(0)

    def _initial_lrs(self) -> list[Any]:
        """Where each group began: what it says itself, unless the optimizer's state that was loaded says nothing."""
        self._fit_groups()
        return [
            group.get("initial_lr", lr) for group, lr in zip(self.optimizer.param_groups, self._began_with, strict=True)
        ]

    def _group_values(self, name: str) -> list[Any]:
        return self._initial_lrs() if name == "initial_lr" else super()._group_values(name)

    def _fit_groups(self) -> None:
        # A group that comes later begins with the LR that it comes with, which the next step may change.
        groups = self.optimizer.param_groups
        noted = getattr(self, "_began_with", [])
        if len(noted) > len(groups):
            noted = []  # whose these are is not known any more
        if len(noted) < len(groups):
            came = [group.get("initial_lr", group["lr"]) for group in list(groups)[len(noted) :]]
            noted = [*noted, *lr_buffer.copies(came)]
        self._began_with = noted
        for child in self._schedulers:
            if isinstance(child, _Composite):
                child._fit_groups()

    def _take_in_groups(self) -> None:
        if isinstance(self.optimizer, Selection):
            parts = [child.optimizer for child in self._schedulers]
            self.optimizer = union(list(self.optimizer.optimizers), parts)

    def _attach(self, *, restore: bool = False) -> bool:
        self._fit_groups()
        # On tensors the children's engines are made with this one's: what they hold is on the device, and not read.
        follow = self._engine is DETACHED and not lr_buffer.has_tensors(self.optimizer)
        for child in self._schedulers if follow else ():
            if isinstance(child, _Composite) and child._engine.kind == "host":
                child._detach()  # its engine has those of its children, which may have others by now
            if isinstance(child, _EngineScheduler) and child._engine is DETACHED:
                child._attach(restore=restore)
        return super()._attach(restore=restore)

    def _yet_to_begin(self, *, anew: bool = False) -> Iterator[Any]:
        """As in the base class; ``anew``: it is going to begin once more itself."""
        raise NotImplementedError

    def _reads_metric(self) -> bool:
        """Whether there is a ReduceLROnPlateau in it."""
        return any(map(_reads_metric, self._schedulers))

    def _reduce_for_all(self, reduced: Reduction | None) -> None:
        """Reduce metrics, once; the children are given what comes of it."""
        self._attend(_reduction=reduced)
        for child in self._schedulers:
            if isinstance(child, _EngineScheduler):
                child._attend(_reduction=None)

    def _last_child(self) -> Any:
        raise NotImplementedError

    def _needs_metric(self) -> bool:
        """Whether the next step does."""
        return any(map(_needs_metric, self._next_to_step()))

    def _will_need_metric(self) -> bool:
        """Whether some step to come does."""
        raise NotImplementedError

    def _restart(self, metrics: Any) -> None:
        raise NotImplementedError

    def _require_metric(self) -> None:
        on_device = self._engine.steps_tensors
        if on_device and (torch.compiler.is_compiling() or in_capture()):
            raise ValueError(f"{type(self).__name__}.step() has a ReduceLROnPlateau in it: call step(metrics)")
        if self._needs_metric():
            raise ValueError(
                f"{type(self).__name__}.step() steps a ReduceLROnPlateau now and needs its metric: call step(metrics)"
            )
        if not getattr(self, "_metric_noticed", False) and self._will_need_metric():
            self._expect_no_metric()
            warnings.warn(
                f"{type(self).__name__}.step() was called without a metric, and has a ReduceLROnPlateau in it that is "
                "going to need one: call step(metrics), at the latest when its turn comes",
                UserWarning,
                stacklevel=3,
            )

    def _expect_no_metric(self, expected: bool = True) -> None:
        """Do not warn of steps without a metric, as deep as this is nested; or do."""
        self._metric_noticed = expected
        for child in self._schedulers:
            if isinstance(child, _Composite):
                child._expect_no_metric(expected)

    def _advance(self, steps: int) -> None:
        """Make the steps of an earlier run, none of which has read a metric."""
        if steps < 1:
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _ABOUT_ORDER, UserWarning)
            self._expect_no_metric()
            for _ in range(steps):
                self.step()
            self._expect_no_metric(False)

    @property
    def param_name(self) -> str:
        """``"lr"``; what its schedulers drive, each of them says for itself."""
        return LR

    def _children(self) -> Sequence[Any]:
        schedulers: Sequence[Any] = self._schedulers
        return schedulers

    def _state_without_engine(self, name: str) -> Any:
        # Kept by the child, because copying hundreds of learning rates at every step would cost more than the step.
        return self._children_left() if name == LAST_LR else super()._state_without_engine(name)

    def _children_left(self) -> list[Any]:
        try:
            last = self._last_child()
        except IndexError:  # somebody has taken it out; a step that finds none changes nothing
            return lr_buffer.copied_lrs(self.optimizer)
        return self._left_by(last)

    def _left_by(self, last: Any) -> list[Any]:
        """The learning rates as the last child left them; of entries that it does not drive, as they are."""
        if not isinstance(self.optimizer, Selection):
            return last.get_last_lr()  # type: ignore[no-any-return]
        lrs = lr_buffer.copied_lrs(self.optimizer)
        for position, lr in zip(positions(last.optimizer, self.optimizer), last.get_last_lr(), strict=True):
            lrs[position] = lr
        return lrs

    def _keep_last_lr(self, last: Any) -> None:
        """Keep the learning rates as the ``last`` child to act has left them, where no engine does."""
        if not self._engine.steps_tensors:
            instance_dict(self)[LAST_LR] = self._read_from(last)

    def _note_last_lr(self, last: Any) -> None:
        """The same after a step; what lies in tensors the child is asked for."""
        if lr_buffer.has_tensors(self.optimizer):
            instance_dict(self).pop(LAST_LR, None)
        else:
            self._keep_last_lr(last)

    def _read_from(self, last: Any) -> list[Any]:
        """As torch does: from the child, because the composition's own optimizer may be another by now."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The state under torch's keys, as plain Python values; with LRs on a CUDA device this waits for it."""
        state = {**super().state_dict(), "_schedulers": [child.state_dict() for child in self._schedulers]}
        last_lr = state[LAST_LR] if LAST_LR in state else self._children_left()
        return {**state, LAST_LR: _plain(list(last_lr))}

    def _checked(self, state_dict: Mapping[str, Any], where: str) -> dict[str, Any]:
        if isinstance(state_dict, Mapping) and "_schedulers" not in state_dict:
            raise KeyError(f"{where} has no '_schedulers'; it is not the state of a {type(self).__name__}")
        state = super()._checked(state_dict, where)
        place = f"{where}['_schedulers']"
        states = state_dict["_schedulers"]
        if not isinstance(states, (list, tuple)):
            raise TypeError(f"{place} must be a list, got {type(states).__name__}")
        if len(states) != len(self._schedulers):
            raise ValueError(f"{place} has {len(states)} states for {len(self._schedulers)} schedulers")
        children = [
            child._checked(saved, f"{place}[{index}]") if _loads_itself(child) else saved
            for index, (child, saved) in enumerate(zip(self._schedulers, states, strict=True))
        ]
        return {**state, "_schedulers": children}

    def _load(self, state: dict[str, Any]) -> None:
        pairs = list(zip(self._schedulers, state.pop("_schedulers"), strict=True))
        before = [(child, child.state_dict()) for child in self._schedulers if _may_refuse(child)]
        try:
            for child, saved in pairs:
                if _may_refuse(child):
                    _load_child(child, saved)
        except Exception:
            for child, saved in before:
                child.load_state_dict(saved)
            raise
        for child, saved in pairs:
            if not _may_refuse(child):
                _load_child(child, saved)
        last_lr = state.pop(LAST_LR, None)
        super()._load(state)
        if not self._engine.steps_tensors and last_lr is not None:
            plain = _C.types_of(last_lr) <= {float, int}
            instance_dict(self)[LAST_LR] = last_lr if plain else list(map(float, last_lr))
        began: dict[int, Any] = {}
        for child in self._schedulers:
            bases = getattr(child, "base_lrs", [])
            if len(bases) != len(child.optimizer.param_groups):
                continue
            if not began and child.optimizer is self.optimizer:
                self._began_with = list(bases)
                return
            began = {**dict(zip(positions(child.optimizer, self.optimizer), bases, strict=True)), **began}
        if len(began) == len(self.optimizer.param_groups):
            self._began_with = [base for _, base in sorted(began.items())]


_C.quick_call(_Composite.step, 1, 2)


def _require_no_metric(schedulers: Sequence[Any], last_epoch: int, milestones: Sequence[Any] | None = None) -> None:
    """Raise ValueError if one that reads a metric has had its turn; without milestones they are those of a chain."""
    if _has_met_metric(schedulers, last_epoch + 1, milestones):
        raise ValueError(
            f"last_epoch={last_epoch}: a ReduceLROnPlateau has its turn by then, and what it did depends on metrics; "
            "leave last_epoch out and load a state_dict"
        )


def _has_met_metric(schedulers: Sequence[Any], epoch: Any, milestones: Sequence[Any] | None) -> bool:
    ends = [epoch] * len(schedulers) if milestones is None else [*milestones, epoch]
    begins = [0] * len(schedulers) if milestones is None else [0, *milestones]
    for scheduler, begin, end in zip(schedulers, begins, ends, strict=True):
        own_epoch = min(epoch, end) - begin
        if own_epoch < 0:
            continue  # its turn is yet to come
        if isinstance(scheduler, _Composite):
            if _has_met_metric(scheduler._schedulers, own_epoch, getattr(scheduler, "_milestones", None)):
                return True
        elif _is_plateau(scheduler):
            return True
    return False


def _forget(scheduler: Any) -> None:
    """Take back all steps, so that a composition's initial step is the first of the schedulers in it."""
    if isinstance(scheduler, _Composite):
        if isinstance(scheduler, SequentialLR):
            scheduler.last_epoch = 0
        for child in scheduler._schedulers:
            _forget(child)
    elif not _is_plateau(scheduler) and hasattr(scheduler, "last_epoch"):
        scheduler.last_epoch = -1
        if hasattr(scheduler, "_step_count"):
            scheduler._step_count = 1  # SWALR goes by it
        if isinstance(scheduler, TorchWarmRestarts):  # which begin in a sequence with the cycle that they have
            scheduler.T_cur, scheduler.T_i = 0, scheduler.T_0


_ABOUT_ORDER = r"Detected call of `lr_scheduler\.step|Seems like `optimizer\.step"  # of steps that were made already


def _loads_itself(scheduler: Any) -> bool:
    """Whether :class:`_EngineScheduler`'s code loads a state, not that of a subclass or of another library."""
    return (
        isinstance(scheduler, _EngineScheduler)
        and type(scheduler).load_state_dict is _EngineScheduler.load_state_dict
        and "load_state_dict" not in instance_dict(scheduler)
    )


def _may_refuse(scheduler: Any) -> bool:
    """Whether loading a state that was checked may still fail."""
    return not _loads_itself(scheduler) or any(map(_may_refuse, scheduler._children()))


def _load_child(scheduler: Any, state: Any) -> None:
    if _loads_itself(scheduler):
        scheduler._load(state)
    else:
        scheduler.load_state_dict(dict(state))  # a copy: torch's CyclicLR takes something out of it


class SequentialLR(_Composite, torch_lr_scheduler.SequentialLR):
    """One scheduler after another, changing over at ``milestones``.

    A drop-in for :class:`torch.optim.lr_scheduler.SequentialLR` that takes ``ReduceLROnPlateau`` children, hands
    ``step(metrics)`` to them, and nests: warm-up, then plateau is ::

        SequentialLR(optimizer, [LinearLR(optimizer, total_iters=5), ReduceLROnPlateau(optimizer)], milestones=[5])

    At its milestone a child begins at its epoch 0, a plateau from the initial learning rates.

    Args:
        optimizer: the optimizer of all the schedulers.
        schedulers: the children, in order.
        milestones: the epochs at which the second, third, ... child begins; one fewer than children.
        last_epoch: the epoch before the one to begin at: where a run was that has made ``last_epoch + 1`` steps, with
            the learning rates, and the children, as they were then. These are made as for a new run; those of
            fastsched and of torch alike are stepped there from the groups' ``initial_lr``, in microseconds each.
        process_group: as for a :class:`ReduceLROnPlateau`, for the plateaus among the children, which need none of
            their own; by default the one that a child was given.
        reduce_op: likewise.

    Raises:
        ValueError: no children, children of several optimizers, or a wrong number of milestones; by ``last_epoch`` a
            plateau has its turn, and what it did then depends on metrics; or a child has
            another ``process_group``.
        TypeError: a child is not a scheduler.

    Example::

        warm_up = fastsched.LinearLR(optimizer, start_factor=0.1, total_iters=5)
        plateau = fastsched.ReduceLROnPlateau(optimizer, patience=3)
        scheduler = fastsched.SequentialLR(optimizer, [warm_up, plateau], milestones=[5])
        scheduler.step(validation_loss)
    """

    _schedule: ClassVar[str] = "SequentialLR"

    def __init__(
        self,
        optimizer: Optimizers,
        schedulers: Sequence[LRScheduler],
        milestones: list[int],
        last_epoch: int = -1,
        *,
        process_group: ProcessGroup | None = None,
        reduce_op: ReduceOp = "mean",
    ) -> None:
        _check_children(self, optimizer, schedulers)
        driven = union(optimizer, (scheduler.optimizer for scheduler in schedulers))
        reduced = _reduction_for(self, schedulers, process_group, reduce_op)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"{type(self).__name__} expects one milestone fewer than schedulers, but got {len(milestones)} "
                f"milestones for {len(schedulers)} schedulers"
            )
        if last_epoch >= 0:
            _require_no_metric(schedulers, last_epoch, milestones)
        self._schedulers = schedulers
        self._milestones = milestones
        self.last_epoch = 0 if last_epoch >= 0 else last_epoch + 1
        self.optimizer = driven
        if not all("initial_lr" in group for group in driven.param_groups):
            for group, lr in zip(driven.param_groups, lr_buffer.exact(driven), strict=True):
                group.setdefault("initial_lr", lr)
        lr_buffer.set_lrs(driven, self._initial_lrs())
        if last_epoch >= 0:
            _forget(self)
        else:
            self.recursive_undo()
        self._initial_step()
        self._attach()
        self._reduce_for_all(reduced)
        if last_epoch >= -1:
            self._note_first_lrs()
        self._advance(last_epoch + 1)

    def recursive_undo(self, sched: Any = None) -> None:
        """Take the initial steps of all children back, as deep as they are nested; their LRs are reset by then."""
        scheduler = self if sched is None else sched
        if hasattr(scheduler, "_schedulers"):
            for child in scheduler._schedulers:
                self.recursive_undo(child)
        elif not _is_plateau(scheduler) and hasattr(scheduler, "last_epoch"):
            scheduler.last_epoch -= 1

    def _last_child(self) -> Any:
        return self._schedulers[self._turn(self.last_epoch)[0]]

    def _initial_step(self) -> None:
        first = self._schedulers[self._turn(0)[0]]
        _begin(first)
        self._keep_last_lr(first)

    def _read_from(self, last: Any) -> list[Any]:
        return self._left_by(last)

    def _restart(self, metrics: Any) -> None:
        self.last_epoch = 0
        self._begin_child(self._last_child(), metrics)

    def _yet_to_begin(self, *, anew: bool = False) -> Iterator[Any]:
        begins = [anew, *(anew or milestone > self.last_epoch for milestone in self._milestones)]
        for child, turn_comes in zip(self._schedulers, begins, strict=False):
            if isinstance(child, _Composite):
                yield from child._yet_to_begin(anew=turn_comes)
            elif turn_comes and not _is_plateau(child):  # which has no closed form
                yield child

    def _turn(self, epoch: int) -> tuple[int, bool]:
        """Which child the epoch belongs to, and whether it begins then."""
        index = bisect_right(self._milestones, epoch)
        return index, index > 0 and self._milestones[index - 1] == epoch

    def _will_need_metric(self) -> bool:
        index, begins = self._turn(self.last_epoch + 1)
        now, later = self._schedulers[index : index + 1], self._schedulers[index + 1 :]
        return any(map(_reads_metric if begins else _will_need_metric, now)) or any(map(_reads_metric, later))

    def _step_children(self, metrics: Any) -> None:
        refuse_capture("a child of a SequentialLR is stepped by Python, and so its epochs are counted there")
        self.last_epoch += 1
        index, begins = self._turn(self.last_epoch)
        child = self._schedulers[index]
        if begins:
            self._begin_child(child, metrics)
        else:
            _step_child(child, metrics)
            self._note_last_lr(child)

    def _next_to_step(self) -> Sequence[Any]:
        index, begins = self._turn(self.last_epoch + 1)
        return () if begins else tuple(self._schedulers[index : index + 1])


class ChainedScheduler(_Composite, torch_lr_scheduler.ChainedScheduler):
    """Several schedulers at every step, each going on from the learning rates of the one before.

    A drop-in for :class:`torch.optim.lr_scheduler.ChainedScheduler` that takes ``ReduceLROnPlateau`` children and
    hands ``step(metrics)`` to them.

    Args:
        schedulers: the children, in order.
        optimizer: their optimizer; by default the first child's.
        last_epoch: as in :class:`SequentialLR`, to begin where a run was after ``last_epoch + 1`` steps.
        process_group: as for a :class:`ReduceLROnPlateau`, for the plateaus among the children, which need none of
            their own; by default the one that a child was given.
        reduce_op: likewise.

    Raises:
        ValueError: no children, or children of several optimizers; ``last_epoch`` with a plateau in it; or a child
            has another ``process_group``.
        TypeError: a child is not a scheduler.

    Example::

        steps = fastsched.StepLR(optimizer, 30)
        decay = fastsched.ExponentialLR(optimizer, gamma=0.99)
        scheduler = fastsched.ChainedScheduler([steps, decay])
    """

    _schedule: ClassVar[str] = "ChainedScheduler"

    def __init__(
        self,
        schedulers: Sequence[LRScheduler],
        optimizer: Optimizers | None = None,
        *,
        last_epoch: int = -1,
        process_group: ProcessGroup | None = None,
        reduce_op: ReduceOp = "mean",
    ) -> None:
        own = optimizer or getattr(next(iter(schedulers), None), "optimizer", None)
        _check_children(self, own, schedulers)
        reduced = _reduction_for(self, schedulers, process_group, reduce_op)
        self._schedulers = schedulers
        self.optimizer = union(own, (scheduler.optimizer for scheduler in schedulers))
        if last_epoch >= 0:
            _require_no_metric(self._schedulers, last_epoch)
            lr_buffer.set_lrs(self.optimizer, self._initial_lrs())
            _forget(self)
            _construct(self)
        self._keep_last_lr(self._last_child())
        self._attach()
        self._reduce_for_all(reduced)
        self._note_first_lrs()
        self._advance(last_epoch + 1)

    def _last_child(self) -> Any:
        return self._schedulers[-1]

    def _initial_step(self) -> None:
        for child in self._schedulers:
            _begin(child)
        self._keep_last_lr(self._last_child())

    def _read_from(self, last: Any) -> list[Any]:
        whole = isinstance(self.optimizer, Selection)
        return lr_buffer.copied_lrs(self.optimizer if whole else last.optimizer)

    def _restart(self, metrics: Any) -> None:
        lr_buffer.set_lrs(self.optimizer, self._initial_lrs())
        for child in self._schedulers:
            if _is_plateau(child):
                _begin_plateau(child, metrics)
            elif isinstance(child, _Composite):
                child._restart(metrics)
            else:
                child.last_epoch = -1
                child._initial_step()
        self._keep_last_lr(self._last_child())

    def _yet_to_begin(self, *, anew: bool = False) -> Iterator[Any]:
        for child in self._schedulers:  # the others go on from the one before, and not by their closed form
            if isinstance(child, _Composite):
                yield from child._yet_to_begin(anew=anew)

    def _will_need_metric(self) -> bool:
        return any(_will_need_metric(child) for child in self._schedulers)

    def _step_children(self, metrics: Any) -> None:
        for child in self._schedulers:
            _step_child(child, metrics)
        self._note_last_lr(self._last_child())

    def _go_on(self, children: Sequence[Any]) -> None:
        """Finish a step of which a function in the first of these has changed what children there are."""
        for child in islice(children, 1, None):
            _step_child(child, None)
        self._note_last_lr(self._last_child())

    def _next_to_step(self) -> Sequence[Any]:
        return tuple(self._schedulers)
