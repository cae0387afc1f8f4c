"""Tensor learning rates of one optimizer, laid side by side so that one operator call updates them all.

Each group's ``"lr"`` becomes a view of one element. The buffers belong to the optimizer, not to a scheduler:
several schedulers on one optimizer share them, float64 masters included, and so lose no precision to each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from . import ops

LR_DTYPES = (torch.float32, torch.float64)


class LRBuffer:
    """The learning rates of the groups that agree in device and dtype.

    Attributes:
        device: where they are.
        indices: position of each slot's group in ``optimizer.param_groups``.
        lrs: what the optimizer reads, shape ``(len(indices),)``.
        masters: the same in float64; ``lrs`` is this, rounded, unless somebody wrote to an LR.
        tensors: the object in each group's ``"lr"``, a view of one element of ``lrs``.
    """

    __slots__ = ("device", "indices", "lrs", "masters", "tensors")

    def __init__(self, indices: list[int], lrs: Tensor, masters: Tensor, tensors: list[Tensor]):
        self.device = lrs.device
        self.indices = indices
        self.lrs = lrs
        self.masters = masters
        self.tensors = tensors
        for slot, tensor in enumerate(tensors):
            self._point(slot, tensor)

    def _point(self, slot: int, tensor: Tensor) -> None:
        tensor.data = self.lrs[slot].view(tensor.shape)
        self.tensors[slot] = tensor

    def adopt(self, slot: int, lr: float | Tensor) -> None:
        """Take over the learning rate that somebody put into a group instead of our tensor.

        The storage stays, so that a captured graph goes on reading the right place.
        """
        if not isinstance(lr, Tensor):
            self.masters[slot] = lr  # exact, where the LR's own dtype rounds
            self.lrs[slot] = lr
            return
        self.lrs[slot].copy_(lr.reshape(()), non_blocking=True)
        same_kind = (lr.device, lr.dtype) == (self.lrs.device, self.lrs.dtype)
        shared = lr.untyped_storage().data_ptr() == self.lrs.untyped_storage().data_ptr()
        if same_kind and not shared:
            self._point(slot, lr)


_buffers: WeakKeyDictionary[Optimizer, list[LRBuffer]] = WeakKeyDictionary()


def is_bound(optimizer: Optimizer) -> bool:
    """Whether the optimizer's learning rates were made tensors side by side before."""
    return optimizer in _buffers


def bind(optimizer: Optimizer) -> list[LRBuffer] | None:
    """The buffers behind every group's learning rate, following whatever was done to the groups meanwhile.

    A learning rate that was replaced, by a tensor or by a number, is copied into the same storage. Added or
    removed groups need new storage. Never waits for a device.

    Returns:
        None, with nothing changed, where some learning rate is neither a plain float32 or float64 tensor on
        the CPU or a CUDA device nor a number in a group that had such a tensor before.

    Raises:
        RuntimeError: a learning rate is on a CUDA device and fastsched has no CUDA operators.
    """
    known = _buffers.get(optimizer, [])
    groups = optimizer.param_groups
    if sum(len(buffer.indices) for buffer in known) != len(groups):
        return _allocate(optimizer, known)
    replaced = [
        (buffer, slot, groups[index])
        for buffer in known
        for slot, index in enumerate(buffer.indices)
        if groups[index].get("lr") is not buffer.tensors[slot]
    ]
    if not all(_is_number(group.get("lr")) or _is_supported(group.get("lr")) for _, _, group in replaced):
        return None
    for buffer, slot, group in replaced:
        buffer.adopt(slot, group["lr"])
        group["lr"] = buffer.tensors[slot]
    return known


def allocate(optimizer: Optimizer, placement: Iterable[tuple[torch.device, torch.dtype]]) -> list[LRBuffer]:
    """Give every group's learning rate, a number or a supported tensor, a slot on the device asked for.

    Args:
        optimizer: its groups' ``"lr"`` entries are replaced, or repointed where the tensor can stay.
        placement: device and dtype of each group's learning rate, in order.
    """
    masters_before = {
        id(tensor): buffer.masters[slot]
        for buffer in _buffers.get(optimizer, [])
        for slot, tensor in enumerate(buffer.tensors)
    }
    by_place: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, place in enumerate(placement):
        by_place.setdefault(place, []).append(index)

    buffers: list[LRBuffer] = []
    taken: set[int] = set()
    for (device, dtype), indices in by_place.items():
        masters: list[Tensor] = []
        tensors: list[Tensor] = []
        for index in indices:
            lr = optimizer.param_groups[index]["lr"]
            if isinstance(lr, Tensor):
                master = lr.detach().reshape(()).double()
                if id(lr) in masters_before:  # as the engines do: the master counts unless the LR was written to
                    before = masters_before[id(lr)]
                    master = torch.where(before.to(lr.dtype) == master, before, master)
                shape = lr.shape
            else:
                master = torch.tensor(float(lr), dtype=torch.float64)
                shape = torch.Size()
            # Groups that share one tensor part here: the first keeps it, the others get their own.
            kept = isinstance(lr, Tensor) and id(lr) not in taken and (lr.device, lr.dtype) == (device, dtype)
            tensors.append(lr if kept else torch.empty(shape, dtype=dtype, device=device))
            taken.add(id(tensors[-1]))
            masters.append(master.to(device, non_blocking=True))
        stacked = torch.stack(masters)
        buffers.append(LRBuffer(indices, stacked.to(dtype, copy=True), stacked, tensors))
    for buffer in buffers:
        for index, tensor in zip(buffer.indices, buffer.tensors, strict=True):
            optimizer.param_groups[index]["lr"] = tensor
    if optimizer not in _buffers:
        # A loaded checkpoint replaces the LR tensors; a captured graph must see the loaded values at once.
        optimizer.register_load_state_dict_post_hook(_follow_loaded)
    _buffers[optimizer] = buffers
    return buffers


def _follow_loaded(optimizer: Optimizer) -> None:
    bind(optimizer)


def _allocate(optimizer: Optimizer, known: list[LRBuffer]) -> list[LRBuffer] | None:
    placement: list[tuple[torch.device, torch.dtype]] = []
    for group in optimizer.param_groups:
        lr = group.get("lr")
        if _is_supported(lr):
            placement.append((lr.device, lr.dtype))
        elif known and _is_number(lr):
            placement.append((known[0].device, known[0].lrs.dtype))
        else:
            return None
    for device, _ in placement:
        ops.require(device)
    return allocate(optimizer, placement)


def _is_number(lr: object) -> TypeGuard[float]:
    return isinstance(lr, (int, float)) and not isinstance(lr, bool)


def _is_supported(lr: object) -> TypeGuard[Tensor]:
    return (
        type(lr) is Tensor
        and lr.numel() == 1
        and lr.dtype in LR_DTYPES
        and lr.device.type in ("cpu", "cuda")
        and lr.layout is torch.strided
        and not lr.requires_grad
    )
