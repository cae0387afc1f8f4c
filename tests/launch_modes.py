"""Schedulers that are tested eager, compiled and captured."""

from __future__ import annotations

from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched

from .configurations import LONG, tabulated
from .trees import deep


def made_by(name):
    def make(module, optimizer):
        configuration = {**LONG[name], **({"cycle_momentum": False} if name in ("CyclicLR", "OneCycleLR") else {})}
        return getattr(module, name)(optimizer, **configuration, **tabulated(module, name))

    return make


def plateau(module, optimizer):
    base = fastsched.ReduceLROnPlateau if module is fastsched else TorchPlateau
    return base(optimizer, patience=1, factor=0.9, cooldown=1, threshold=0.1)


def warm_up_then_cosine(module, optimizer):
    parts = [module.LinearLR(optimizer, 0.1, total_iters=7), module.CosineAnnealingLR(optimizer, T_max=12)]
    return module.SequentialLR(optimizer, parts, milestones=[7])


def chain(module, optimizer):
    return module.ChainedScheduler([module.ConstantLR(optimizer, 0.5, 9), module.ExponentialLR(optimizer, 0.9)])


def nested(module, optimizer):
    # torch cannot do this; fastsched on floats, stepped by Python, is the oracle.
    return deep(optimizer, 2)


def phases(module, optimizer):
    # torch has none; fastsched on floats is the oracle.
    return fastsched.WarmupStableDecayLR(optimizer, 5, 10, 20, 0.1, decay="1-sqrt")


def restarts(module, optimizer):
    return fastsched.DecayingRestartsLR(optimizer, 4, 0.5, 2, warmup_steps=3, min_lr_ratio=0.05)


def greedy(module, optimizer):
    # torch has none; fastsched on floats, which equals transformers to the last bit, is the oracle.
    arguments = {"patience": 0, "factor": 0.7, "min_lr": 0.02, "max_lr": 0.6, "reset_start": 2}
    return fastsched.GreedyLR(optimizer, **arguments, warmup=1, cooldown=1, smooth=True, window_size=3)


SCHEDULERS = {
    **{name: made_by(name) for name in LONG},
    "ReduceLROnPlateau": plateau,
    "warm-up then cosine": warm_up_then_cosine,
    "chain": chain,
    "phases": phases,
    "decaying restarts": restarts,
    "greedy": greedy,
    "nested with plateau": nested,
}

METRIC = {"ReduceLROnPlateau", "greedy", "nested with plateau"}
