"""Tensor learning rates of one optimizer, laid side by side so that one operator call updates them all.

Each group's ``"lr"`` becomes a view of one element. The buffers belong to the optimizer, not to a scheduler:
several schedulers on one optimizer share them, float64 masters included, and so lose no precision to each other.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, TypeGuard
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from . import ops

LR_DTYPES = (torch.float32, torch.float64)


class LRBuffer:
    """The learning rates of the groups that agree in device and dtype.

    Attributes:
        device, on_host: where they are.
        indices: position of each slot's group in ``optimizer.param_groups``.
        lrs: what the optimizer reads, shape ``(len(indices),)``.
        masters: the same in float64; ``lrs`` is this, rounded, unless somebody wrote to an LR.
        tensors: the object in each group's ``"lr"``, a view of one element of ``lrs``.
        layout: replaced by another object when a slot gets another tensor; None once other buffers took over.
        reported_to: memory whose address some state has; kept for as long as a captured graph may write to it.
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
        "reported_to",
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
        self.reported_to: list[Tensor] = []
        self._resumed: Tensor | None = None
        for place, tensor in zip(lrs.unbind(), tensors, strict=True):
            tensor.data = place if tensor.dim() == 0 else place.view(tensor.shape)

    def point(self, slot: int, tensor: Tensor) -> None:
        """Make ``tensor`` the object of this slot, keeping its shape."""
        tensor.data = self.lrs[slot].view(tensor.shape)
        self.tensors[slot] = tensor
        self.layout = self.layout and object()

    def follow(self) -> None:
        """Go on from the LRs that somebody wrote to, as each step does (``follow`` in csrc/schedule/step.h)."""
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

    def duplicate(self, memo: dict[int, Any]) -> LRBuffer:
        """The same on the host, with tensors of its own, which are put into a ``copy.deepcopy``'s memo."""
        tensors = [torch.empty(tensor.shape, dtype=self.lrs.dtype, device="cpu") for tensor in self.tensors]
        lrs, masters = self.lrs.to("cpu", copy=True), self.masters.to("cpu", copy=True)
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
# By the address of the storage of lrs: whose the views are that are met in some group.
_owners: WeakValueDictionary[int, LRBuffer] = WeakValueDictionary()


def is_bound(optimizer: Optimizer) -> bool:
    """Whether the optimizer's learning rates were made tensors side by side before."""
    return id(optimizer) in _buffers


@torch.inference_mode(False)
def bind(optimizer: Optimizer) -> list[LRBuffer] | None:
    """The buffers behind every group's learning rate, following whatever was done to the groups meanwhile.

    A learning rate that was replaced, by a tensor or by a number, or moved between groups, is copied into the
    storage that is there, so that a captured graph goes on reading the right place. Added or removed groups need
    new storage. Never waits for a device.

    Returns:
        None, with nothing changed, where some learning rate is neither a plain float32 or float64 tensor on
        the CPU or a CUDA device nor a number in an optimizer that had tensors before; where there are no groups;
        or where some, but not all, learning rates are another optimizer's.

    Raises:
        RuntimeError: a learning rate is on a CUDA device and fastsched has no CUDA operators.
    """
    known = _buffers.get(id(optimizer), [])
    groups = optimizer.param_groups
    if not groups:
        return None
    if sum(len(buffer.indices) for buffer in known) != len(groups) or any(buffer.layout is None for buffer in known):
        return _bind_anew(optimizer, known)
    replaced = [
        _Replacement(buffer, slot, groups[index])
        for buffer in known
        for slot, index in enumerate(buffer.indices)
        if groups[index].get("lr") is not buffer.tensors[slot]
    ]
    if not all(_is_number(entry.lr) or is_supported(entry.lr) for entry in replaced):
        return None
    if replaced:
        _adopt(known, replaced)
    return known


class _Replacement:
    """A learning rate that somebody put into a group in place of our tensor, its value read before any write."""

    __slots__ = ("buffer", "group", "lr", "master", "slot", "value")

    def __init__(self, buffer: LRBuffer, slot: int, group: dict[str, Any]):
        self.buffer = buffer
        self.slot = slot
        self.group = group
        self.lr = group.get("lr")
        self.master: Tensor | float | None = None
        self.value: Tensor | float = 0.0


