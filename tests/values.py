"""Learning rates and states in a form that can be compared exactly."""

from __future__ import annotations

import math
import struct

import torch


def bits(value: object) -> object:
    """Equal exactly when type and bits are: 1 is not 1.0, -0.0 is not 0.0, every NaN is NaN."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("d", value)
    if isinstance(value, (list, tuple)):
        return [bits(item) for item in value]
    if isinstance(value, dict):
        return {name: bits(item) for name, item in value.items()}
    return (type(value), value)


def double(lr):
    return torch.tensor(lr, dtype=torch.float64)


def lrs(scheduler):
    return [float(group["lr"]) for group in scheduler.optimizer.param_groups]


def everything(scheduler):
    """Learning rates, and the counters of every scheduler in the tree."""
    names = ("last_epoch", "_step_count", "T_cur", "T_i", "best", "num_bad_epochs", "cooldown_counter")
    names += ("num_good_epochs", "warmup_counter", "reset_start", "_window_sum", "_window_count")
    found = [(name, float(value)) for name in names if (value := getattr(scheduler, name, None)) is not None]
    below = [everything(child) for child in getattr(scheduler, "_schedulers", [])]
    return lrs(scheduler), [float(lr) for lr in scheduler.get_last_lr()], found, below
