"""Calls with the same numbers as another library's scheduler: the table in docs/migrating.md."""

import importlib.util
import math
import sys
import types

import pytest
import torch

import fastsched
from fastsched import Phase

from .conftest import sgd


def timm_schedulers():
    """timm.scheduler without timm's models: they import torchvision, which only loads with one exact build of torch."""
    spec = importlib.util.find_spec("timm")
    if "timm" not in sys.modules and spec is not None:
        package = types.ModuleType("timm")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec  # transformers checks whether timm is there
        sys.modules["timm"] = package
    return pytest.importorskip("timm.scheduler")


timm = timm_schedulers()

LR, S, R, W, N, T, D = 0.5, 0.1, 0.2, 5, 20, 25, 8
WARM = {"warmup_t": W, "warmup_lr_init": S * LR}
PREFIX = {**WARM, "warmup_prefix": True}
CYCLES = {"cycle_mul": 2, "cycle_decay": 0.7, "cycle_limit": 3}

TIMM = {
    "cosine": (
        lambda o: timm.CosineLRScheduler(o, N, R * LR, k_decay=1.5, **PREFIX),
        lambda o: fastsched.WarmupCosineLR(o, W, W + N, R, k_decay=1.5, warmup_start=S),
    ),
    "cosine without a prefix": (
        lambda o: timm.CosineLRScheduler(o, N, R * LR, k_decay=1.5, **WARM),
        lambda o: fastsched.WarmupCosineLR(o, W, N, R, k_decay=1.5, warmup_start=S, warmup_prefix=False),
    ),
    "cosine without warm-up": (
        lambda o: timm.CosineLRScheduler(o, N),
        lambda o: fastsched.WarmupCosineLR(o, 0, N),
    ),
    "cycles": (
        lambda o: timm.CosineLRScheduler(o, D, R * LR, **CYCLES, **PREFIX),
        lambda o: fastsched.DecayingRestartsLR(o, D, 0.7, 2, cycles=3, min_lr_ratio=R, warmup_steps=W, warmup_start=S),
    ),
    "polynomial": (
        lambda o: timm.PolyLRScheduler(o, N, power=0.7, lr_min=R * LR, **PREFIX),
        lambda o: fastsched.WarmupPolynomialLR(o, W, W + N, 0.7, R, warmup_start=S),
    ),
    "step": (
        lambda o: timm.StepLRScheduler(o, 3, decay_rate=0.8, **WARM),
        lambda o: fastsched.with_warmup(fastsched.StepLR(o, 3, 0.8), W, warmup_start=S),
    ),
}


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    theirs, ours = (sgd([LR, LR]) for _ in range(2))
    reference, scheduler = TIMM[name][0](theirs), TIMM[name][1](ours)
    ours.step()
    for epoch in range(80):
        lrs = [[group["lr"] for group in optimizer.param_groups] for optimizer in (theirs, ours)]
        assert lrs[1] == pytest.approx(lrs[0], rel=1e-13, abs=1e-16)
        reference.step(epoch + 1)
        scheduler.step()


def warm(t):
    return S + (1 - S) * t / W


def log_warm(t):
    return S + (1 - S) * math.log(t + 1) / math.log(W)


def between(low, share):
    return low + (1 - low) * share


def half_cosine(u):
    return (1 + math.cos(math.pi * u)) / 2


def megatron(shape):
    return lambda t: warm(t) if t <= W else R if t > T else between(R, shape((t - W) / (T - W)))


def megatron_wsd(shape):
    def factor(t):
        return warm(t) if t <= W else 1 if t <= T - D else R if t > T else between(R, shape((t - T + D) / D))

    return factor


def wsd(decay):
    return lambda o: fastsched.WarmupStableDecayLR(o, W, D, T, R, decay=decay, warmup_start=S)


# The formulas in megatron/core/optimizer_param_scheduler.py and deepspeed/runtime/lr_schedules.py.
FORMULAS = {
    "Megatron linear": (megatron(lambda u: 1 - u), lambda o: fastsched.WarmupLinearLR(o, W, T, R, warmup_start=S)),
    "Megatron cosine": (megatron(half_cosine), lambda o: fastsched.WarmupCosineLR(o, W, T, R, warmup_start=S)),
    "Megatron inverse-square-root": (
        lambda t: warm(t) if t <= W else W**0.5 / t**0.5,
        lambda o: fastsched.InverseSqrtLR(o, W, warmup_start=S),
    ),
    "Megatron WSD linear": (megatron_wsd(lambda u: 1 - u), wsd("linear")),
    "Megatron WSD cosine": (megatron_wsd(half_cosine), wsd("cosine")),
    "Megatron WSD exponential": (megatron_wsd(lambda u: 2 * 0.5**u - 1), wsd("exp2")),
    "Megatron WSD minus_sqrt": (megatron_wsd(lambda u: 1 - math.sqrt(u)), wsd("1-sqrt")),
    "DeepSpeed WarmupLR linear": (
        lambda t: warm(t) if t < W else 1,
        lambda o: fastsched.WarmupLR(o, W, warmup_start=S),
    ),
    "DeepSpeed WarmupLR log": (
        lambda t: log_warm(t) if t < W else 1,
        lambda o: fastsched.WarmupLR(o, W - 1, "log", S),
    ),
    "DeepSpeed WarmupDecayLR linear": (
        lambda t: warm(t) if t < W else between(S, max(0.0, (T - t) / (T - W))),
        lambda o: fastsched.WarmupLinearLR(o, W, T, S, warmup_start=S),
    ),
    "DeepSpeed WarmupDecayLR log": (
        lambda t: log_warm(t) if t < W else between(S, max(0.0, (T - t) / (T - W))),
        lambda o: fastsched.PhasesLR(o, [Phase(W - 1, "log", S, 1), Phase(1), Phase(T - W, "linear", 1, S)]),
    ),
    "DeepSpeed WarmupCosineLR": (
        lambda t: log_warm(t) if t < W else between(R, half_cosine(min(1.0, (t - W + 1) / (T - W)))),
        lambda o: fastsched.WarmupCosineLR(o, W - 1, T - 1, R, warmup="log", warmup_start=S),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_formulas_of_other_libraries(name, kind):
    formula, make = FORMULAS[name]
    optimizer = sgd([kind(LR)])
    scheduler = make(optimizer)
    optimizer.step()
    for t in range(40):
        expected = pytest.approx(LR * formula(t), rel=1e-13 if kind is float else 1e-6)
        assert float(optimizer.param_groups[0]["lr"]) == expected
        scheduler.step()
