"""Which engine steps, and that torch's own code takes over if none can."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched
from fastsched import _C
from fastsched.engine.host import DETACHED, TensorEngine

from .conftest import sgd


def test_it_is_torchs_class_for_everybody_who_asks():
    scheduler = fastsched.ReduceLROnPlateau(sgd([0.1]))
    assert isinstance(scheduler, TorchPlateau)
    assert isinstance(scheduler, LRScheduler)
    for name in ("__call__", "__len__", "__bool__"):
        assert not hasattr(scheduler, name)
    assert not hasattr(scheduler, "total_steps")


def test_the_namespace_replaces_torchs():
    for name in torch.optim.lr_scheduler.__all__:
        ours = getattr(fastsched.lr_scheduler, name)
        assert issubclass(ours, getattr(torch.optim.lr_scheduler, name))
        if name in fastsched.__all__:
            assert ours is getattr(fastsched, name)


@pytest.mark.parametrize(
    ("lr", "engine"), [(0.1, _C.HostEngine), (1, _C.HostEngine), (torch.tensor(0.1), TensorEngine)], ids=str
)
def test_the_kind_of_lr_chooses(lr, engine):
    assert type(fastsched.ReduceLROnPlateau(sgd([lr]))._engine) is engine


INEXPRESSIBLE = {
    "numpy lr": lambda s: s.optimizer.param_groups[0].update(lr=np.float64(0.1)),
    "numpy factor": lambda s: setattr(s, "factor", np.float64(0.5)),
    "mixed lrs": lambda s: s.optimizer.param_groups[1].update(lr=torch.tensor(0.2)),
    "half lr": lambda s: s.optimizer.param_groups[0].update(lr=torch.tensor(0.5, dtype=torch.float16)),
    "tuple of bounds": lambda s: setattr(s, "min_lrs", tuple(s.min_lrs)),
    "float cooldown": lambda s: setattr(s, "cooldown", 1.0),
}


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_what_no_engine_can_do_torchs_code_does_and_the_engine_comes_back(name):
    both = [kind(sgd([0.5, 0.25]), patience=1, factor=0.5) for kind in (TorchPlateau, fastsched.ReduceLROnPlateau)]

    def step(metric):
        for scheduler in both:
            scheduler.step(metric)
        theirs, ours = ([float(g["lr"]) for g in s.optimizer.param_groups] for s in both)
        assert ours == theirs
        assert both[1].num_bad_epochs == both[0].num_bad_epochs
        assert [float(lr) for lr in both[1].get_last_lr()] == [float(lr) for lr in both[0].get_last_lr()]

    step(1.0)
    for scheduler in both:
        INEXPRESSIBLE[name](scheduler)
    engines = []
    for metric in (1.0, 1.0, 1.0, 1.0):
        step(metric)
        engines.append(both[1]._engine)
    assert DETACHED in engines
    for scheduler in both:
        scheduler.factor, scheduler.cooldown, scheduler.min_lrs = 0.5, 0, [0, 0]
        for group in scheduler.optimizer.param_groups:
            group["lr"] = 0.5
    for metric in (1.0, 1.0, 1.0):
        step(metric)
    assert isinstance(both[1]._engine, _C.HostEngine)


def user_class(base):
    class Eager(base):
        """Counts a metric as better only every other time."""

        def __init__(self, *args, **kwargs):
            self.asked = 0
            super().__init__(*args, **kwargs)

        def _is_better(self, a, best):
            self.asked += 1
            return self.asked % 2 == 0 and super()._is_better(a, best)

    return Eager


def user_reduction(base):
    class Halve(base):
        def _reduce_lr(self, epoch):
            for group in self.optimizer.param_groups:
                group["lr"] = float(group["lr"]) / (epoch + 1)

    return Halve


def user_step(base):
    class Every(base):
        def step(self, metrics, epoch=None):
            if metrics > 0.3:
                super().step(metrics, epoch)

    return Every


def user_attribute(base):
    class Clamped(base):
        @property
        def cooldown_counter(self):
            return 1

        @cooldown_counter.setter
        def cooldown_counter(self, value):
            pass

    return Clamped


@pytest.mark.parametrize("make", [user_class, user_reduction, user_step, user_attribute])
@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@given(metrics=st.lists(st.floats(0.0, 1.0), max_size=12))
def test_users_own_subclasses_work_unchanged(make, tensor, metrics):
    dtype = torch.float64
    both = []
    for base in (TorchPlateau, fastsched.ReduceLROnPlateau):
        lrs = [torch.tensor(0.5, dtype=dtype), torch.tensor(0.25, dtype=dtype)] if tensor else [0.5, 0.25]
        both.append(make(base)(sgd(lrs), patience=1, factor=0.5))
    for metric in metrics:
        for scheduler in both:
            scheduler.step(metric)
        theirs, ours = ([float(g["lr"]) for g in s.optimizer.param_groups] for s in both)
        assert ours == theirs


def test_a_subclass_that_adds_only_attributes_keeps_the_engine():
    class Named(fastsched.ReduceLROnPlateau):
        label = "mine"

        def describe(self):
            return f"{self.label}: {self.best}"

    scheduler = Named(sgd([0.1]))
    scheduler.extra = 3
    scheduler.step(1.0)
    assert isinstance(scheduler._engine, _C.HostEngine)
    assert scheduler.describe() == "mine: 1.0"
    assert scheduler.state_dict()["extra"] == 3


def test_lr_tensors_that_require_grad_are_left_to_torch():
    optimizer = sgd([torch.tensor(0.5, requires_grad=True)])
    assert fastsched.ReduceLROnPlateau(optimizer)._engine is DETACHED
    assert optimizer.param_groups[0]["lr"].requires_grad


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_a_repr_shows_settings_and_where_it_is(kind):
    engine = "host" if kind is float else "tensor"
    plateau = fastsched.ReduceLROnPlateau(sgd([kind(0.1), kind(0.2)]), patience=3, min_lr=[0.0, 0.1])
    for metric in (1.0, 0.5, 0.4):
        plateau.step(metric)
    assert repr(plateau) == (
        "ReduceLROnPlateau(mode='min', factor=0.1, patience=3, threshold=0.0001, threshold_mode='rel', cooldown=0, "
        f"min_lr=[0.0, 0.1], eps=1e-08, last_epoch=3, engine={engine})"
    )
    plateau.factor = 0.5
    assert "factor=0.5" in repr(plateau)
    steps = fastsched.MultiStepLR(sgd([kind(0.1)]), [30, 60, 60])
    assert repr(steps) == f"MultiStepLR(milestones=[30, 60, 60], gamma=0.1, last_epoch=0, engine={engine})"
    cyclic = fastsched.CyclicLR(sgd([kind(0.1)] * 2), 0.1, 1.0, cycle_momentum=False)
    assert "base_lr=0.1, max_lr=1.0, mode='triangular'" in repr(cyclic)
    optimizer = sgd([kind(0.1)])
    parts = [fastsched.ConstantLR(optimizer, total_iters=2), fastsched.ExponentialLR(optimizer, 0.9)]
    both = fastsched.SequentialLR(optimizer, parts, [2])
    assert (
        repr(both)
        == f"SequentialLR(schedulers=[{parts[0]!r}, {parts[1]!r}], milestones=[2], last_epoch=0, engine={engine})"
    )
    assert repr(fastsched.ChainedScheduler(parts)).startswith("ChainedScheduler(schedulers=[ConstantLR(")
    decay = fastsched.StepLR(sgd([kind(0.1)]), 30, param_name="weight_decay")
    assert repr(decay).startswith("StepLR(step_size=30, gamma=0.1, param_name='weight_decay', last_epoch=0")


def test_a_repr_of_what_torchs_code_steps():
    class Mine(fastsched.StepLR):
        def get_lr(self):
            return [0.5]

    assert repr(Mine(sgd([0.1]), 3)) == "Mine(step_size=3, gamma=0.1, last_epoch=0, engine=torch)"
    assert repr(fastsched.StepLR.__new__(fastsched.StepLR)) == "StepLR(engine=torch)"  # in the midst of construction


def test_a_repr_changes_nothing_and_reads_no_long_list():
    optimizer = sgd([torch.tensor(0.1)] * 9)
    scheduler = fastsched.LambdaLR(optimizer, [lambda epoch: 1.0] * 9)
    engine, state = scheduler._engine, scheduler.state_dict()
    assert "<lambda>" in repr(scheduler)
    assert len(repr(scheduler)) < 200
    assert scheduler._engine is engine
    assert scheduler.state_dict() == state
