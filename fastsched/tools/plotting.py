"""Plots of schedules: what :func:`fastsched.simulate` returns, over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..engine.selection import LR, GroupEntry, quantity_of
from . import terminal
from .picture import COLORS, GRAY, beside, canvas, finish
from .simulation import Ahead, Metrics, look_ahead, metric_series

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

Scale = Literal["linear", "log"]

METRIC_COLOR = GRAY
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
DECADES = 100 / (1 + 1e-9)  # two decades, up to rounding
SAMPLES = 200
NAMED_LINES = 6  # a scheduler with more lines than this has one entry in the legend
NAMES = 3  # of param groups in one label; further ones are counted
WIDEST, NARROWEST = 2.6, 1.5  # points; where lines coincide, the earlier, wider one shows on both sides


class Line(NamedTuple):
    """The learning rates, or the momentum, of those param groups of one scheduler that agree."""

    scheduler: int
    place: int  # among the scheduler's lines
    label: str | None
    lrs: NDArray[np.float64]


class Trajectories(NamedTuple):
    """What to draw."""

    lines: list[Line]
    momenta: list[Line]
    series: list[float] | None
    quantity: str = "learning rate"  # what the lines are of


def plot(
    schedulers: Any,
    steps: int | None = None,
    path_or_axes: Any = None,
    metrics: Metrics | None = None,
    *,
    scale: Scale | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the learning rates of the next ``steps`` steps, without stepping the scheduler.

    Each scheduler has one line for all param groups that agree. If some do not, the legend calls them by
    ``group["name"]`` or by number. Smooth changes are drawn as lines, sudden ones with a corner. If a ``CyclicLR`` or
    ``OneCycleLR`` cycles momentum, that is drawn too, on an axis at the right.

    Args:
        schedulers: a scheduler, or an array that :func:`fastsched.simulate` returned, or a dict from names to either.
        steps: how many steps; not needed if there are only arrays, which are drawn whole.
        path_or_axes: the file to write, in the format that its extension names (PNG without one), without pyplot or a
            display; or the matplotlib ``Axes`` to draw into; or None for a new pyplot figure, to be shown with
            ``plt.show()``.
        metrics: as for :func:`fastsched.simulate`; a series is drawn too, on an axis of its own at the right.
        scale: of the learning rates, ``"linear"`` or ``"log"``. None chooses the logarithmic one if learning rates
            change by factors and span two decades or more, as those of a ``StepLR`` with ``gamma=0.1`` do, or if one
            line is two decades below another; but not if it would bend a warm-up or a cosine on its way to zero.
        title: written above the plot.

    Returns:
        The ``Axes`` with the learning rates.

    Raises:
        TypeError, ValueError: an argument is not one of these; the message names it.
        ImportError: matplotlib is not installed.

    Errors from :func:`fastsched.simulate` are passed on.

    Waits for the device if learning rates are on one. Must not be called inside CUDA graph capture.

    Example::

        scheduler = fastsched.OneCycleLR(optimizer, max_lr=0.1, total_steps=300)
        fastsched.plot(scheduler, 300, "one_cycle.png", title="one cycle over 10 epochs")
    """
    check_scale(scale)
    with canvas(path_or_axes) as axes:
        drawn = trajectories(schedulers, steps, metrics)
        draw(axes, drawn.lines, scale=scale, quantity=drawn.quantity)
        if drawn.momenta:
            draw_beside(axes, drawn.momenta)
        if drawn.series is not None:
            draw_metric(axes, range(1, len(drawn.series) + 1), drawn.series)
        finish(axes, title)
    return axes


def check_scale(scale: Any) -> None:
    """Raise ValueError if it is not one of the scales."""
    if scale not in (None, "linear", "log"):
        raise ValueError(f"scale must be 'linear', 'log' or None, got {scale!r}")


