"""What steps a scheduler: the compiled host engine, the tensor engine, or nothing but torch's own code.

An engine that is attached to a scheduler holds its counters and last learning rates; the scheduler's
attributes of those names read and write the engine (:class:`StateAttribute`). Detached, the scheduler is a
plain torch object with everything in ``__dict__``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from math import nan
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from . import _C, lr_buffer, ops
from .lr_buffer import LRBuffer
from .metric import as_plain, operand, read_from_gpu

LAST_LR = "_last_lr"

# The instance's own dict, which a class may hide behind a property of that name.
own_dict: Callable[[Any], dict[str, Any]] = vars(LRScheduler)["__dict__"].__get__


class Event(IntEnum):
    """What a step does; the numbers are those of ``csrc/schedule/moment.h``."""

    STEP = 0
    INITIAL = 1
    AT_EPOCH = 2


class Engine(Protocol):
    """What a scheduler asks of whatever steps it."""

    def step(self, scheduler: Any, metric: Any) -> Any:
        """Step once. None if that was done; else the metric, converted if it was, for another engine to step with.

        Schedules that read no metric ignore it.

        An engine that declines has left counters and learning rates as they were.
        """

    def get(self, name: str) -> Any:
        """The value of a counter or of ``_last_lr``; AttributeError for other names."""

    def set(self, name: str, value: Any) -> bool:
        """Write one of them; False if the engine cannot hold that value."""

    def state(self) -> dict[str, Any]:
        """All of them, as plain Python values."""

    def lend(self, attributes: dict[str, Any]) -> None:
        """Put all of them into the scheduler's own dict, for somebody who reads or writes that directly."""

    def settle(self, attributes: dict[str, Any]) -> None:
        """Take out what was lent and not written to since; what is left was written by somebody."""

    def refresh(self, scheduler: Any) -> None:
        """Take note that a hyperparameter may have changed."""

    def resume(self) -> None:
        """Go on from the learning rates in ``_last_lr`` where the optimizer's still agree with them."""

    def check_order(self) -> None:
        """Step although it is the first step: somebody looked whether ``optimizer.step()`` came before it."""


class Detached:
    """No engine: the state is in the scheduler's ``__dict__`` and torch's own code steps."""

    def step(self, scheduler: Any, metric: Any) -> Any:
        return 0.0 if metric is None else metric

    def check_order(self) -> None:
        pass

    def get(self, name: str) -> Any:
        raise AttributeError(name)

    def set(self, name: str, value: Any) -> bool:
        return False

    def state(self) -> dict[str, Any]:
        return {}

    def lend(self, attributes: dict[str, Any]) -> None:
        pass

    def settle(self, attributes: dict[str, Any]) -> None:
        pass

    def refresh(self, scheduler: Any) -> None:
        pass

    def resume(self) -> None:
        pass


DETACHED = Detached()


