"""Cost of one step of every schedule, over the number of param groups.

The bars are ratios to torch that hold under noise. With a LambdaLR or MultiplicativeLR on Python numbers most of a step
with many groups is the user's function, called once per group on both sides, so there is no bar. With tensor learning
rates, momentum in Python numbers is written group by group, so those bars are lower.
"""

from __future__ import annotations

import pytest

from fastsched.cli.bench import LIBRARIES

from . import floor
from .conftest import timer
from .schedules import SCHEDULES, begun, metric_of

GROUPS = [1, 10, 100, 1000, 10000]
BARS = {
    "host": {1: 3, 10: 3, 100: 3, 1000: 3, 10000: 3},
    "tensor": {1: 1.5, 10: 5, 100: 50, 1000: 200, 10000: 200},
    "tensor with momentum": {1: 1.5, 10: 5, 100: 15, 1000: 20, 10000: 5},
}


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: f"{schedule.label}-{schedule.work}")
@pytest.mark.parametrize("mode", ["host", "tensor"])
def test_step(compare, benchmark, mode, schedule, groups):
    benchmark.extra_info.update(schedule=schedule.label, work=schedule.work)
    schedulers = {name: begun(library, schedule, mode, groups) for name, library in LIBRARIES.items()}
    metric = metric_of(schedule, mode)
    contestants = {name: timer(scheduler.step, *metric) for name, scheduler in schedulers.items()}
    if mode == "tensor":
        contestants["floor"] = timer(floor.empty_op())
    elif schedule.work == "idle":
        contestants["floor"] = timer(floor.dict_writes().nothing)
    else:
        written = [dict(group) for group in schedulers["torch"].optimizer.param_groups]
        loops = floor.dict_writes()
        if "lr_lambda" in schedule.arguments:
            contestants["floor"] = timer(loops.write_lrs_by, written, schedule.arguments["lr_lambda"])
        else:
            contestants["floor"] = timer(loops.write_lrs_and_momenta if schedule.variant else loops.write_lrs, written)
    calls_back = mode == "host" and "lr_lambda" in schedule.arguments
    bars = BARS[mode + schedule.variant if mode == "tensor" else mode]
    compare(contestants, at_least=0 if calls_back else bars[groups])