def _adopt(known: list[LRBuffer], replaced: list[_Replacement]) -> None:
    places = {id(tensor): (buffer, slot) for buffer in known for slot, tensor in enumerate(buffer.tensors)}
    for entry in replaced:
        if isinstance(entry.lr, Tensor):
            entry.value = entry.lr.reshape(()).clone()
            if id(entry.lr) in places:  # it moved here from another group, and its master with it
                buffer, slot = places[id(entry.lr)]
                entry.master = buffer.masters[slot].clone()
        elif _is_number(entry.lr):
            entry.value = entry.master = entry.lr  # exact, where the LR's own dtype rounds
    moved = {(entry.buffer, entry.slot) for entry in replaced}
    taken = {tensor for tensor, place in places.items() if place not in moved}
    for entry in replaced:
        buffer, slot = entry.buffer, entry.slot
        _write(buffer.lrs, slot, entry.value)
        if entry.master is not None:
            _write(buffer.masters, slot, entry.master)
        # The object that was put there stays, unless it is of another kind, another optimizer's, or also
        # another group's: then the group has its own back.
        tensor: Tensor | None = None
        for candidate in (entry.lr, buffer.tensors[slot]):
            if isinstance(candidate, Tensor) and id(candidate) not in taken and _fits(candidate, buffer, known):
                tensor = candidate
                break
        if tensor is None:
            tensor = torch.empty((), dtype=buffer.lrs.dtype, device=buffer.device)
        taken.add(id(tensor))
        buffer.point(slot, tensor)
        entry.group["lr"] = tensor
    for buffer in known:
        buffer.recall()


@torch.inference_mode(False)
def write(optimizer: Optimizer, lrs: list[Tensor | float]) -> bool:
    """Set every group's learning rate, its master included, which an in-place write to the LR may leave as it was.

    False, with nothing changed, where :func:`bind` finds no buffers.
    """
    buffers = bind(optimizer)
    for buffer in buffers or []:
        for slot, index in enumerate(buffer.indices):
            _write(buffer.lrs, slot, lrs[index])
            _write(buffer.masters, slot, lrs[index])
    return buffers is not None


def _write(buffer: Tensor, slot: int, value: Tensor | float) -> None:
    if isinstance(value, Tensor):
        buffer[slot].copy_(value, non_blocking=True)
    else:
        buffer[slot] = value


def _fits(tensor: Tensor, buffer: LRBuffer, known: list[LRBuffer]) -> bool:
    owner = _owner(tensor)
    same_kind = (tensor.device, tensor.dtype) == (buffer.device, buffer.lrs.dtype)
    return same_kind and (owner is None or any(owner is own for own in known))


def _owner(tensor: Tensor) -> LRBuffer | None:
    return _owners.get(tensor.untyped_storage().data_ptr())


def _bind_anew(optimizer: Optimizer, known: list[LRBuffer]) -> list[LRBuffer] | None:
    placement: list[tuple[torch.device, torch.dtype]] = []
    owners: list[LRBuffer | None] = []
    for group in optimizer.param_groups:
        lr = group.get("lr")
        if is_supported(lr):
            placement.append((lr.device, lr.dtype))
            owners.append(_owner(lr))
        elif known and _is_number(lr):
            placement.append((known[0].device, known[0].lrs.dtype))
            owners.append(None)
        else:
            return None
    for device, _ in placement:
        ops.require(device)
    foreign = [owner for owner in owners if owner is not None and not any(owner is own for own in known)]
    if foreign:
        return _share(optimizer, foreign)
    return allocate(optimizer, placement)


def _share(optimizer: Optimizer, owners: list[LRBuffer]) -> list[LRBuffer] | None:
    """The buffers of another optimizer that has these very tensors as its learning rates, group for group.

    So it is for a wrapper that shows the wrapped optimizer's groups, a shallow copy, or two optimizers that were
    given one LR tensor.
    """
    shared = list({id(owner): owner for owner in owners}.values())
    lrs = [group["lr"] for group in optimizer.param_groups]
    if sum(len(buffer.indices) for buffer in shared) != len(lrs):
        return None
    if any(
        index >= len(lrs) or lrs[index] is not tensor
        for buffer in shared
        for index, tensor in zip(buffer.indices, buffer.tensors, strict=True)
    ):
        return None
    _remember(optimizer, shared)
    return shared