class StateAttribute:
    """A scheduler attribute that an engine may hold.

    A value found in ``__dict__`` counts first: either no engine is attached, or somebody wrote there directly
    and the engine takes it over at its next step. On a CUDA device reading one waits for the device.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, scheduler: Any, owner: type | None = None) -> Any:
        if scheduler is None:
            return self
        attributes = own_dict(scheduler)
        scheduler._engine.settle(attributes)
        if self.name in attributes:
            return attributes[self.name]
        try:
            return scheduler._engine.get(self.name)
        except AttributeError:
            raise AttributeError(f"{type(scheduler).__name__!r} object has no attribute {self.name!r}") from None

    def __set__(self, scheduler: Any, value: Any) -> None:
        if scheduler._engine.set(self.name, value):
            own_dict(scheduler).pop(self.name, None)
        else:
            scheduler._detach()
            own_dict(scheduler)[self.name] = value

    def __delete__(self, scheduler: Any) -> None:
        scheduler._detach()
        try:
            del own_dict(scheduler)[self.name]
        except KeyError:
            raise AttributeError(self.name) from None


def attach(scheduler: Any, *, restore: bool = False) -> Engine:
    """The engine for the scheduler's optimizer as it is now; :data:`DETACHED` if none fits.

    Args:
        scheduler: detached, its state in ``__dict__``. The engine takes the state over.
        restore: ``_last_lr`` holds the float64 learning rates of an earlier run, to go on from.

    Raises:
        RuntimeError: a learning rate is on a CUDA device and fastsched has no CUDA operators.
    """
    groups = scheduler.optimizer.param_groups
    if lr_buffer.is_bound(scheduler.optimizer) or (groups and isinstance(groups[0].get("lr"), Tensor)):
        return TensorEngine.attach(scheduler, restore=restore) or DETACHED
    host = _C.HostEngine(scheduler._schedule, Tensor, read_from_gpu)
    return host if host.attach(scheduler) else DETACHED


def refuse_capture(reason: str) -> None:
    """Raise RuntimeError inside CUDA graph capture, where what Python does now would not happen at a replay."""
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"this scheduler step cannot be captured in a CUDA graph: {reason}")


class Replica:
    """One schedule over the groups of one :class:`LRBuffer`, laid out as ``csrc/schedule/layout.h`` says."""

    __slots__ = ("buffer", "program", "state")

    def __init__(self, buffer: LRBuffer, program: Tensor, state: Tensor):
        self.buffer = buffer
        self.program = program
        self.state = state

    @property
    def counters(self) -> Tensor:
        return self.state[: _C.NODE_COUNTERS]

    @property
    def last_lr(self) -> Tensor:
        """Float64 learning rates as this scheduler last left them, a view of shape ``(groups,)``."""
        return self.state[_C.LAST_LR_OFFSET :]


class TensorEngine:
    """Steps tensor learning rates with one operator call per device and dtype, reading nothing back.

    ``step`` may be captured in a CUDA graph. Counters, learning rates and hyperparameters all live in tensors
    that keep their storage for as long as the number of param groups stays the same.
    """

    __slots__ = (
        "_counters",
        "_group_count",
        "_lent",
        "_order_unchecked",
        "_reads_metric",
        "_replicas",
        "_schedule",
        "_watch",
    )

    def __init__(self, schedule: str, replicas: list[Replica], group_count: int):
        self._schedule = schedule
        self._counters = _C.counter_names(schedule)
        self._replicas = replicas
        self._group_count = group_count
        self._lent: dict[str, Any] = {}
        self._order_unchecked = False
        self._reads_metric: bool = _C.reads_metric(schedule)
        self._watch = _C.Watch(schedule)

    @classmethod
    @torch.inference_mode(False)
    def attach(cls, scheduler: Any, *, restore: bool) -> TensorEngine | None:
        """Take the state over from the scheduler's dict; None, with that unchanged, where it does not fit."""
        attributes = own_dict(scheduler)
        counters = _C.pack_counters(scheduler._schedule, attributes)
        buffers = lr_buffer.bind(scheduler.optimizer) if counters else None
        if buffers is None:
            return None
        scheduler._fit_groups()
        programs = _programs(scheduler, buffers)
        if programs is None:
            return None
        counted = torch.tensor(counters, dtype=torch.float64, device="cpu")
        replicas = [
            Replica(buffer, program, _state(counted, buffer)) for buffer, program in zip(buffers, programs, strict=True)
        ]
        engine = cls(scheduler._schedule, replicas, len(scheduler.optimizer.param_groups))
        engine._order_unchecked = "_step_count" in engine._counters and attributes["_step_count"] == 1
        last_lr = attributes.get(LAST_LR)
        if restore and engine.set(LAST_LR, last_lr):
            engine.resume()
        elif isinstance(last_lr, list) and len(last_lr) == engine._group_count:
            engine._take_last_lr(last_lr)
        for name in (*engine._counters, LAST_LR):
            attributes.pop(name, None)
        engine._mark(scheduler)
        return engine

    def step(self, scheduler: Any, metric: Any) -> Any:
        if self._reads_metric:
            metric = as_plain(metric)  # first: reading it may run code of the user's
        if torch.compiler.is_compiling():
            # What the host would have to look at stays as it was traced; only tensors may change.
            metric = metric.detach() if isinstance(metric, Tensor) else metric
            call: Callable[..., None] = ops.step_
        else:
            stale = not self._replicas[0].buffer.live or self._watch.changed(scheduler)
            if self._order_unchecked or (stale and not self._follow(scheduler)):
                return 0.0 if metric is None else metric
            call = ops.call_step_
        for replica in self._replicas:
            buffer = replica.buffer
            tensor, value = operand(metric, buffer) if self._reads_metric else (None, 0.0)
            call(replica.program, replica.state, buffer.masters, buffer.lrs, tensor, value, 0)
        return None

    def move(self, scheduler: Any, event: Event, epoch: float = 0.0) -> bool:
        """Do what is no ordinary step: see :class:`Event`. False, with nothing changed, if that cannot be done."""
        if self._watch.changed(scheduler) and not self._follow(scheduler):
            return False
        if len(own_dict(scheduler)[_C.group_param(self._schedule)]) != self._group_count:
            return False  # torch raises where it needs the base LR of a group that was added later
        if event is Event.INITIAL:
            self._order_unchecked = "_step_count" in self._counters  # warm restarts do not ask for an order
        for replica in self._replicas:
            buffer = replica.buffer
            ops.step_(replica.program, replica.state, buffer.masters, buffer.lrs, None, float(epoch), int(event))
        return True

    def check_order(self) -> None:
        self._order_unchecked = False

    def get(self, name: str) -> Any:
        if name == LAST_LR:
            lrs: list[Tensor] = [torch.empty(0)] * self._group_count
            for replica in self._replicas:
                rounded = replica.last_lr.to(replica.buffer.lrs.dtype, copy=True)
                for slot, index in enumerate(replica.buffer.indices):
                    lrs[index] = rounded[slot].view(replica.buffer.tensors[slot].shape)
            return lrs
        if name not in self._counters:
            raise AttributeError(name)
        return self._read_counters()[name]

    def set(self, name: str, value: Any) -> bool:
        if name == LAST_LR:
            lrs = _floats(value, self._group_count)
            if lrs is None:
                return False
            for replica in self._replicas:
                values = [lrs[index] for index in replica.buffer.indices]
                replica.last_lr.copy_(torch.tensor(values, dtype=torch.float64, device="cpu"))
            return True
        packed = _C.pack_counter(self._schedule, name, value)
        if packed is None:
            return False
        if name == "_step_count":
            self._order_unchecked = value == 1
        for replica in self._replicas:
            replica.state[packed[0]] = packed[1]
        return True

    def state(self) -> dict[str, Any]:
        lrs = [0.0] * self._group_count
        for replica in self._replicas:
            for index, lr in zip(replica.buffer.indices, replica.last_lr.tolist(), strict=True):
                lrs[index] = lr
        return {**self._read_counters(), LAST_LR: lrs}

    def lend(self, attributes: dict[str, Any]) -> None:
        self.settle(attributes)
        self._lent = {name: value for name, value in self.state().items() if name not in attributes}
        attributes.update(self._lent)

    def settle(self, attributes: dict[str, Any]) -> None:
        # Graph replays may have moved the state on since it was lent: an unchanged value is no news, but old.
        for name, value in self._lent.items():
            if attributes.get(name) is value:
                del attributes[name]
        self._lent = {}

    def refresh(self, scheduler: Any) -> None:
        """Upload the hyperparameters, so that compiled code and captured graphs see them at once."""
        if len(scheduler.optimizer.param_groups) != self._group_count:
            return  # the next step makes new buffers
        refuse_capture("a hyperparameter was written; write it before the capture")
        programs = _programs(scheduler, [replica.buffer for replica in self._replicas])
        if programs is None:
            return  # the next step finds that and leaves the scheduler to torch's code
        for replica, program in zip(self._replicas, programs, strict=True):
            if program.shape == replica.program.shape:
                replica.program.copy_(program, non_blocking=True)
            else:  # a table of another length; a graph captured before goes on with the old one
                replica.program = program
        self._watch.mark_attributes(scheduler)

    def resume(self) -> None:
        for replica in self._replicas:
            replica.buffer.resume(replica.last_lr)

    def _take_last_lr(self, lrs: list[Any]) -> None:
        """Keep the last LRs that torch's code left, tensors mostly; in full precision where that is known."""
        for replica in self._replicas:
            dtype = replica.buffer.lrs.dtype
            for slot, index in enumerate(replica.buffer.indices):
                last = replica.last_lr[slot]
                lr = lrs[index]
                if not isinstance(lr, Tensor):
                    lr = torch.tensor(float(lr), dtype=torch.float64, device="cpu")
                lr = lr.detach().reshape(()).to(last.device, torch.float64, non_blocking=True)
                last.copy_(torch.where(last.to(dtype) == lr.to(dtype), last, lr))

    def _read_counters(self) -> dict[str, Any]:
        # All replicas decide alike, so the first speaks for them.
        values: dict[str, Any] = _C.unpack_counters(self._schedule, self._replicas[0].counters.tolist())
        return values

    @torch.inference_mode(False)
    def _follow(self, scheduler: Any) -> bool:
        """Catch up with whatever was done to the scheduler's attributes or the optimizer's groups."""
        refuse_capture("the scheduler's attributes or the optimizer's groups were changed; step once before capturing")
        buffers = lr_buffer.bind(scheduler.optimizer)
        if buffers is None:
            return False
        scheduler._fit_groups()
        programs = _programs(scheduler, buffers)
        if programs is None:
            return False
        attributes = own_dict(scheduler)
        self.settle(attributes)
        for name in (*self._counters, LAST_LR):
            if name in attributes:
                if not self.set(name, attributes[name]):
                    return False
                del attributes[name]
        if [replica.buffer for replica in self._replicas] == buffers:
            self.refresh(scheduler)
        else:
            counters = self._replicas[0].counters
            self._replicas = [
                Replica(buffer, program, _state(counters, buffer))
                for buffer, program in zip(buffers, programs, strict=True)
            ]
            self._group_count = len(scheduler.optimizer.param_groups)
        self._mark(scheduler)
        return True

    def _mark(self, scheduler: Any) -> None:
        self._watch.mark_attributes(scheduler)
        self._watch.mark_groups([group["lr"] for group in scheduler.optimizer.param_groups])


