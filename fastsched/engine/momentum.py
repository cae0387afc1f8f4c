"""Momentum that cycles along with tensor learning rates: ``"momentum"``, or the first of ``"betas"``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary, ref

import torch
from torch import Tensor
from torch.optim import Optimizer

from .. import _C
from . import ops
from .capture import refuse_capture
from .lr_buffer import is_supported
from .program import Node, Setting, copy_settings, instance_dict, own_values, pack, same_settings, upload


def _momentum(group: dict[str, Any]) -> Any:
    if "betas" not in group:
        return group.get("momentum")
    betas = group["betas"]
    return betas[0] if isinstance(betas, (tuple, list)) and betas else None


def _momentums(optimizer: Optimizer) -> list[Any]:
    return list(map(_momentum, optimizer.param_groups))


def _any_tensor(momentums: list[Any]) -> bool:
    return any(issubclass(kind, Tensor) for kind in set(map(type, momentums)))


def has_tensor_momentum(optimizer: Optimizer) -> bool:
    """Whether the momentum of some group is a tensor."""
    return _any_tensor(_momentums(optimizer))


def _put(group: dict[str, Any], momentum: Tensor) -> None:
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum


def _bounds(scheduler: Any, optimizer: Optimizer) -> set[int]:
    """The tensors between which momentum cycles, by identity: torch may make one of them a group's momentum."""
    lists = [instance_dict(scheduler).get(name) for name in ("max_momentums", "base_momentums")]
    bounds = [bound for found in lists if isinstance(found, list) for bound in found]
    bounds += [group.get(name) for group in optimizer.param_groups for name in ("max_momentum", "base_momentum")]
    return {id(bound) for bound in bounds if isinstance(bound, Tensor)}


@contextmanager
def kept_in_place(scheduler: Any, optimizer: Optimizer) -> Iterator[None]:
    """Around torch's code, which puts new objects into the groups: momentum tensors stay, with the new values.

    Each group has a tensor of its own then, which is neither a bound nor another group's.
    """
    before = _momentums(optimizer)
    try:
        yield
    finally:
        now = _momentums(optimizer)
        any_tensors = _any_tensor(before) or _any_tensor(now)
        taken = _bounds(scheduler, optimizer) if any_tensors else set()
        places = zip(optimizer.param_groups, before, now, strict=True) if any_tensors else ()
        for group, tensor, value in places:
            kept = tensor if isinstance(tensor, Tensor) and not tensor.is_inference() else value
            if not isinstance(kept, Tensor):
                continue
            if id(kept) in taken:
                kept = kept.detach().clone()
            taken.add(id(kept))
            if value is kept:
                continue
            if isinstance(value, Tensor):
                kept.copy_(value.reshape(kept.shape))
            else:
                kept.fill_(value)
            _put(group, kept)


def cycles_momentum(scheduler: Any) -> bool:
    """Whether its schedule has momentum go along, and it says so."""
    return bool(instance_dict(scheduler).get("cycle_momentum")) and bool(_C.momentum_params(scheduler._schedule))


def cycle_momentum(scheduler: Any, counters: list[float]) -> HostMomentum | TensorMomentum | None:
    """What cycles the momentum of the scheduler's optimizer; None where some groups have tensors, some numbers."""
    kind = TensorMomentum if has_tensor_momentum(scheduler.optimizer) else HostMomentum
    momentum: HostMomentum | TensorMomentum = kind(scheduler._schedule, counters)
    if momentum.rebuild(scheduler):
        return momentum
    _C.note_reason("the groups' momentum is neither a number in all of them nor a float32 or float64 tensor in all")
    return None


# Of the cycles whose steps were compiled; the place is a constant in the graph.
_compiled: WeakValueDictionary[int, HostMomentum] = WeakValueDictionary()
_places = itertools.count()
# Python that writes momentum has no tensor to show for it. The state that it says it changes keeps the call in the
# graph, once per step and in order.
_operators = torch.library.Library("fastsched", "FRAGMENT")
_operators.define("cycle_momentum_(Tensor(a!) state, int place, int event, float epoch, Tensor? found_inf) -> ()")


def _cycle_compiled(state: Tensor, place: int, event: int, epoch: float, found_inf: Tensor | None) -> None:
    if found_inf is not None and found_inf.item():
        return
    momentum = _compiled[place]
    scheduler = momentum.scheduler() if momentum.scheduler is not None else None
    if scheduler is None or not momentum.step(scheduler, event, epoch):
        raise RuntimeError(
            "a compiled step cannot cycle the momentum any more: its settings changed, or its total_steps are over; "
            "take one eager step"
        )


_operators.impl("cycle_momentum_", _cycle_compiled, "CompositeExplicitAutograd")
_operators._register_fake("cycle_momentum_", lambda *_: None)


class HostMomentum:
    """Momentum in Python numbers, which only Python can write: its own counters run along on the host."""

    __slots__ = ("__weakref__", "_native", "place", "scheduler")

    def __init__(self, schedule: str, counters: list[float]):
        self._native = _C.HostMomentum(schedule)
        self.place = next(_places)
        self.scheduler: ref[Any] | None = None
        _compiled[self.place] = self
        for index, value in enumerate(counters):
            self.set(index, value)

    def step(self, scheduler: Any, event: int, epoch: float, found_inf: Tensor | None = None) -> bool:
        """Write every group's momentum for this step; False, with nothing changed, if that cannot be done."""
        refuse_capture(
            "it cycles momentum that is a Python number; give the optimizer tensors for it, or pass "
            "cycle_momentum=False"
        )
        engine = scheduler._engine
        return self._native.step(scheduler, event, epoch, engine._guard if engine.steps_tensors else None)

    def step_compiled(self, state: Tensor, event: int, epoch: float, found_inf: Tensor | None) -> None:
        """The same from within a compiled graph."""
        torch.ops.fastsched.cycle_momentum_(state, self.place, event, epoch, found_inf)

    def fits(self, scheduler: Any) -> bool:
        """Whether numbers are what there is to write; settings are read at each step."""
        return not any(isinstance(_momentum(group), Tensor) for group in scheduler.optimizer.param_groups)

    def set(self, index: int, counter: float) -> None:
        """Follow a counter that was written to."""
        self._native.set(index, counter)

    def rebuild(self, scheduler: Any) -> bool:
        """Follow the scheduler's attributes, which each step reads anyway."""
        self.scheduler = ref(scheduler)
        return self.fits(scheduler)


