"""CUDA graph capture: what must not happen in it."""

from __future__ import annotations

import torch

from .. import _C

if torch.version.cuda is not None:
    _C.use_capture_probe(vars(torch.cuda), torch._C._cuda_isCurrentStreamCapturing)


def in_capture() -> bool:
    """Whether the current stream is being captured in a CUDA graph."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def refuse_capture(reason: str) -> None:
    """Raise RuntimeError inside CUDA graph capture, where what Python does now would not happen at a replay."""
    if in_capture():
        raise RuntimeError(f"this scheduler step cannot be captured in a CUDA graph: {reason}")