def _programs(scheduler: Any, buffers: list[LRBuffer]) -> list[Tensor] | None:
    """Each buffer's program, on its device; None if a hyperparameter is no plain number."""
    attributes = own_dict(scheduler)
    own = attributes.get(_C.group_param(scheduler._schedule))
    groups = len(scheduler.optimizer.param_groups)
    if type(own) is not list or (len(own) != groups and _C.steps_use_group_param(scheduler._schedule)):
        return None
    own = own[:groups] + [nan] * (groups - len(own))  # what a step does not read
    # Base learning rates that are tensors are copied on their device; the host never looks at them.
    numbers = [0.0 if isinstance(value, Tensor) else value for value in own]
    programs = []
    for buffer in buffers:
        packed = _C.pack_program(scheduler._schedule, attributes, numbers, buffer.indices, len(own))
        if packed is None:
            return None
        program = torch.frombuffer(bytearray(packed), dtype=torch.float64).to(buffer.device, non_blocking=True)
        per_group = program[len(program) - len(buffer.indices) :]
        for slot, index in enumerate(buffer.indices):
            if isinstance(own[index], Tensor):
                per_group[slot].copy_(own[index].detach().reshape(()), non_blocking=True)
        programs.append(program)
    return programs


def _state(counters: Tensor, buffer: LRBuffer) -> Tensor:
    """A state tensor on the buffer's device: counters, room for the updates, last learning rates."""
    buffer.follow()
    state = torch.zeros(_C.LAST_LR_OFFSET + len(buffer.indices), dtype=torch.float64, device=buffer.device)
    state[: _C.NODE_COUNTERS].copy_(counters, non_blocking=True)
    state[_C.LAST_LR_OFFSET :].copy_(buffer.masters)
    return state


def _floats(lrs: Any, count: int) -> list[float] | None:
    if not isinstance(lrs, (list, tuple)) or len(lrs) != count:
        return None
    return [float(lr) for lr in lrs]
