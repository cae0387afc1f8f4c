"""Schedules that are a list of phases: warm-up, decay, and whatever is between and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, NamedTuple

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .. import _C
from ..engine.program import instance_dict
from ..engine.selection import Groups, Optimizers, select
from .epoch import _FormulaScheduler

# A phase's curves, by their public names; ``csrc/schedule/formulas/phases.h`` has the formulas.
CURVES: dict[str, int] = {
    "constant": _C.CURVES["constant"],
    "linear": _C.CURVES["linear"],
    "cosine": _C.CURVES["cosine"],
    "1-sqrt": _C.CURVES["one_minus_sqrt"],
    "1-square": _C.CURVES["one_minus_square"],
    "polynomial": _C.CURVES["polynomial"],
    "exponential": _C.CURVES["exponential"],
    "exp2": _C.CURVES["exp2"],
    "log": _C.CURVES["logarithmic"],
    "inverse_sqrt": _C.CURVES["inverse_sqrt"],
    "rex": _C.CURVES["rex"],
    "k_decay": _C.CURVES["k_decay"],
    "tanh": _C.CURVES["tanh"],
}


@dataclass(frozen=True)
class Phase:
    """One phase of a :class:`PhasesLR`.

    Args:
        length: how many steps it lasts: an int, or a float below 1 as a share of ``total_steps``. None for the last
            phase: it goes on forever; for another: it takes what the others leave of ``total_steps``.
        curve: ``"constant"``, ``"linear"``, ``"cosine"``, ``"1-sqrt"``, ``"1-square"``, ``"polynomial"``,
            ``"exponential"``, ``"exp2"``, ``"log"``, ``"inverse_sqrt"``, ``"rex"``, ``"k_decay"`` or ``"tanh"``.
        start: the factor on the base learning rate that it begins with.
        end: and the one that it leads to; by default the same. ``"inverse_sqrt"`` only comes nearer to it, by default
            to 0.
        power: the exponent of ``"polynomial"`` and of ``"k_decay"``.
        timescale: of ``"inverse_sqrt"``: after three times as many steps it is halfway between ``start`` and ``end``.
        bounds: of ``"tanh"``: between which arguments of the function it goes. Its factor only comes near to ``start``
            and ``end``; the wider they are, the nearer.

    Raises:
        TypeError, ValueError: not here: a :class:`PhasesLR` that is made of it says what is wrong.

    Example::

        warm_up = fastsched.Phase(1000, "linear", start=0.0, end=1.0)
    """

    length: int | float | None = None
    curve: str = "constant"
    start: float = 1.0
    end: float | None = None
    power: float = 1.0
    timescale: float | None = None
    bounds: tuple[float, float] = (-7.0, 3.0)


class Row(NamedTuple):
    """A phase as the compiled formula reads it, ``Phase`` in ``csrc/schedule/formulas/phases.h``."""

    end: float
    start: float
    length: float
    last_step: float
    curve: int
    rises: bool
    high: float
    low: float
    parameter: float = 1.0
    second: float = 1.0
    unit: float = 1.0


class Cycles(NamedTuple):
    """Repetitions as the compiled formula reads them, ``Cycles`` there."""

    start: float = 0.0
    length: float = 0.0
    growth: float = 1.0
    peak: float = 1.0
    least: float = 0.0
    times: float = 1.0


ONCE = Cycles()


def table(rows: Sequence[Row], cycles: Cycles = ONCE) -> tuple[float, ...]:
    """What :class:`PhasesLR` keeps of its phases."""
    return tuple(float(number) for numbers in (cycles, *rows) for number in numbers)


def number(name: str, value: Any, least: float = 0.0, *, above: bool = False) -> float:
    """A finite number as a float, or an error that names the argument."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    plain = float(value)
    if not math.isfinite(plain) or plain < least or (above and plain == least):
        raise ValueError(f"{name} must be {'more than' if above else 'at least'} {least:g}, got {value!r}")
    return plain