def trajectories(schedulers: Any, steps: int | None, metrics: Metrics | None) -> Trajectories:
    """The lines to draw, and the metrics if they are a series."""
    import numpy as np

    if not isinstance(schedulers, Mapping):
        one = schedulers
        schedulers = {"learning rate" if isinstance(one, np.ndarray) else type(one).__name__: one}
    if not schedulers:
        raise ValueError("schedulers is empty; give at least one, as {name: scheduler}")
    arrays = {name: _checked(str(name), lrs) for name, lrs in schedulers.items() if isinstance(lrs, np.ndarray)}
    if steps is None:
        if len(arrays) < len(schedulers):
            raise ValueError("steps is missing: pass how many steps to draw; only arrays need none")
        steps = max(map(len, arrays.values())) - 1
    series = None if metrics is None else metric_series(metrics, steps)
    lines: list[Line] = []
    momenta: list[Line] = []
    quantities = set()
    for index, (name, scheduler) in enumerate(schedulers.items()):
        if name in arrays:
            lines += lines_of(index, str(name), arrays[name])
            quantities.add("learning rate")
            continue
        ahead = scheduler if isinstance(scheduler, Ahead) else look_ahead(scheduler, steps, series)
        names = [] if scheduler is ahead else names_of(scheduler.optimizer.param_groups)
        quantities.add("learning rate" if scheduler is ahead else quantity_of(scheduler.optimizer))
        lines += lines_of(index, str(name), ahead.lrs, names)
        if ahead.momenta is not None:
            called = f"{name}, momentum" if len(schedulers) > 1 else "momentum"
            momenta += lines_of(index, called, ahead.momenta, names)
    quantity = quantities.pop() if len(quantities) == 1 else "value"
    return Trajectories(lines, momenta, None if isinstance(metrics, Real) else series, quantity)


def logarithmic(lines: Sequence[Line]) -> bool:
    """Whether a log scale shows more: if learning rates change by factors, over decades, or are decades apart.

    Not if it would bend a line or a cosine that goes down through decades, or to zero.
    """
    drawn = [(line.lrs, positive) for line in lines if len(positive := _positive(line.lrs))]
    highest = [float(positive.max()) for _, positive in drawn]
    by_factors = [_factor(positive) >= DECADES for _, positive in drawn]
    low = [bool((lrs <= high / DECADES).any()) for (lrs, _), high in zip(drawn, highest, strict=True)]
    apart = len(highest) > 1 and min(highest) <= max(highest) / DECADES
    bent = any(is_low and not factors for is_low, factors in zip(low, by_factors, strict=True))
    return (apart or any(by_factors)) and not bent


