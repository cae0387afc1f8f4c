"""Turning whatever the user calls a metric into what an engine reads."""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor

from .lr_buffer import LRBuffer

# What csrc/schedule/plan/scalar.h decodes; any other real dtype is cast first.
DECODED = frozenset(
    {
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    }
)

_PLAIN: tuple[Any, ...] = (Tensor, torch.nn.Parameter)
_OWN = ("__torch_dispatch__", "__float__")  # what a class overrides that has its own idea of the number

_warned_about_sync = False


def read_from_gpu(metric: Tensor) -> float:
    """``float(metric)``, which waits for the device; says once how to avoid that."""
    global _warned_about_sync
    if not _warned_about_sync:
        _warned_about_sync = True
        warnings.warn(
            "the metric is on the GPU but the learning rates are Python numbers, so every scheduler step waits for "
            "the device; call fastsched.use_tensor_lr(optimizer) to decide on the GPU, or construct a "
            "ReduceLROnPlateau with deferred=True",
            UserWarning,
            stacklevel=4,
        )
    return float(metric)


def as_number(metric: Any) -> float:
    """``float(metric)``, with a word of advice where that waits for a GPU."""
    if not isinstance(metric, Tensor):
        return float(metric)
    metric = completed(metric)
    return read_from_gpu(metric) if metric.is_cuda else float(metric)


def is_complete(metric: Any) -> bool:
    """Whether this is a metric that all ranks have alike: a DTensor, or what a collective is going to give."""
    return hasattr(type(metric), "full_tensor") or hasattr(type(metric), "trigger_wait")


def completed(metric: Tensor) -> Tensor:
    """What a tensor of many ranks is as a whole, on the device where it is: reads nothing, and does not wait for one.

    A DTensor is gathered, and added up where each rank has only a part of the sum (``Partial``): every rank has to come
    here. ``float()`` would give each its own part. What a collective is still to fill in is waited for by the stream.
    """
    # By what they can do: importing their classes takes longer than importing torch.
    if hasattr(type(metric), "full_tensor") and metric.numel() == 1:
        metric = metric.full_tensor()  # type: ignore[attr-defined]
    if hasattr(type(metric), "trigger_wait"):
        metric = metric.wait()  # type: ignore[attr-defined]
    return metric


def as_plain(metric: Any) -> Tensor | float:
    """A metric that an operator can read where it lies, as it is; anything else as ``float(metric)``.

    Only ``float()`` knows the value of a tensor whose class computes it, of a sparse one, or of a number
    that is not a tensor; it raises for anything but a single number. A subclass of ``Tensor`` that computes nothing,
    but carries something along, is one of these tensors.
    """
    if type(metric) not in _PLAIN and isinstance(metric, Tensor):
        metric = completed(metric)
    if type(metric) not in _PLAIN and isinstance(metric, Tensor) and _is_tensors_own(type(metric)):
        with torch._C.DisableTorchFunctionSubclass():  # its class is not asked
            metric = metric.detach()
            if torch.compiler.is_compiling():
                # The graph's input stays what it is, and torch hands no subclass to an operator that is not its own
                # (it raises where it checks for aliases). This copies, and is not left out as a clone would be.
                metric = torch.maximum(metric, metric)
    if type(metric) in _PLAIN and metric.numel() == 1 and metric.layout is torch.strided:
        if metric.dtype in DECODED:
            return cast(Tensor, metric)
        if not metric.is_complex():
            return cast(Tensor, metric.double())
    return float(metric)


def _is_tensors_own(kind: type[Tensor]) -> bool:
    """Whether what is in a tensor of this class is what torch's own would have there."""
    return all(getattr(kind, name) is getattr(Tensor, name) for name in _OWN)


def operand(metric: Tensor | float, buffer: LRBuffer) -> tuple[Tensor | None, float]:
    """The metric as the last two arguments of ``fastsched::step_``, without reading a device.

    A tensor that is on the learning rates' device, or on the host, is handed over as it is. The one case that
    waits is a metric on a GPU when the learning rates are on the host, as in torch.

    Raises RuntimeError for a metric on the host inside CUDA graph capture.
    """
    if isinstance(metric, float):
        refuse_frozen(buffer)
        return None, metric
    if not torch.compiler.is_compiling() and torch._C._is_alias_of(metric, buffer.lrs):  # type: ignore[attr-defined]
        metric = metric.clone()  # a learning rate as the metric: the step writes there
    if metric.is_cpu:
        refuse_frozen(buffer)
        return metric, 0.0
    if buffer.on_host:
        return None, float(metric)
    return metric.to(buffer.device, non_blocking=True), 0.0  # itself, if it is there already


def traced(metric: Tensor | float, device: torch.device) -> Tensor:
    """The metric for a step that is being compiled: as a tensor, because a number would be a constant of the graph."""
    if isinstance(metric, Tensor):
        return metric.detach()
    return torch.zeros((), dtype=torch.float64, device=device) + metric


def refuse_frozen(buffer: LRBuffer) -> None:
    """Raise RuntimeError inside CUDA graph capture, where a number from the host would stay the same forever."""
    if not buffer.on_host and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"a metric on the host would be frozen into the CUDA graph being captured; pass a tensor on {buffer.device}"
        )
