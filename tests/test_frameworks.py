"""What training frameworks do to a scheduler, imitated without importing them, and compared with torch."""

import functools
import io
import math
import types
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as torch_lr_scheduler

from fastsched import lr_scheduler

MODULES = (torch_lr_scheduler, lr_scheduler)


def warm_up_and_decay(epoch, warm_up):
    return min((epoch + 1) / warm_up, 0.9**epoch)


CONFIGURATIONS = {
    "StepLR": {"step_size": 3, "gamma": 0.5},
    "MultiStepLR": {"milestones": [2, 5, 5, 9], "gamma": 0.5},
    "ConstantLR": {"factor": 0.25, "total_iters": 6},
    "LinearLR": {"start_factor": 0.25, "end_factor": 0.75, "total_iters": 8},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"total_iters": 40, "power": 1.5},
    "CosineAnnealingLR": {"T_max": 7, "eta_min": 0.01},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2, "eta_min": 0.01},
    # transformers and torchtitan make their schedules from partials
    "LambdaLR": {"lr_lambda": functools.partial(warm_up_and_decay, warm_up=4)},
    "MultiplicativeLR": {"lr_lambda": lambda epoch: 1.05 if epoch % 3 == 0 else 0.9},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 2, "step_size_down": 4, "mode": "triangular2"},
    "OneCycleLR": {"max_lr": [1.0, 0.5], "total_steps": 24},
    "ReduceLROnPlateau": {"patience": 1, "factor": 0.5, "cooldown": 1},
}
ALL = [*CONFIGURATIONS, "SequentialLR", "ChainedScheduler"]
WITH_GET_LR = [name for name in CONFIGURATIONS if name != "ReduceLROnPlateau"]
SCALED_BY_COMPOSER = ["StepLR", "MultiStepLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR"]
LOSSES = (3.0, 2.0, 2.5, 2.5, 2.5, 1.0, 1.5, 1.5, 0.5, 0.75, 0.75, 0.75)
either_kind = pytest.mark.parametrize(
    "kind", [float, lambda lr: torch.tensor(lr, dtype=torch.float64)], ids=["float", "tensor"]
)


def make(module, name, kind, optimizer_class=torch.optim.SGD):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": kind(lr)} for lr in (0.5, 0.125)]
    optimizer = optimizer_class(groups, lr=0.1)
    if name == "SequentialLR":
        parts = [module.LinearLR(optimizer, total_iters=3), module.StepLR(optimizer, 2, gamma=0.5)]
        return module.SequentialLR(optimizer, parts, milestones=[3])
    if name == "ChainedScheduler":
        return module.ChainedScheduler([module.ConstantLR(optimizer, 0.5, 4), module.ExponentialLR(optimizer, 0.9)])
    return getattr(module, name)(optimizer, **CONFIGURATIONS[name])


def observed(scheduler):
    counters = ("last_epoch", "_step_count", "T_cur", "T_i", "best", "num_bad_epochs", "cooldown_counter")
    seen = {name: getattr(scheduler, name) for name in counters if hasattr(scheduler, name)}
    for i, group in enumerate(scheduler.optimizer.param_groups):
        seen[f"lr {i}"] = float(group["lr"])
        seen[f"momentum {i}"] = group["betas"][0] if "betas" in group else group["momentum"]
    return seen | {f"last lr {i}": float(lr) for i, lr in enumerate(scheduler.get_last_lr())}


def close(seen, kind):
    """The same numbers; for tensors all but the last places, which torch computes in a different order."""
    return pytest.approx(seen, rel=0, abs=0) if kind is float else pytest.approx(seen, rel=1e-12, abs=1e-15)


def setting_id(setting):
    return "-".join(getattr(value, "__name__", str(value)) for value in setting.values()) or "plain"


