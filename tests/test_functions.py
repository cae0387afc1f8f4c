"""LambdaLR and MultiplicativeLR: functions are called when and as torch calls them, or once, for a table."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as torch_lr_scheduler

import fastsched
from fastsched import _C
from fastsched.engine.host import TensorEngine

from .configurations import Ramp, geometric, stepwise
from .optimizers import stepped_sgd
from .values import double, lrs

NAMES = ("LambdaLR", "MultiplicativeLR")
names = pytest.mark.parametrize("name", NAMES)
modules = (torch_lr_scheduler, fastsched)


@names
def test_functions_are_called_once_per_group_and_step_in_order(name):
    def run(module):
        calls = []
        functions = [lambda epoch, i=i: calls.append((i, epoch, scheduler_epoch())) or 0.5 for i in range(3)]
        made = []

        def scheduler_epoch():
            return made[0].last_epoch if made else None

        made.append(getattr(module, name)(stepped_sgd([1.0, 2.0, 3.0]), functions))
        for _ in range(4):
            made[0].step()
        return calls, lrs(made[0])

    assert run(fastsched) == run(torch_lr_scheduler)


@names
@pytest.mark.parametrize(
    "result", [1, True, np.float64(0.5), np.float32(0.5), torch.tensor(0.5), torch.tensor([0.5]), 10**400, 0, -0.0]
)
def test_whatever_functions_return_is_multiplied_as_in_torch(name, result):
    def run(module):
        calls = []

        def function(epoch):
            calls.append(epoch)
            return result if epoch in (2, 3) else 0.5

        scheduler = getattr(module, name)(stepped_sgd([1.0, 3.0]), function)
        seen = []
        for _ in range(6):
            try:
                scheduler.step()
            except OverflowError as error:
                seen.append(str(error))
            seen.append([(type(group["lr"]), group["lr"]) for group in scheduler.optimizer.param_groups])
            seen.append((scheduler.last_epoch, scheduler._step_count, [float(lr) for lr in scheduler.get_last_lr()]))
        return calls, seen

    assert run(fastsched) == run(torch_lr_scheduler)


@names
def test_a_function_that_raises_leaves_what_torch_leaves(name):
    def run(module):
        def function(epoch):
            if epoch == 2:
                raise KeyError("schedule")
            return 0.5

        scheduler = getattr(module, name)(stepped_sgd([1.0]), function)
        seen = []
        for _ in range(4):
            try:
                scheduler.step()
            except KeyError:
                seen.append("raised")
            seen.append((lrs(scheduler), scheduler.last_epoch, scheduler._step_count, scheduler.get_last_lr()))
        return seen

    assert run(fastsched) == run(torch_lr_scheduler)


@names
def test_functions_may_do_what_they_like(name):
    """Write learning rates and counters, replace functions, step again: all as in torch."""

    def run(module):
        def function(epoch):
            scheduler = made[0] if made else None
            if scheduler is not None and epoch == 1:
                scheduler.optimizer.param_groups[0]["lr"] = 7.0
            if scheduler is not None and epoch == 2:
                scheduler.last_epoch = 10
            if scheduler is not None and epoch == 11:
                scheduler.lr_lambdas = [lambda epoch: 0.25] * 2
                scheduler.base_lrs = [5.0, 6.0]
            return 0.5

        made = []
        made.append(getattr(module, name)(stepped_sgd([1.0, 2.0]), function))
        seen = []
        for _ in range(6):
            made[0].step()
            seen.append((lrs(made[0]), made[0].last_epoch, made[0]._step_count))
        return seen

    assert run(fastsched) == run(torch_lr_scheduler)


@names
@pytest.mark.parametrize("kind", [double, torch.tensor], ids=["float64", "float32"])
@pytest.mark.parametrize("functions", [geometric, [geometric, stepwise, Ramp(4), geometric]], ids=["one", "several"])
def test_a_table_takes_the_place_of_the_functions(name, kind, functions):
    initial = [kind(lr) for lr in (0.5, 0.25, 0.125, 1.0)]
    calls = []

    def counted(function):
        return lambda epoch: calls.append(epoch) or function(epoch)

    of_ours = [counted(function) for function in functions] if isinstance(functions, list) else counted(functions)
    oracle = getattr(torch_lr_scheduler, name)(stepped_sgd([float(lr) for lr in initial]), functions)
    scheduler = getattr(fastsched, name)(stepped_sgd(initial), of_ours, total_steps=20)
    distinct = len(functions) if isinstance(functions, list) else 1
    assert len(calls) == 21 * distinct
    for _ in range(20):
        oracle.step()
        scheduler.step()
        assert lrs(scheduler) == [kind(lr).item() for lr in lrs(oracle)]
    assert isinstance(scheduler._engine, TensorEngine)
    assert len(calls) == 21 * distinct
    last = lrs(scheduler)
    scheduler.step()
    assert lrs(scheduler) == last  # the table ends


@names
@pytest.mark.parametrize("kind", [torch.float32, torch.float64], ids=str)
def test_without_a_table_functions_are_called_at_each_step(name, kind):
    """As many times and for the same epochs as torch, and the tensors are the float trajectory, rounded."""
    calls: tuple[list[int], list[int]] = ([], [])

    def functions(index):
        return [lambda epoch, k=k: calls[index].append(epoch) or 1 / (1 + epoch / (3 + k)) for k in range(2)]

    start = [torch.tensor(lr, dtype=kind) for lr in (0.3, 0.7)]
    oracle = getattr(torch_lr_scheduler, name)(stepped_sgd([lr.item() for lr in start]), functions(0))
    calls[0].clear()
    scheduler = getattr(fastsched, name)(stepped_sgd(start), functions(1))
    calls[1].clear()
    for _ in range(30):
        oracle.step()
        scheduler.step()
        assert lrs(scheduler) == [torch.tensor(lr, dtype=kind).item() for lr in lrs(oracle)]
        assert scheduler.state_dict()["_last_lr"] == oracle.state_dict()["_last_lr"]
        assert scheduler.last_epoch == oracle.last_epoch
    assert calls[0] == calls[1]
    assert isinstance(scheduler._engine, TensorEngine)


@names
def test_a_function_that_raises_leaves_the_counters_that_torch_leaves(name):
    def fails_at_three(epoch):
        if epoch == 3:
            raise ZeroDivisionError
        return 0.5

    oracle = getattr(torch_lr_scheduler, name)(stepped_sgd([0.5]), fails_at_three)
    scheduler = getattr(fastsched, name)(stepped_sgd([double(0.5)]), fails_at_three)
    for step in range(6):
        for either in (oracle, scheduler):
            if step == 2:
                with pytest.raises(ZeroDivisionError):
                    either.step()
            else:
                either.step()
        assert (scheduler.last_epoch, scheduler._step_count) == (oracle.last_epoch, oracle._step_count)
        assert lrs(scheduler) == lrs(oracle)


@names
def test_a_function_may_change_its_scheduler(name):
    def run(module, kind):
        def function(epoch):
            if epoch == 2:
                scheduler.optimizer.param_groups[0]["lr"] = kind(0.75)
            if epoch == 4:
                scheduler.last_epoch = 10
            return 0.5 + epoch / 64

        optimizer = stepped_sgd([kind(0.5)])
        scheduler = getattr(module, name)(optimizer, [function])
        seen = []
        for _ in range(7):
            scheduler.step()
            seen.append((lrs(scheduler), scheduler.last_epoch))
        return seen

    assert run(fastsched, double) == run(torch_lr_scheduler, float)


@names
@pytest.mark.parametrize("total_steps", [0, -1, 1.5, True, "10"])
def test_a_bad_total_is_refused(name, total_steps):
    with pytest.raises(ValueError, match="total_steps must be a positive int"):
        getattr(fastsched, name)(stepped_sgd([0.5]), geometric, total_steps=total_steps)


@names
def test_there_is_no_total_steps_attribute(name):
    """accelerate takes any scheduler with that attribute for a OneCycleLR."""
    assert not hasattr(getattr(fastsched, name)(stepped_sgd([0.5]), geometric, total_steps=5), "total_steps")


@names
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("kind", [float, double])
def test_copies_keep_functions_and_table(name, duplicate, kind):
    scheduler = getattr(fastsched, name)(stepped_sgd([kind(0.5)]), [geometric], total_steps=9)
    scheduler.step()
    twin = duplicate(scheduler)
    for either in (scheduler, twin):
        for _ in range(5):
            either.step()
    assert lrs(twin) == lrs(scheduler)
    assert isinstance(twin._engine, _C.HostEngine if kind is float else TensorEngine)


@names
def test_state_dicts_are_torchs(name):
    theirs, ours = (getattr(module, name)(stepped_sgd([0.5, 0.5]), [Ramp(3), geometric]) for module in modules)
    for scheduler in (theirs, ours):
        scheduler.step()
    assert ours.state_dict() == theirs.state_dict()
    state = theirs.state_dict()
    state["lr_lambdas"][0]["width"] = 7
    before = copy.deepcopy(state)
    for scheduler in (theirs, ours):
        scheduler.load_state_dict(state)
        assert state == before
        assert scheduler.lr_lambdas[0].width == 7
        scheduler.step()
    assert lrs(ours) == lrs(theirs)
    with pytest.raises(KeyError, match="no 'lr_lambdas'"):
        ours.load_state_dict({})
    with pytest.raises(ValueError, match="3 entries for 2 functions"):
        ours.load_state_dict({**state, "lr_lambdas": [None] * 3, "last_epoch": 99})
    assert ours.last_epoch == 2


def once(act):
    """At epoch 2, and not by the functions that it calls itself."""

    def at_epoch_2(scheduler, epoch):
        if epoch == 2 and not hasattr(scheduler, "reentered"):
            scheduler.reentered = True
            act(scheduler)

    return at_epoch_2


def write_base_items(scheduler, epoch):
    scheduler.base_lrs[0], scheduler.base_lrs[1] = 0.7, 0.6


def write_bases(scheduler, epoch):
    scheduler.base_lrs = [0.7, 0.6]


def write_lrs(scheduler, epoch):
    for group in scheduler.optimizer.param_groups:
        group["lr"] = 1.0


def write_function(scheduler, epoch):
    scheduler.lr_lambdas[1] = lambda epoch: 0.1


def reverse_groups(scheduler, epoch):
    if epoch == 2:
        scheduler.optimizer.param_groups.reverse()


def look_at_dict(scheduler, epoch):
    assert vars(scheduler)["last_epoch"] == epoch


def write_last_lr(scheduler, epoch):
    scheduler._last_lr = [torch.tensor(1.0)]


def write_a_fraction(scheduler, epoch):
    if epoch == 2:
        scheduler.last_epoch = 2.5


def ask_for_last_lr(scheduler, epoch):
    scheduler.get_last_lr()


@names
@pytest.mark.parametrize(
    "act",
    [
        once(lambda scheduler: scheduler.step()),
        once(lambda scheduler: scheduler._initial_step()),
        pytest.param(
            once(lambda scheduler: scheduler.step(7)), marks=pytest.mark.filterwarnings("ignore:The epoch parameter")
        ),
        once(lambda scheduler: scheduler._update_lr(0)),
        once(lambda scheduler: scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": 7})),
        write_base_items,
        write_bases,
        write_lrs,
        write_function,
        reverse_groups,
        look_at_dict,
        write_last_lr,
        write_a_fraction,
        ask_for_last_lr,
    ],
)
def test_what_a_function_does_takes_effect_when_it_does_in_torch(name, act):
    def run(module):
        made = []

        def function(epoch):
            if made:
                act(made[0], epoch)
            return 0.9**epoch

        made.append(getattr(module, name)(stepped_sgd([0.5, 0.25]), function))
        scheduler = made[0]
        seen = []
        for _ in range(4):
            scheduler.step()
            seen.append((lrs(scheduler), list(scheduler.get_last_lr()), float(scheduler.last_epoch)))
        return seen

    assert run(fastsched) == run(torch_lr_scheduler)


@names
def test_a_product_that_fails_changes_nothing(name):
    def run(module):
        functions = [lambda epoch: 0.9**epoch, lambda epoch: None if epoch == 2 else 0.5]
        scheduler = getattr(module, name)(stepped_sgd([1.0, 1.0]), functions)
        scheduler.step()
        with pytest.raises(TypeError):
            scheduler.step()
        return lrs(scheduler), scheduler.last_epoch

    assert run(fastsched) == run(torch_lr_scheduler)


def test_loading_the_state_of_a_callable_makes_a_new_table():
    class Geometric:
        def __init__(self, gamma):
            self.gamma = gamma

        def __call__(self, epoch):
            return self.gamma**epoch

    saved = fastsched.LambdaLR(stepped_sgd([double(1.0)]), Geometric(0.5), total_steps=9).state_dict()
    scheduler = fastsched.LambdaLR(stepped_sgd([double(1.0)]), Geometric(0.9), total_steps=9)
    scheduler.step()
    scheduler.load_state_dict(saved)
    scheduler.step()
    assert lrs(scheduler) == [0.5]


@pytest.mark.parametrize("kind", [float, double])
def test_a_function_that_refers_back_keeps_nothing_alive(kind):
    class Trainer:
        def __init__(self):
            self.model = torch.nn.Linear(2, 2)
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=kind(0.1))
            self.scheduler = fastsched.LambdaLR(self.optimizer, self.factor, total_steps=9)

        def factor(self, epoch):
            return 0.9**epoch

    trainer = Trainer()
    trainer.optimizer.step()
    trainer.scheduler.step()
    model = weakref.ref(trainer.model)
    del trainer
    gc.collect()
    assert model() is None


@pytest.mark.parametrize("kind", [float, double])
def test_a_factor_that_epoch_0_has_not(kind):
    scheduler = fastsched.MultiplicativeLR(stepped_sgd([kind(1.0)]), lambda epoch: 1 / epoch, total_steps=5)
    assert scheduler.lr_at(3) == [1 / 2 / 3]
    scheduler.step()
    scheduler.step()
    assert lrs(scheduler) == [0.5]


def test_a_group_whose_lr_was_taken_away_is_a_key_error():
    def take_away(epoch):
        groups[1].pop("lr", None)
        return 0.5

    for module in modules:
        groups = [{}, {}]
        scheduler = module.MultiplicativeLR(stepped_sgd([0.5, 0.5]), take_away)
        groups = scheduler.optimizer.param_groups
        with pytest.raises(KeyError, match="lr"):
            scheduler.step()


def test_multiplicative_needs_no_base_lrs():
    for module in modules:
        scheduler = module.MultiplicativeLR(stepped_sgd([0.5]), lambda epoch: 0.5)
        scheduler.base_lrs = []
        scheduler.step()
        assert scheduler.get_last_lr() == [0.25]
