"""Costs that are paid once, per checkpoint, or per log line: construction, state_dict, load_state_dict, get_last_lr.

No bars: a training loop does none of this at every step. It is recorded so that nobody has to guess. torch's
state_dict, load_state_dict and get_last_lr share the scheduler's own lists; fastsched's copy them.
"""

from __future__ import annotations

import pytest

from fastsched.cli.bench import LIBRARIES, groups_of

from .conftest import BRIEFLY, SuppliedTimer, timer
from .schedules import SCHEDULES, begun, construct, supply

GROUPS = [1, 1000]
TABULATED = 1000  # steps for which a user's function is tabulated, with tensor learning rates
KINDS = list({schedule.label: schedule for schedule in SCHEDULES}.values())


def cases(test):
    for name, values in {"groups": GROUPS, "mode": ["host", "tensor"]}.items():
        test = pytest.mark.parametrize(name, values)(test)
    return pytest.mark.parametrize("schedule", KINDS, ids=lambda schedule: schedule.label)(test)


@cases
def test_construction(compare, benchmark, mode, schedule, groups):
    """On a fresh optimizer each time, because the first scheduler of one does more than later ones."""
    benchmark.extra_info["schedule"] = schedule.label
    fresh = supply(lambda: groups_of(groups, mode, schedule.momentum))
    contestants = {
        name: SuppliedTimer(
            lambda optimizer, library=library: construct(library, schedule, optimizer, TABULATED), fresh
        )
        for name, library in LIBRARIES.items()
    }
    compare(contestants, part=BRIEFLY)


def schedulers(schedule, mode, groups):
    return {name: begun(library, schedule, mode, groups, TABULATED) for name, library in LIBRARIES.items()}


@cases
def test_state_dict(compare, benchmark, mode, schedule, groups):
    benchmark.extra_info["schedule"] = schedule.label
    made = schedulers(schedule, mode, groups)
    compare({name: timer(scheduler.state_dict) for name, scheduler in made.items()}, part=BRIEFLY)


@cases
def test_load_state_dict(compare, benchmark, mode, schedule, groups):
    benchmark.extra_info["schedule"] = schedule.label
    made = schedulers(schedule, mode, groups)

    # torch's CyclicLR removes an entry from the dict that it loads, so every load gets a copy, on both sides.
    def copies(state):
        return supply(lambda: dict(state))

    contestants = {
        name: SuppliedTimer(scheduler.load_state_dict, copies(scheduler.state_dict()))
        for name, scheduler in made.items()
    }
    compare(contestants, part=BRIEFLY)


@cases
def test_get_last_lr(compare, benchmark, mode, schedule, groups):
    benchmark.extra_info["schedule"] = schedule.label
    made = schedulers(schedule, mode, groups)
    compare({name: timer(scheduler.get_last_lr) for name, scheduler in made.items()}, part=BRIEFLY)