@torch.inference_mode(False)
def allocate(optimizer: Optimizer, placement: Iterable[tuple[torch.device, torch.dtype]]) -> list[LRBuffer]:
    """Give every group's learning rate, a number or a supported tensor, a slot on the device asked for.

    Args:
        optimizer: its groups' ``"lr"`` entries are replaced, or repointed where the tensor can stay.
        placement: device and dtype of each group's learning rate, in order.
    """
    masters_before = {
        id(tensor): buffer.masters[slot]
        for buffer in _buffers.get(id(optimizer), [])
        for slot, tensor in enumerate(buffer.tensors)
    }
    by_place: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, place in enumerate(placement):
        by_place.setdefault(place, []).append(index)

    buffers: list[LRBuffer] = []
    taken: set[int] = set()
    for (device, dtype), indices in by_place.items():
        lrs = [optimizer.param_groups[index]["lr"] for index in indices]
        tensors: list[Tensor] = []
        for lr in lrs:
            # Groups that share one tensor part here: the first keeps it, the others get their own.
            kept = isinstance(lr, Tensor) and id(lr) not in taken and (lr.device, lr.dtype) == (device, dtype)
            shape = lr.shape if isinstance(lr, Tensor) else ()
            tensors.append(lr if kept else torch.empty(shape, dtype=dtype, device=device))
            taken.add(id(tensors[-1]))
        masters = _stacked(lrs, masters_before, device)
        buffers.append(LRBuffer(indices, masters.to(dtype, copy=True), masters, tensors))
    for buffer in buffers:
        _owners[buffer.lrs.untyped_storage().data_ptr()] = buffer
        for index, tensor in zip(buffer.indices, buffer.tensors, strict=True):
            optimizer.param_groups[index]["lr"] = tensor
    _remember(optimizer, buffers)
    return buffers


def _stacked(lrs: list[Any], masters_before: dict[int, Tensor], device: torch.device) -> Tensor:
    """The learning rates in float64; what is a master already keeps its precision."""
    if not any(isinstance(lr, Tensor) for lr in lrs):
        return torch.tensor([float(lr) for lr in lrs], dtype=torch.float64, device="cpu").to(device, non_blocking=True)
    places = {(lr.device, lr.dtype) if isinstance(lr, Tensor) and id(lr) not in masters_before else None for lr in lrs}
    if len(places) == 1 and None not in places:  # one operator for all, not some for each
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


def stack_scalars(tensors: list[Tensor]) -> Tensor:
    """Tensors of one element each, of one device and dtype, side by side."""
    return torch.stack([tensor.detach() if tensor.dim() == 0 else tensor.detach().reshape(()) for tensor in tensors])


def _remember(optimizer: Optimizer, buffers: list[LRBuffer]) -> None:
    if not is_bound(optimizer):
        weakref.finalize(optimizer, _buffers.pop, id(optimizer), None)
        _follow_loading(optimizer)
    for buffer in _buffers.get(id(optimizer), []):
        if not any(buffer is other for other in buffers):
            buffer.layout = None
    _buffers[id(optimizer)] = buffers


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
    lrs = [group.get("lr") for group in optimizer.param_groups]
    owners = [owner for lr in lrs if is_supported(lr) and (owner := _owner(lr)) is not None]
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
        if bound is not None:
            bind(bound)

    loading.register_load_state_dict_post_hook(follow)


def _is_number(lr: object) -> TypeGuard[float]:
    return isinstance(lr, (int, float)) and not isinstance(lr, bool)


def is_supported(lr: object) -> TypeGuard[Tensor]:
    """Whether this is a tensor that operators can update in place, as one element of many."""
    return (
        type(lr) is Tensor
        and lr.numel() == 1
        and lr.dtype in LR_DTYPES
        and lr.device.type in ("cpu", "cuda")
        and lr.layout is torch.strided
        and not lr.requires_grad
        and not lr.is_inference()
    )
