"""What steps a scheduler: the compiled host engine, the tensor engine, or nothing but torch's own code.

An engine that is attached to a scheduler holds its counters and last learning rates; the scheduler's
attributes of those names read and write the engine (:class:`StateAttribute`). Detached, the scheduler is a
plain torch object with everything in ``__dict__``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, SupportsFloat

import torch
from torch import Tensor

from . import _C, lr_buffer, ops
from .lr_buffer import LRBuffer
from .metric import operand, read_from_gpu

LAST_LR = "_last_lr"


class Engine(Protocol):
    """What a scheduler asks of whatever steps it."""

    def step(self, scheduler: Any, metric: SupportsFloat) -> bool:
        """Step once; False, with nothing changed, if this engine cannot do it as torch would."""

    def get(self, name: str) -> Any:
        """The value of a counter or of ``_last_lr``; AttributeError for other names."""

    def set(self, name: str, value: Any) -> bool:
        """Write one of them; False if the engine cannot hold that value."""

    def state(self) -> dict[str, Any]:
        """All of them, as plain Python values."""

    def detach(self, scheduler: Any) -> None:
        """Put all of them back into the scheduler's ``__dict__``."""

    def refresh(self, scheduler: Any) -> None:
        """Take note that a hyperparameter may have changed."""

    def resume(self) -> None:
        """Go on from the learning rates in ``_last_lr`` where the optimizer's still agree with them."""


class Detached:
    """No engine: the state is in the scheduler's ``__dict__`` and torch's own code steps."""

    def step(self, scheduler: Any, metric: SupportsFloat) -> bool:
        return False

    def get(self, name: str) -> Any:
        raise AttributeError(name)

    def set(self, name: str, value: Any) -> bool:
        return False

    def state(self) -> dict[str, Any]:
        return {}

    def detach(self, scheduler: Any) -> None:
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
        attributes = scheduler.__dict__
        return attributes[self.name] if self.name in attributes else scheduler._engine.get(self.name)

    def __set__(self, scheduler: Any, value: Any) -> None:
        if not scheduler._engine.set(self.name, value):
            scheduler._detach()
            scheduler.__dict__[self.name] = value


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

    __slots__ = ("_counters", "_group_count", "_replicas", "_schedule", "_watch")

    def __init__(self, schedule: str, replicas: list[Replica], group_count: int):
        self._schedule = schedule
        self._counters: dict[str, bool] = _C.counter_types(schedule)
        self._replicas = replicas
        self._group_count = group_count
        self._watch = _C.Watch(schedule)

    @classmethod
    def attach(cls, scheduler: Any, *, restore: bool) -> TensorEngine | None:
        """Take the state over from ``scheduler.__dict__``; None, with that unchanged, where it does not fit."""
        attributes = scheduler.__dict__
        counters = _C.pack_counters(scheduler._schedule, attributes)
        buffers = lr_buffer.bind(scheduler.optimizer) if counters else None
        if buffers is None:
            return None
        scheduler._fit_groups()
        programs = _programs(scheduler, buffers)
        if programs is None:
            return None
        replicas = [
            Replica(
                buffer,
                program.to(buffer.device),
                _state(torch.tensor(counters, dtype=torch.float64), buffer.masters),
            )
            for buffer, program in zip(buffers, programs, strict=True)
        ]
        engine = cls(scheduler._schedule, replicas, len(scheduler.optimizer.param_groups))
        if restore and engine.set(LAST_LR, attributes.get(LAST_LR)):
            engine.resume()
        for name in (*engine._counters, LAST_LR):
            attributes.pop(name, None)
        engine._mark(scheduler)
        return engine

    def step(self, scheduler: Any, metric: SupportsFloat) -> bool:
        if torch.compiler.is_compiling():
            # What the host would have to look at stays as it was traced; only tensors may change.
            metric = metric.detach() if isinstance(metric, Tensor) else metric
            call: Callable[..., None] = ops.step_
        else:
            if self._watch.changed(scheduler) and not self._follow(scheduler):
                return False
            call = ops.call_step_
        for replica in self._replicas:
            buffer = replica.buffer
            tensor, value = operand(metric, buffer.device)
            call(replica.program, replica.state, buffer.masters, buffer.lrs, tensor, value)
        return True

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
                replica.last_lr.copy_(torch.tensor([lrs[i] for i in replica.buffer.indices], dtype=torch.float64))
            return True
        is_integer = self._counters.get(name)
        if is_integer is None or type(value) not in ((int,) if is_integer else (int, float)):
            return False
        slot = list(self._counters).index(name)
        for replica in self._replicas:
            replica.state[slot] = value
        return True

    def state(self) -> dict[str, Any]:
        lrs = [0.0] * self._group_count
        for replica in self._replicas:
            for index, lr in zip(replica.buffer.indices, replica.last_lr.tolist(), strict=True):
                lrs[index] = lr
        return {**self._read_counters(), LAST_LR: lrs}

    def detach(self, scheduler: Any) -> None:
        scheduler.__dict__.update(self.state())

    def refresh(self, scheduler: Any) -> None:
        """Upload the hyperparameters, so that compiled code and captured graphs see them at once."""
        programs = _programs(scheduler, [replica.buffer for replica in self._replicas])
        for replica, program in zip(self._replicas, programs or [], strict=False):
            if program.shape == replica.program.shape:
                replica.program.copy_(program, non_blocking=True)

    def resume(self) -> None:
        # An LR tensor that is not this master, rounded, keeps its own value; csrc/schedule/step.h.
        for replica in self._replicas:
            replica.buffer.masters.copy_(replica.last_lr)

    def _read_counters(self) -> dict[str, Any]:
        # All replicas decide alike, so the first speaks for them.
        values: dict[str, Any] = _C.unpack_counters(self._schedule, self._replicas[0].counters.tolist())
        return values

    def _follow(self, scheduler: Any) -> bool:
        """Catch up with whatever was done to the scheduler's attributes or the optimizer's groups."""
        buffers = lr_buffer.bind(scheduler.optimizer)
        if buffers is None:
            return False
        scheduler._fit_groups()
        programs = _programs(scheduler, buffers)
        if programs is None:
            return False
        attributes = scheduler.__dict__
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
                Replica(buffer, program.to(buffer.device), _state(counters, buffer.masters))
                for buffer, program in zip(buffers, programs, strict=True)
            ]
            self._group_count = len(scheduler.optimizer.param_groups)
        self._mark(scheduler)
        return True

    def _mark(self, scheduler: Any) -> None:
        self._watch.mark(scheduler, [group["lr"] for group in scheduler.optimizer.param_groups])


def _programs(scheduler: Any, buffers: list[LRBuffer]) -> list[Tensor] | None:
    """Each buffer's program, on the host; None if a hyperparameter is no plain number."""
    programs = []
    for buffer in buffers:
        packed = _C.pack_program(
            scheduler._schedule,
            scheduler.__dict__,
            buffer.indices,
            len(scheduler.optimizer.param_groups),
        )
        if packed is None:
            return None
        programs.append(torch.frombuffer(bytearray(packed), dtype=torch.float64))
    return programs


def _state(counters: Tensor, masters: Tensor) -> Tensor:
    """A state tensor on the masters' device: counters, room for the updates, last learning rates."""
    state = torch.zeros(_C.LAST_LR_OFFSET + masters.numel(), dtype=torch.float64, device=masters.device)
    state[: _C.NODE_COUNTERS].copy_(counters, non_blocking=True)
    state[_C.LAST_LR_OFFSET :].copy_(masters)
    return state


def _floats(lrs: Any, count: int) -> list[float] | None:
    if not isinstance(lrs, (list, tuple)) or len(lrs) != count:
        return None
    return [float(lr) for lr in lrs]
