"""Tensor learning rates of one optimizer, laid side by side so that one operator call updates them all.

Each group's ``"lr"`` becomes a view of one element. Other entries that are tensors lie there as well, from the first
scheduler on that drives them (``_Scheduled``); here each of them is the learning rate of a group of its own. The
buffers belong to the optimizer, not to a scheduler: several schedulers on one optimizer share them, float64 masters
included, and so lose no precision to each other.

Whoever changes which buffers there are, or which tensors are in them, first says so: no buffer of the optimizer has a
layout then, and ``_buffers`` lists the old ones and those to come. An engine that finds no layout binds again, and
that begins anew from the groups and the masters of all of these. So an exception anywhere in between, a Ctrl-C for
instance, loses no learning rate and leaves none that nobody steps.
"""

from __future__ import annotations

import copy
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable
from contextlib import ContextDecorator
from math import nan
from operator import attrgetter
from typing import Any, TypeGuard
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from .. import _C
from . import ops
from .selection import LR, GroupEntry, Selection, Slot, slots_of
from .untraced import untraced

LR_DTYPES = (torch.float32, torch.float64)


class LRBuffer:
    """The learning rates of the groups that agree in device and dtype.

    Attributes:
        device, on_host: where they are.
        indices: position of each slot's entry among those of the optimizer that are scheduled; of a learning rate that
            is the position of its group.
        lrs: what the optimizer reads, shape ``(len(indices),)``.
        masters: the same in float64; ``lrs`` is this, rounded, unless somebody wrote to an LR.
        tensors: the object in each group's ``"lr"``, a view of one element of ``lrs``.
        layout: replaced by another object when a slot gets another tensor; None while that is going on, and once
            other buffers took over.
    """

    __slots__ = (
        "__weakref__",
        "_resumed",
        "device",
        "indices",
        "layout",
        "lrs",
        "masters",
        "on_host",
        "tensors",
    )

    def __init__(self, indices: list[int], lrs: Tensor, masters: Tensor, tensors: list[Tensor]):
        self.device = lrs.device
        self.on_host = lrs.device.type == "cpu"
        self.indices = indices
        self.lrs = lrs
        self.masters = masters
        self.tensors = tensors
        self.layout: object | None = object()
        self._resumed: Tensor | None = None

    def place(self, groups: list[dict[str, Any]], shape: torch.Size | None = None) -> None:
        """Put the tensors into their groups, as views of their slots: in the shape that they have, or in this one."""
        lay_in(self.lrs, self.tensors, shape)
        for index, tensor in zip(self.indices, self.tensors, strict=True):
            groups[index]["lr"] = tensor

    def adopt_external_writes(self) -> None:
        """Go on from LRs that somebody wrote to, as ``adopt_external_write`` in csrc/schedule/plan does."""
        self._take(self.lrs.double(), self.masters.to(self.lrs.dtype) != self.lrs)

    def resume(self, masters: Tensor) -> None:
        """Go on from these float64 learning rates where, rounded, they are what the LR tensors hold.

        Remembered for LR tensors that are still to be loaded: a checkpoint's optimizer may follow its scheduler.
        """
        self._resumed = masters.clone()
        self._take(self._resumed, self._resumed.to(self.lrs.dtype) == self.lrs)

    def recall(self) -> None:
        """Do what :meth:`resume` does for the LRs that were written to since."""
        if self._resumed is not None:
            written = self.masters.to(self.lrs.dtype) != self.lrs
            self._take(self._resumed, written & (self._resumed.to(self.lrs.dtype) == self.lrs))

    def plan(self) -> LRBuffer:
        """The same values in tensors of their own, without a layout: for what is to be written here."""
        plan = LRBuffer(self.indices, self.lrs.clone(), self.masters.clone(), list(self.tensors))
        plan.layout = None
        plan._resumed = self._resumed
        return plan

    def duplicate(self, memo: dict[int, Any]) -> LRBuffer:
        """The same on the host, with tensors of its own, which are put into a ``copy.deepcopy``'s memo."""
        tensors = [torch.empty(tensor.shape, dtype=self.lrs.dtype, device="cpu") for tensor in self.tensors]
        lrs, masters = self.lrs.to("cpu", copy=True), self.masters.to("cpu", copy=True)
        for place, tensor in zip(lrs.unbind(), tensors, strict=True):
            tensor.data = place.view(tensor.shape)
        twin = LRBuffer(list(self.indices), lrs, masters, tensors)
        twin.layout = self.layout and object()
        twin._resumed = None if self._resumed is None else self._resumed.to("cpu", copy=True)
        memo.update({id(tensor): copied for tensor, copied in zip(self.tensors, tensors, strict=True)})
        _owners[lrs.untyped_storage().data_ptr()] = twin
        return twin

    def _take(self, masters: Tensor, where: Tensor) -> None:
        self.masters.copy_(torch.where(where, masters, self.masters))