def against_torch(names, *settings):
    """Make a test from a generator, which has to yield the same numbers for torch's schedulers and fastsched's."""

    def decorate(imitation):
        @pytest.mark.parametrize("name", names)
        @either_kind
        @pytest.mark.parametrize("setting", settings or [{}], ids=setting_id)
        def test(name, kind, setting):
            runs = [imitation(functools.partial(make, module, name, kind), **setting) for module in MODULES]
            for theirs, ours in zip(*runs, strict=True):
                assert ours == close(theirs, kind)

        test.__doc__ = imitation.__doc__
        return test

    return decorate


def is_plateau(scheduler):
    return isinstance(scheduler, torch_lr_scheduler.ReduceLROnPlateau)


def step(scheduler, metric):
    scheduler.step(*([metric] if is_plateau(scheduler) else []))


def train(scheduler, metric):
    scheduler.optimizer.step()
    step(scheduler, metric)


def through_a_file(scheduler):
    file = io.BytesIO()
    torch.save({"optimizer": scheduler.optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def restore(scheduler, checkpoint):
    """In the order of Lightning, transformers, accelerate, DeepSpeed and composer."""
    scheduler.optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])


@pytest.mark.parametrize("name", ALL)
@either_kind
def test_decisions_on_the_type(name, kind):
    def decisions(module):
        scheduler = make(module, name, kind)
        scaled_classes = [getattr(torch_lr_scheduler, scaled) for scaled in SCALED_BY_COMPOSER]
        return {
            "Lightning, accelerate, ignite, composer: is one": isinstance(scheduler, torch_lr_scheduler.LRScheduler),
            "Lightning, transformers: needs a metric": is_plateau(scheduler),
            "Lightning: is for batches": isinstance(scheduler, torch_lr_scheduler.OneCycleLR),
            "accelerate: has an end": hasattr(scheduler, "total_steps"),
            "DeepSpeed: was given": bool(scheduler),
            "DeepSpeed: is a factory": isinstance(scheduler, Callable),
            "DeepSpeed: needs a client optimizer": isinstance(scheduler, torch_lr_scheduler._LRScheduler),
            "ignite: computes it itself": isinstance(scheduler, torch_lr_scheduler.CosineAnnealingWarmRestarts),
            "composer: scales it as": [isinstance(scheduler, scaled) for scaled in scaled_classes],
            "composer: key in the checkpoint": type(scheduler).__qualname__,
        }

    assert decisions(lr_scheduler) == decisions(torch_lr_scheduler)


@against_torch(ALL, {}, {"optimizer_class": torch.optim.Adam})
def test_lightning_trains(create, **optimizer):
    """The trainer's loop under a LearningRateMonitor, which keeps the very objects that it reads."""
    scheduler = create(**optimizer)
    monitored = []
    for loss in LOSSES:
        monitored += [group["lr"] for group in scheduler.optimizer.param_groups]
        train(scheduler, torch.tensor(loss))
        yield observed(scheduler)
    yield dict(enumerate(map(float, monitored)))


class RangeTest(torch_lr_scheduler.LRScheduler):
    def get_lr(self):
        self.lr = [base * 1.5**self.last_epoch for base in self.base_lrs]
        return self.lr


@against_torch(ALL, {"steps_before": 0}, {"steps_before": 4})
def test_lightning_finds_a_learning_rate(create, steps_before):
    """The LR finder: Python-number LRs, another scheduler, back to the checkpoint, then the LR that it found."""
    scheduler = create()
    for loss in LOSSES[:steps_before]:
        train(scheduler, torch.tensor(loss))
    checkpoint = through_a_file(scheduler)
    for group in scheduler.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1e-3
    finder = RangeTest(scheduler.optimizer)
    for _ in range(5):
        yield dict(enumerate(finder.lr))
        train(finder, None)
    restore(scheduler, checkpoint)
    yield observed(scheduler)
    for group in scheduler.optimizer.param_groups:
        group["lr"] = finder.lr[0]
    for loss in LOSSES:
        train(scheduler, torch.tensor(loss))
        yield observed(scheduler)


