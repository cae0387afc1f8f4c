"""What is paid once, or per checkpoint, or per log line: making and copying schedulers, states, get_last_lr.

A training loop does none of it at every step, but with many param groups nothing around a step is to be dearer than
torch's: construction with the first steps, in which engines are chosen, and a step with what is read after it. The
others are recorded so that nobody has to guess. torch's state_dict, load_state_dict and get_last_lr hand out and take
over the scheduler's own lists; fastsched's copy them, and loading, which also checks what it loads, has a bar in time.
"""

from __future__ import annotations

import copy
import pickle

import pytest

from fastsched.cli.bench import LIBRARIES, groups_of

from .conftest import BRIEFLY, SuppliedTimer, timer
from .schedules import SCHEDULES, begun, construct, metric_of, supply

GROUPS = [1, 1000]
TABULATED = 1000  # steps for which a user's function is tabulated, with tensor learning rates
MANY = 1000  # groups, from which on the bars count
LOADED_US = {"host": 200, "tensor": 1000}
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


@cases
def test_construction_and_first_steps(compare, benchmark, mode, schedule, groups):
    benchmark.extra_info["schedule"] = schedule.label
    metric = metric_of(schedule, mode)

    def begin(optimizer, library):
        scheduler = construct(library, schedule, optimizer, TABULATED)
        for _ in range(3):
            scheduler.step(*metric)

    def fresh():
        optimizer = groups_of(groups, mode, schedule.momentum)
        optimizer._opt_called = True  # or each would warn of the order of steps
        return optimizer

    contestants = {
        name: SuppliedTimer(lambda optimizer, library=library: begin(optimizer, library), supply(fresh))
        for name, library in LIBRARIES.items()
    }
    compare(contestants, part=BRIEFLY, at_least=1.0 if groups >= MANY else 0.0)


@pytest.mark.parametrize("read", ["get_last_lr", "state_dict"])
@cases
def test_step_and_read(compare, benchmark, mode, schedule, groups, read):
    benchmark.extra_info["schedule"] = schedule.label
    metric = metric_of(schedule, mode)

    def step_and_read(scheduler):
        scheduler.step(*metric)
        getattr(scheduler, read)()

    made = schedulers(schedule, mode, groups)
    contestants = {name: timer(step_and_read, scheduler) for name, scheduler in made.items()}
    compare(contestants, part=BRIEFLY, at_least=1.0 if groups >= MANY else 0.0)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@cases
def test_copy(compare, benchmark, mode, schedule, groups, how):
    """With the optimizer, which a scheduler refers to."""
    benchmark.extra_info["schedule"] = schedule.label
    duplicate = {"deepcopy": copy.deepcopy, "pickle": pickle.dumps}[how]
    made = schedulers(schedule, mode, groups)
    compare({name: timer(duplicate, scheduler) for name, scheduler in made.items()}, part=BRIEFLY)


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
    _, microseconds, _ = benchmark.extra_info["microseconds"]["fastsched"]
    assert microseconds <= LOADED_US[mode]


@cases
def test_get_last_lr(compare, benchmark, mode, schedule, groups):
    benchmark.extra_info["schedule"] = schedule.label
    made = schedulers(schedule, mode, groups)
    compare({name: timer(scheduler.get_last_lr) for name, scheduler in made.items()}, part=BRIEFLY)