# By the identity of the optimizer, whatever its class makes of == and hash; an entry dies with its optimizer.
_buffers: dict[int, list[LRBuffer]] = {}
_released: set[int] = set()  # those whose learning rates are numbers again
# By the address of the storage of lrs: whose the views are that are met in some group.
_owners: WeakValueDictionary[int, LRBuffer] = WeakValueDictionary()


class _Scheduled:
    """Which entries of an optimizer's groups are in its buffers, or are to be."""

    __slots__ = ("lrs", "others")

    def __init__(self) -> None:
        self.lrs = True  # the learning rates of all groups, which come first
        self.others: list[tuple[int, str]] = []  # group and name

    def entries(self, optimizer: Any) -> list[Any]:
        """A group for each of them, which has it as its ``"lr"``."""
        groups = optimizer.param_groups
        others = [GroupEntry(groups[at], name) for at, name in self.others if at < len(groups)]
        return [*(groups if self.lrs else ()), *others]

    def names(self) -> set[str]:
        return {*((LR,) if self.lrs else ()), *(name for _, name in self.others)}

    def keys(self, optimizer: Any) -> list[tuple[int, str]]:
        """Group and name of each."""
        groups = len(optimizer.param_groups)
        lrs = [(at, LR) for at in range(groups)] if self.lrs else []
        return lrs + [(at, name) for at, name in self.others if at < groups]


# By the identity of the optimizer, as its buffers; of those alone whose learning rates are not all that is scheduled.
_scheduled: dict[int, _Scheduled] = {}


def _entries(optimizer: Any) -> list[Any]:
    scheduled = _scheduled.get(id(optimizer))
    return list(optimizer.param_groups) if scheduled is None else scheduled.entries(optimizer)


_changing = threading.RLock()


class _Exclusively(ContextDecorator):
    """For what changes buffers: another thread waits, and then finds the new ones.

    A decorator from the standard library and methods in C, so that no line of ours is between taking the lock and
    giving it back, where an exception (a debugger's, a tracer's) would leave it taken.
    """

    __enter__ = _changing.__enter__
    __exit__ = _changing.__exit__


_exclusively = _Exclusively()


def is_bound(optimizer: Optimizer) -> bool:
    """Whether what a scheduler with this optimizer drives was made tensors side by side before."""
    return id(optimizer) in _released or has_tensors(optimizer)


def is_released(optimizer: Optimizer) -> bool:
    """Whether the optimizer's learning rates were, and are numbers again."""
    return id(optimizer) in _released


def has_tensors(optimizer: Optimizer) -> bool:
    """Whether they were, and have not been released since."""
    if not isinstance(optimizer, Selection):
        return LR in _held(optimizer)
    return any(slot.name in _held(optimizer.optimizers[slot.optimizer]) for slot in slots_of(optimizer))


def _held(optimizer: Any) -> set[str]:
    """The names of the entries that are in the optimizer's buffers."""
    if not _buffers.get(id(optimizer)):
        return set()
    scheduled = _scheduled.get(id(optimizer))
    return {LR} if scheduled is None else scheduled.names()


def positions(optimizer: Optimizer, buffers: list[LRBuffer]) -> list[list[int]]:
    """For each buffer that :func:`bind` gave, and each of its slots, the place among what a scheduler drives, or -1."""
    if not buffers:
        return []
    if not isinstance(optimizer, Selection):
        groups = len(optimizer.param_groups)
        return [[index if index < groups else -1 for index in buffer.indices] for buffer in buffers]
    place = {slot: position for position, slot in enumerate(slots_of(optimizer))}
    found = []
    for at, one in enumerate(optimizer.optimizers):
        keys = _scheduled.get(id(one), _Scheduled()).keys(one)
        places = [place.get(Slot(at, *key), -1) for key in keys]
        found += [[places[index] for index in buffer.indices] for buffer in _buffers[id(one)]]
    return found


