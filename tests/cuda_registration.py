"""Run by `make test-cuda-build` with a CUDA torch, GPU or not: exits with an error if CUDA is not supported."""

import torch

import fastsched  # noqa: F401  loads the operators
from fastsched.engine import ops

if torch.version.cuda is None:
    raise SystemExit(f"torch {torch.__version__} is a build without CUDA; this proves nothing")
if ops.CUDA_UNAVAILABLE is not None:
    raise SystemExit(f"the CUDA operators are not there: {ops.CUDA_UNAVAILABLE}")
if not torch._C._dispatch_has_kernel_for_dispatch_key("fastsched::step_", "CUDA"):
    raise SystemExit("fastsched::step_ has no CUDA kernel")
print(f"fastsched::step_ is registered for CUDA in torch {torch.__version__}, CUDA {torch.version.cuda}")
