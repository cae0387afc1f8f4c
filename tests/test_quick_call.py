"""From Python 3.12 on, a plain call of ``step`` needs no Python frame; any other call runs the function."""

import inspect
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastsched
from fastsched import _C

from .frames_of_steps import MADE, begun, frames_of, number, tensor
from .optimizers import sgd

FRAMES = 0 if _C.QUICK_CALLS else 1  # of a plain step


@pytest.fixture(scope="module")
def counted():
    command = [sys.executable, "-m", "tests.frames_of_steps"]
    return json.loads(subprocess.check_output(command, cwd=Path(__file__).parents[1]))


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("kind", [number, tensor])
def test_a_plain_step_needs_no_frame(counted, kind, name):
    assert counted[f"{kind.__name__}, {name}"] == [FRAMES, 1]


@pytest.mark.parametrize("name", MADE)
def test_keywords_run_the_function(name):
    scheduler, _ = begun(name, number)
    step = lambda: scheduler.step(metrics=1.0, found_inf=0)  # noqa: E731
    assert frames_of(type(scheduler).step, step) == 1


def test_a_step_that_is_recorded_needs_no_frame(counted):
    assert counted["history"] == [FRAMES, 1]


def test_a_metric_that_is_reduced_first_runs_the_function():
    scheduler = fastsched.ReduceLROnPlateau(sgd([0.1]), deferred=True)
    assert frames_of(type(scheduler).step, lambda: scheduler.step(1.0)) == 1


def test_a_subclass_that_calls_super():
    class Counting(fastsched.ReduceLROnPlateau):
        steps = 0

        def step(self, metrics, *rest):
            self.steps += 1
            super().step(metrics, *rest)

    optimizer = sgd([0.1])
    scheduler = Counting(optimizer, patience=0)
    for _ in range(3):
        scheduler.step(1.0)
    assert scheduler.steps == scheduler.last_epoch == 3
    assert optimizer.param_groups[0]["lr"] == 0.1 * 0.1 * 0.1
    assert scheduler.num_bad_epochs == 0


@pytest.mark.parametrize("kind", [number, tensor])
def test_errors_are_those_of_the_function_and_change_nothing(kind):
    scheduler, _ = begun("plateau", kind)
    before = scheduler.state_dict()
    for arguments in [(), (None,), ("loss",), (object(),), (torch.zeros(2),)]:
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            scheduler.step(*arguments)
        assert scheduler.state_dict() == before
    with pytest.raises(AttributeError):
        fastsched.ReduceLROnPlateau.step(object(), 1.0)
    with pytest.raises(TypeError):
        fastsched.ReduceLROnPlateau.step()


def test_a_metric_is_read_once():
    class Metric:
        reads = 0

        def __float__(self):
            self.reads += 1
            return 1.0

    optimizer = sgd([1])  # an int, with which Python computes, so the engine declines once it has to reduce
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    for _ in range(3):
        metric = Metric()
        scheduler.step(metric)
        assert metric.reads == 1
    assert optimizer.param_groups[0]["lr"] == 0.25
    scheduler.factor = torch.tensor(0.5)  # which no engine takes
    metric = Metric()
    scheduler.step(metric)
    assert metric.reads == 1


def test_an_object_that_was_never_initialized():
    blank = object.__new__(fastsched.StepLR)
    with pytest.raises(AttributeError):
        blank.step()


def test_the_function_is_an_ordinary_one():
    step = fastsched.ReduceLROnPlateau.step
    assert inspect.isfunction(step)
    assert list(inspect.signature(step).parameters)[:2] == ["self", "metrics"]
    assert inspect.getsource(step).lstrip().startswith("def step(")
    optimizer = sgd([tensor(0.1)])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0)
    scheduler.step(torch.tensor(math.inf))
    compiled = torch.compile(lambda loss: scheduler.step(loss), fullgraph=True, backend="eager")
    for _ in range(3):
        compiled(torch.tensor(1.0))
    assert scheduler.last_epoch == 4


def test_a_warning_names_the_line_of_the_call():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    scheduler = fastsched.StepLR(optimizer, 3)
    line = inspect.currentframe().f_lineno + 2
    with pytest.warns(UserWarning, match=r"before `optimizer.step\(\)`") as caught:
        scheduler.step()
    assert (caught[0].filename, caught[0].lineno) == (__file__, line)
