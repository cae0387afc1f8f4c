"""The schedules that are measured, with torch and with fastsched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch.optim import lr_scheduler as torch_lr_scheduler
from torch.optim.swa_utils import SWALR

from fastsched.cli import bench
from fastsched.cli.bench import LONG, groups_of

TABULATED = 10**6


def decay(epoch: int) -> float:
    return 1 / (1 + 1e-6 * epoch)


def shrink(_epoch: int) -> float:
    return 1 - 1e-9


@dataclass(frozen=True)
class Schedule:
    """``work`` says what its steps do: "changing" every learning rate, or "idle" when there is nothing to change."""

    name: str
    work: str
    arguments: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    momentum: float = 0.0

    @property
    def label(self) -> str:
        return f"{self.name}{self.variant}"

    @property
    def reads_metric(self) -> bool:
        return self.name == "ReduceLROnPlateau"


CYCLE, ONE_CYCLE = ({**bench.SCHEDULES[name], "cycle_momentum": True} for name in ("CyclicLR", "OneCycleLR"))
PLATEAU = {"factor": 1 - 1e-9, "threshold": 0.0, "eps": 0.0}

# MultiStepLR is only measured between milestones: nobody trains with a milestone at every epoch.
SCHEDULES = [
    Schedule("StepLR", "idle", {"step_size": LONG}),
    Schedule("StepLR", "changing", bench.SCHEDULES["StepLR"]),
    Schedule("MultiStepLR", "idle", {"milestones": [10, LONG], "gamma": 0.3}),
    Schedule("ConstantLR", "idle", {"total_iters": LONG}),
    Schedule("LinearLR", "idle", {"total_iters": 1}),
    Schedule("LinearLR", "changing", bench.SCHEDULES["LinearLR"]),
    Schedule("ExponentialLR", "changing", bench.SCHEDULES["ExponentialLR"]),
    Schedule("PolynomialLR", "idle", {"total_iters": 1, "power": 0.9}),
    Schedule("PolynomialLR", "changing", bench.SCHEDULES["PolynomialLR"]),
    Schedule("CosineAnnealingLR", "changing", bench.SCHEDULES["CosineAnnealingLR"]),
    Schedule("CosineAnnealingWarmRestarts", "changing", bench.SCHEDULES["CosineAnnealingWarmRestarts"]),
    Schedule("LambdaLR", "changing", {"lr_lambda": decay}),
    Schedule("MultiplicativeLR", "changing", {"lr_lambda": shrink}),
    Schedule("CyclicLR", "changing", bench.SCHEDULES["CyclicLR"]),
    Schedule("CyclicLR", "changing", CYCLE, " with momentum", momentum=0.9),
    Schedule("OneCycleLR", "changing", bench.SCHEDULES["OneCycleLR"]),
    Schedule("OneCycleLR", "changing", ONE_CYCLE, " with momentum", momentum=0.9),
    Schedule("SWALR", "changing", {"swa_lr": 0.05, "anneal_epochs": LONG}),
    Schedule("ReduceLROnPlateau", "idle", {**PLATEAU, "patience": LONG}),
    Schedule("ReduceLROnPlateau", "changing", {**PLATEAU, "patience": 0}),
    Schedule("SequentialLR", "changing"),
    Schedule("ChainedScheduler", "changing"),
]


def construct(
    library: ModuleType, schedule: Schedule, optimizer: torch.optim.Optimizer, tabulated: int = TABULATED
) -> Any:
    """``tabulated``: for how many steps fastsched calls a user's function beforehand, with tensor learning rates."""
    if schedule.name == "SequentialLR":
        parts = [
            library.LinearLR(optimizer, total_iters=5),
            library.CosineAnnealingLR(optimizer, T_max=1000),
        ]
        return library.SequentialLR(optimizer, parts, milestones=[5])
    if schedule.name == "ChainedScheduler":
        parts = [
            library.ConstantLR(optimizer, total_iters=LONG),
            library.ExponentialLR(optimizer, gamma=1 - 1e-9),
        ]
        return library.ChainedScheduler(parts, optimizer)
    arguments = dict(schedule.arguments)
    if library is not torch_lr_scheduler:
        if "lr_lambda" in arguments and isinstance(optimizer.param_groups[0]["lr"], torch.Tensor):
            arguments["total_steps"] = tabulated  # as LambdaLR's documentation recommends
    elif schedule.name == "SWALR":
        return SWALR(optimizer, **arguments)
    return getattr(library, schedule.name)(optimizer, **arguments)


def begun(library: ModuleType, schedule: Schedule, mode: str, groups: int, tabulated: int = TABULATED) -> Any:
    """A scheduler after its first steps, in which engines attach, warnings are given and sequences move on."""
    optimizer = groups_of(groups, mode, schedule.momentum)
    scheduler = construct(library, schedule, optimizer, tabulated)
    optimizer.step()
    for _ in range(6 if schedule.name == "SequentialLR" else 2):
        scheduler.step(*metric_of(schedule, mode))
    return scheduler


def metric_of(schedule: Schedule, mode: str) -> tuple[Any, ...]:
    if not schedule.reads_metric:
        return ()
    return (torch.tensor(1.0) if mode == "tensor" else 1.0,)


def supply(make: Callable[[], Any]) -> Callable[[int], Iterator[Any]]:
    """Makes the objects that a round consumes, before the round."""
    return lambda count: iter([make() for _ in range(count)])
