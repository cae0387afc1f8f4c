"""A schedule in tensors: what the operator steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import _C
from . import ops
from .capture import refuse_capture
from .lr_buffer import LRBuffer
from .metric import operand, refuse_frozen
from .program import Setting, copy_settings

V = TypeVar("V")


class Replica:
    """One schedule over the groups of one :class:`LRBuffer`, laid out as ``csrc/schedule/plan/layout.h`` says.

    Attributes:
        positions: for each slot of the buffer, the place of its group among those that the scheduler drives, or -1.
        settings: the tensors that the program was made from, those of the schedules below too.
        copied: those of them that a step may need; each step copies them.
    """

    __slots__ = ("buffer", "copied", "history", "mirror", "positions", "program", "reflection", "settings", "state")

    def __init__(self, buffer: LRBuffer, positions: list[int], program: Tensor, state: Tensor):
        self.buffer = buffer
        self.positions = positions
        self.mirror: Tensor | None = None
        self.history: Tensor | None = None
        self.reflection: list[float] = []
        self.settings: list[Setting] = []
        self.copied: list[Setting] = []
        self.place(program, state)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.buffer.device

    def report_as(self, other: Replica) -> None:
        """Keep another's mirror and history, whose addresses are in the state that was kept."""
        self.mirror = other.mirror
        self.history = other.history
        self.reflection = other.reflection

    def place(self, program: Tensor, state: Tensor) -> None:
        """Go on in these tensors: slices of a larger program and state, for a part of a composition."""
        self.program = program
        self.state = state
        buffer = self.buffer
        for tensor in (program, state, buffer.masters, buffer.lrs):
            # What torch._dynamo.mark_static_address does, without importing dynamo: CUDA-graph trees may then have
            # these changed in place.
            tensor._dynamo_static_input_type = "unguarded"  # type: ignore[attr-defined]

    def driven(self, values: Iterable[V]) -> Iterator[tuple[int, V]]:
        """Of one value for each slot, those that the scheduler drives, with their positions."""
        return ((position, value) for position, value in zip(self.positions, values, strict=True) if position >= 0)

    def where_driven(self, ours: Tensor, others: Tensor) -> Tensor:
        """For each slot that the scheduler drives a value of the first tensor, for the rest one of the second."""
        if -1 not in self.positions:
            return ours
        return torch.where(torch.tensor(self.positions, device="cpu").to(ours.device) >= 0, ours, others)

    def table(self, schedule: str) -> int:
        """Where the table of this schedule's node begins in the program."""
        columns = len(_C.own_params(schedule)) + (-1 in self.positions)
        return _C.NODE_SIZE + columns * len(self.positions)

    @property
    def counters(self) -> Tensor:
        """The schedule's counters, a view of shape ``(NODE_COUNTERS,)``."""
        return self.state[: _C.NODE_COUNTERS]

    def call(self, metric: Tensor | float | None, event: int = 0, found_inf: Tensor | None = None) -> None:
        """Call the operator for one step, without reading a device."""
        buffer = self.buffer
        tensor, value = operand(metric, buffer) if metric is not None else (None, 0.0)
        copy_settings(self.program, self.copied)
        step = ops.step_ if torch.compiler.is_compiling() else ops.call_step_
        arguments = (self.program, self.state, buffer.masters, buffer.lrs, tensor, value, event)
        if found_inf is None:
            step(*arguments)
        else:
            if found_inf.is_cpu:
                refuse_frozen(buffer)
            step(*arguments, found_inf.to(buffer.device, non_blocking=True))

    def reflect(self, numbers: Tensor) -> Tensor:
        """Have steps leave their results in host memory from now on, where these are until then."""
        refuse_capture("call peek() once before capturing")
        size = _C.mirror_size(len(self.buffer.indices))
        mirror = torch.zeros(size, dtype=torch.float64, device="cpu", pin_memory=not self.buffer.on_host)
        mirror[1:-1] = numbers
        if not self.buffer.on_host:
            # The allocator of pinned memory knows of copies, not of our kernels. Having seen one copy on this stream,
            # it will not give the memory away, once it is free, before all that the stream has to do by then is done.
            mirror.to(self.buffer.device, non_blocking=True)
        self._point(_C.MIRROR_OFFSET, mirror, 0)
        self.reflection = mirror[1:-1].tolist()
        self.mirror = mirror
        return mirror

    def record(self, history: Tensor | None) -> None:
        """Have steps append to this history, laid out as ``csrc/schedule/report/history.h`` says, or to none."""
        self.history = None  # until it is done: what is interrupted is done again
        self._point(_C.HISTORY_OFFSET, history)
        self.history = history

    def keep(self, memory: list[Tensor]) -> None:
        """Keep memory alive for as long as the state: what a captured graph reads."""
        kept = _kept_by(self.state)
        kept[_READ] = kept.get(_READ, []) + memory

    def _point(self, offset: int, memory: Tensor | None, *more: int) -> None:
        """Write an address into the state, and what comes after it."""
        address = 0 if memory is None else memory.data_ptr()
        words = [address, 0 if memory is None else ~address, *more]
        bits = torch.tensor(words, dtype=torch.int64, device="cpu").view(torch.float64)
        kept = _kept_by(self.state)
        place = int(self.state.storage_offset()) + offset
        now = [] if memory is None else [memory]
        kept[place] = kept.get(place, []) + now  # before its address is written, and what was there until it was
        self.state[offset : offset + len(words)].copy_(bits, non_blocking=True)
        kept[place] = now

    def peek(self) -> list[float]:
        """The counters and then the learning rates that the steps have left on the host so far.

        The first call waits for the device, unless :meth:`reflect` was called before.
        """
        mirror = self.mirror
        if mirror is None:
            mirror = self.reflect(torch.cat([self.counters, self.buffer.masters]).cpu())
        for _ in range(_ATTEMPTS):
            done = mirror[-1].item()
            numbers = mirror.tolist()
            if mirror[0].item() == done:  # no step has begun to write since that one was done
                self.reflection = numbers[1:-1]
                break
        return self.reflection

    @property
    def last_lr(self) -> Tensor:
        """Float64 learning rates as a leaf last left them, a view of shape ``(groups,)``."""
        return self.state[_C.NODE_STATE_SIZE : _C.NODE_STATE_SIZE + len(self.positions)]

    @property
    def window(self) -> Tensor:
        """The last metrics that a leaf keeps, a view of shape ``(window_size,)``."""
        return self.state[_C.NODE_STATE_SIZE + len(self.positions) :]


def joined(states: list[Tensor]) -> Tensor:
    """States one after another, in new storage that keeps alive what these have the addresses of."""
    whole = torch.cat(states)
    kept = _kept_by(whole)
    end = 0
    for state in states:
        first = int(state.storage_offset())
        here = range(first, first + len(state))
        kept |= {place - first + end: memory for place, memory in _kept_by(state).items() if place in here}
        end += len(state)
    return whole


_READ = -1  # where what is read and not written to is kept, which no address in the state leads to


def _kept_by(state: Tensor) -> dict[int, list[Tensor]]:
    """By the place of an address in the state's storage, what is there: it lives as long as that storage.

    Whoever can still write to that memory has the address from the storage: a step, a compiled one, a captured graph.
    """
    storage: Any = state.untyped_storage()
    return storage.__dict__.setdefault("_fastsched_kept", {})  # type: ignore[no-any-return]


_ATTEMPTS = 8  # at reading what a step may be writing at that moment; then what was read before will do
