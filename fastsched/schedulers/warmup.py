"""The schedules with warm-up that have names of their own, each a list of phases; warm-up before any scheduler."""

from __future__ import annotations

import math
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from .. import _C
from ..engine.selection import Groups, Optimizers, select
from .compose import SequentialLR
from .phases import CURVES, Cycles, PhasesLR, Row, choice, number, steps, whole

__all__ = [
    "REXLR",
    "DecayingRestartsLR",
    "InverseSqrtLR",
    "NoamLR",
    "WarmupCosineLR",
    "WarmupLR",
    "WarmupLinearLR",
    "WarmupPolynomialLR",
    "WarmupStableDecayLR",
    "with_warmup",
]

_RISING = ("linear", "cosine", "1-sqrt", "1-square", "exponential", "log")
_FALLING = ("linear", "cosine", "1-sqrt", "1-square", "exponential", "exp2", "log", "rex")


def held(factor: float = 1.0) -> Row:
    """A constant factor for the rest of the run."""
    return Row(math.inf, 0.0, 1.0, 0.0, CURVES["constant"], False, factor, factor)


def rise(count: float, curve: str = "linear", start: float = 0.0) -> Row:
    """From ``start`` to 1 in so many steps."""
    length = max(1.0, count)
    parameter = 0.5 if curve == "cosine" else 1.0
    return Row(count, 0.0, length, length, CURVES[curve], True, 1.0, start, parameter)


def fall(begins: float, count: float, curve: int, low: float, parameter: float = 1.0) -> Row:
    """From 1 to ``low`` in so many steps, of which none may be left, then constant."""
    length = max(1.0, count)
    return Row(math.inf, begins + count - length, length, length, curve, False, 1.0, low, parameter)


def _warmup(count: int, curve: str, start: float) -> Row:
    choice("warmup", curve, _RISING)
    start = number("warmup_start", start)
    if start > 1:
        raise ValueError(f"warmup_start must be at most 1, because a warm-up rises; got {start!r}")
    if curve == "exponential" and start == 0:
        raise ValueError("warmup_start must be more than 0 for an exponential")
    return rise(count, curve, start)


def _spans(warmup_steps: float, total_steps: int) -> tuple[int, int]:
    total = whole("total_steps", total_steps)
    warmup = steps("warmup_steps", warmup_steps, total)
    if warmup > total:
        raise ValueError(f"warmup_steps must be at most total_steps={total}, got {warmup_steps!r}")
    return warmup, total


def _ratio(min_lr_ratio: float) -> float:
    ratio = number("min_lr_ratio", min_lr_ratio)
    if ratio > 1:
        raise ValueError(f"min_lr_ratio must be at most 1, got {min_lr_ratio!r}")
    return ratio


def _falling(name: str, curve: str, low: float) -> tuple[int, float]:
    """The number of a curve and its parameter."""
    choice(name, curve, _FALLING)
    if curve == "exponential" and low == 0:
        raise ValueError(f"{name}='exponential' never gets to 0: set min_lr_ratio, or use 'exp2'")
    return CURVES[curve], 0.5 if curve == "cosine" else 1.0


