"""What steps a scheduler: the compiled host engine, the tensor engine, or nothing but torch's own code.

An engine that is attached to a scheduler holds its counters and last learning rates; the scheduler's
attributes of those names read and write the engine (:class:`StateAttribute`). Detached, the scheduler is a
plain torch object with everything in ``__dict__``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from .. import _C
from . import lr_buffer
from .metric import as_number
from .program import Event, instance_dict
from .selection import name_of
from .tensor import DECLINED, TensorEngine, is_native
from .untraced import untraced

Kind = Literal["host", "tensor", "torch"]


class Steps(Protocol):
    """What a scheduler asks of whatever steps it, and only of a tensor engine more: see ``steps_tensors``."""

    @property
    def kind(self) -> Kind: ...

    @property
    def steps_tensors(self) -> bool:
        """Whether it is a :class:`TensorEngine`."""

    @property
    def holds_state(self) -> bool:
        """Whether counters and ``_last_lr`` are with it, and not in the scheduler's ``__dict__``."""

    @property
    def reads_metric(self) -> bool: ...

    def step(self, scheduler: Any, metric: Any, /) -> _C.Declined | None:
        """Step once. None if that was done; else what is known so far, for another engine to step with.

        Schedules that read no metric ignore it.

        An engine that declines has left counters and learning rates as they were.
        """

    def move(self, scheduler: Any, event: Event, epoch: float = 0.0) -> bool:
        """Do what is not an ordinary step. False, with nothing changed, if that cannot be done."""

    def rebuild_between_steps(self, scheduler: Any) -> bool:
        """What compiled code asks before each step: whether the tensors that it was compiled for are there to step."""

    def get(self, name: str) -> Any:
        """The value of a counter or of ``_last_lr``; AttributeError for other names."""

    def set(self, name: str, value: Any) -> bool:
        """Write one of them; False if the engine cannot hold that value."""

    def state(self) -> dict[str, Any]:
        """All of them, as plain Python values."""

    def expose_state(self, attributes: dict[str, Any]) -> None:
        """Put all of them into the scheduler's own dict, for somebody who reads or writes that directly."""

    def withdraw_state(self, attributes: dict[str, Any]) -> None:
        """Take out what was lent and not written to since; what is left was written by somebody."""

    def refresh(self, scheduler: Any) -> None:
        """Take note that something of the scheduler may have changed."""

    def resume(self) -> None:
        """Go on from the learning rates in ``_last_lr`` where the optimizer's still agree with them."""

    def check_order(self) -> None:
        """Step although it is the first step: somebody looked whether ``optimizer.step()`` came before it."""

    def leave(self) -> None:
        """Be given up: a composition that has this engine's state within its own must find another."""

    def recorders(self) -> Sequence[Recorder]:
        """What records its steps, each some of the groups; none where Python makes them."""


class Recorder(Protocol):
    """What appends each step that it makes to a history: a host engine, or one replica of a tensor engine."""

    @property
    def positions(self) -> list[int]:
        """Which of the scheduler's groups it steps, in order; -1 for what it leaves alone."""

    @property
    def device(self) -> torch.device | str: ...

    @property
    def history(self) -> Tensor | None: ...

    def record(self, history: Tensor | None) -> None:
        """Append to this history from now on, laid out as ``csrc/schedule/report/history.h`` says, or to none."""


class Observer(Protocol):
    """What wants to know of each step (:class:`fastsched.History`)."""

    def expect(self, scheduler: Any, /) -> None:
        """Look at the schedulers before Python makes a step."""

    def note(self, scheduler: Any, metric: Any, /) -> None:
        """Record it after it was made."""

    def install(self, recorders: Sequence[Recorder], /) -> None:
        """Have the steps of these recorded by themselves."""


class Detached:
    """No engine: the state is in the scheduler's ``__dict__`` and torch's own code steps."""

    kind: Kind = "torch"
    steps_tensors: Literal[False] = False
    holds_state = False
    reads_metric = True  # for all that it knows

    def step(self, scheduler: Any, metric: Any, /) -> _C.Declined | None:
        return DECLINED

    def move(self, scheduler: Any, event: Event, epoch: float = 0.0) -> bool:
        return False

    def rebuild_between_steps(self, scheduler: Any) -> bool:
        return False

    def check_order(self) -> None:
        pass

    def get(self, name: str) -> Any:
        raise AttributeError(name)

    def set(self, name: str, value: Any) -> bool:
        return False

    def state(self) -> dict[str, Any]:
        return {}

    def expose_state(self, attributes: dict[str, Any]) -> None:
        pass

    def withdraw_state(self, attributes: dict[str, Any]) -> None:
        pass

    def refresh(self, scheduler: Any) -> None:
        pass

    def resume(self) -> None:
        pass

    def leave(self) -> None:
        pass

    def recorders(self) -> Sequence[Recorder]:
        return ()


DETACHED = Detached()


_STEPS_BEFORE_ANOTHER_TRY = 16  # where one engine has declined a step; choosing one costs as much as so many


