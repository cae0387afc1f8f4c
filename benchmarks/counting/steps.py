"""The steps whose instructions are counted. Run by benchmarks/instructions.py under valgrind.

The count of a case is the difference between two runs with different numbers of steps, divided by the difference in
steps: what comes before and after the steps cancels out.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fastsched
from benchmarks import compiled, floor
from benchmarks.schedules import SCHEDULES, Schedule, begun, metric_of
from fastsched.engine import ops

FEWER, MORE = 100, 300
COUNTED = ["StepLR", "CosineAnnealingLR", "OneCycleLR with momentum", "ReduceLROnPlateau", "ChainedScheduler"]


def operator_call(schedule: Schedule, groups: int) -> Callable[[], None]:
    """The CPU operator itself, which eager steps bypass."""
    (replica,) = begun(fastsched.lr_scheduler, schedule, "tensor", groups)._engine._replicas
    tensors = replica.program, replica.state, replica.buffer.masters, replica.buffer.lrs
    return lambda: ops.call_step_(*tensors, None, 0.0, 0)


def cases() -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {"empty call of C": floor.dict_writes().nothing}
    for schedule in SCHEDULES:
        if schedule.label not in COUNTED:
            continue
        for mode, groups in itertools.product(("host", "tensor"), (1, 100)):
            scheduler = begun(fastsched.lr_scheduler, schedule, mode, groups)
            step, metric = scheduler.step, metric_of(schedule, mode)
            name = f"{schedule.label}, {schedule.work}, {mode}, {groups}"
            found[name] = (lambda step=step, metric=metric: step(*metric)) if metric else step
            if mode == "tensor" and schedule.label == "CosineAnnealingLR":
                found[f"{schedule.label}, {schedule.work}, CPU operator, {groups}"] = operator_call(schedule, groups)
    return found


def repeat(step: Callable[[], Any], count: int) -> None:
    for _ in itertools.repeat(None, count):
        step()


def main() -> None:
    torch.set_num_threads(1)
    requests = compiled.extension(Path(__file__).parent / "callgrind_requests.c")
    every = cases()
    for step in every.values():
        repeat(step, 20)
    gc.collect()
    gc.disable()
    requests.start()
    for name, step in every.items():
        repeat(step, 10)  # with counting on, valgrind translates code again
        for count in (FEWER, MORE):
            requests.zero()
            repeat(step, count)
            requests.dump(f"{name}: {count}")


if __name__ == "__main__":
    main()
