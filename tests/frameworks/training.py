"""A regression that every trainer is given, and the learning rates that it should come to."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 4, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True))


def loader() -> DataLoader[Any]:
    return DataLoader(data(), batch_size=8)


def model() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 1)


def warm_up_then_plateau(module: Any, optimizer: Any) -> Any:
    """Of fastsched alone: torch's SequentialLR takes no plateau."""
    warm_up = module.LinearLR(optimizer, 0.25, total_iters=2)
    plateau = module.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=10.0, threshold_mode="abs")
    return module.SequentialLR(optimizer, [warm_up, plateau], [2])


# What that gives over epochs from 0.1. No loss is better by 10 than another: each epoch of the plateau but its first is
# a bad one.
WARM_UP_THEN_PLATEAU = [0.025, 0.0625, 0.1, 0.05, 0.025, 0.0125]


def expected(make: Callable[[Any], Any], steps: int, lr: float = 0.1) -> list[float]:
    """The learning rates before each of so many steps of a scheduler of torch's."""
    optimizer = torch.optim.SGD(model().parameters(), lr=lr)
    scheduler = make(optimizer)
    lrs = []
    for _ in range(steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs
