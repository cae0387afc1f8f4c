"""The one line that moves a training run's learning rates to the device, and the one that takes them back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Adam, Optimizer

from . import lr_buffer, ops
from .capture import refuse_capture


def use_tensor_lr(
    optimizer: Optimizer,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Optimizer:
    """Turn every param group's ``"lr"`` into a 0-dim tensor, in place, so that schedulers can step on the device.

    Schedulers that already exist notice at their next step. A learning rate that is a tensor of this device and
    dtype already keeps its Python object, and becomes 0-dim. Calling it again moves the learning rates; a CUDA graph
    captured before must not be replayed after that, and a compiled step is compiled again.
    :func:`use_float_lr` takes it back.

    Args:
        optimizer: each learning rate must be a number or a tensor with one element.
        device: where the learning rates live; the device of each group's first parameter by default.
        dtype: ``torch.float32`` or ``torch.float64``. Schedules are computed in float64 either way.

    Returns:
        The optimizer.

    Raises:
        TypeError: ``optimizer`` is not an Optimizer, or a learning rate is not a number.
        ValueError: the dtype is another one, a learning rate has several elements, or the optimizer, or one that it
            wraps, cannot take a tensor learning rate; the message says why, and what to set.
        RuntimeError: the device is CUDA and fastsched has no CUDA operators; or inside CUDA graph capture.

    Nothing is changed where it raises. Interrupted, by a Ctrl-C for instance, it leaves each group with the learning
    rate that it had, some as tensors already; the next call, or the next step of a scheduler, does the rest. Does not
    wait for a device.

    On CUDA an eager ``optimizer.step()`` itself reads a tensor learning rate back, unless the optimizer was made
    with ``fused=True`` or ``capturable=True``; a warning says so when learning rates move there. On the CPU there is
    nothing to wait for.

    Example::

        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        fastsched.use_tensor_lr(optimizer)
        scheduler = fastsched.ReduceLROnPlateau(optimizer)
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    if dtype not in lr_buffer.LR_DTYPES:
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    placement = []
    reads_back = False
    for index, group in enumerate(optimizer.param_groups):
        lr = group.get("lr")
        _check_lr(index, lr)
        for wrapped in _with_wrapped(optimizer):
            _check_optimizer(wrapped, index, group)
        place = lr_buffer.device_of(group) if device is None else _indexed(torch.device(device))
        if place.type not in ("cpu", "cuda"):
            raise ValueError(f"device must be a CPU or CUDA device, got {place}; pass device='cpu'")
        ops.require(place)
        placement.append((place, dtype))
        moves = not (isinstance(lr, Tensor) and lr.device == place)
        reads_back |= moves and place.type == "cuda" and not (group.get("fused") or group.get("capturable"))
    refuse_capture("call use_tensor_lr before the capture")
    lr_buffer.allocate(optimizer, placement, torch.Size())
    lr_buffer.warn_of_devices(optimizer)
    if reads_back:
        *_, innermost = _with_wrapped(optimizer)
        warnings.warn(
            f"{type(innermost).__name__} reads its learning rate back from the GPU at every step; make it with "
            "fused=True or capturable=True to train without waiting for the device",
            UserWarning,
            stacklevel=2,
        )
    return optimizer


def use_float_lr(optimizer: Optimizer) -> Optimizer:
    """Turn every param group's ``"lr"`` that is a tensor back into a Python float: undo :func:`use_tensor_lr`.

    The floats are the float64 numbers behind the tensors, so fastsched's schedulers go on with exactly the learning
    rates that they would have with Python numbers from the beginning. Initial learning rates become floats as well.
    torch's own schedulers turn learning rates into tensors again if they were made while those were tensors.

    Args:
        optimizer: any; one whose learning rates are numbers stays as it is.

    Returns:
        The optimizer.

    Raises:
        TypeError: ``optimizer`` is not an Optimizer, or a learning rate is not a number.
        ValueError: a learning rate has several elements.
        RuntimeError: inside CUDA graph capture.

    Nothing is changed where it raises. Reads each device with learning rates once, which waits for it. CUDA graphs
    captured before must not be replayed after that: they would go on with learning rates of their own.

    Example::

        fastsched.use_float_lr(optimizer)  # optimizer.param_groups[0]["lr"] is a float again
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    for index, group in enumerate(optimizer.param_groups):
        _check_lr(index, group.get("lr"))
    refuse_capture("call use_float_lr before the capture")
    lr_buffer.release(optimizer)
    return optimizer


def _check_lr(index: int, lr: object) -> None:
    if hasattr(type(lr), "full_tensor"):
        raise TypeError(
            f"param_groups[{index}]['lr'] is a DTensor, which belongs to many ranks; set it to lr.full_tensor(), a "
            "plain tensor on each: that is right for parameters that are DTensors, too"
        )
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError(f"param_groups[{index}]['lr'] must have one element, got shape {tuple(lr.shape)}")
        if lr.requires_grad:
            raise ValueError(f"param_groups[{index}]['lr'] requires grad; detach it first")
    elif not isinstance(lr, (int, float)):
        raise TypeError(f"param_groups[{index}]['lr'] must be a number or a tensor, got {type(lr).__name__}")


def _with_wrapped(optimizer: Optimizer) -> Iterator[Optimizer]:
    """The optimizer and then those that it wraps, by the names that wrappers have for them."""
    seen: list[Any] = []
    wrapped: Any = optimizer
    while isinstance(wrapped, Optimizer) and not any(wrapped is other for other in seen):
        seen.append(wrapped)
        yield wrapped
        wrapped = getattr(wrapped, "optimizer", None) or getattr(wrapped, "optim", None)


def _check_optimizer(optimizer: Optimizer, index: int, group: dict[str, Any]) -> None:
    name = type(optimizer).__name__
    if isinstance(optimizer, LBFGS):
        raise ValueError(
            f"{name} cannot take a tensor learning rate that changes in place: it keeps the tensor as its last step "
            "size, which would change with it; leave its learning rate a Python number"
        )
    # Adam and AdamW refuse a tensor LR on their foreach path; every other optimizer of torch takes one.
    if isinstance(optimizer, Adam) and group.get("foreach") and not (group.get("capturable") or group.get("fused")):
        raise ValueError(
            f"{name} cannot take a tensor learning rate with foreach=True (param_groups[{index}]); "
            "make it with fused=True or capturable=True, or leave foreach unset"
        )


def _indexed(device: torch.device) -> torch.device:
    """``cuda`` as the current CUDA device, the way a tensor on it names its device."""
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return device
