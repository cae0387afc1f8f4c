"""Param groups that are added after the scheduler was made."""

import copy

import pytest
import torch

import fastsched
from fastsched import _C
from fastsched.engine.tensor import TensorEngine

from .configurations import LONG, TORCH, make, tabulated
from .conftest import sgd
from .optimizers import stepped_sgd
from .values import bits, lrs

KINDS = {"float": float, "float64": lambda lr: torch.tensor(lr, dtype=torch.float64), "float32": torch.tensor}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
SHORT = LONG | {
    "OneCycleLR": {"max_lr": 0.5, "total_steps": 40},
    "CyclicLR": {"base_lr": 0.0625, "max_lr": 0.5, "step_size_up": 4},
    "CosineAnnealingLR": {"T_max": 10, "eta_min": 0.01},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2},
    "LinearLR": {"total_iters": 12},
    "PolynomialLR": {"total_iters": 30},
    "StepLR": {"step_size": 5, "gamma": 0.5},
    "MultiStepLR": {"milestones": [4, 9, 9], "gamma": 0.5},
    "SWALR": {"swa_lr": 0.125, "anneal_epochs": 9},
}


def add_group(scheduler, lr):
    scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr})


def extend_torchs(scheduler, lr):
    """Do by hand what add_groups() does."""
    group, last = scheduler.optimizer.param_groups[-1], scheduler.optimizer.param_groups[-2]
    group["initial_lr"] = lr
    scheduler.base_lrs.append(lr)
    for name in ("lr_lambdas", "max_lrs", "base_momentums", "max_momentums"):
        if hasattr(scheduler, name):
            getattr(scheduler, name).append(getattr(scheduler, name)[-1])
    if "swa_lr" in last:
        group["swa_lr"] = last["swa_lr"]
    if "max_lr" in last:
        group["max_lr"] = lr * (last["max_lr"] / last["initial_lr"])
        group["min_lr"] = lr * (last["min_lr"] / last["initial_lr"])
        group["max_momentum"], group["base_momentum"] = last["max_momentum"], last["base_momentum"]