class ChildByChild(Detached):
    """Steps the children of a composition one by one, each by its own ``step``, where no one engine steps them all."""

    kind = "host"

    def __init__(self, scheduler: Any, *, for_now: bool = False):
        self._left = _STEPS_BEFORE_ANOTHER_TRY if for_now else math.inf
        self.reads_metric: bool = scheduler._reads_metric()
        self._groups = len(scheduler.optimizer.param_groups)
        self._numbers = _has_numbers(scheduler.optimizer)
        self._detached = [child for child in scheduler._children() if getattr(child, "_engine", None) is DETACHED]

    def step(self, scheduler: Any, metric: Any, /) -> _C.Declined | None:
        optimizer = scheduler.optimizer
        if len(optimizer.param_groups) != self._groups or _has_numbers(optimizer) != self._numbers:
            return DECLINED  # the composition takes note of what the groups begin with, and another engine may fit
        self._left -= 1
        if self._left < 0 or (self._detached and all(child._engine is not DETACHED for child in self._detached)):
            return DECLINED
        scheduler._expect_step()
        scheduler._step_children(metric)
        scheduler._note(metric)
        return None


def _has_numbers(optimizer: Any) -> bool:
    """Whether the learning rates are Python numbers: the first group speaks for all."""
    groups = optimizer.param_groups
    return bool(groups) and type(groups[0].get("lr")) in (float, int)


Engine = TensorEngine | _C.HostEngine | Detached
if TYPE_CHECKING:
    _kept_to: tuple[type[Steps], ...] = (TensorEngine, _C.HostEngine, Detached)
_MISSING = object()


class StateAttribute:
    """A scheduler attribute that an engine may hold.

    A value found in ``__dict__`` counts first: either no engine is attached, or somebody wrote there directly
    and the engine takes it over at its next step. On a CUDA device reading one waits for the device.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @untraced("it reads what an engine holds")
    def __get__(self, scheduler: Any, owner: type | None = None) -> Any:
        if scheduler is None:
            return self
        attributes = instance_dict(scheduler)
        while True:
            engine = scheduler._engine
            engine.withdraw_state(attributes)
            value = attributes.get(self.name, _MISSING)
            if value is not _MISSING:
                return value
            try:
                return engine.get(self.name)
            except AttributeError:
                if scheduler._engine is engine:  # and not another, which another thread has put in charge
                    return scheduler._state_without_engine(self.name)

    @untraced("it writes what an engine holds")
    def __set__(self, scheduler: Any, value: Any) -> None:
        engine = scheduler._engine
        if engine.set(self.name, value):
            instance_dict(scheduler).pop(self.name, None)
            return
        if engine.holds_state:
            scheduler._detach()
        instance_dict(scheduler)[self.name] = value

    @untraced("it takes what an engine holds")
    def __delete__(self, scheduler: Any) -> None:
        scheduler._detach()
        try:
            del instance_dict(scheduler)[self.name]
        except KeyError:
            raise AttributeError(self.name) from None


def attach(scheduler: Any, *, restore: bool = False) -> Engine:
    """The engine for the scheduler's optimizer as it is now; :data:`DETACHED` if none fits.

    Why not is noted where it is found: ``_C.take_reason()`` gives it, after this or after a step that was declined.

    Args:
        scheduler: detached, its state in ``__dict__``. The engine has a copy of it.
        restore: ``_last_lr`` holds the float64 learning rates of an earlier run, to go on from.

    Raises:
        RuntimeError: a learning rate is on a CUDA device and fastsched has no CUDA operators.
    """
    _C.take_reason()  # of an earlier decision
    groups = scheduler.optimizer.param_groups
    tensors = lr_buffer.is_bound(scheduler.optimizer) or (groups and isinstance(groups[0].get("lr"), Tensor))
    engine = TensorEngine.attach(scheduler, restore=restore) if tensors else None
    if engine is not None:
        return engine
    if tensors and not (groups and isinstance(groups[0].get("lr"), Tensor)):
        take_numbers(scheduler)
        tensors = False
    children = scheduler._children()
    if not tensors and all(map(_has_no_more_to_do, children)):
        host = _C.HostEngine(scheduler._schedule, Tensor, as_number, name_of(scheduler.optimizer))
        if host.attach(scheduler):
            if scheduler._history is not None:
                scheduler._history.install(host.recorders())
            return host
    return ChildByChild(scheduler) if children else DETACHED


def _has_no_more_to_do(child: Any) -> bool:
    """Whether a composition's child does no more in a step than an engine does."""
    if not is_native(child):
        return False
    if child._is_attended:
        _C.note_reason(f"{type(child).__name__}, which is in it, has metrics of its own to reduce or to put off")
    return not child._is_attended


def take_numbers(scheduler: Any) -> None:
    """Once the optimizer's learning rates are numbers again, so are those that the scheduler began from.

    Otherwise torch's code would make tensors of the learning rates.
    """
    attributes = instance_dict(scheduler)
    bases = attributes.get("base_lrs")
    if isinstance(bases, list) and "optimizer" in attributes and lr_buffer.is_released(attributes["optimizer"]):
        bases[:] = [base.item() if isinstance(base, Tensor) and base.numel() == 1 else base for base in bases]
