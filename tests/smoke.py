"""What a wheel must do before it is published. Needs nothing but fastsched and torch."""

from __future__ import annotations

from importlib.metadata import version
from types import ModuleType

import torch
from torch.optim import lr_scheduler as torch_lr_scheduler

import fastsched
from fastsched.__main__ import main


def trained(library: ModuleType, *, on_tensors: bool) -> float:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    if on_tensors:
        fastsched.use_tensor_lr(optimizer)
    scheduler = library.StepLR(optimizer, step_size=2, gamma=0.5)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    return float(optimizer.param_groups[0]["lr"])


if version("fastsched") != fastsched.__version__:
    raise SystemExit(f"the wheel is of {version('fastsched')}, and its package says {fastsched.__version__}")

expected = trained(torch_lr_scheduler, on_tensors=False)
for on_tensors in (False, True):
    lr = trained(fastsched, on_tensors=on_tensors)
    if abs(lr - expected) > 1e-8 * on_tensors:
        raise SystemExit(f"StepLR came to {lr} with on_tensors={on_tensors}, and torch's to {expected}")

# An operator's error has to pass through libtorch as an exception: with a different C++ library it would abort.
program, state, lrs = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), torch.zeros(1)
try:
    torch.ops.fastsched.step_(program, state, lrs.double(), lrs, None, 0.0)
except RuntimeError as error:
    if "fastsched::step_" not in str(error):
        raise
else:
    raise SystemExit("fastsched::step_ took a program that is none")

raise SystemExit(main(["info"]))
