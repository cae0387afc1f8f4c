"""Turning whatever the user calls a metric into what an engine reads."""

from __future__ import annotations

import warnings
from typing import SupportsFloat

import torch
from torch import Tensor

# What csrc/schedule/scalar.h decodes; any other real dtype is cast first.
_DECODED = frozenset(
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

_warned_about_sync = False


def read_from_gpu(metric: Tensor) -> float:
    """``float(metric)``, which waits for the device; says once how to avoid that."""
    global _warned_about_sync
    if not _warned_about_sync:
        _warned_about_sync = True
        warnings.warn(
            "the metric is on the GPU but the learning rates are Python numbers, so every scheduler step waits for "
            "the device; call fastsched.use_tensor_lr(optimizer) to decide on the GPU",
            UserWarning,
            stacklevel=3,
        )
    return float(metric)


def operand(metric: Tensor | SupportsFloat, device: torch.device) -> tuple[Tensor | None, float]:
    """The metric as the last two arguments of ``fastsched::step_``, without reading a device.

    A tensor that is on the learning rates' device, or on the host, is handed over as it is. The cases that wait
    are a metric on a GPU when the learning rates are on the host, as in torch, and a tensor of a class of its own
    (a DTensor) or a sparse one, of which only ``float()`` knows the value.

    Raises whatever ``float(metric)`` raises, and RuntimeError inside CUDA graph capture for a metric on the host.
    """
    if isinstance(metric, Tensor) and _is_plain(metric):
        if metric.dtype not in _DECODED:
            metric = metric.double()
        if metric.device == device or (metric.is_cpu and not _capturing(device)):
            return metric, 0.0
        if device.type != "cpu" and not metric.is_cpu:
            return metric.to(device, non_blocking=True), 0.0
    value = float(metric)
    if _capturing(device):
        raise RuntimeError(
            f"a metric on the host would be frozen into the CUDA graph being captured; pass a tensor on {device}"
        )
    return None, value


def _is_plain(metric: Tensor) -> bool:
    return (
        type(metric) in (Tensor, torch.nn.Parameter)
        and metric.numel() == 1
        and not metric.is_complex()
        and metric.layout is torch.strided
    )


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