@kinds
@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("before", [0, 3])
def test_every_class_takes_groups_in(name, kind, before):
    reference = make(TORCH, name, [0.5, 0.25], SHORT[name])
    scheduler = make(fastsched, name, [kind(0.5), kind(0.25)], SHORT[name])
    for one in (reference, scheduler):
        one.optimizer.step()
        for _ in range(before):
            one.step()
    add_group(reference, 0.125)
    extend_torchs(reference, 0.125)
    add_group(scheduler, kind(0.125))
    scheduler.add_groups()
    scheduler.add_groups()  # nothing more to take in
    for _ in range(20):
        reference.step()
        scheduler.step()
        expected = lrs(reference)
        if kind is torch.tensor:
            expected = torch.tensor(expected).tolist()
        assert bits([float(lr) for lr in lrs(scheduler)]) == bits(expected)
        assert [group["momentum"] for group in scheduler.optimizer.param_groups] == [
            group["momentum"] for group in reference.optimizer.param_groups
        ]
    assert isinstance(scheduler._engine, _C.HostEngine if kind is float else TensorEngine)
    resumed = make(fastsched, name, [kind(0.5), kind(0.25), kind(0.125)], SHORT[name])
    resumed.optimizer.load_state_dict(scheduler.optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    for _ in range(5):
        scheduler.step()
        resumed.step()
        assert bits(lrs(resumed)) == bits(lrs(scheduler))


@kinds
def test_plateaus_take_groups_in(kind):
    plateau = fastsched.ReduceLROnPlateau(sgd([kind(0.5), kind(0.5)]), patience=0, factor=0.5, min_lr=[0.0, 0.25])
    warm = fastsched.WarmupReduceLROnPlateau(sgd([kind(0.5)]), patience=0, warmup_steps=2, warmup_start_factor=0.5)
    for scheduler in (plateau, warm):
        scheduler.step(1.0)
        add_group(scheduler, kind(1.0))
        scheduler.add_groups()
        for _ in range(3):
            scheduler.step(1.0)
    assert lrs(plateau) == [0.0625, 0.25, 0.25]
    assert lrs(warm) == pytest.approx([0.05, 0.1])
    assert [float(base) for base in warm.base_lrs] == [0.5, 1.0]


@kinds
@pytest.mark.parametrize("torchs", [False, True], ids=["native", "with one of torch's"])
def test_compositions_take_groups_in_for_all_that_is_in_them(kind, torchs):
    def build(initial):
        optimizer = stepped_sgd([kind(lr) for lr in initial])
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR if torchs else fastsched.CosineAnnealingLR
        chain = fastsched.ChainedScheduler([fastsched.ExponentialLR(optimizer, 0.9), cosine(optimizer, 7)])
        parts = [fastsched.LinearLR(optimizer, 0.5, total_iters=3), chain, fastsched.CosineAnnealingLR(optimizer, 9)]
        return fastsched.SequentialLR(optimizer, parts, milestones=[3, 6])

    scheduler, whole = build([0.5]), build([0.5, 0.25])
    for _ in range(2):
        scheduler.step()
        whole.step()
    group = whole.optimizer.param_groups[1]
    add_group(scheduler, kind(float(group["lr"])))
    scheduler.optimizer.param_groups[1]["initial_lr"] = 0.25
    scheduler.add_groups()
    for _ in range(9):
        scheduler.step()
        whole.step()
        assert lrs(scheduler) == pytest.approx(lrs(whole), rel=1e-6)
        assert len(scheduler.get_last_lr()) == 2
    if not torchs:
        assert type(scheduler._engine) is type(whole._engine)


def test_without_it_torch_raises_and_so_does_this():
    for module in (TORCH, fastsched):
        scheduler = make(module, "LambdaLR", [0.5], SHORT["LambdaLR"])
        scheduler.optimizer.step()
        add_group(scheduler, 0.25)
        with pytest.raises(ValueError, match="zip"):
            scheduler.step()
    scheduler.add_groups()
    scheduler.step()
    assert len(scheduler.get_last_lr()) == 2


@kinds
def test_selections_take_in_what_their_function_says(kind):
    def named(group):
        return group.get("scheduled", False)

    optimizer = stepped_sgd([kind(0.5), kind(0.5)])
    for group in optimizer.param_groups:
        group["weight_decay"] = kind(0.25)
    optimizer.param_groups[0]["scheduled"] = True
    chosen = fastsched.ExponentialLR(optimizer, 0.5, groups=named)
    first = fastsched.ExponentialLR(optimizer, 0.5, groups=[1])
    decay = fastsched.LinearLR(optimizer, 0.5, total_iters=2, param_name="weight_decay")
    scheduler = fastsched.ChainedScheduler([chosen, first, decay])
    for scheduled in (True, False):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer.add_param_group(
            {"params": [parameter], "lr": kind(1.0), "weight_decay": kind(1.0), "scheduled": scheduled}
        )
    scheduler.add_groups()
    copy.deepcopy(scheduler).add_groups()
    scheduler.step()
    scheduler.step()
    groups = optimizer.param_groups
    assert [float(group["lr"]) for group in groups] == [0.125, 0.125, 0.25, 1.0]
    assert [float(group["weight_decay"]) for group in groups] == [0.25, 0.25, 2.0, 2.0]
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "weight_decay": "none"})
    with pytest.raises(TypeError, match="'weight_decay' in param_groups"):
        decay.add_groups()


def test_compiled_steps_go_on():
    torch._dynamo.reset()
    scheduler = make(fastsched, "CosineAnnealingLR", [torch.tensor(0.5)], SHORT["CosineAnnealingLR"])
    scheduler.optimizer.step()
    scheduler.step()
    compiled = torch.compile(scheduler.step, fullgraph=True, backend="aot_eager")
    compiled()
    add_group(scheduler, torch.tensor(0.25))
    scheduler.add_groups()
    eager = copy.deepcopy(scheduler)
    for _ in range(3):
        compiled()
        eager.step()
        assert lrs(scheduler) == lrs(eager)
    torch._dynamo.reset()


def test_a_table_is_made_for_the_new_group_too():
    scheduler = make(fastsched, "LambdaLR", [torch.tensor(0.5)], SHORT["LambdaLR"])
    assert tabulated(fastsched, "LambdaLR")
    scheduler.optimizer.step()
    add_group(scheduler, torch.tensor(0.25))
    scheduler.add_groups()
    scheduler.step()
    assert lrs(scheduler)[1] == lrs(scheduler)[0] / 2