def _include(optimizer: Any, wanted: list[tuple[int, str]]) -> bool:
    """Have the buffers hold these entries; False, with nothing changed, where one of them is not a tensor for that."""
    scheduled = _scheduled.get(id(optimizer))
    held = _buffers.get(id(optimizer)) or []
    known = set((scheduled or _Scheduled()).keys(optimizer)) if held else set()
    new = [(at, name) for at, name in wanted if (at, name) not in known]
    lrs = any(name == LR for _, name in new)
    groups = optimizer.param_groups
    if lrs:  # all learning rates or none: a scheduler of all groups may come
        new = [(at, name) for at, name in new if name != LR] + [(at, LR) for at in range(len(groups))]
    if not all(at < len(groups) and is_supported(GroupEntry(groups[at], name).get("lr")) for at, name in new):
        return False
    if scheduled is None and all(name == LR for _, name in new):
        return True
    if new:
        changed = _Scheduled()
        changed.lrs = lrs or any(name == LR for _, name in known)
        others = [*(scheduled.others if scheduled else ()), *(key for key in new if key[1] != LR)]
        changed.others = list(dict.fromkeys(others))
        _scheduled[id(optimizer)] = changed
    return True


@torch.inference_mode(False)
@_exclusively
def bind(optimizer: Optimizer) -> list[LRBuffer] | None:
    """The buffers behind what a scheduler drives, following whatever was done to the groups meanwhile.

    A learning rate that was replaced, by a tensor or by a number, or moved between groups, is copied into the
    storage that is there, so that a captured graph goes on reading the right place. Added or removed groups need
    new storage. Never waits for a device.

    Returns:
        None, with nothing changed, where some learning rate is neither a plain float32 or float64 tensor on
        the CPU or a CUDA device nor a number in an optimizer that has tensors; where there are no groups;
        or where some, but not all, learning rates are another optimizer's. The buffers of each optimizer hold what
        other schedulers drive as well (:func:`positions`).

    Raises:
        RuntimeError: a learning rate is on a CUDA device and fastsched has no CUDA operators.
    """
    if isinstance(optimizer, Selection):
        return _bind_parts(optimizer)
    if id(optimizer) in _scheduled and not _include(optimizer, _Scheduled().keys(optimizer)):
        return None
    return _bind(optimizer)


def _bind_parts(selection: Selection) -> list[LRBuffer] | None:
    buffers: list[LRBuffer] = []
    slots = slots_of(selection)
    for at, optimizer in enumerate(selection.optimizers):
        if not _include(optimizer, [(slot.group, slot.name) for slot in slots if slot.optimizer == at]):
            return None
        found = _bind(optimizer)
        if found is None:
            return None
        buffers += found
    return buffers


def _bind(optimizer: Optimizer) -> list[LRBuffer] | None:
    known = _buffers.get(id(optimizer), [])
    groups = _entries(optimizer)
    if not groups:
        return None
    slots = sum(len(buffer.indices) for buffer in known)
    if slots != len(groups) or any(buffer.layout is None for buffer in known):
        return _bind_anew(optimizer, known)
    replaced = [
        _Replacement(buffer, slot, groups[index])
        for buffer in known
        for slot, index in enumerate(buffer.indices)
        if groups[index].get("lr") is not buffer.tensors[slot]
    ]
    for entry in replaced:
        if not (_is_number(entry.lr) or is_supported(entry.lr)):
            _note_unsupported(entry.lr)
            return None
    if replaced:
        _adopt(optimizer, known, replaced)
    return known


class _Replacement:
    """A learning rate that somebody put into a group in place of our tensor."""

    __slots__ = ("buffer", "group", "lr", "slot")

    def __init__(self, buffer: LRBuffer, slot: int, group: dict[str, Any]):
        self.buffer = buffer
        self.slot = slot
        self.group = group
        self.lr: Any = group.get("lr")


