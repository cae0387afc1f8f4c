"""The compiled torch operators: loading them, and what torch needs to know to trace through them.

Schemas stand in ``csrc/ops/schema.cpp``, their fake implementations here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from .. import _C

_FOLDER = Path(_C.__file__).parent  # an editable install keeps the compiled files apart from the sources
_REBUILD = (
    "Rebuild fastsched where nvcc is on PATH, against a CUDA build of torch: "
    "FASTSCHED_CUDA=ON pip install --no-build-isolation --force-reinstall --no-deps fastsched "
    "(from a checkout: the same with '.' for the name)"
)


def _library(name: str) -> Path:
    for suffix in (".so", ".pyd", ".dylib"):
        file = _FOLDER / f"{name}{suffix}"
        if file.exists():
            return file
    return _FOLDER / f"{name}{'.pyd' if sys.platform == 'win32' else '.so'}"


def _load_cuda() -> str | None:
    """Load the CUDA operators; the reason why not, or None when they are there."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    if not CUDA_LIBRARY.exists():
        return f"fastsched was built without CUDA. {_REBUILD}"
    try:
        torch.ops.load_library(str(CUDA_LIBRARY))
    except OSError as error:
        return f"the CUDA operators did not load: {error.__cause__ or error}. {_REBUILD}"
    return None


torch.ops.load_library(str(_library("fastsched_ops")))
CUDA_LIBRARY = _library("fastsched_ops_cuda")
CUDA_UNAVAILABLE: str | None = _load_cuda()


def require(device: torch.device) -> None:
    """Raise RuntimeError, saying how to rebuild, if no operator was built for ``device``."""
    if device.type == "cuda" and CUDA_UNAVAILABLE is not None:
        raise RuntimeError(f"fastsched has no CUDA operators: {CUDA_UNAVAILABLE}")


def _step_without_cuda(*_args: Any) -> NoReturn:
    raise RuntimeError(f"fastsched has no CUDA operators: {CUDA_UNAVAILABLE}")


def _fake_step(
    program: torch.Tensor,
    state: torch.Tensor,
    masters: torch.Tensor,
    lrs: torch.Tensor,
    metric: torch.Tensor | None,
    value: float,
    event: int = 0,
    found_inf: torch.Tensor | None = None,
) -> None:
    # torch takes the fake for the operator as soon as one tensor is on the meta device.
    tensors = [tensor for tensor in (program, state, masters, lrs, metric, found_inf) if tensor is not None]
    if len({tensor.is_meta for tensor in tensors}) > 1:
        raise RuntimeError("fastsched::step_: meta tensors, which hold nothing, cannot be mixed with real ones")


def _step_materialized(
    program: torch.Tensor,
    state: torch.Tensor,
    masters: torch.Tensor,
    lrs: torch.Tensor,
    metric: torch.Tensor | None,
    value: float,
    event: int = 0,
    found_inf: torch.Tensor | None = None,
) -> None:
    """A step with a tensor whose memory holds its negative: only a number that is read may be such a view."""
    for name, tensor in {"program": program, "state": state, "masters": masters, "lrs": lrs}.items():
        if tensor.is_neg():
            raise RuntimeError(f"fastsched::step_: {name} must not be a negated view; clone it")
    metric, found_inf = (tensor if tensor is None else tensor.resolve_neg() for tensor in (metric, found_inf))
    step_(program, state, masters, lrs, metric, value, event, found_inf)


step_ = torch.ops.fastsched.step_.default
call_step_: Callable[..., None] = step_._op  # the same operator without a Python frame, for eager steps
torch.library.register_fake("fastsched::step_", _fake_step)

# A step is not part of the autograd graph: a metric that still requires grad passes straight to the backend.
_implementations = torch.library.Library("fastsched", "IMPL")
_implementations.impl("step_", torch.library.fallthrough_kernel, "Autograd")
_implementations.impl("step_", _step_materialized, "Negative")
if CUDA_UNAVAILABLE is not None:
    _implementations.impl("step_", _step_without_cuda, "CUDA")