def _positive(lrs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without zeros, and without NaN, which stands for steps before a group was added."""
    import numpy as np

    return lrs[(lrs > 0) & np.isfinite(lrs)]


def _factor(lrs: NDArray[np.float64]) -> float:
    """The ratio of highest to lowest, counting only changes by a factor: jumps, and runs of equal ratios."""
    import numpy as np

    lrs = lrs[:: max(len(lrs) // SAMPLES, 1)]  # so that float32's rounding is small compared with a change
    if len(lrs) < 2:
        return 1.0
    changes, ratios = np.diff(lrs), np.diff(np.log(lrs))
    jumps = _jumps(lrs)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # How much the curve bends from one change to the next, on each scale.
        bends, log_bends = (np.abs(np.diff(values) / values[1:]) for values in (changes, ratios))
    geometric = np.append(False, log_bends < bends / 4)
    geometric[:-1] |= geometric[1:]
    held = np.append(np.append(False, changes == 0), False)
    path = np.where(geometric | (jumps & (held[:-2] | held[2:])), ratios, 0.0).cumsum()
    return float(np.exp(min(np.ptp(np.append(path, 0.0)), 700.0)))


def _jumps(lrs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """For each step, whether its change is sudden: much larger than those of the neighboring steps."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        sizes = np.abs(np.diff(lrs))
    if len(sizes) > 1 and sizes[1] > 0:
        sizes[0] = min(sizes[0], 3 * sizes[1])  # with no steps before it, a run of changes may begin here
    before, after = np.append(0.0, sizes[:-1]), np.append(sizes[1:], 0.0)
    jumps: NDArray[np.bool_] = sizes > 3 * np.maximum(before, after)
    return jumps


def corners(lrs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The learning rates over the steps, with a corner before each jump, so that jumps are drawn as stairs."""
    import numpy as np

    at = np.flatnonzero(_jumps(lrs))
    steps = np.arange(len(lrs), dtype=np.float64)
    return np.insert(steps, at + 1, at + 1.0), np.insert(lrs, at + 1, lrs[at])


def plot_text(trajectories: Trajectories, width: int, *, scale: Scale | None = None, color: bool) -> str:
    """The same for a terminal, ``width`` characters wide; momentum and the metrics in charts of their own."""
    lines, momenta, series, quantity = trajectories
    steps = len(lines[0].lrs) - 1
    log = logarithmic(lines) if scale is None else scale == "log"
    charts = [
        terminal.chart(quantity, _curves(lines, log=log), steps=steps, width=width, height=16, log=log, color=color)
    ]
    if momenta:
        charts.append(terminal.chart("momentum", _curves(momenta), steps=steps, width=width, height=8, color=color))
    if series is not None:
        metric = [(step, value) for step, value in enumerate(series, start=1) if math.isfinite(value)]
        curve = terminal.Curve("metric", metric)
        charts.append(terminal.chart("metric", [curve], steps=steps, width=width, height=8, color=color))
    return "\n\n".join(charts)


def _curves(lines: Sequence[Line], *, log: bool = False) -> list[terminal.Curve]:
    curves = []
    for line in lines:
        points = zip(*(values.tolist() for values in corners(line.lrs)), strict=True)
        shown = [(step, lr) for step, lr in points if math.isfinite(lr) and not (log and lr <= 0)]
        curves.append(terminal.Curve(line.label, shown))
    return curves


def _checked(name: str, lrs: NDArray[Any]) -> NDArray[np.float64]:
    import numpy as np

    if lrs.ndim != 2 or 0 in lrs.shape or not np.issubdtype(lrs.dtype, np.number) or np.iscomplexobj(lrs):
        raise ValueError(
            f"schedulers[{name!r}] must be an array of shape (steps + 1, groups), as simulate returns; got shape "
            f"{lrs.shape} of {lrs.dtype}"
        )
    return lrs.astype(np.float64, copy=False)


def names_of(groups: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """The names of param groups, from their own ``"name"``."""
    names = [group.get("name") for group in groups]
    found = [name if isinstance(name, str) and name else None for name in names]
    entries = [group.name if isinstance(group, GroupEntry) else LR for group in groups]
    if len(set(entries)) <= 1:
        return found
    return [entry if name is None else f"{entry} of {name}" for entry, name in zip(entries, found, strict=True)]


def lines_of(
    scheduler: int, name: str, lrs: NDArray[np.float64], names: Sequence[str | None] | None = None
) -> list[Line]:
    """One line for all groups of a scheduler that agree; ``lrs`` is of shape (steps, groups)."""
    groups: dict[bytes, list[int]] = {}
    for group in range(lrs.shape[1]):
        groups.setdefault(lrs[:, group].tobytes(), []).append(group)
    lines = []
    for place, members in enumerate(groups.values()):
        label: str | None = name
        if len(groups) > NAMED_LINES:
            label = f"{name}, {lrs.shape[1]} groups" if place == 0 else None
        elif len(groups) > 1:
            label = f"{name}, {_called(members, names or [])}"
        lines.append(Line(scheduler, place, label, lrs[:, members[0]]))
    return lines


def _called(groups: Sequence[int], names: Sequence[str | None]) -> str:
    """``encoder, groups 1-3``: groups by their names if they have one, otherwise by their numbers."""
    named = [name for group in groups if group < len(names) and (name := names[group])]
    numbered = [group for group in groups if group >= len(names) or not names[group]]
    if len(named) > NAMES:
        named[NAMES - 1 :] = [f"{len(named) - NAMES + 1} more"]
    if numbered:
        named.append(f"group{'s' if len(numbered) > 1 else ''} {_ranges(numbered)}")
    return ", ".join(named)


def _ranges(numbers: Sequence[int]) -> str:
    """``0-2, 5`` for 0, 1, 2, 5."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in ranges)


def draw(
    axes: Axes,
    lines: Sequence[Line],
    *,
    first: int = 0,
    scale: Scale | None = None,
    quantity: str = "learning rate",
) -> None:
    """Draw learning rates, or whatever the ``quantity`` is; ``first`` is the step of the first one."""
    import numpy as np

    several = lines[-1].scheduler > 0
    for index, line in enumerate(lines):
        many = line.label is None or (index + 1 < len(lines) and lines[index + 1].label is None)
        width = WIDEST - (WIDEST - NARROWEST) * index / max(len(lines) - 1, 1) if len(lines) > 1 else 2.0
        changes = line.lrs[1:] != line.lrs[:-1]
        stairs = bool((_jumps(line.lrs) | ~changes).all())  # nothing but stairs: matplotlib has a style for that
        steps, lrs = (np.arange(len(line.lrs)), line.lrs) if stairs else corners(line.lrs)
        axes.plot(
            first + steps,
            lrs,
            label="_" if line.label is None else line.label,
            color=COLORS[(line.scheduler if several or many else line.place) % len(COLORS)],
            linestyle=DASHES[line.place % len(DASHES)] if several and not many else "-",
            linewidth=1.0 if many else width,
            drawstyle="steps-post" if stairs and changes.any() else "default",
        )
    if scale == "log" or (scale is None and logarithmic(lines)):
        axes.set_yscale("log")
    elif scale == "linear":
        axes.set_yscale("linear")
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_xlabel(axes.get_xlabel() or "step")
    if not axes.get_ylabel():
        axes.set_ylabel(f"{quantity} (log scale)" if axes.get_yscale() == "log" else quantity)
    axes.margins(x=0.01)


def draw_beside(axes: Axes, momenta: Sequence[Line]) -> None:
    """Draw momentum on an axis at the right, in the colors of the learning rates that go with it."""
    right = beside(axes, "momentum")
    several = momenta[-1].scheduler > 0
    for line in momenta:
        right.plot(
            *corners(line.lrs),
            label=line.label or "_",
            color=COLORS[(line.scheduler if several else line.place) % len(COLORS)],
            linestyle=(0, (1, 1.5)),
            linewidth=1.5,
        )


def draw_metric(axes: Axes, steps: Sequence[int], series: Sequence[float]) -> None:
    """Draw a metric on an axis at the right, logarithmic if most of it would otherwise lie at the bottom."""
    right = beside(axes, "metric")
    right.plot(steps, series, color=METRIC_COLOR, linewidth=1.2, label="metric")
    numbers = sorted(number for number in series if math.isfinite(number))
    if numbers and numbers[0] > 0 and numbers[len(numbers) // 2] <= numbers[-1] / 30:
        right.set_yscale("log")
        right.set_ylabel("metric (log scale)")


def draw_reductions(axes: Axes, steps: Sequence[int], lrs: Sequence[float]) -> None:
    """Mark where plateaus lowered the learning rate, and to what."""
    for index, step in enumerate(steps):
        axes.axvline(step, color="#555555", linestyle=":", linewidth=1.2, zorder=1, label="_")
        axes.plot(
            [step], [lrs[index]], "v", color="#000000", markersize=7, zorder=4, label="_" if index else "reduction"
        )
