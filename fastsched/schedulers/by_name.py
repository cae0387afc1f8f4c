"""Schedulers by the names that transformers has for them, with its arguments and, on Python numbers, its numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .. import _C
from .greedy import GreedyLR
from .phases import CURVES, PhasesLR, Row, choice, number
from .plateau import ReduceLROnPlateau
from .warmup import (
    InverseSqrtLR,
    WarmupCosineLR,
    WarmupLinearLR,
    WarmupLR,
    WarmupPolynomialLR,
    WarmupStableDecayLR,
    held,
    rise,
)


def _after(begins: float, length: float, curve: str, low: float = 0.0, parameter: float = 1.0) -> Row:
    """Down from 1 in so many steps, and on with the curve where another phase does not end it."""
    return Row(math.inf, begins, length, math.inf, _C.CURVES[curve], False, 1.0, low, parameter)


def _until(end: float, row: Row) -> Row:
    return row._replace(end=float(end))


def _initial_lr(optimizer: Optimizer) -> float:
    return float(optimizer.defaults["lr"])


def _constant(optimizer: Optimizer) -> LRScheduler:
    return PhasesLR._of(optimizer, [held()])


def _constant_with_warmup(optimizer: Optimizer, num_warmup_steps: int) -> LRScheduler:
    return WarmupLR._of(optimizer, [rise(num_warmup_steps), held()])


def _linear(optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, last_epoch: int = -1) -> LRScheduler:
    length = max(1, num_training_steps - num_warmup_steps)
    rows = [rise(num_warmup_steps), _after(num_training_steps - length, length, "remaining")]
    return WarmupLinearLR._of(optimizer, rows, last_epoch)


def _cosine(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> LRScheduler:
    length = max(1, num_training_steps - num_warmup_steps)
    waves = number("num_cycles", num_cycles, -math.inf)
    rows = [rise(num_warmup_steps), _after(num_warmup_steps, length, "cosine", 0.0, waves)]
    return WarmupCosineLR._of(optimizer, rows, last_epoch)


def _cosine_with_restarts(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: int = 1,
    last_epoch: int = -1,
) -> LRScheduler:
    length = max(1, num_training_steps - num_warmup_steps)
    descents = _after(num_warmup_steps, length, "restarts", 0.0, number("num_cycles", num_cycles))
    rows = [rise(num_warmup_steps), _until(num_warmup_steps + length, descents), held(0.0)]
    return WarmupCosineLR._of(optimizer, rows, last_epoch)


def _polynomial(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    lr_end: float = 1e-7,
    power: float = 1.0,
    last_epoch: int = -1,
) -> LRScheduler:
    initial = _initial_lr(optimizer)
    if not initial > lr_end:
        raise ValueError(f"lr_end must be less than the optimizer's lr, {initial}; got {lr_end}")
    length = num_training_steps - num_warmup_steps
    exponent = number("power", power)
    curve = CURVES["polynomial"]
    decay = Row(0.0, num_warmup_steps, length, length, curve, False, initial, lr_end, exponent, unit=initial)
    rows = [rise(num_warmup_steps), held(lr_end)._replace(unit=initial)]
    if length > 0:  # its end is one of its steps
        rows.insert(1, _until(math.floor(num_training_steps) + 1, decay))
    return WarmupPolynomialLR._of(optimizer, rows, last_epoch)


def _inverse_sqrt(
    optimizer: Optimizer, num_warmup_steps: int, timescale: int | None = None, last_epoch: int = -1
) -> LRScheduler:
    scale = number("timescale", (num_warmup_steps or 10_000) if timescale is None else timescale, above=True)
    rows = [rise(num_warmup_steps), _after(num_warmup_steps - scale, scale, "inverse_sqrt")]
    return InverseSqrtLR._of(optimizer, rows, last_epoch)


def _least(optimizer: Optimizer, min_lr: float | None, min_lr_rate: float | None) -> float:
    if (min_lr is None) == (min_lr_rate is None):
        raise ValueError("give one of min_lr and min_lr_rate in scheduler_specific_kwargs, and only one")
    return number("min_lr_rate", min_lr / _initial_lr(optimizer) if min_lr is not None else min_lr_rate, -math.inf)


def _cosine_with_min_lr(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> LRScheduler:
    low = _least(optimizer, min_lr, min_lr_rate)
    length = max(1, num_training_steps - num_warmup_steps)
    waves = number("num_cycles", num_cycles, -math.inf)
    rows = [rise(num_warmup_steps), _after(num_warmup_steps, length, "cosine", low, waves)]
    return WarmupCosineLR._of(optimizer, rows, last_epoch)


def _cosine_warmup_with_min_lr(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
) -> LRScheduler:
    low = _least(optimizer, min_lr, min_lr_rate)
    waves = number("num_cycles", num_cycles, -math.inf)
    warmup = rise(num_warmup_steps)
    if warmup_lr_rate is None:  # its first step is already one of those up
        warmup = warmup._replace(start=-1.0, last_step=math.inf)
    else:
        start = number("warmup_lr_rate", warmup_lr_rate)
        length = max(1, num_warmup_steps - 1)
        warmup = warmup._replace(curve=_C.CURVES["product"], length=length, last_step=math.inf, low=start)
    length = max(1, num_training_steps - num_warmup_steps)
    rows = [warmup, _after(num_warmup_steps - 1, length, "cosine", low, waves)]
    return WarmupCosineLR._of(optimizer, rows, last_epoch)


def _warmup_stable_decay(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_decay_steps: int,
    num_training_steps: int | None = None,
    num_stable_steps: int | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> LRScheduler:
    if num_training_steps is None and num_stable_steps is None:
        raise ValueError("give num_training_steps or num_stable_steps: how long it stays is not known")
    if num_training_steps is not None and num_stable_steps is not None:
        warnings.warn("num_stable_steps counts, and num_training_steps does not", stacklevel=3)
    choice("warmup_type", warmup_type, ("linear", "cosine", "1-sqrt"))
    choice("decay_type", decay_type, ("linear", "cosine", "1-sqrt"))
    if num_stable_steps is None:
        assert num_training_steps is not None
        num_stable_steps = num_training_steps - num_warmup_steps - num_decay_steps
    low = number("min_lr_ratio", min_lr_ratio, -math.inf)
    parameter = number("num_cycles", num_cycles, -math.inf) if decay_type == "cosine" else 1.0
    decays = num_warmup_steps + num_stable_steps
    curve = "one_minus_sqrt" if decay_type == "1-sqrt" else decay_type
    rows = [
        rise(num_warmup_steps, warmup_type, low),
        _until(decays, held()),
        _until(decays + num_decay_steps, _after(decays, max(1, num_decay_steps), curve, low, parameter)),
        held(low),
    ]
    return WarmupStableDecayLR._of(optimizer, rows, last_epoch)


_WITHOUT_STEPS: dict[str, Callable[..., Any]] = {"reduce_lr_on_plateau": ReduceLROnPlateau, "greedy": GreedyLR}
_AFTER_WARMUP: dict[str, Callable[..., Any]] = {
    "constant_with_warmup": _constant_with_warmup,
    "inverse_sqrt": _inverse_sqrt,
}
_OF_LENGTH: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "polynomial": _polynomial,
    "cosine_with_min_lr": _cosine_with_min_lr,
    "cosine_warmup_with_min_lr": _cosine_warmup_with_min_lr,
}


def available_schedulers() -> list[str]:
    """The names that :func:`get_scheduler` knows, sorted."""
    return sorted([*_WITHOUT_STEPS, *_AFTER_WARMUP, *_OF_LENGTH, "constant", "warmup_stable_decay"])


def get_scheduler(
    name: str,
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: dict[str, Any] | None = None,
) -> Any:
    """Make a scheduler by the name that transformers has for it: its ``get_scheduler``, and its numbers.

    With Python-number learning rates every step is bit-identical to that of transformers 5; with tensor learning rates
    it is that trajectory rounded. The scheduler is one of the classes here, so it steps on the device, may be captured
    and compiled, and has ``lr_at``; all but ``greedy``, which Python steps.

    Args:
        name: one of :func:`available_schedulers`, or a member of transformers' ``SchedulerType``.
        optimizer: any :class:`torch.optim.Optimizer`.
        num_warmup_steps: steps of the warm-up; not needed by ``constant``, ``reduce_lr_on_plateau`` and ``greedy``.
        num_training_steps: steps of the run; needed by all that decay to an end.
        scheduler_specific_kwargs: what a scheduler takes besides, under transformers' names: ``num_cycles``, ``power``,
            ``lr_end``, ``min_lr`` or ``min_lr_rate``, ``warmup_lr_rate``, ``timescale``, ``num_decay_steps``,
            ``num_stable_steps``, ``warmup_type``, ``decay_type``, ``min_lr_ratio``; those of
            :class:`ReduceLROnPlateau` and :class:`GreedyLR`.

    Returns:
        the scheduler.

    Raises:
        ValueError: there is no such name, or a number of steps is missing or an argument is not what it should be.
        TypeError: the scheduler does not take some of ``scheduler_specific_kwargs``.

    Construction may wait for the device, as that of any scheduler on tensor learning rates. Step, sync, capture and
    compile as in :class:`~fastsched.schedulers.epoch._EpochScheduler`.

    Example::

        scheduler = fastsched.get_scheduler("cosine", optimizer, num_warmup_steps=100, num_training_steps=1000)
    """
    key = getattr(name, "value", name)
    known = available_schedulers()
    if key not in known:
        raise ValueError(f"name must be one of {', '.join(known)}; got {key!r}")
    if key == "constant":
        return _constant(optimizer)
    kwargs = scheduler_specific_kwargs or {}
    if key in _WITHOUT_STEPS:
        return _WITHOUT_STEPS[key](optimizer, **kwargs)
    if num_warmup_steps is None:
        raise ValueError(f"{key} requires `num_warmup_steps`: how many steps its warm-up has")
    if key == "constant_with_warmup":
        return _constant_with_warmup(optimizer, num_warmup_steps)
    if key in _AFTER_WARMUP:
        return _AFTER_WARMUP[key](optimizer, num_warmup_steps, **kwargs)
    if key == "warmup_stable_decay":
        return _warmup_stable_decay(
            optimizer, num_warmup_steps=num_warmup_steps, num_training_steps=num_training_steps, **kwargs
        )
    if num_training_steps is None:
        raise ValueError(f"{key} requires `num_training_steps`: how many steps the run has")
    return _OF_LENGTH[key](optimizer, num_warmup_steps, num_training_steps, **kwargs)
