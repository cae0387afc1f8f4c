"""Cost of one step of each schedule of the epoch."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler as torch_lr_scheduler

import fastsched

from .conftest import timer

# Long enough that no schedule comes to its end while it is timed.
CONFIGURATIONS = {
    "StepLR": {"step_size": 30, "gamma": 0.9999},
    "MultiStepLR": {"milestones": [10, 10**9], "gamma": 0.3},
    "ConstantLR": {"total_iters": 10**9},
    "LinearLR": {"total_iters": 10**9},
    "ExponentialLR": {"gamma": 0.9999999},
    "PolynomialLR": {"total_iters": 10**9, "power": 0.9},
    "CosineAnnealingLR": {"T_max": 1000, "eta_min": 1e-4},
    "CosineAnnealingWarmRestarts": {"T_0": 1000},
}
BARS = {"host": {1: 8, 100: 10, 1000: 8}, "tensor": {1: 1, 100: 60, 1000: 250}}


def step_of(module, name, mode, groups):
    def lr():
        return torch.tensor(0.1) if mode == "tensor" else 0.1

    params = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr()} for _ in range(groups)]
    optimizer = torch.optim.SGD(params, lr=0.1)
    scheduler = getattr(module, name)(optimizer, **CONFIGURATIONS[name])
    optimizer.step()
    scheduler.step()
    return lambda _: scheduler.step()


@pytest.mark.parametrize("groups", [1, 100, 1000])
@pytest.mark.parametrize("work", list(CONFIGURATIONS))
@pytest.mark.parametrize("mode", ["host", "tensor"])
def test_step(compare, mode, work, groups):
    steps = [step_of(module, work, mode, groups) for module in (torch_lr_scheduler, fastsched)]
    compare(*(timer(step, None) for step in steps), BARS[mode][groups])
