"""The learning rates at any step, without stepping."""

import copy
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastsched

from .configurations import LONG, LONG_OWN, make
from .optimizers import stepped_sgd
from .trees import FUNCTIONS_OF_THE_STEP, functions_of_the_step, grow, trees_of
from .values import double
from .values import lrs as lrs_of

names = pytest.mark.parametrize("name", FUNCTIONS_OF_THE_STEP)
kinds = pytest.mark.parametrize("kind", [float, double, torch.tensor], ids=["float", "float64", "float32"])
trees = trees_of(functions_of_the_step)


@kinds
@given(tree=trees, initial=st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=3))
def test_it_agrees_with_stepping(kind, tree, initial):
    initial = [kind(lr) for lr in initial]
    # A second scheduler on an optimizer continues from the first one's learning rates.
    scheduler = grow(stepped_sgd(copy.deepcopy(initial)), tree)
    asked = grow(stepped_sgd(copy.deepcopy(initial)), tree)
    before = copy.deepcopy(asked.state_dict())
    expected = []
    for _ in range(16):
        expected.append(lrs_of(scheduler))
        scheduler.step()
    assert [asked.lr_at(step) for step in range(16)] == expected
    assert scheduler.lr_at(7) == expected[7]
    assert asked.state_dict() == before


@names
@kinds
def test_thousands_of_steps_ahead(name, kind):
    scheduler = make(fastsched, name, [kind(0.5), kind(0.25)], {**LONG, **LONG_OWN}[name])
    scheduler.optimizer.step()
    far = scheduler.lr_at(2000)
    for _ in range(2000):
        scheduler.step()
    assert far == lrs_of(scheduler) == scheduler.lr_at(2000)


def test_it_follows_the_settings():
    scheduler = fastsched.ExponentialLR(stepped_sgd([1.0]), 0.5)
    assert scheduler.lr_at(3) == [0.125]
    scheduler.gamma = 0.1
    assert scheduler.lr_at(2) == pytest.approx([0.01])
    assert scheduler.last_epoch == 0


def not_functions():
    class Own(fastsched.StepLR):
        def get_lr(self):
            return [1.0]

    optimizer = stepped_sgd([1.0])
    yield fastsched.ReduceLROnPlateau(optimizer), "a metric decides"
    yield fastsched.SWALR(optimizer, swa_lr=0.1), "it anneals from whatever"
    yield Own(optimizer, 1), "its own code decides"
    yield fastsched.CyclicLR(optimizer, 0.1, 1.0, scale_fn=lambda x: x), "its own code decides"
    yield fastsched.ChainedScheduler([fastsched.ReduceLROnPlateau(optimizer)]), "ReduceLROnPlateau.lr_at: a metric"
    yield (
        fastsched.ChainedScheduler([torch.optim.lr_scheduler.StepLR(optimizer, 1)]),
        "is not one of fastsched's schedulers",
    )


def test_what_is_no_function_of_the_step_says_so():
    for scheduler, reason in not_functions():
        with pytest.raises(NotImplementedError, match=reason):
            scheduler.lr_at(3)


@pytest.mark.parametrize(
    ("step", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError), (True, TypeError), (91, ValueError)]
)
def test_bad_steps_are_refused(step, error):
    scheduler = fastsched.OneCycleLR(stepped_sgd([1.0]), 1.0, total_steps=90)
    with pytest.raises(error, match="step must be"):
        scheduler.lr_at(step)


FAR = {
    "plain": (1, lambda optimizer: fastsched.StepLR(optimizer, 30)),
    "groups": (1000, lambda optimizer: fastsched.CosineAnnealingLR(optimizer, 30)),
    "functions": (2, lambda optimizer: fastsched.LambdaLR(optimizer, [lambda epoch: 0.5, lambda epoch: 0.25])),
    "composed": (
        1,
        lambda optimizer: fastsched.SequentialLR(
            optimizer, [fastsched.LinearLR(optimizer), fastsched.LambdaLR(optimizer, lambda epoch: 0.5)], [4]
        ),
    ),
}


@pytest.mark.parametrize("steps", [10**12, 2**63, 2**64, 10**400])
@pytest.mark.parametrize("name", FAR)
def test_what_would_take_forever_is_refused_at_once(name, steps):
    groups, make_one = FAR[name]
    scheduler = make_one(stepped_sgd([1.0] * groups))
    with pytest.raises(ValueError, match=r"step must be at most [0-9]+ here: lr_at runs all steps, and more would"):
        scheduler.lr_at(steps)
    with pytest.raises(ValueError, match=r"steps must be less than [0-9]+ with"):
        fastsched.simulate(scheduler, steps)
    with pytest.raises(ValueError, match=r"steps must be less than [0-9]+ with 1 param group:"):
        fastsched.plot(scheduler, steps, metrics=1.0)


def test_the_more_there_is_to_do_the_fewer_steps_are_allowed():
    def most(groups, make_one):
        with pytest.raises(ValueError, match="at most") as raised:
            make_one(stepped_sgd([1.0] * groups)).lr_at(10**15)
        return int(re.search("[0-9]+", str(raised.value))[0])

    assert most(*FAR["plain"]) > 100 * most(*FAR["functions"])
    assert most(*FAR["plain"]) > 10 * most(*FAR["groups"])
    assert most(*FAR["functions"]) < most(*FAR["composed"])
    with pytest.raises(ValueError, match=f"less than {5 * 10**5} with 1000 param groups"):
        fastsched.simulate(FAR["groups"][1](stepped_sgd([1.0] * 1000)), 5 * 10**5)


INTERRUPTED = """
import _thread, sys, threading, time, torch, fastsched
weight = torch.nn.Parameter(torch.zeros(1))
optimizer = torch.optim.SGD([weight], lr={lr})
optimizer.step()
scheduler = fastsched.ExponentialLR(optimizer, 0.5)
before = scheduler.state_dict()
threading.Timer(0.3, _thread.interrupt_main).start()  # a thread, which has to run meanwhile
begin = time.monotonic()
try:
    {call}
except KeyboardInterrupt:
    assert time.monotonic() - begin < 60
    assert scheduler.state_dict() == before and scheduler.lr_at(2) == [0.25]
    sys.exit(7)
"""


@pytest.mark.parametrize("call", ["scheduler.lr_at(8 * 10**9)", "fastsched.simulate(scheduler, 3 * 10**8)"])
@pytest.mark.parametrize("lr", ["1.0", "torch.tensor(1.0)"])
def test_a_long_look_ahead_can_be_interrupted(lr, call):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED.format(lr=lr, call=call)], timeout=240, check=False)
    assert done.returncode == 7


def test_an_exact_learning_rate_is_gone_on_from():
    optimizer = stepped_sgd([0.1])
    fastsched.use_tensor_lr(optimizer, "cpu")
    scheduler = fastsched.ExponentialLR(optimizer, 0.97)
    for step in range(40):
        assert scheduler.lr_at(step) == lrs_of(scheduler)
        scheduler.step()


@kinds
def test_a_second_scheduler_of_an_optimizer(kind):
    optimizer = stepped_sgd([kind(0.1)])
    fastsched.ExponentialLR(optimizer, 0.9)
    scheduler = fastsched.CyclicLR(optimizer, 0.01, 1.0, 3)
    for step in range(5):
        assert scheduler.lr_at(step) == lrs_of(scheduler)
        scheduler.step()
