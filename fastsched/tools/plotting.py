"""Pictures of schedules: what :func:`fastsched.simulate` gives, over the steps."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from .picture import canvas
from .simulation import Metrics, metric_series, simulate

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# Okabe and Ito's, which are told apart with any colour vision; without yellow, which is too pale for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
METRIC_COLOR = "#888888"
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
DECADES = 100 / (1 + 1e-9)  # two of them, up to rounding
STAIRS = 100  # with more steps than these they are too small to be seen, and lines look better
NAMED_GROUPS = 6  # more different groups than these get one line in the legend
WIDEST, NARROWEST = 2.6, 1.5  # points; where lines run together the earlier, wider one shows at both sides


class Line(NamedTuple):
    """The learning rates of the param groups of one scheduler that agree."""

    scheduler: int
    place: int  # among the scheduler's lines
    label: str | None
    lrs: NDArray[np.float64]


def plot(schedulers: Any, steps: int | None = None, path_or_axes: Any = None, metrics: Metrics | None = None) -> Axes:
    """Draw the learning rates of the next ``steps`` steps; nothing is stepped.

    Each scheduler has one line for all param groups that agree, and the legend names groups only where some do not.
    The scale is logarithmic where a line is two decades or more below its highest for over a tenth of the steps, or the
    highest of one line below that of another.

    Args:
        schedulers: a scheduler, or an array that :func:`fastsched.simulate` returned, or a dict of name to either.
        steps: how many steps; not needed where there are only arrays, which are drawn whole.
        path_or_axes: the file to write, in the format that its extension names, without pyplot or a display; or the
            matplotlib ``Axes`` to draw into; or None for a new pyplot figure, to be shown with ``plt.show()``.
        metrics: as for :func:`fastsched.simulate`; a series is drawn too, on an axis of its own at the right.

    Returns:
        The ``Axes`` with the learning rates.

    Raises:
        TypeError, ValueError: an argument is none of these; the message names it.
        ImportError: matplotlib is not installed.

    What :func:`fastsched.simulate` raises comes through.

    Waits for the device if learning rates are on one. Must not be called inside CUDA graph capture.
    """
    with canvas(path_or_axes) as axes:
        lines, series = trajectories(schedulers, steps, metrics)
        draw(axes, lines, series, above=axes is not path_or_axes)
    return axes


def trajectories(schedulers: Any, steps: int | None, metrics: Metrics | None) -> tuple[list[Line], list[float] | None]:
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
            raise ValueError("steps is missing: how many steps to draw; only arrays go without")
        steps = max(map(len, arrays.values())) - 1
    series = None if metrics is None else metric_series(metrics, steps)
    lines = []
    for index, (name, scheduler) in enumerate(schedulers.items()):
        lrs = arrays[name] if name in arrays else simulate(scheduler, steps, series)
        lines += lines_of(index, str(name), lrs)
    return lines, None if isinstance(metrics, Real) else series


def logarithmic(lines: Sequence[Line]) -> bool:
    """Whether lines would lie on the ground of a linear scale: for more than a tenth of their length, or as a whole."""
    highest = [
        float(line.lrs[line.lrs > 0].max(initial=0.0)) for line in lines
    ]  # NaN, before there was a group, is not
    drawn = [(line.lrs, high) for line, high in zip(lines, highest, strict=True) if high > 0]
    long_low = any((lrs <= high / DECADES).mean() > 0.1 for lrs, high in drawn)
    return long_low or (len(drawn) > 1 and min(high for _, high in drawn) <= max(highest) / DECADES)


def plot_text(lines: Sequence[Line], series: Sequence[float] | None, width: int, *, color: bool) -> str:
    """The same for a terminal, ``width`` characters wide; the metrics in a chart of their own."""
    try:
        import plotille  # noqa: F401
    except ImportError as error:
        raise ImportError("plots in the terminal are drawn with plotille: pip install 'fastsched[plot]'") from error

    count = len(lines[0].lrs)
    log = logarithmic(lines)
    curves = []
    for line in lines:
        shown = [(step, lr) for step, lr in enumerate(line.lrs.tolist()) if math.isfinite(lr) and not (log and lr <= 0)]
        curve = [(step, math.log10(lr) if log else lr) for step, lr in shown]
        if count <= STAIRS:
            corners = [(step + 1, lr) for step, lr in curve[:-1]]
            curve = sorted([*corners, *curve], key=operator.itemgetter(0))
        curves.append((line.label, curve))
    charts = [_chart(curves, "lr", count - 1, width, 16, log=log, color=color)]
    if series is not None:
        metric = [(step, value) for step, value in enumerate(series, start=1) if math.isfinite(value)]
        charts.append(_chart([("metric", metric)], "metric", count - 1, width, 6, log=False, color=color))
    return "\n\n".join(charts)


def _chart(
    curves: list[tuple[str | None, list[tuple[int, float]]]],
    name: str,
    steps: int,
    width: int,
    height: int,
    *,
    log: bool,
    color: bool,
) -> str:
    import plotille

    figure = plotille.Figure()
    figure.width, figure.height = max(width - 24, 20), height  # beside the numbers and the axis's name
    figure.with_colors = color
    figure.color_mode = "names"
    figure.x_label, figure.y_label = "step", name
    figure.set_x_limits(0, max(steps, 1))
    heights = [value for _, curve in curves for _, value in curve] or [0.0]
    low, high = min(heights), max(heights)
    if log:  # whole decades, with a whole number of rows each
        low, high = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
        figure.height = (high - low) * round(height / (high - low)) or height
    elif low == high:
        low, high = low - (abs(low) or 1.0) / 10, high + (abs(high) or 1.0) / 10
    elif 0 < low < high / 2:
        low = 0.0
    figure.set_y_limits(low, high)
    figure.y_ticks_fkt = lambda value, _: f"{10**value if log else value:.3g}".rjust(9)
    figure.x_ticks_fkt = lambda value, _: f"{value:.0f}"
    for index, (label, curve) in enumerate(curves):
        marker = None if color or len(curves) == 1 else "abcdefghijklmnopqrstuvwxyz"[index % 26]
        x, y = [step for step, _ in curve], [value for _, value in curve]
        figure.plot(
            x, y, lc=_TERMINAL_COLORS[index % len(_TERMINAL_COLORS)] if color else None, label=label, marker=marker
        )
    text: str = figure.show(legend=True)
    return "\n".join(line.rstrip(" \u2800") for line in text.splitlines())


_TERMINAL_COLORS = ("bright_blue", "bright_yellow", "bright_cyan", "bright_magenta", "bright_red", "bright_green")


def _checked(name: str, lrs: NDArray[Any]) -> NDArray[np.float64]:
    import numpy as np

    if lrs.ndim != 2 or 0 in lrs.shape or not np.issubdtype(lrs.dtype, np.number) or np.iscomplexobj(lrs):
        raise ValueError(
            f"schedulers[{name!r}] must be an array of shape (steps + 1, groups), as simulate returns it; got shape "
            f"{lrs.shape} of {lrs.dtype}"
        )
    return lrs.astype(np.float64, copy=False)


def lines_of(scheduler: int, name: str, lrs: NDArray[np.float64]) -> list[Line]:
    """A line for all groups of a scheduler that agree; ``lrs`` is of shape (steps, groups)."""
    groups: dict[bytes, list[int]] = {}
    for group in range(lrs.shape[1]):
        groups.setdefault(lrs[:, group].tobytes(), []).append(group)
    lines = []
    for place, members in enumerate(groups.values()):
        label: str | None = name
        if len(groups) > NAMED_GROUPS:
            label = f"{name}, {lrs.shape[1]} groups" if place == 0 else None
        elif len(groups) > 1:
            label = f"{name}, group{'s' if len(members) > 1 else ''} {_ranges(members)}"
        lines.append(Line(scheduler, place, label, lrs[:, members[0]]))
    return lines


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
    series: Sequence[float] | None,
    *,
    first: tuple[int, int] = (0, 1),
    marks: Sequence[int] = (),
    above: bool,
) -> None:
    """Draw learning rates, metrics on an axis at the right, marks, and a legend.

    Args:
        axes: to draw into.
        lines: the learning rates.
        series: the metrics, if any.
        first: the step of the first learning rate, and that of the first metric.
        marks: the steps of reductions.
        above: whether the legend goes above the picture, where nothing else is.
    """
    several = lines[-1].scheduler > 0
    for index, line in enumerate(lines):
        many = line.label is None or (index + 1 < len(lines) and lines[index + 1].label is None)
        width = WIDEST - (WIDEST - NARROWEST) * index / max(len(lines) - 1, 1) if len(lines) > 1 else 2.0
        axes.plot(
            range(first[0], first[0] + len(line.lrs)),
            line.lrs,
            label="_" if line.label is None else line.label,
            color=COLORS[(line.scheduler if several or many else line.place) % len(COLORS)],
            linestyle=DASHES[line.place % len(DASHES)] if several and not many else "-",
            linewidth=1.0 if many else width,
            drawstyle="steps-post" if len(line.lrs) <= STAIRS + 1 else "default",
        )
    if logarithmic(lines):
        axes.set_yscale("log")
    elif axes.get_yscale() == "linear":
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_xlabel(axes.get_xlabel() or "step")
    axes.set_ylabel(axes.get_ylabel() or "learning rate")
    axes.margins(x=0.01)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    if series is not None:
        beside = axes.twinx()
        beside.plot(range(first[1], first[1] + len(series)), series, color=METRIC_COLOR, linewidth=1.2, label="metric")
        beside.set_ylabel("metric", color="#555555")
        beside.tick_params(axis="y", colors="#555555")
        axes.set_zorder(beside.get_zorder() + 1)  # learning rates above the metric
        axes.patch.set_visible(False)
    for index, step in enumerate(marks):
        axes.axvline(
            step, color="#BBBBBB", linestyle=":", linewidth=1, zorder=1, label="reduction" if index == 0 else "_"
        )
    handles, labels = _legend(axes)
    if above:
        columns = max(1, min(len(labels), int(90 / (max(map(len, labels)) + 6))))
        axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, ncols=columns)
    else:
        axes.legend(handles, labels, loc="best")


def _legend(axes: Axes) -> tuple[list[Any], list[str]]:
    """The handles and labels of all that shares the picture with these axes."""
    handles: list[Any] = []
    labels: list[str] = []
    for one in axes.figure.axes:
        if one is axes or (one.bbox.bounds == axes.bbox.bounds and one.get_shared_x_axes().joined(one, axes)):
            more = one.get_legend_handles_labels()
            handles += more[0]
            labels += more[1]
    return handles, labels