def _adopt(optimizer: Optimizer, known: list[LRBuffer], replaced: list[_Replacement]) -> None:
    places = {id(tensor): (buffer, slot) for buffer in known for slot, tensor in enumerate(buffer.tensors)}
    moved = {(entry.buffer, entry.slot) for entry in replaced}
    taken = {tensor for tensor, place in places.items() if place not in moved}
    plans = {buffer: buffer.plan() for buffer in known}
    apart: list[tuple[Tensor, Tensor]] = []  # tensors whose old slots get other values: they need a place of their own
    for buffer, plan in plans.items():
        here = [entry for entry in replaced if entry.buffer is buffer]
        if here:
            slots = torch.tensor([entry.slot for entry in here], device="cpu").to(buffer.device, non_blocking=True)
            lrs = [entry.lr for entry in here]
            plan.lrs[slots] = _stacked(lrs, {}, buffer.device, place_of_all(lrs)).to(plan.lrs.dtype)
    for entry in replaced:
        buffer, slot, lr = entry.buffer, entry.slot, entry.lr
        plan = plans[buffer]
        if isinstance(lr, Tensor) and id(lr) in places:  # it moved here from another group, and its master with it
            before, slot_before = places[id(lr)]
            _write(plan.masters, slot, before.masters[slot_before])
            if id(lr) not in taken:
                apart.append((lr, lr.detach().clone()))
        elif not isinstance(lr, Tensor):
            _write(plan.masters, slot, lr)  # exact, where the LR's own dtype rounds
        # The object that was put there stays, unless it is of another kind, another optimizer's, or also
        # another group's: then the group has its own back.
        own: Tensor | None = None
        for candidate in (lr, buffer.tensors[slot]):
            if isinstance(candidate, Tensor) and id(candidate) not in taken and _fits(candidate, buffer, known):
                own = candidate
                break
        plan.tensors[slot] = torch.empty((), dtype=buffer.lrs.dtype, device=buffer.device) if own is None else own
        taken.add(id(plan.tensors[slot]))
    for plan in plans.values():
        plan.recall()

    for buffer in known:
        buffer.layout = None
    _buffers[id(optimizer)] = [*known, *plans.values()]
    for lr, value in apart:
        lr.data = value
    for buffer, plan in plans.items():
        buffer.lrs.copy_(plan.lrs)
        buffer.masters.copy_(plan.masters)
        buffer.tensors = plan.tensors
    elements = {buffer: buffer.lrs.unbind() for buffer in known}
    for entry in replaced:
        tensor = entry.buffer.tensors[entry.slot]
        tensor.data = elements[entry.buffer][entry.slot].view(tensor.shape)
        entry.group["lr"] = tensor
    for buffer in known:
        buffer.layout = object()
    _buffers[id(optimizer)] = known


@torch.inference_mode(False)
def write(optimizer: Optimizer, lrs: list[Tensor | float]) -> bool:
    """Set every group's learning rate, its master included, which an in-place write to the LR may leave as it was.

    False, with nothing changed, where :func:`bind` finds no buffers.
    """
    buffers = bind(optimizer)
    for buffer, places in zip(buffers or [], positions(optimizer, buffers or []), strict=True):
        if -1 in places:
            for slot, position in enumerate(places):
                if position >= 0:
                    _write(buffer.lrs, slot, lrs[position])
                    _write(buffer.masters, slot, lrs[position])
            continue
        these = [lrs[position] for position in places]
        masters = _stacked(these, {}, buffer.device, place_of_all(these))
        buffer.lrs.copy_(masters)
        buffer.masters.copy_(masters)
    return buffers is not None


def set_lrs(optimizer: Optimizer, lrs: list[Any]) -> None:
    """Set every group's LR, whatever it is."""
    if is_bound(optimizer) and write(optimizer, lrs):
        return
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        if type(lr) is type(group["lr"]) is float:
            group["lr"] = lr
        elif isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr.reshape(()) if isinstance(lr, Tensor) else lr)
        else:
            group["lr"] = lr.clone() if isinstance(lr, Tensor) else lr


def scaled(lrs: list[Any], factor: float) -> list[Any]:
    """Each times this number."""
    if place_of_all(lrs) is None or any(map(Tensor.dim, lrs)):
        return [lr * factor for lr in lrs]
    return list((stack_scalars(lrs) * factor).unbind())


def copied_lrs(optimizer: Optimizer) -> list[Any]:
    """Every group's LR as it is, tensors as copies."""
    return copies([group["lr"] for group in optimizer.param_groups])


def copies(lrs: list[Any]) -> list[Any]:
    """The same values, tensors as copies without a gradient; that very list where there are none."""
    if {float, int}.issuperset(map(type, lrs)):  # hundreds of numbers are passed at once
        return lrs
    if place_of_all(lrs) is not None and not any(map(Tensor.dim, lrs)):  # and so are tensors
        return list(stack_scalars(lrs).unbind())
    return [lr.detach().clone() if isinstance(lr, Tensor) else lr for lr in lrs]


@torch.inference_mode(False)
def exact(optimizer: Optimizer) -> list[Any]:
    """Every group's learning rate, a copy: in float64 where that is known, else as it is. Reads nothing back."""
    buffers = bind(optimizer) if is_bound(optimizer) else None
    if buffers is None:
        return copied_lrs(optimizer)
    lrs: list[Any] = [None] * len(optimizer.param_groups)
    for buffer, places in zip(buffers, positions(optimizer, buffers), strict=True):
        buffer.adopt_external_writes()
        for position, master in zip(places, buffer.masters.clone().unbind(), strict=True):
            if position >= 0:
                lrs[position] = master
    return lrs