@against_torch(ALL, {"number": float}, {"number": np.float32}, {"number": np.float64})
def test_transformers_trains_and_resumes(create, number):
    """Logs the LR before it steps, steps a plateau with the evaluation's metric, resumes from scheduler.pt."""
    scheduler = create()
    for i, loss in enumerate(LOSSES):
        scheduler.optimizer.step()
        lr = scheduler.optimizer.param_groups[0]["lr"] if is_plateau(scheduler) else scheduler.get_last_lr()[0]
        step(scheduler, number(loss))
        if i % 5 == 4:
            checkpoint, scheduler = through_a_file(scheduler), create()
            restore(scheduler, checkpoint)
        yield {"learning_rate": lr.item() if torch.is_tensor(lr) else lr, **observed(scheduler)}


def accelerate(create, accumulation, processes):
    """AcceleratedScheduler: counts accumulated batches from outside, steps once per process, stops at total_steps."""
    scheduler = create()
    for batch, loss in enumerate(LOSSES):
        if batch % accumulation != accumulation - 1:
            scheduler._step_count += 1
        elif batch != 5:  # then the gradient scaler skips the optimizer's step
            scheduler.optimizer.step()
            for _ in range(processes):
                if not hasattr(scheduler, "total_steps") or scheduler._step_count <= scheduler.total_steps:
                    step(scheduler, loss)
        yield observed(scheduler)


test_accelerate_steps_once_per_process = against_torch(ALL, {"accumulation": 1, "processes": 3})(accelerate)
test_accelerate_counts_accumulated_batches = against_torch(  # torch's other schedulers have no _step_count
    WITH_GET_LR, {"accumulation": 3, "processes": 1}, {"accumulation": 3, "processes": 8}
)(accelerate)


@against_torch(ALL, {"prepared_first": True}, {"prepared_first": False})
def test_accelerate_replaces_the_step_of_the_optimizer(create, prepared_first):
    """For the gradient scaler; restores what it found at prepare, from before or after the scheduler's wrapper."""
    scheduler = create()
    optimizer = scheduler.optimizer
    original = types.MethodType(type(optimizer).step, optimizer) if prepared_first else optimizer.step
    for loss in LOSSES[:3]:
        optimizer.step = lambda *args: original(*args)
        optimizer.step()
        optimizer.step = original
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step(scheduler, loss)
        overridden = [warning for warning in caught if "has been overridden" in str(warning.message)]
        yield {"warnings": len(caught), "overridden": len(overridden), **observed(scheduler)}


@against_torch(CONFIGURATIONS, {}, {"increment": 4})  # torch's composites refuse the batch size as well
def test_deepspeed_steps(create, **lr_kwargs):
    """A TypeError means that the scheduler wants the batch size: a plateau or, with Megatron's ``increment``, any."""
    scheduler = create()
    for _ in range(6):
        scheduler.optimizer.step()
        caught = []
        try:
            scheduler.step(**lr_kwargs)
        except TypeError:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                scheduler.step(4)
        yield {"warnings": len(caught), **observed(scheduler)}


def ignite_lrs(scheduler):
    if not isinstance(scheduler, torch_lr_scheduler.CosineAnnealingWarmRestarts):
        scheduler._get_lr_called_within_step = True
        lrs = scheduler.get_lr()
        scheduler._get_lr_called_within_step = False
        return lrs
    # It computes these itself, from the scheduler's attributes.
    scheduler.last_epoch += 1
    scheduler.T_cur += 1
    if scheduler.T_cur >= scheduler.T_i:
        scheduler.T_cur -= scheduler.T_i
        scheduler.T_i *= scheduler.T_mult
    share = (1 + math.cos(math.pi * scheduler.T_cur / scheduler.T_i)) / 2
    return [scheduler.eta_min + (base - scheduler.eta_min) * share for base in scheduler.base_lrs]


