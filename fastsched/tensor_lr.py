"""The one line that moves a training run's learning rates to the device."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from . import lr_buffer, ops


def use_tensor_lr(
    optimizer: Optimizer,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Optimizer:
    """Turn every param group's ``"lr"`` into a 0-dim tensor, in place, so that schedulers can step on the device.

    Schedulers that already exist notice at their next step. A learning rate that is a tensor of this device and
    dtype already keeps its Python object. Calling it again moves the learning rates; a CUDA graph captured
    before must not be replayed after that, and a compiled step is compiled again.

    Args:
        optimizer: each learning rate must be a number or a tensor with one element.
        device: where the learning rates live; the device of each group's first parameter by default.
        dtype: ``torch.float32`` or ``torch.float64``. Schedules are computed in float64 either way.

    Returns:
        The optimizer.

    Raises:
        TypeError: ``optimizer`` is not an Optimizer, or a learning rate is no number.
        ValueError: the dtype is another one, a learning rate has several elements, or the optimizer cannot take
            a tensor learning rate; the message says what to set.
        RuntimeError: the device is CUDA and fastsched has no CUDA operators.

    Nothing is changed where it raises. Does not wait for a device; must not be called inside graph capture.

    On CUDA an eager ``optimizer.step()`` itself reads a tensor learning rate back, unless the optimizer was made
    with ``fused=True`` or ``capturable=True``; a warning says so.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    if dtype not in lr_buffer.LR_DTYPES:
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    placement = []
    reads_back = False
    for index, group in enumerate(optimizer.param_groups):
        _check_lr(index, group.get("lr"))
        _check_optimizer(optimizer, index, group)
        place = _device_of(group) if device is None else _indexed(torch.device(device))
        if place.type not in ("cpu", "cuda"):
            raise ValueError(f"device must be a CPU or CUDA device, got {place}; pass device='cpu'")
        ops.require(place)
        placement.append((place, dtype))
        reads_back |= place.type == "cuda" and not (group.get("fused") or group.get("capturable"))
    lr_buffer.allocate(optimizer, placement)
    if reads_back:
        warnings.warn(
            f"{type(optimizer).__name__} reads its learning rate back from the GPU at every step; make it with "
            "fused=True or capturable=True to train without waiting for the device",
            UserWarning,
            stacklevel=2,
        )
    return optimizer


def _check_lr(index: int, lr: object) -> None:
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError(f"param_groups[{index}]['lr'] must have one element, got shape {tuple(lr.shape)}")
        if lr.requires_grad:
            raise ValueError(f"param_groups[{index}]['lr'] requires grad; detach it first")
    elif not isinstance(lr, (int, float)):
        raise TypeError(f"param_groups[{index}]['lr'] must be a number or a tensor, got {type(lr).__name__}")


def _check_optimizer(optimizer: Optimizer, index: int, group: dict[str, object]) -> None:
    # Adam and AdamW refuse a tensor LR on their foreach path; every other optimizer of torch takes one.
    if isinstance(optimizer, Adam) and group.get("foreach") and not (group.get("capturable") or group.get("fused")):
        raise ValueError(
            f"{type(optimizer).__name__} cannot take a tensor learning rate with foreach=True (param_groups[{index}]); "
            "make it with fused=True or capturable=True, or leave foreach unset"
        )


def _device_of(group: dict[str, list[Tensor]]) -> torch.device:
    return group["params"][0].device if group["params"] else torch.device("cpu")


def _indexed(device: torch.device) -> torch.device:
    """``cuda`` as the current CUDA device, the way a tensor on it names its device."""
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return device
