"""The schedules that are measured, of torch and of fastsched alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch.optim import lr_scheduler as torch_lr_scheduler
from torch.optim.swa_utils import SWALR

import fastsched

LONG = 10**8  # no schedule comes to its end while it is timed, and every step still changes a learning rate
TABULATED = 10**6


def decay(epoch: int) -> float:
    return 1 / (1 + 1e-6 * epoch)


def shrink(_epoch: int) -> float:
    return 1 - 1e-9


@dataclass(frozen=True)
class Schedule:
    """``work`` says what its steps do: "changing" every learning rate, or "idle" when nothing is to be changed."""

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


PLATEAU = {"factor": 1 - 1e-9, "threshold": 0.0, "eps": 0.0}
CYCLE = {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 1000}
ONE_CYCLE = {"max_lr": 0.1, "total_steps": LONG}

# MultiStepLR is measured between its milestones only: a milestone at every epoch is nothing that anybody trains with.
SCHEDULES = [
    Schedule("StepLR", "idle", {"step_size": LONG}),
    Schedule("StepLR", "changing", {"step_size": 1, "gamma": 1 - 1e-9}),
    Schedule("MultiStepLR", "idle", {"milestones": [10, LONG], "gamma": 0.3}),
    Schedule("ConstantLR", "idle", {"total_iters": LONG}),
    Schedule("LinearLR", "idle", {"total_iters": 1}),
    Schedule("LinearLR", "changing", {"total_iters": LONG}),
    Schedule("ExponentialLR", "changing", {"gamma": 1 - 1e-9}),
    Schedule("PolynomialLR", "idle", {"total_iters": 1, "power": 0.9}),
    Schedule("PolynomialLR", "changing", {"total_iters": LONG, "power": 0.9}),
    Schedule("CosineAnnealingLR", "changing", {"T_max": 1000, "eta_min": 1e-4}),
    Schedule("CosineAnnealingWarmRestarts", "changing", {"T_0": 1000}),
    Schedule("LambdaLR", "changing", {"lr_lambda": decay}),
    Schedule("MultiplicativeLR", "changing", {"lr_lambda": shrink}),
    Schedule("CyclicLR", "changing", {**CYCLE, "cycle_momentum": False}),
    Schedule("CyclicLR", "changing", CYCLE, variant=" with momentum", momentum=0.9),
    Schedule("OneCycleLR", "changing", {**ONE_CYCLE, "cycle_momentum": False}),
    Schedule("OneCycleLR", "changing", ONE_CYCLE, variant=" with momentum", momentum=0.9),
    Schedule("SWALR", "changing", {"swa_lr": 0.05, "anneal_epochs": LONG}),
    Schedule("ReduceLROnPlateau", "idle", {**PLATEAU, "patience": LONG}),
    Schedule("ReduceLROnPlateau", "changing", {**PLATEAU, "patience": 0}),
    Schedule("SequentialLR", "changing"),
    Schedule("ChainedScheduler", "changing"),
]


def groups_of(count: int, mode: str, momentum: float = 0.0, lr: float = 0.1) -> torch.optim.Optimizer:
    """An optimizer with ``count`` groups.

    The groups after the first are put in by hand: ``add_param_group`` looks through all earlier groups each time, which
    takes minutes for 10000 of them. They share one parameter, because a scheduler looks at none.
    """

    def value() -> Any:
        return torch.tensor(lr) if mode == "tensor" else lr

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=value(), momentum=momentum)
    first = optimizer.param_groups[0]
    optimizer.param_groups += [{**first, "lr": value()} for _ in range(count - 1)]
    return optimizer


def construct(
    library: ModuleType, schedule: Schedule, optimizer: torch.optim.Optimizer, tabulated: int = TABULATED
) -> Any:
    """``tabulated`` is for how many steps fastsched calls a user's function beforehand, with tensor learning rates."""
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
            arguments["total_steps"] = tabulated  # what LambdaLR's documentation asks for
    elif schedule.name == "SWALR":
        return SWALR(optimizer, **arguments)
    return getattr(library, schedule.name)(optimizer, **arguments)


def begun(library: ModuleType, schedule: Schedule, mode: str, groups: int, tabulated: int = TABULATED) -> Any:
    """A scheduler with its first steps behind it, where engines attach, warnings are given and sequences go on."""
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


LIBRARIES: dict[str, ModuleType] = {"torch": torch_lr_scheduler, "fastsched": fastsched.lr_scheduler}


def supply(make: Callable[[], Any]) -> Callable[[int], Iterator[Any]]:
    """Makes as many objects as a round uses up, before the round."""
    return lambda count: iter([make() for _ in range(count)])
