"""Groups that come and go, and optimizer states without the learning rates that groups began with."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr_scheduler

import fastsched
from fastsched.engine.tensor import TensorEngine
from fastsched.schedulers.compose import _Composite

from .optimizers import stepped_sgd
from .values import double, lrs

LEAVES = {
    "StepLR": lambda m, o: m.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [1, 4], 0.5),
    "ConstantLR": lambda m, o: m.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.25, total_iters=4),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.75),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 9, 2.0),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 7),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 3),
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "MultiplicativeLR": lambda m, o: m.MultiplicativeLR(o, lambda epoch: 0.75),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.1, 0.5, 3, cycle_momentum=False),
    "SWALR": lambda m, o: torch.optim.swa_utils.SWALR(o, 0.05) if m is torch_lr_scheduler else m.SWALR(o, 0.05),
}


def add_group(scheduler, kind):
    scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": kind(0.375)})


def remove_group(scheduler, _):
    del scheduler.optimizer.param_groups[0]


def load_one_base_too_many(scheduler, _):
    for child in getattr(scheduler, "_schedulers", [scheduler]):
        if hasattr(child, "base_lrs"):
            child.load_state_dict({**child.state_dict(), "base_lrs": [*child.state_dict()["base_lrs"], 0.125]})


def trajectory(module, kind, make, change, at, steps=9):
    """LRs after each step, and the error that ended it."""
    scheduler = make(module, stepped_sgd([kind(0.5), kind(0.25)]))
    seen = []
    for i in range(steps):
        try:
            if i == at:
                change(scheduler, kind)
            scheduler.step()
        except (ValueError, KeyError) as error:
            return seen, type(error)
        seen.append(lrs(scheduler))
        assert all(map(math.isfinite, seen[-1]))
    return seen, None


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("change", [add_group, remove_group, load_one_base_too_many])
@pytest.mark.parametrize("second", LEAVES)
@pytest.mark.parametrize("first", ["LinearLR", "CosineAnnealingLR"])
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_a_sequence_raises_where_torch_raises(first, second, change, at):
    def make(module, optimizer):
        return module.SequentialLR(
            optimizer, [LEAVES[first](module, optimizer), LEAVES[second](module, optimizer)], milestones=[3]
        )

    expected, error = trajectory(torch_lr_scheduler, float, make, change, at)
    for kind in (float, double):
        seen, raised = trajectory(fastsched, kind, make, change, at)
        if kind is float:
            assert seen == expected
            assert raised is error
        else:
            # A class with values for each group steps none, while torch raises after it has stepped some.
            assert raised is error
            torch.testing.assert_close(seen, expected[: len(seen)], rtol=1e-12, atol=0)
            assert len(seen) == len(expected)


@pytest.mark.parametrize("change", [add_group, remove_group])
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_a_nested_sequence_raises_or_stays_finite(change):
    for seed in range(60):
        choose = random.Random(seed)

        def tree(optimizer, depth, choose=choose):
            if depth == 0:
                return LEAVES[choose.choice(list(LEAVES))](fastsched, optimizer)
            children = [tree(optimizer, choose.randrange(depth)) for _ in range(2)]
            if choose.random() < 0.5:
                return fastsched.ChainedScheduler(children)
            return fastsched.SequentialLR(optimizer, children, [choose.randrange(1, 5)])

        at, ends = choose.randrange(5), []
        for kind in (float, double):
            choose.seed(seed)
            ends.append(trajectory(fastsched, kind, lambda _, optimizer: tree(optimizer, 3), change, at))
        assert ends[0][1] is ends[1][1]
        assert len(ends[0][0]) == len(ends[1][0])


def test_lr_at_says_that_groups_have_changed():
    optimizer = stepped_sgd([0.5])
    scheduler = fastsched.SequentialLR(
        optimizer, [fastsched.LinearLR(optimizer), fastsched.ExponentialLR(optimizer, 0.5)], [2]
    )
    add_group(scheduler, float)
    with pytest.raises(ValueError, match=r"LinearLR has no base learning rate .* groups were added"):
        scheduler.lr_at(5)


def with_plateau(optimizer, depth):
    scheduler = fastsched.SequentialLR(
        optimizer, [fastsched.LinearLR(optimizer, 0.25, total_iters=3), fastsched.ReduceLROnPlateau(optimizer)], [3]
    )
    return scheduler if depth == 0 else fastsched.SequentialLR(optimizer, [scheduler], [])


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("kind", [float, torch.tensor, double])
def test_a_group_that_comes_later_begins_a_plateau_from_the_lr_it_came_with(kind, depth):
    scheduler = with_plateau(stepped_sgd([kind(0.5)]), depth)
    for i in range(5):
        if i == 1:
            add_group(scheduler, kind)
        scheduler.step(1.0)
        assert "initial_lr" not in scheduler.optimizer.param_groups[-1] or i == 0
    assert lrs(scheduler) == [0.5, 0.375]


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("kind", [float, torch.tensor, double])
@pytest.mark.parametrize("at", range(4))
def test_an_optimizer_state_without_initial_lr_leaves_the_sequence_its_own(kind, depth, at):
    scheduler = with_plateau(stepped_sgd([kind(0.5)]), depth)
    for i in range(5):
        if i == at:
            state = scheduler.optimizer.state_dict()
            for group in state["param_groups"]:
                group.pop("initial_lr", None)
            scheduler.optimizer.load_state_dict(state)
        scheduler.step(1.0)
    assert lrs(scheduler) == [0.5]
    assert "initial_lr" not in scheduler.optimizer.param_groups[0]


@pytest.mark.parametrize("kind", [float, double])
@pytest.mark.parametrize("restart", ["ChainedScheduler", "SequentialLR"])
def test_a_restart_without_initial_lr(kind, restart):
    optimizer = stepped_sgd([kind(0.5)])
    leaves = [fastsched.ExponentialLR(optimizer, 0.5), fastsched.ExponentialLR(optimizer, 0.5)]
    inner = (
        fastsched.ChainedScheduler(leaves)
        if restart == "ChainedScheduler"
        else fastsched.SequentialLR(optimizer, leaves, [1])
    )
    scheduler = fastsched.SequentialLR(optimizer, [fastsched.ConstantLR(optimizer, 0.5, 9), inner], [3])
    for i in range(3):
        if i == 1:
            optimizer.param_groups[0].pop("initial_lr")
        scheduler.step()
    assert lrs(scheduler) == [0.5]


@pytest.mark.parametrize("kind", [float, double])
def test_a_loaded_scheduler_brings_the_lrs_that_it_began_with(kind):
    scheduler = with_plateau(stepped_sgd([kind(0.5)]), 0)
    fresh = with_plateau(stepped_sgd([kind(0.125)]), 0)
    scheduler.step(1.0)
    fresh.load_state_dict(scheduler.state_dict())
    state = scheduler.optimizer.state_dict()
    state["param_groups"][0].pop("initial_lr")
    fresh.optimizer.load_state_dict(state)
    for _ in range(3):
        fresh.step(1.0)
    assert lrs(fresh) == [0.5]


@pytest.mark.parametrize("kind", [float, torch.tensor, double])
@pytest.mark.parametrize("name", [name for name in LEAVES if name != "SWALR"])
@given(pattern=st.lists(st.booleans(), min_size=4, max_size=8))
def test_a_step_of_a_subclass_is_called_at_construction(name, kind, pattern):
    """Whether or not it passes the call on."""

    def run(module, kind):
        made = {}

        class Own(getattr(module, name)):
            def step(self, *args):
                made["calls"] = made.get("calls", -1) + 1
                if pattern[made["calls"] % len(pattern)]:
                    super().step(*args)

        module = type("Module", (), {name: Own})
        scheduler = LEAVES[name](module, stepped_sgd([kind(0.5)]))
        seen = [(lrs(scheduler), made["calls"])]
        for _ in range(7):
            scheduler.step()
            seen.append((lrs(scheduler), made["calls"], scheduler.last_epoch))
        return seen

    expected = run(torch_lr_scheduler, float)
    seen = run(fastsched, kind)
    if kind is torch.tensor:
        expected = [([torch.tensor(lr).item() for lr in entry[0]], *entry[1:]) for entry in expected]
    assert seen == expected


def test_compositions_on_numbers_move_to_tensors_in_the_next_step():
    for at in range(6):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5, fused=True)
        scheduler = fastsched.SequentialLR(
            optimizer,
            [fastsched.LinearLR(optimizer, 0.25, total_iters=3), fastsched.ExponentialLR(optimizer, 0.5)],
            [3],
        )
        optimizer.step()
        for i in range(6):
            if i == at:
                fastsched.use_tensor_lr(optimizer)
            scheduler.step()
            assert isinstance(scheduler, _Composite)
            assert isinstance(scheduler._engine, TensorEngine) is (i >= at)