def steps(name: str, value: Any, total: int | None = None) -> int:
    """A number of steps, which a float below 1 gives as a share of ``total``."""
    return round(_steps(name, value, total))


def _steps(name: str, value: Any, total: int | None) -> float:
    count = number(name, value)
    if count == count // 1:
        return int(count)
    if count > 1:
        raise ValueError(f"{name} must be a whole number of steps, or a share of total_steps below 1; got {value!r}")
    if total is None:
        raise ValueError(f"{name}={value!r} is a share of total_steps, so total_steps must be given")
    return count * total


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number, or an error that names the argument."""
    plain = number(name, value, least)
    if plain != plain // 1:
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return int(plain)


def choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise ValueError where the value is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def _lengths(phases: Sequence[Phase], total: int | None) -> list[float]:
    """How many steps each phase has; infinity for an open one."""
    lengths = [
        math.inf if phase.length is None else _steps(f"phases[{index}].length", phase.length, total)
        for index, phase in enumerate(phases)
    ]
    to_fill = [index for index, length in enumerate(lengths[:-1]) if length == math.inf]
    if not to_fill:
        return lengths
    index, *others = to_fill
    if others or lengths[-1] == math.inf:
        raise ValueError("only one phase can have length None, or it is not known how they share total_steps")
    if total is None:
        raise ValueError(f"phases[{index}].length is None, so total_steps must be given: only the last can be open")
    left = total - sum(length for length in lengths if length < math.inf)
    if left < 0:
        raise ValueError(f"the phases are longer than total_steps={total}: nothing is left for phases[{index}]")
    lengths[index] = left
    return lengths


def _row(name: str, phase: Phase, begins: float, length: float) -> Row:
    choice(f"{name}.curve", phase.curve, tuple(CURVES))
    start = number(f"{name}.start", phase.start)
    approaches = phase.curve == "inverse_sqrt"
    end = number(f"{name}.end", (0.0 if approaches else start) if phase.end is None else phase.end)
    if phase.curve == "constant" and end != start:
        raise ValueError(f"{name} goes from {start:g} to {end:g}: give it a curve, such as 'linear'")
    if length == math.inf and phase.curve not in ("constant", "inverse_sqrt"):
        raise ValueError(f"{name}.length must be given: a {phase.curve} has to know when it ends")
    if phase.curve == "exponential" and min(start, end) == 0:
        raise ValueError(f"{name}: an exponential between {start:g} and {end:g} is none; use 'exp2', or more than 0")
    power = number(f"{name}.power", phase.power, above=True)
    parameter = 0.5 if phase.curve == "cosine" else power
    second = 1.0
    if phase.curve == "tanh":
        parameter, second = _bounds(f"{name}.bounds", phase.bounds)
    high, low = max(start, end), min(start, end)
    if length == 0 and not approaches:
        return Row(begins, begins, 1.0, 0.0, CURVES["constant"], False, end, end)
    if not approaches:
        scale = max(1.0, length) if length < math.inf else 1.0
        return Row(
            begins + length, begins, scale, length, CURVES[phase.curve], end > start, high, low, parameter, second
        )
    if end > start:
        raise ValueError(f"{name}: an inverse_sqrt falls, from start={start:g} towards end={end:g}")
    timescale = number(f"{name}.timescale", phase.timescale, above=True)
    return Row(
        begins + length, begins - timescale, timescale, timescale + length, CURVES[phase.curve], False, high, low
    )


def _bounds(name: str, value: Any) -> tuple[float, float]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"{name} must be two numbers, where tanh begins and ends; got {value!r}")
    first, last = (number(f"{name}[{index}]", bound, -math.inf) for index, bound in enumerate(value))
    if first >= last:
        raise ValueError(f"{name} must rise, from the first to the second; got {value!r}")
    return first, last


def plan(
    phases: Sequence[Phase],
    total_steps: int | None,
    cycles: int | None,
    first_repeated: int,
    growth: float,
    peak_decay: float,
) -> tuple[list[Row], Cycles]:
    """A list of phases as the compiled formula reads it, or an error that names what is wrong in it."""
    if isinstance(phases, Phase) or not isinstance(phases, Sequence):
        raise TypeError(f"phases must be a list of Phase, got {phases!r}")
    if not phases:
        raise ValueError("phases must not be empty")
    for index, phase in enumerate(phases):
        if not isinstance(phase, Phase):
            raise TypeError(f"phases[{index}] must be a Phase, got {phase!r}")
    total = None if total_steps is None else whole("total_steps", total_steps)
    begins = [0.0]
    for length in _lengths(phases, total):
        begins.append(begins[-1] + length)
    edges = [edge if edge == math.inf else float(round(edge)) for edge in begins]
    rows = [
        _row(f"phases[{index}]", phase, edges[index], edges[index + 1] - edges[index])
        for index, phase in enumerate(phases)
    ]
    count = math.inf if cycles is None else whole("cycles", cycles)
    if count == 1:
        return rows, ONCE
    if type(first_repeated) is not int or not 0 <= first_repeated < len(phases):
        raise ValueError(f"first_repeated must be the index of a phase, 0 to {len(phases) - 1}; got {first_repeated!r}")
    if edges[-1] == math.inf:
        raise ValueError(f"phases[{len(phases) - 1}].length must be given for the phases to be repeated")
    cycle = Cycles(
        start=edges[first_repeated],
        length=edges[-1] - edges[first_repeated],
        growth=number("growth", growth, 1.0),
        peak=number("peak_decay", peak_decay, above=True),
        least=min(row.low for row in rows[first_repeated:]),
        times=count,
    )
    if cycle.length == 0:
        raise ValueError("the phases to be repeated have no steps")
    return rows, cycle


class PhasesLR(_FormulaScheduler):
    """Take the learning rates through a list of phases, each along a curve between two factors.

    ``lr = base * f``. In a phase that began at step ``t0`` and has ``n`` steps, with ``u = (t - t0) / n``, a falling
    factor goes from ``a = start`` to ``b = end``::

        constant      a
        linear        b + (a - b) * (1 - u)
        cosine        b + (a - b) * (1 + cos(pi * u)) / 2
        1-sqrt        b + (a - b) * (1 - sqrt(u))
        1-square      b + (a - b) * (1 - u**2)
        polynomial    b + (a - b) * (1 - u)**power
        exponential   a * (b / a)**u
        exp2          b + (a - b) * (2**(1 - u) - 1)
        log           b + (a - b) * log(1 + n * (1 - u)) / log(1 + n)
        rex           b + (a - b) * (1 - u) / (1 - u / 2)               (arXiv:2107.04197)
        k_decay       b + (a - b) * (1 + cos(pi * u**power)) / 2        (arXiv:2004.05909)
        tanh          b + (a - b) * (1 - tanh(lb * (1 - u) + ub * u)) / 2
                      with lb, ub = bounds                              (arXiv:1806.01593)
        inverse_sqrt  b + (a - b) / sqrt(1 + (t - t0) / timescale)

    A rising one is the same run through backwards. Each phase has its own first step, and the step after its last is
    the first of the next. After the last phase the learning rates stay.

    Those that transformers has are computed in the order of its operations, to the bit; the factors of the others are
    within a unit in the last place of the formula.

    Steps are computed from the base learning rate: what else writes the learning rates is overwritten, as with
    ``LambdaLR``.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        phases: a list of :class:`Phase`.
        total_steps: what lengths that are shares refer to, and what a phase with no length fills. The run may be
            longer or shorter.
        last_epoch: as in torch, the epoch before the one to begin at.
        cycles: how often to go through the phases; None for ever again.
        first_repeated: the index of the phase with which each cycle begins; those before it come once.
        growth: each cycle has so many times the steps of the one before, 1 or more.
        peak_decay: and so many times its factors, but none below the lowest.
        param_name: the entry of the param groups to drive.
        groups: which of them; the others are left alone.

    Raises:
        TypeError, ValueError: an argument is not what it should be; names it. Nothing is changed then.

    Step, sync, capture and compile as in :class:`~fastsched.schedulers.epoch._EpochScheduler`.

    Example::

        phases = [Phase(0.1, "linear", 0.0, 1.0), Phase(), Phase(0.2, "1-sqrt", 1.0, 0.0)]
        scheduler = fastsched.PhasesLR(optimizer, phases, total_steps=1000)
    """

    _schedule: ClassVar[str] = "PhasesLR"

    _phases: tuple[float, ...]

    def __init__(
        self,
        optimizer: Optimizers,
        phases: Sequence[Phase],
        total_steps: int | None = None,
        last_epoch: int = -1,
        *,
        cycles: int | None = 1,
        first_repeated: int = 0,
        growth: float = 1.0,
        peak_decay: float = 1.0,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        rows, repeated = plan(phases, total_steps, cycles, first_repeated, growth, peak_decay)
        self._begin(select(optimizer, param_name, groups), rows, last_epoch, repeated)

    def _begin(self, optimizer: Optimizer, rows: Sequence[Row], last_epoch: int, cycles: Cycles = ONCE) -> None:
        self._phases = table(rows, cycles)
        LRScheduler.__init__(self, optimizer, last_epoch)

    @classmethod
    def _of(cls, optimizer: Optimizer, rows: Sequence[Row], last_epoch: int = -1) -> PhasesLR:
        """A scheduler of phases that no list of :class:`Phase` says."""
        scheduler = cls.__new__(cls)
        scheduler._begin(optimizer, rows, last_epoch)
        return scheduler

    def set_phases(
        self,
        phases: Sequence[Phase],
        total_steps: int | None = None,
        *,
        cycles: int | None = 1,
        first_repeated: int = 0,
        growth: float = 1.0,
        peak_decay: float = 1.0,
    ) -> None:
        """Go on by other phases from the next step, which is still counted from the beginning of the run.

        For instance to lengthen a run: the phases that are over as they were, and others for what is to come.

        Args: as those of the class.

        Raises:
            TypeError, ValueError: as the class does.

        Sync: with tensor learning rates the phases are uploaded, without waiting for the device. A captured CUDA graph
        follows if there are as many phases as before; otherwise it has to be captured again.
        """
        self._phases = table(*plan(phases, total_steps, cycles, first_repeated, growth, peak_decay))

    @property
    def length(self) -> int | None:
        """How many steps its phases have together; None if they go on without an end."""
        cycles, rows = self._decoded()
        last = rows[-1]
        begun = rows[-2].end if len(rows) > 1 else 0.0
        end = last.start + last.last_step if last.curve != _C.CURVES["constant"] else begun + last.last_step
        if cycles.length > 0:
            grown = cycles.times if cycles.growth == 1 else (cycles.growth**cycles.times - 1) / (cycles.growth - 1)
            end = cycles.start + cycles.length * grown
        return round(end) if end < math.inf else None

    def _decoded(self) -> tuple[Cycles, list[Row]]:
        numbers: Any = self._phases
        header, size = len(Cycles._fields), len(Row._fields)
        rows = [Row(*numbers[place : place + size]) for place in range(header, len(numbers), size)]
        return Cycles(*numbers[:header]), rows

    def _checked(self, state_dict: Mapping[str, Any], where: str) -> dict[str, Any]:
        state = super()._checked(state_dict, where)
        numbers = state.get("_phases", instance_dict(self)["_phases"])
        header, size = len(Cycles._fields), len(Row._fields)
        if len(numbers) < header + size or (len(numbers) - header) % size:
            raise ValueError(
                f"{where}['_phases'] must have {header} numbers and {size} for each phase, got {len(numbers)} in all"
            )
        return state