@against_torch(WITH_GET_LR, {"with_warm_up": False}, {"with_warm_up": True})
def test_ignite_asks_for_learning_rates(create, with_warm_up):
    """LRScheduler, which never steps; simulate_values, which restores the scheduler first and then the optimizer."""
    scheduler = create()
    if with_warm_up:
        scheduler.last_epoch += 1
        for group in scheduler.optimizer.param_groups:
            group["lr"] = 0.75 * float(group["lr"])
    checkpoint = through_a_file(scheduler)
    for i in range(16):
        for group, lr in zip(scheduler.optimizer.param_groups, ignite_lrs(scheduler), strict=True):
            group["lr"] = lr
        scheduler.last_epoch += 1
        yield observed(scheduler)
        if i == 5:
            scheduler.load_state_dict(checkpoint["scheduler"])
            scheduler.optimizer.load_state_dict(checkpoint["optimizer"])
            yield observed(scheduler)


@against_torch(["ReduceLROnPlateau"], {"index": None}, {"index": 1})
def test_ignite_reduces_on_a_plateau(create, index):
    """ReduceLROnPlateauScheduler, which reduces by itself, and only one group if told to."""

    def reduce(epoch):
        for i, group in enumerate(groups):
            before = float(group["lr"])
            after = max(before * scheduler.factor, scheduler.min_lrs[i])
            if before - after > scheduler.eps:
                group["lr"] = after

    scheduler = create()
    groups = scheduler.optimizer.param_groups if index is None else [scheduler.optimizer.param_groups[index]]
    scheduler._reduce_lr = reduce
    for loss in LOSSES:
        scheduler.step(loss)
        yield dict.fromkeys(scheduler.state_dict(), 0) | observed(scheduler)


@against_torch(SCALED_BY_COMPOSER, *({"ratio": ratio, "steps_before": n} for ratio in (0.5, 2.0) for n in (0, 4)))
def test_composer_scales_the_schedule(create, ratio, steps_before):
    """``scale_schedule_ratio`` writes hyperparameters, before training or between two calls of fit."""
    scheduler = create()
    for _ in range(steps_before):
        train(scheduler, None)
    if hasattr(scheduler, "milestones"):
        scheduler.milestones = Counter(int(milestone * ratio) for milestone in scheduler.milestones)
    for span in ("step_size", "T_max", "T_0"):
        if hasattr(scheduler, span):
            setattr(scheduler, span, int(getattr(scheduler, span) * ratio))
    if isinstance(scheduler, torch_lr_scheduler.ExponentialLR):
        scheduler.gamma **= 1 / ratio
    for _ in range(20):
        train(scheduler, None)
        yield observed(scheduler)


@pytest.mark.parametrize("name", ALL)
@either_kind
@pytest.mark.parametrize("modules", [MODULES, MODULES[::-1]], ids=["from torch", "to torch"])
def test_composer_resumes_with_the_other_class_of_that_name(name, kind, modules):
    saved, resumed = (make(module, name, kind) for module in modules)
    for loss in LOSSES[:5]:
        train(saved, loss)
    checkpoint = through_a_file(saved)
    schedulers = {type(saved).__qualname__: checkpoint["scheduler"]}
    restore(resumed, {"optimizer": checkpoint["optimizer"], "scheduler": schedulers[type(resumed).__qualname__]})
    for loss in LOSSES[5:]:
        assert observed(resumed) == close(observed(saved), kind)
        train(saved, loss)
        train(resumed, loss)


@against_torch(WITH_GET_LR)
def test_torchtitan_restores_the_epoch(create):
    """LRSchedulersContainer saves only the epoch, and gets the LRs from the scheduler when it loads that."""
    saved, scheduler = create(), create()
    for _ in range(5):
        train(saved, None)
    scheduler.optimizer.load_state_dict(saved.optimizer.state_dict())
    scheduler.last_epoch = saved.last_epoch
    scheduler._step_count = saved.last_epoch + 1
    with pytest.warns(UserWarning, match="please use `get_last_lr"):
        scheduler._last_lr = scheduler.get_lr()
    yield observed(scheduler)
    for _ in range(10):
        train(scheduler, None)
        yield observed(scheduler)