class TensorMomentum:
    """Momentum in tensors: the same schedule with bounds of its own, over tensors laid side by side.

    Each momentum tensor becomes a view of one element, as
    :mod:`fastsched.engine.lr_buffer` does it with learning rates.
    """

    __slots__ = ("_counters", "_parts", "_schedule")

    def __init__(self, schedule: str, counters: list[float]):
        self._schedule = schedule
        self._counters = counters
        self._parts: list[_Part] = []

    def step(self, scheduler: Any, event: int, epoch: float, found_inf: Tensor | None = None) -> bool:
        """Write every group's momentum for this step; False, with nothing changed, if that cannot be done."""
        if not self.fits(scheduler):
            return False
        self.step_compiled(self._parts[0].state, event, epoch, found_inf)
        return True

    def step_compiled(self, state: Tensor, event: int, epoch: float, found_inf: Tensor | None) -> None:
        """The same without looking at the groups."""
        for part in self._parts:
            copy_settings(part.program, part.settings)
            skip = None if found_inf is None else found_inf.to(part.values.device, non_blocking=True)
            ops.step_(part.program, part.state, part.masters, part.values, None, epoch, event, skip)

    def fits(self, scheduler: Any) -> bool:
        """Whether the groups still have the tensors that are written."""
        groups = scheduler.optimizer.param_groups
        return all(part.fits(groups) for part in self._parts)

    def parts(self) -> list[object]:
        """What is replaced where other tensors are to be written than before."""
        return list(self._parts)

    def set(self, index: int, counter: float) -> None:
        """Follow a counter that was written to."""
        for part in self._parts:
            part.state[index] = counter

    @torch.inference_mode(False)
    def rebuild(self, scheduler: Any) -> bool:
        """Take over the bounds and tensors as they are now, in place where they fit; False if that cannot be done."""
        groups = scheduler.optimizer.param_groups
        owns = own_values(scheduler, _C.momentum_params(self._schedule), scheduler._table())
        if owns is None or not all(is_supported(_momentum(group)) for group in groups):
            return False
        places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for index, group in enumerate(groups):
            places.setdefault((_momentum(group).device, _momentum(group).dtype), []).append(index)
        nodes = []
        for (device, _), indices in places.items():
            packed = pack(scheduler, owns, indices, scheduler._table())
            if packed is None:
                return False
            nodes.append(upload(packed, owns, indices, device))
        if [part.indices for part in self._parts] == list(places.values()) and all(
            part.fits(groups) and part.program.shape == node.program.shape
            for part, node in zip(self._parts, nodes, strict=True)
        ):
            for part, node in zip(self._parts, nodes, strict=True):
                part.program.copy_(node.program)
                part.rebuild(node.settings)
            return True
        if self._parts:
            self._counters = self._parts[0].state[: _C.NODE_COUNTERS].tolist()
        self._parts = [
            _Part(indices, groups, node, self._counters, _bounds(scheduler, scheduler.optimizer))
            for indices, node in zip(places.values(), nodes, strict=True)
        ]
        return True


class _Part:
    """The momentum tensors that agree in device and dtype."""

    __slots__ = ("indices", "masters", "program", "read", "settings", "state", "targets", "values")

    def __init__(
        self, indices: list[int], groups: list[dict[str, Any]], node: Node, counters: list[float], bounds: set[int]
    ):
        self.indices = indices
        self.program = node.program
        self.settings: list[Setting] = []
        self.read: list[Tensor] = []  # kept for as long as a captured graph may read it
        self.rebuild(node.settings)
        self.state = node.program.new_zeros(_C.NODE_STATE_SIZE + len(indices))
        self.state[: _C.NODE_COUNTERS] = torch.tensor(counters, dtype=torch.float64, device="cpu")
        self.values = torch.stack([_momentum(groups[index]).detach().reshape(()) for index in indices])
        self.masters = self.values.to(torch.float64, copy=True)
        self.targets: list[Tensor] = []
        for slot, index in enumerate(indices):
            tensor = _momentum(groups[index])
            # Groups that share one part here, as with LRs, and so do a group and its bound.
            if id(tensor) in bounds or any(tensor is other for other in self.targets):
                tensor = torch.empty_like(tensor)
                _put(groups[index], tensor)
            tensor.data = self.values[slot].view(tensor.shape)
            self.targets.append(tensor)

    def rebuild(self, settings: list[Setting]) -> None:
        """Have each step copy these bounds."""
        if not same_settings(settings, self.settings):
            self.settings = settings
            self.read += [setting.values for setting in settings]

    def fits(self, groups: list[dict[str, Any]]) -> bool:
        """Whether the groups still have these tensors, and these and the bounds their place."""
        address, size = self.values.data_ptr(), self.values.element_size()
        return not any(setting.moved() for setting in self.settings) and all(
            _momentum(groups[index]) is target and target.data_ptr() == address + slot * size
            for slot, (index, target) in enumerate(zip(self.indices, self.targets, strict=True))
        )