class WarmupLR(PhasesLR):
    """Raise the learning rates to their base in ``warmup_steps``, then leave them there.

    On a line that is, after ``t`` steps::

        lr = base * (warmup_start + (1 - warmup_start) * t / warmup_steps)

    As the first of a :class:`SequentialLR`, or by :func:`with_warmup`, it goes before any scheduler.
    transformers calls it ``constant_with_warmup``.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        warmup_steps: number of steps.
        warmup: the curve: ``"linear"``, ``"cosine"``, ``"1-sqrt"``, ``"1-square"``, ``"exponential"`` or ``"log"``;
            the formulas are those of :class:`PhasesLR`.
        warmup_start: the factor on the base learning rate to begin with.
        last_epoch: as in torch, the epoch before the one to begin at.
        param_name: the entry of the param groups to drive.
        groups: which of them; the others are left alone.

    Raises:
        TypeError, ValueError: an argument is not what it should be; names it. Nothing is changed then.

    Step, sync, capture and compile as in :class:`~fastsched.schedulers.epoch._EpochScheduler`.

    Example::

        scheduler = fastsched.WarmupLR(optimizer, 100)
    """

    def __init__(
        self,
        optimizer: Optimizers,
        warmup_steps: int,
        warmup: str = "linear",
        warmup_start: float = 0.0,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        count = whole("warmup_steps", warmup_steps, 0)
        self._begin(select(optimizer, param_name, groups), [_warmup(count, warmup, warmup_start), held()], last_epoch)

    @property
    def length(self) -> int | None:
        """The steps of the warm-up."""
        return round(self._decoded()[1][0].end)


class WarmupLinearLR(PhasesLR):
    """Warm up, then decay on a line to ``min_lr_ratio``.

    After the warm-up, with ``r = min_lr_ratio``::

        lr = base * (r + (1 - r) * (total_steps - t) / (total_steps - warmup_steps))

    transformers calls it ``linear``.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        warmup_steps: number of steps, or a share of ``total_steps`` as a float below 1.
        total_steps: the step at which the decay is over; the run may be longer.
        min_lr_ratio: the factor on the base learning rate that is left then.
        warmup: the curve of the warm-up, as in :class:`WarmupLR`.
        warmup_start: the factor that it begins with.
        last_epoch: as in torch, the epoch before the one to begin at.
        param_name: the entry of the param groups to drive.
        groups: which of them; the others are left alone.

    Raises:
        TypeError, ValueError: an argument is not what it should be; names it. Nothing is changed then.

    Step, sync, capture and compile as in :class:`~fastsched.schedulers.epoch._EpochScheduler`.

    Example::

        scheduler = fastsched.WarmupLinearLR(optimizer, 100, 1000)
    """

    def __init__(
        self,
        optimizer: Optimizers,
        warmup_steps: int | float,
        total_steps: int,
        min_lr_ratio: float = 0.0,
        *,
        warmup: str = "linear",
        warmup_start: float = 0.0,
        last_epoch: int = -1,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        count, total = _spans(warmup_steps, total_steps)
        decay = fall(count, total - count, _C.CURVES["remaining"], _ratio(min_lr_ratio))
        self._begin(select(optimizer, param_name, groups), [_warmup(count, warmup, warmup_start), decay], last_epoch)


class WarmupCosineLR(PhasesLR):
    """Warm up, then decay along a cosine to ``min_lr_ratio``.

    After the warm-up, with ``r = min_lr_ratio``::

        u = (t - warmup_steps) / (total_steps - warmup_steps)
        lr = base * (r + (1 - r) * (1 + cos(2 * pi * num_cycles * u)) / 2)

    Up to step ``total_steps`` transformers' ``cosine``, ``cosine_with_min_lr`` and ``cosine_with_restarts``
    are the same; after it their first two go up the cosine again, while here the learning rates stay.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        warmup_steps: number of steps, or a share of ``total_steps`` as a float below 1.
        total_steps: the step at which the decay is over; the run may be longer.
        min_lr_ratio: the factor on the base learning rate that is left then.
        num_cycles: number of waves; by default half of one, from the top to the bottom. With ``hard_restarts`` the
            number of descents, by default 1.
        hard_restarts: jump back to the top after each descent.
        k_decay: the exponent on ``u`` (k-decay, arXiv:2004.05909), for one descent.
        warmup: the curve of the warm-up, as in :class:`WarmupLR`.
        warmup_start: the factor that it begins with.
        warmup_prefix: False: the decay is counted from the beginning of the run, and the warm-up hides its first steps,
            as timm does by default.
        last_epoch: as in torch, the epoch before the one to begin at.
        param_name: the entry of the param groups to drive.
        groups: which of them; the others are left alone.

    Raises:
        TypeError, ValueError: an argument is not what it should be; names it. Nothing is changed then.

    Step, sync, capture and compile as in :class:`~fastsched.schedulers.epoch._EpochScheduler`.

    Example::

        scheduler = fastsched.WarmupCosineLR(optimizer, 0.05, 1000, min_lr_ratio=0.1)
    """

    def __init__(
        self,
        optimizer: Optimizers,
        warmup_steps: int | float,
        total_steps: int,
        min_lr_ratio: float = 0.0,
        *,
        num_cycles: float | None = None,
        hard_restarts: bool = False,
        k_decay: float = 1.0,
        warmup: str = "linear",
        warmup_start: float = 0.0,
        warmup_prefix: bool = True,
        last_epoch: int = -1,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        count, total = _spans(warmup_steps, total_steps)
        begins = count if warmup_prefix else 0
        low, left = _ratio(min_lr_ratio), total - begins
        power = number("k_decay", k_decay, above=True)
        rows = [_warmup(count, warmup, warmup_start)]
        if power != 1 and (hard_restarts or num_cycles not in (None, 0.5)):
            raise ValueError("k_decay is for one descent: leave num_cycles and hard_restarts out")
        if hard_restarts:
            restarts = whole("num_cycles", 1 if num_cycles is None else num_cycles)
            rows.append(fall(begins, left, _C.CURVES["restarts"], low, restarts)._replace(end=float(total)))
            rows.append(held(low))
        elif power != 1:
            rows.append(fall(begins, left, CURVES["k_decay"], low, power))
        else:
            waves = number("num_cycles", 0.5 if num_cycles is None else num_cycles, above=True)
            rows.append(fall(begins, left, CURVES["cosine"], low, waves))
        self._begin(select(optimizer, param_name, groups), rows, last_epoch)


class WarmupPolynomialLR(PhasesLR):
    """Warm up, then decay to ``min_lr_ratio`` by a polynomial.

    After the warm-up, with ``r = min_lr_ratio``::

        u = (t - warmup_steps) / (total_steps - warmup_steps)
        lr = base * (r + (1 - r) * (1 - u)**power)

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        warmup_steps: number of steps, or a share of ``total_steps`` as a float below 1.
        total_steps: the step at which the decay is over; the run may be longer.
        power: the exponent.
        min_lr_ratio: the factor on the base learning rate that is left at the end.
        warmup: the curve of the warm-up, as in :class:`WarmupLR`.
        warmup_start: the factor that it begins with.
        last_epoch: as in torch, the epoch before the one to begin at.
        param_name: the entry of the param groups to drive.
        groups: which of them; the others are left alone.

    Raises:
        TypeError, ValueError: an argument is not what it should be; names it. Nothing is changed then.

    Step, sync, capture and compile as in :class:`~fastsched.schedulers.epoch._EpochScheduler`.

    Example::

        scheduler = fastsched.WarmupPolynomialLR(optimizer, 100, 1000, power=2.0)
    """

    def __init__(
        self,
        optimizer: Optimizers,
        warmup_steps: int | float,
        total_steps: int,
        power: float = 1.0,
        min_lr_ratio: float = 0.0,
        *,
        warmup: str = "linear",
        warmup_start: float = 0.0,
        last_epoch: int = -1,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        count, total = _spans(warmup_steps, total_steps)
        exponent = number("power", power, above=True)
        decay = fall(count, total - count, CURVES["polynomial"], _ratio(min_lr_ratio), exponent)
        self._begin(select(optimizer, param_name, groups), [_warmup(count, warmup, warmup_start), decay], last_epoch)


class WarmupStableDecayLR(PhasesLR):
    """Warm up, stay, and decay to ``min_lr_ratio`` in the last ``decay_steps`` (WSD, arXiv:2404.06395).

    The decay is, with ``r = min_lr_ratio``::

        u = (t - total_steps + decay_steps) / decay_steps
        lr = base * (r + (1 - r) * g(u))

    where ``g(u)`` is ``1 - u`` for ``"linear"``, ``(1 + cos(pi * u)) / 2`` for ``"cosine"``, ``1 - sqrt(u)`` for
    ``"1-sqrt"``, ``1 - u**2`` for ``"1-square"``, ``2**(1 - u) - 1`` for ``"exp2"``; the others are in
    :class:`PhasesLR`. With ``warmup_start=min_lr_ratio`` transformers calls it ``warmup_stable_decay``.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        warmup_steps: number of steps, or a share of ``total_steps`` as a float below 1.
        decay_steps: number of steps, or a share.
        total_steps: the step at which the decay is over; the run may be longer.
        min_lr_ratio: the factor on the base learning rate that is left then.
        decay: the curve of the decay: ``"linear"``, ``"cosine"``, ``"1-sqrt"``, ``"1-square"``, ``"exponential"``,
            ``"exp2"``, ``"log"`` or ``"rex"``.
        warmup: the curve of the warm-up, as in :class:`WarmupLR`.
        warmup_start: the factor that it begins with.
        last_epoch: as in torch, the epoch before the one to begin at.
        param_name: the entry of the param groups to drive.
        groups: which of them; the others are left alone.

    Raises:
        TypeError, ValueError: an argument is not what it should be; names it. Nothing is changed then.

    Step, sync, capture and compile as in :class:`~fastsched.schedulers.epoch._EpochScheduler`.

    Example::

        scheduler = fastsched.WarmupStableDecayLR(optimizer, 100, 0.2, 1000, decay="1-sqrt")
    """

    def __init__(
        self,
        optimizer: Optimizers,
        warmup_steps: int | float,
        decay_steps: int | float,
        total_steps: int,
        min_lr_ratio: float = 0.0,
        *,
        decay: str = "linear",
        warmup: str = "linear",
        warmup_start: float = 0.0,
        last_epoch: int = -1,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        count, total = _spans(warmup_steps, total_steps)
        last = steps("decay_steps", decay_steps, total)
        if count + last > total:
            raise ValueError(
                f"warmup_steps and decay_steps must be at most total_steps={total} together, got {count} and {last}"
            )
        low = _ratio(min_lr_ratio)
        curve, parameter = _falling("decay", decay, low)
        rows = [
            _warmup(count, warmup, warmup_start),
            held()._replace(end=float(total - last)),
            fall(total - last, last, curve, low, parameter),
        ]
        self._begin(select(optimizer, param_name, groups), rows, last_epoch)


class InverseSqrtLR(PhasesLR):
    """Warm up, then decay with the inverse square root of the step.

    After the warm-up::

        lr = base / sqrt((t + timescale - warmup_steps) / timescale)

    transformers calls it ``inverse_sqrt``.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        warmup_steps: number of steps.
        timescale: in steps; by default ``warmup_steps``, or 10000 without warm-up.
        warmup: the curve of the warm-up, as in :class:`WarmupLR`.
        warmup_start: the factor that it begins with.
        last_epoch: as in torch, the epoch before the one to begin at.
        param_name: the entry of the param groups to drive.
        groups: which of them; the others are left alone.

    Raises:
        TypeError, ValueError: an argument is not what it should be; names it. Nothing is changed then.

    Step, sync, capture and compile as in :class:`~fastsched.schedulers.epoch._EpochScheduler`.

    Example::

        scheduler = fastsched.InverseSqrtLR(optimizer, 100)
    """

    def __init__(
        self,
        optimizer: Optimizers,
        warmup_steps: int,
        timescale: float | None = None,
        *,
        warmup: str = "linear",
        warmup_start: float = 0.0,
        last_epoch: int = -1,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        count = whole("warmup_steps", warmup_steps, 0)
        scale = number("timescale", (count or 10_000) if timescale is None else timescale, above=True)
        decay = Row(math.inf, count - scale, scale, math.inf, CURVES["inverse_sqrt"], False, 1.0, 0.0)
        self._begin(select(optimizer, param_name, groups), [_warmup(count, warmup, warmup_start), decay], last_epoch)


class NoamLR(PhasesLR):
    """Warm up on a line, then decay with the inverse square root of the step, scaled by the size of the model.

    With ``s = t + 1`` (Vaswani et al., arXiv:1706.03762)::

        lr = base * model_size**-0.5 * min(s**-0.5, s * warmup_steps**-1.5)

    There the base learning rate is 1.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        model_size: the width of the model.
        warmup_steps: number of steps.
        last_epoch: as in torch, the epoch before the one to begin at.
        param_name: the entry of the param groups to drive.
        groups: which of them; the others are left alone.

    Raises:
        TypeError, ValueError: an argument is not what it should be; names it. Nothing is changed then.

    Step, sync, capture and compile as in :class:`~fastsched.schedulers.epoch._EpochScheduler`.

    Example::

        scheduler = fastsched.NoamLR(optimizer, model_size=512, warmup_steps=100)
    """

    def __init__(
        self,
        optimizer: Optimizers,
        model_size: int,
        warmup_steps: int,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        size = number("model_size", model_size, above=True)
        count = whole("warmup_steps", warmup_steps)
        per_step = size**-0.5 * count**-1.5
        up = Row(count, -1.0, 1.0, math.inf, CURVES["linear"], True, per_step, 0.0)
        down = Row(math.inf, -1.0, 1.0, math.inf, CURVES["inverse_sqrt"], False, size**-0.5, 0.0)
        self._begin(select(optimizer, param_name, groups), [up, down], last_epoch)


class REXLR(PhasesLR):
    """Decay by a reflected exponential, slowly at first and fast at the end.

    After the warm-up, with ``r = min_lr_ratio`` (Chen, Wolfe and Kyrillidis, arXiv:2107.04197)::

        u = (t - warmup_steps) / (total_steps - warmup_steps)
        lr = base * (r + (1 - r) * (1 - u) / (1 - u / 2))

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        total_steps: the step at which the decay is over; the run may be longer.
        warmup_steps: number of steps, or a share of ``total_steps`` as a float below 1.
        min_lr_ratio: the factor on the base learning rate that is left at the end.
        warmup: the curve of the warm-up, as in :class:`WarmupLR`.
        warmup_start: the factor that it begins with.
        last_epoch: as in torch, the epoch before the one to begin at.
        param_name: the entry of the param groups to drive.
        groups: which of them; the others are left alone.

    Raises:
        TypeError, ValueError: an argument is not what it should be; names it. Nothing is changed then.

    Step, sync, capture and compile as in :class:`~fastsched.schedulers.epoch._EpochScheduler`.

    Example::

        scheduler = fastsched.REXLR(optimizer, 1000)
    """

    def __init__(
        self,
        optimizer: Optimizers,
        total_steps: int,
        warmup_steps: int | float = 0,
        min_lr_ratio: float = 0.0,
        *,
        warmup: str = "linear",
        warmup_start: float = 0.0,
        last_epoch: int = -1,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        count, total = _spans(warmup_steps, total_steps)
        decay = fall(count, total - count, CURVES["rex"], _ratio(min_lr_ratio))
        self._begin(select(optimizer, param_name, groups), [_warmup(count, warmup, warmup_start), decay], last_epoch)


class DecayingRestartsLR(PhasesLR):
    """Decay again and again, each time from lower down and, if wished, over more steps.

    Cycle ``i = 0, 1, ...`` has ``cycle_steps * growth**i`` steps. With ``u`` the share of it that is over and
    ``r = min_lr_ratio``::

        lr = base * (r + (max(peak_decay**i, r) - r) * g(u))

    where ``g(u)`` is ``(1 + cos(pi * u)) / 2`` for ``"cosine"``, and for the others as in :class:`PhasesLR`.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        cycle_steps: number of steps of the first cycle.
        peak_decay: the height of each cycle relative to the one before.
        growth: the length of each cycle relative to the one before, 1 or more.
        cycles: how many there are before the learning rates stay at the bottom; None: without an end.
        min_lr_ratio: the factor on the base learning rate at the bottom.
        curve: ``"linear"``, ``"cosine"``, ``"1-sqrt"``, ``"1-square"``, ``"exponential"``, ``"exp2"``, ``"log"`` or
            ``"rex"``.
        warmup_steps: number of steps before the first cycle.
        warmup: the curve of the warm-up, as in :class:`WarmupLR`.
        warmup_start: the factor that it begins with.
        last_epoch: as in torch, the epoch before the one to begin at.
        param_name: the entry of the param groups to drive.
        groups: which of them; the others are left alone.

    Raises:
        TypeError, ValueError: an argument is not what it should be; names it. Nothing is changed then.

    Step, sync, capture and compile as in :class:`~fastsched.schedulers.epoch._EpochScheduler`.

    Example::

        scheduler = fastsched.DecayingRestartsLR(optimizer, 100, peak_decay=0.7, growth=2)
    """

    def __init__(
        self,
        optimizer: Optimizers,
        cycle_steps: int,
        peak_decay: float = 0.5,
        growth: float = 1.0,
        *,
        cycles: int | None = None,
        min_lr_ratio: float = 0.0,
        curve: str = "cosine",
        warmup_steps: int = 0,
        warmup: str = "linear",
        warmup_start: float = 0.0,
        last_epoch: int = -1,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        count = whole("warmup_steps", warmup_steps, 0)
        low = _ratio(min_lr_ratio)
        length = whole("cycle_steps", cycle_steps)
        repeated = Cycles(
            start=float(count),
            length=float(length),
            growth=number("growth", growth, 1.0),
            peak=number("peak_decay", peak_decay, above=True),
            least=low,
            times=math.inf if cycles is None else float(whole("cycles", cycles)),
        )
        kind, parameter = _falling("curve", curve, low)
        rows = [_warmup(count, warmup, warmup_start), fall(count, length, kind, low, parameter)]
        self._begin(select(optimizer, param_name, groups), rows, last_epoch, repeated)


def with_warmup(
    scheduler: LRScheduler, warmup_steps: int, warmup: str = "linear", warmup_start: float = 0.0
) -> SequentialLR:
    """Put a warm-up before a scheduler, which begins when that is over.

    Any scheduler will do, ``ReduceLROnPlateau`` too: what it is told before its turn, it does not look at.

    Args:
        scheduler: new, not stepped yet.
        warmup_steps: number of steps before it begins.
        warmup: the curve of the warm-up, as in :class:`WarmupLR`.
        warmup_start: the factor on the base learning rate to begin with.

    Returns:
        a :class:`SequentialLR` of a :class:`WarmupLR` and the scheduler; step it instead of the scheduler. It sets the
        optimizer's learning rates to those of step 0.

    Raises:
        TypeError, ValueError: an argument is not what it should be, or the scheduler has made steps. Nothing is changed
            then.

    Example::

        plateau = fastsched.ReduceLROnPlateau(optimizer)
        scheduler = fastsched.with_warmup(plateau, 5)
    """
    name = type(scheduler).__name__
    if not hasattr(scheduler, "optimizer"):
        raise TypeError(f"scheduler must be a scheduler, got {name}; to warm up an optimizer's LRs, use WarmupLR")
    begun: Any = getattr(scheduler, "last_epoch", 0)
    if begun > 0:
        raise ValueError(f"the {name} has made {begun} steps: a warm-up goes before its first")
    count = whole("warmup_steps", warmup_steps)
    first = WarmupLR(scheduler.optimizer, count, warmup, warmup_start)
    return SequentialLR(scheduler.optimizer, [first, scheduler], [count])