@torch.inference_mode(False)
@_exclusively
def release(optimizer: Optimizer) -> None:
    """Make every group's learning rate, and the initial one where that is a tensor, a Python float.

    Reads each device once. The optimizer remains known, as one that has no tensors any more.
    """
    groups = list(optimizer.param_groups)
    read = [(group, "lr", lr) for group, lr in zip(groups, exact(optimizer), strict=True)]
    read += [(group, "initial_lr", group["initial_lr"]) for group in groups if "initial_lr" in group]
    by_device: dict[torch.device, list[tuple[dict[str, Any], str, Tensor]]] = {}
    for entry in read:
        if isinstance(entry[2], Tensor):
            by_device.setdefault(entry[2].device, []).append(entry)
    numbers = []
    for entries in by_device.values():
        values = torch.stack([value.detach().reshape(()).double() for _, _, value in entries]).tolist()
        numbers += [(group, key, value) for (group, key, _), value in zip(entries, values, strict=True)]

    before = _buffers.get(id(optimizer), [])
    for buffer in before:
        buffer.layout = None
    for group, key, value in numbers:
        group[key] = value
    for other, buffers in _buffers.copy().items():  # in list() an optimizer may die, which takes its entry out
        if any(buffer is own for buffer in buffers for own in before):
            _buffers[other] = []
            _released.add(other)
    _remember(optimizer, [])
    _released.add(id(optimizer))
    scheduled = _scheduled.get(id(optimizer))
    if scheduled is not None:
        scheduled.lrs = False
        tensors = [entry["lr"] for entry in scheduled.entries(optimizer)]
        if all(is_supported(tensor) for tensor in tensors):
            _allocate(optimizer, [(tensor.device, tensor.dtype) for tensor in tensors], others=before)


def _write(buffer: Tensor, slot: int, value: Tensor | float) -> None:
    if isinstance(value, Tensor):
        buffer[slot].copy_(value.detach().reshape(()), non_blocking=True)
    else:
        buffer[slot] = value


def _fits(tensor: Tensor, buffer: LRBuffer, known: list[LRBuffer]) -> bool:
    owner = _owner(tensor)
    same_kind = (tensor.device, tensor.dtype) == (buffer.device, buffer.lrs.dtype)
    return same_kind and (owner is None or any(owner is own for own in known))


def _owner(tensor: Tensor) -> LRBuffer | None:
    # Of its storage, which takes longer to ask.
    address: Any = tensor.data_ptr() - tensor.storage_offset() * tensor.element_size()
    owner = _owners.get(address)
    # Where share_memory_() moved a buffer, its old memory may be somebody else's by now.
    return owner if owner is not None and owner.lrs.untyped_storage().data_ptr() == address else None


def _owners_of(tensors: list[Tensor]) -> list[LRBuffer]:
    """For each that has one: a thousand that are alone in their memory have none, which is seen in few calls."""
    if not any(map(Tensor.storage_offset, tensors)) and set(_owners).isdisjoint(map(Tensor.data_ptr, tensors)):
        return []
    return [owner for owner in map(_owner, tensors) if owner is not None]


def _bind_anew(optimizer: Optimizer, known: list[LRBuffer]) -> list[LRBuffer] | None:
    groups = _entries(optimizer)
    # Where each group's learning rate was to be, the latest plan last; it counts where that was left half done.
    planned = {index: (buffer.device, buffer.lrs.dtype) for buffer in known for index in buffer.indices}
    begun = len(planned) == len(groups) and any(buffer.layout is None for buffer in known)
    lrs = [group.get("lr") for group in groups]
    place = place_of_supported(lrs)
    placement: list[tuple[torch.device, torch.dtype]] = [] if begun or place is None else [place] * len(lrs)
    for index, lr in enumerate(lrs) if not placement else ():
        if not (is_supported(lr) or (known and _is_number(lr))):
            _note_unsupported(lr)
            return None
        own = None if begun or not isinstance(lr, Tensor) else _place(lr)
        placement.append(own or planned.get(index) or (known[0].device, known[0].lrs.dtype))
    for device in {device for device, _ in placement}:
        ops.require(device)
    first = id(optimizer) not in _buffers
    owners = _owners_of([lr for lr in lrs if isinstance(lr, Tensor)])
    foreign = [owner for owner in owners if not any(owner is own for own in known)]
    if foreign and all(owner.layout is not None for owner in foreign):
        return _share(optimizer, foreign)
    buffers = _allocate(optimizer, placement, others=foreign)
    if first:
        warn_of_devices(optimizer)
    return buffers


