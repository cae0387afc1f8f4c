"""Cost of one ReduceLROnPlateau step, idle (nothing changes) and reducing (every LR changes at every step).

The bars are the ratios to torch that the project holds itself to. Where there is none, 0, the ratio is recorded
and nothing is claimed: a step on one tensor learning rate costs about one operator call, and torch's no more.
"""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched

from .conftest import timer

GROUPS = [1, 10, 100, 1000, 10000]
BARS = {
    ("host", "idle"): {1: 3, 10: 8, 100: 10, 1000: 10, 10000: 10},
    ("host", "reducing"): {1: 8, 10: 10, 100: 10, 1000: 10, 10000: 8},
    ("tensor", "idle"): {1: 0, 10: 2, 100: 20, 1000: 120, 10000: 120},
    ("tensor", "reducing"): {1: 1, 10: 6, 100: 60, 1000: 250, 10000: 250},
}


def scheduler(kind, mode, work, groups):
    def lr():
        return torch.tensor(0.1) if mode == "tensor" else 0.1

    params = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr()} for _ in range(groups)]
    patience = 0 if work == "reducing" else 10**9
    return kind(torch.optim.SGD(params, lr=0.1), factor=1 - 1e-9, patience=patience, threshold=0.0, eps=0.0)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("work", ["idle", "reducing"])
@pytest.mark.parametrize("mode", ["host", "tensor"])
def test_step(compare, mode, work, groups):
    theirs = scheduler(TorchPlateau, mode, work, groups)
    ours = scheduler(fastsched.ReduceLROnPlateau, mode, work, groups)
    metric = torch.tensor(1.0) if mode == "tensor" else 1.0
    compare(timer(theirs.step, metric), timer(ours.step, metric), BARS[mode, work][groups])
