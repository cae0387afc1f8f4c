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


def operand(metric: SupportsFloat, device: torch.device) -> tuple[Tensor | None, float]:
    """The metric as the last two arguments of ``fastsched::step_``, without reading a device.

    A tensor that is on the learning rates' device, or on the host, is handed over as it is. The one case that
    waits is a metric on a GPU when the learning rates are on the host, as in torch.

    Raises whatever ``float(metric)`` raises, and RuntimeError for a Python number inside CUDA graph capture.
    """
    if not isinstance(metric, Tensor):
        value = float(metric)
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "a Python-number metric would be frozen into the CUDA graph being captured; "
                f"pass a tensor on {device} instead"
            )
        return None, value
    if metric.dtype not in _DECODED:
        if metric.is_complex():
            return None, float(metric)  # raises torch's own error
        metric = metric.double()
    if metric.numel() != 1:
        return None, float(metric)  # as above
    if metric.is_cpu or metric.device == device:
        return metric, 0.0
    if device.type == "cpu":
        return None, float(metric)
    return metric.to(device, non_blocking=True), 0.0