def warn_of_devices(optimizer: Optimizer) -> None:
    """Warn if a learning rate and its parameters are on different devices."""
    if not torch.cuda.is_initialized():
        return  # then nothing is on a GPU
    tensors = [(index, group) for index, group in enumerate(optimizer.param_groups) if isinstance(group["lr"], Tensor)]
    pairs = {(group["lr"].device, device_of(group)) for _, group in tensors}
    if all(lr == device for lr, device in pairs):
        return
    for index, group in tensors:
        lr, device = group["lr"].device, device_of(group)
        if lr != device and device.type in ("cpu", "cuda"):
            warnings.warn(
                f"param_groups[{index}]['lr'] is on {lr} and its parameters are on {device}: the optimizer copies it "
                "across at every step, if it can, and a CUDA graph cannot follow it; "
                "fastsched.use_tensor_lr(optimizer) moves learning rates to their parameters",
                UserWarning,
                stacklevel=_frames_to_caller(),
            )
            return


def device_of(group: dict[str, Any]) -> torch.device:
    """Where the group's parameters are, by the first of them."""
    device: torch.device = group["params"][0].device if group["params"] else torch.device("cpu")
    return device


_NOT_CALLERS = ("contextlib", "fastsched", "torch")


def _frames_to_caller() -> int:
    """The ``stacklevel`` at which whoever calls this finds code of their own."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_CALLERS:
        frame = frame.f_back
        level += 1
    return level


def _share(optimizer: Optimizer, owners: list[LRBuffer]) -> list[LRBuffer] | None:
    """The buffers of another optimizer that has these very tensors as its learning rates, group for group.

    So it is for a wrapper that shows the wrapped optimizer's groups, a shallow copy, or two optimizers that were
    given one LR tensor.
    """
    shared = list({id(owner): owner for owner in owners}.values())
    lrs = [group["lr"] for group in _entries(optimizer)]
    _C.note_reason("only some of its learning rates are tensors of another optimizer; give each optimizer its own")
    if sum(len(buffer.indices) for buffer in shared) != len(lrs):
        return None
    if any(
        index >= len(lrs) or lrs[index] is not tensor
        for buffer in shared
        for index, tensor in zip(buffer.indices, buffer.tensors, strict=True)
    ):
        return None
    for buffer in _buffers.get(id(optimizer), []):
        if not any(buffer is other for other in shared):
            buffer.layout = None
    _remember(optimizer, shared)
    return shared


@torch.inference_mode(False)
@_exclusively
def allocate(
    optimizer: Optimizer, placement: Iterable[tuple[torch.device, torch.dtype]], shape: torch.Size
) -> list[LRBuffer]:
    """Give every group's learning rate, a number or a supported tensor, a slot on the device asked for.

    Args:
        optimizer: its groups' ``"lr"`` entries are replaced, or repointed where the tensor can stay.
        placement: device and dtype of each group's learning rate, in order.
        shape: of the tensors.
    """
    scheduled = _scheduled.get(id(optimizer))
    kept: list[tuple[torch.device, torch.dtype]] = []
    if scheduled is not None:
        scheduled.lrs = True
        kept = [(entry["lr"].device, entry["lr"].dtype) for entry in _entries(optimizer)[len(optimizer.param_groups) :]]
    return _allocate(optimizer, [*placement, *kept], shape)


def _allocate(
    optimizer: Optimizer,
    placement: Iterable[tuple[torch.device, torch.dtype]],
    shape: torch.Size | None = None,
    others: Iterable[LRBuffer] = (),
) -> list[LRBuffer]:
    """The same for all entries that are scheduled.

    Args:
        optimizer: as above.
        placement: device and dtype of each, in order.
        shape: of the tensors; the one that each has by default, or had where a new one takes its place.
        others: buffers of another optimizer, without a layout, that have some of these tensors.
    """
    before = _buffers.get(id(optimizer), [])
    for buffer in before:  # first, so that no step goes by between reading the learning rates and moving them
        buffer.layout = None
    groups = _entries(optimizer)
    buffers = _planned(groups, placement, [*others, *before])
    _remember(optimizer, [*before, *buffers])
    for buffer in buffers:
        _owners[buffer.lrs.untyped_storage().data_ptr()] = buffer
        buffer.place(groups, shape)
    for buffer in buffers:
        buffer.layout = object()
    _buffers[id(optimizer)] = buffers
    return buffers


def _planned(
    groups: list[dict[str, Any]], placement: Iterable[tuple[torch.device, torch.dtype]], before: list[LRBuffer]
) -> list[LRBuffer]:
    """Buffers without a layout, with the values that the groups' learning rates have; nothing else is changed."""
    masters_before: dict[int, Tensor] = {}
    resumed_before: dict[int, Tensor] = {}
    for buffer in before:
        masters_before |= {id(tensor): buffer.masters[slot] for slot, tensor in enumerate(buffer.tensors)}
        if buffer._resumed is not None:
            resumed_before |= {index: buffer._resumed[slot] for slot, index in enumerate(buffer.indices)}
    by_place: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, place in enumerate(placement):
        by_place.setdefault(place, []).append(index)
    buffers: list[LRBuffer] = []
    taken: set[int] = set()
    for (device, dtype), indices in by_place.items():
        lrs = [groups[index]["lr"] for index in indices]
        tensors: list[Tensor] = []
        common = place_of_all(lrs)
        if common == (device, dtype) and len(taken.union(map(id, lrs))) == len(taken) + len(lrs):
            tensors += lrs  # each is one group's own
            taken.update(map(id, lrs))
        for lr in lrs[len(tensors) :]:
            # Groups that share one tensor part here: the first keeps it, the others get their own.
            kept = isinstance(lr, Tensor) and id(lr) not in taken and (lr.device, lr.dtype) == (device, dtype)
            own_shape = lr.shape if isinstance(lr, Tensor) else ()
            tensors.append(lr if kept else torch.empty(own_shape, dtype=dtype, device=device))
            taken.add(id(tensors[-1]))
        masters = _stacked(lrs, masters_before, device, common)
        buffer = LRBuffer(indices, masters.to(dtype, copy=True), masters, tensors)
        buffer.layout = None
        if resumed_before:
            unknown = masters.new_tensor(nan)
            resumed = [resumed_before.get(index, unknown).to(device, non_blocking=True) for index in indices]
            buffer._resumed = torch.stack(resumed)
        buffers.append(buffer)
    return buffers


