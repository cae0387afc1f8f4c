"""A short comparison with torch on this machine, for ``fastsched bench``."""

from __future__ import annotations

import gc
import platform
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from timeit import Timer
from types import ModuleType
from typing import Any

import torch
from torch.optim import lr_scheduler as torch_lr_scheduler

from .. import lr_scheduler

ROUND_SECONDS = 0.004
ROUNDS = 15
CELL_SECONDS = 0.35  # if rounds take longer, there are fewer of them
FEWEST_ROUNDS = 3
MOST_GROUPS = 10**5  # their dicts and tensors take a few hundred megabytes
LONG = 10**8  # steps; no schedule ends, and unless it is in IDLE, each step changes the learning rates

# Momentum is left alone: this measures learning rates.
SCHEDULES: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 1, "gamma": 1 - 1e-9},
    "LinearLR": {"total_iters": LONG},
    "ExponentialLR": {"gamma": 1 - 1e-9},
    "PolynomialLR": {"total_iters": LONG, "power": 0.9},
    "CosineAnnealingLR": {"T_max": 1000, "eta_min": 1e-4},
    "CosineAnnealingWarmRestarts": {"T_0": 1000},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 1000, "cycle_momentum": False},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": LONG, "cycle_momentum": False},
    "ReduceLROnPlateau": {"patience": LONG, "threshold": 0.0},
}
MODES = {"float": "Python-number", "tensor": "tensor"}
IDLE = ("ReduceLROnPlateau",)  # reduces nothing, as in most steps of a training run
DEFAULT = ("StepLR", "CosineAnnealingLR", "OneCycleLR", "ReduceLROnPlateau")
LIBRARIES: dict[str, ModuleType] = {"torch": torch_lr_scheduler, "fastsched": lr_scheduler}


@dataclass(frozen=True)
class Cell:
    """The ratio of torch's time per step to fastsched's: median over the rounds, and half the interquartile range.

    ``torch_us`` and ``our_us`` are the medians of the times themselves, in microseconds.
    """

    schedule: str
    mode: str
    groups: int
    ratio: float
    spread: float
    torch_us: float
    our_us: float


def measure(schedules: Sequence[str], groups: Sequence[int]) -> Iterator[Cell]:
    """Compare, one cell after another; shows a progress bar if tqdm is installed and stderr is a terminal."""
    cases = [(name, mode, count) for name in schedules for mode in MODES for count in groups]
    for name, mode, count in _with_bar(cases):
        yield compare(name, mode, count)


def _with_bar(cases: Sequence[tuple[str, str, int]]) -> Iterable[tuple[str, str, int]]:
    try:
        from tqdm import tqdm
    except ImportError:
        return cases
    bar: Iterable[tuple[str, str, int]] = tqdm(cases, unit="case", file=sys.stderr, leave=False, disable=None)
    return bar


def compare(name: str, mode: str, groups: int) -> Cell:
    """One cell: a scheduler, ``"float"`` or ``"tensor"`` learning rates, and a number of param groups."""
    with one_thread():
        return _compare(name, mode, groups)


@contextmanager
def one_thread() -> Iterator[None]:
    """Schedulers and small networks need only one: a barrier between threads would only add noise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _compare(name: str, mode: str, groups: int) -> Cell:
    timers = {library: _timer(module, name, mode, groups) for library, module in LIBRARIES.items()}
    gc.collect()
    counts = {library: calls_per_round(timer, ROUND_SECONDS) for library, timer in timers.items()}
    seconds = sum(timer.timeit(counts[library]) for library, timer in timers.items())
    rounds = max(FEWEST_ROUNDS, min(ROUNDS, int(CELL_SECONDS / seconds)))
    times: dict[str, list[float]] = {library: [] for library in timers}
    for _ in range(rounds):
        for library, timer in timers.items():
            times[library].append(timer.timeit(counts[library]) / counts[library])
    ratios = [slower / faster for slower, faster in zip(times["torch"], times["fastsched"], strict=True)]
    low, middle, high = quartiles(ratios)
    theirs, ours = (statistics.median(times[library]) * 1e6 for library in ("torch", "fastsched"))
    return Cell(name, mode, groups, middle, (high - low) / 2, theirs, ours)


def _timer(library: ModuleType, name: str, mode: str, groups: int) -> Timer:
    optimizer = groups_of(groups, mode)
    scheduler = getattr(library, name)(optimizer, **SCHEDULES[name])
    optimizer.step()
    metric = (torch.tensor(1.0) if mode == "tensor" else 1.0,) if name == "ReduceLROnPlateau" else ()
    for _ in range(2):  # engines are chosen at the first steps
        scheduler.step(*metric)
    if metric:
        return Timer("step(metric)", globals={"step": scheduler.step, "metric": metric[0]})
    return Timer("step()", globals={"step": scheduler.step})


def groups_of(count: int, mode: str, momentum: float = 0.0, lr: float = 0.1) -> torch.optim.Optimizer:
    """An optimizer with ``count`` groups, whose learning rates are tensors in mode ``"tensor"``.

    The groups after the first are added by hand: ``add_param_group`` searches all earlier groups each time, which takes
    minutes for 10000 of them. They share one parameter, because schedulers never look at parameters.
    """

    def value() -> Any:
        return torch.tensor(lr) if mode == "tensor" else lr

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=value(), momentum=momentum)
    first = optimizer.param_groups[0]
    optimizer.param_groups += [{**first, "lr": value()} for _ in range(count - 1)]
    return optimizer


def calls_per_round(timer: Timer, seconds: float) -> int:
    """How many calls take about this long."""
    count = 1
    while timer.timeit(count) < seconds / 2:
        count *= 2
    return count


def quartiles(values: Sequence[float]) -> list[float]:
    """First quartile, median, third quartile."""
    return statistics.quantiles(values, n=4, method="inclusive")


def table(cells: Iterable[Cell], groups: Sequence[int]) -> str:
    """The cells, a row per schedule and mode and a column per number of param groups."""
    rows: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        schedule = f"{cell.schedule}, idle" if cell.schedule in IDLE else cell.schedule
        ratio = f"{_three(cell.ratio)} \u00b1{cell.spread / cell.ratio:.0%}"
        times = f"({_three(cell.torch_us)} / {_three(cell.our_us)} us)"
        rows.setdefault((schedule, cell.mode), []).append(f"{ratio} {times}")
    header = ["torch / fastsched", "LRs", *(f"{count} group{'s' if count > 1 else ''}" for count in groups)]
    drawn = aligned(header, [[schedule, mode, *values] for (schedule, mode), values in rows.items()], left=2)
    return "\n".join(
        [
            *drawn,
            "",
            "How many times as long a step of torch's takes, and how long each takes: medians over alternating",
            "rounds, and half the interquartile range of the ratios. Each step changes every learning rate, except",
            "for idle ones, which change nothing.",
            f"torch {torch.__version__}, Python {platform.python_version()} on {platform.machine()}, one thread.",
        ]
    )


def _three(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.{1 if value >= 10 else 2}f}"


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """The lines of a table; all columns but the first ``left`` are right-aligned."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "  ".join(
            f"{cell:{'<' if place < left else '>'}{width}}"
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    padded.insert(1, "\u2500" * (sum(widths) + 2 * (len(widths) - 1)))
    return padded
