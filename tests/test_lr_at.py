"""The learning rates at any step, without stepping."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastsched

from .configurations import LONG, make
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
    # Constructing a second scheduler on an optimizer goes on from the first one's learning rates.
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
    scheduler = make(fastsched, name, [kind(0.5), kind(0.25)], LONG[name])
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
    yield fastsched.ChainedScheduler([torch.optim.lr_scheduler.StepLR(optimizer, 1)]), "no scheduler of fastsched's"


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