def _stacked(lrs: list[Any], masters_before: dict[int, Tensor], device: torch.device, place: object) -> Tensor:
    """The learning rates in float64, of this :func:`place_of_all`; what is a master already keeps its precision."""
    if not any(isinstance(lr, Tensor) for lr in lrs):
        return torch.tensor([float(lr) for lr in lrs], dtype=torch.float64, device="cpu").to(device, non_blocking=True)
    if place is not None and masters_before.keys().isdisjoint(map(id, lrs)):
        # One operator for all, not some for each.
        return stack_scalars(lrs).to(device, torch.float64, non_blocking=True)
    masters = []
    for lr in lrs:
        if isinstance(lr, Tensor):
            master = lr.detach().reshape(()).double()
            if id(lr) in masters_before:  # as the engines do: the master counts unless the LR was written to
                before = masters_before[id(lr)]
                master = torch.where(before.to(lr.dtype) == master, before, master)
        else:
            master = torch.tensor(float(lr), dtype=torch.float64, device="cpu")
        masters.append(master.to(device, non_blocking=True))
    return torch.stack(masters)


@torch.no_grad()  # views are cheaper then
def lay_in(storage: Tensor, tensors: list[Tensor], shape: torch.Size | None = None) -> None:
    """Make each of the tensors a view of its element of ``storage``: in the shape that it has, or in this one."""
    scalars = not any(map(Tensor.dim, tensors)) if shape is None else shape == ()
    for element, tensor in zip(storage.unbind(), tensors, strict=True):
        tensor.data = element if scalars else element.view(tensor.shape if shape is None else shape)


@torch.no_grad()
def stack_scalars(tensors: list[Tensor]) -> Tensor:
    """Tensors of one element each, of one device and dtype, side by side."""
    if any(map(Tensor.dim, tensors)):
        tensors = [tensor.reshape(()) for tensor in tensors]
    return torch.stack(tensors)


_place: Callable[[Tensor], tuple[torch.device, torch.dtype]] = attrgetter("device", "dtype")


@untraced("it looks at Python objects")
def place_of_all(lrs: list[Any]) -> tuple[torch.device, torch.dtype] | None:
    """The device and dtype of plain tensors that agree in it."""
    places = set(map(_place, lrs)) if _C.types_of(lrs) == {Tensor} else ()
    return next(iter(places)) if len(places) == 1 else None


def _remember(optimizer: Optimizer, buffers: list[LRBuffer]) -> None:
    if id(optimizer) not in _buffers:
        weakref.finalize(optimizer, _forget, id(optimizer))
        _follow_loading(optimizer)
    _buffers[id(optimizer)] = buffers
    if has_tensors(optimizer):
        _released.discard(id(optimizer))


def _forget(optimizer: int) -> None:
    _buffers.pop(optimizer, None)
    _scheduled.pop(optimizer, None)
    _released.discard(optimizer)


@torch.inference_mode(False)
def duplicate(optimizer: Optimizer, twin: Optimizer, memo: dict[int, Any]) -> None:
    """Let ``twin``, which is to have a copy of the optimizer's groups, go on from its float64 learning rates.

    Args:
        optimizer: it, its learning rates and its buffers stay as they are.
        twin: its groups are copied afterwards, by ``copy.deepcopy`` with this memo, and find their tensors there.
        memo: holds the copies of the buffers as well, which optimizers may share.

    On the host; waits for the device where the learning rates are.
    """
    known = _buffers.get(id(optimizer), [])
    if id(optimizer) in _scheduled:
        _scheduled[id(twin)] = copy.copy(_scheduled[id(optimizer)])
    lrs = [group.get("lr") for group in optimizer.param_groups]
    owners = _owners_of([lr for lr in lrs if is_supported(lr)])
    for buffer in (*known, *owners):
        if id(buffer) not in memo:
            memo[id(buffer)] = buffer.duplicate(memo)
    if known:
        _remember(twin, [memo[id(buffer)] for buffer in known])


def _follow_loading(optimizer: Optimizer) -> None:
    """Bind again after each load: a checkpoint replaces the LR tensors, and a captured graph must see its values."""
    loading: Any = optimizer
    while not hasattr(loading, "_optimizer_load_state_dict_post_hooks"):
        loading = getattr(loading, "optimizer", None)  # of a wrapper without Optimizer.__init__, accelerate's for one
        if loading is None:
            return  # the next step finds them
    reference = weakref.ref(optimizer)  # a wrapper need not live as long as what it wraps

    def follow(_: Optimizer) -> None:
        bound = reference()
        if bound is not None and _buffers.get(id(bound)):
            _bind_loaded(bound)

    loading.register_load_state_dict_post_hook(follow)


@torch.inference_mode(False)
@_exclusively
def _bind_loaded(optimizer: Optimizer) -> None:
    _bind(optimizer)


def _is_number(lr: object) -> TypeGuard[float]:
    return isinstance(lr, (int, float)) and not isinstance(lr, bool)


def is_supported(lr: object) -> TypeGuard[Tensor]:
    """Whether this is a tensor that operators can update in place, as one element of many."""
    return (
        type(lr) is Tensor
        and lr.numel() == 1
        and lr.dtype in LR_DTYPES
        and (lr.is_cpu or lr.is_cuda)
        and lr.layout is torch.strided
        and not lr.requires_grad
        and not lr.is_inference()
    )


_kind: Callable[[Tensor], object] = attrgetter("device", "dtype", "layout", "requires_grad", "nbytes")


@untraced("it looks at Python objects")
def place_of_supported(lrs: list[Any]) -> tuple[torch.device, torch.dtype] | None:
    """The device and dtype of tensors that agree in it, and are all supported: many are looked at in few calls."""
    alike = _C.types_of(lrs) == {Tensor} and len(set(map(_kind, lrs))) == 1
    return _place(lrs[0]) if alike and is_supported(lrs[0]) and not any(map(Tensor.is_inference, lrs)) else None


def _note_unsupported(lr: object) -> None:
    """Say why :func:`is_supported` refuses it."""
    if not isinstance(lr, Tensor):
        problem = f"is of type {type(lr).__name__} while others are tensors; use_tensor_lr(optimizer) makes all tensors"
    elif type(lr) is not Tensor:
        problem = f"is a {type(lr).__name__}; make it a plain tensor"
    elif lr.dtype not in LR_DTYPES:
        problem = f"has dtype {lr.dtype}; make it float32 or float64"
    elif lr.requires_grad:
        problem = "requires a gradient; detach it"
    elif lr.is_inference():
        problem = "was made in inference mode; clone it outside"
    elif lr.numel() != 1:
        problem = f"has {lr.numel()} elements; make it one"
    else:
        problem = f"is {lr.layout} on {lr.device}; make it a dense tensor on the CPU or a CUDA device"
    _C.note_reason(f"a param group's lr {problem}")
