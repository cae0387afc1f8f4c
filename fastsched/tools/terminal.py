"""Charts in a terminal: curves of braille dots between axes with round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

COLORS = ("bright_blue", "bright_yellow", "bright_cyan", "bright_magenta", "bright_red", "bright_green")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NARROWEST = 20  # characters between the axes, however narrow the terminal is
CLOSE = 8  # fewest characters between two numbers on the horizontal axis
LETTER_EVERY = 6  # characters


class Curve(NamedTuple):
    """Points to be joined by lines; all are finite, and above zero where the scale is logarithmic."""

    label: str | None
    points: Sequence[tuple[float, float]]


class _Axis(NamedTuple):
    """Places from ``low`` to ``high``, with a tick at every multiple of ``tick``."""

    low: float
    high: float
    tick: float

    @property
    def ticks(self) -> list[float]:
        return [self.low + index * self.tick for index in range(round((self.high - self.low) / self.tick) + 1)]


def chart(
    name: str, curves: Sequence[Curve], *, steps: int, width: int, height: int, log: bool = False, color: bool = False
) -> str:
    """A chart over steps 0 to ``steps``, ``width`` characters wide and about ``height`` lines high.

    Every point is within the axes, and each number stands at its value. Curves are distinguished by color, or without
    color by letters. A curve without a label is not in the legend.

    Raises:
        ImportError: plotille is not installed.
    """
    try:
        from plotille import Canvas
    except ImportError as error:
        raise ImportError("plots in the terminal are drawn with plotille: pip install 'fastsched[plot]'") from error

    scaled = [Curve(curve.label, [(x, math.log10(y) if log else y) for x, y in curve.points]) for curve in curves]
    heights = [y for curve in scaled for _, y in curve.points] or [0.0]
    vertical = (_decades if log else _round_numbers)(min(heights), max(heights), max(height // 4, 1))
    between = max(round(height / (len(vertical.ticks) - 1)), 1)  # lines from one tick to the next
    lines = between * (len(vertical.ticks) - 1) + 1
    numbers = [_number(10**tick if log else tick, vertical.tick if not log else 0) for tick in vertical.ticks]
    left = max(map(len, numbers))
    tick, apart, columns = _ticks_below(steps, max(width - left - len(" ┤ step"), NARROWEST))

    # The canvas is measured in dots, two by four per character; ticks are in the middle of a character.
    canvas = Canvas(columns, lines, xmax=2 * columns, ymax=4 * lines)
    lettered: set[tuple[int, int]] = set()
    for index, curve in enumerate(scaled):
        shade = COLORS[index % len(COLORS)] if color else None
        dots = [
            (
                round(x / max(steps, 1) * 2 * (columns - 1)),
                round(1 + (y - vertical.low) / (vertical.high - vertical.low) * 4 * (lines - 1)),
            )
            for x, y in curve.points
        ]
        for start, end in zip(dots, dots[1:] or dots, strict=False):
            canvas.line(*start, *end, color=shade)
        free = index * 2  # the first column for the next letter, so that some line shows between two
        for x, y in () if color or len(curves) == 1 else dots:
            if x // 2 >= free and (x // 2, y // 4) not in lettered:
                canvas.point(x, y, marker=LETTERS[index % len(LETTERS)])
                lettered.add((x // 2, y // 4))
                free = x // 2 + LETTER_EVERY
    drawn = canvas.plot(linesep="\n").splitlines()

    beside = {lines - 1 - index * between: number for index, number in enumerate(numbers)}
    rows = [f"{beside.get(row, ''):>{left}} {'┤' if row in beside else '│'}{text}" for row, text in enumerate(drawn)]
    return "\n".join(
        [
            f"{name:>{left}}",
            *(row.rstrip(" \u2800") for row in rows),
            *_below(range(0, steps + 1, tick), apart, columns, left),
            *_legend(curves, color=color),
        ]
    )


def _round_numbers(low: float, high: float, intervals: int) -> _Axis:
    """About this many intervals of 1, 2 or 5 times a power of ten that cover all values, and zero if it is near."""
    if 0 < low < high / 2:
        low = 0.0
    if low == high:
        low, high = low - (abs(low) or 1.0) / 10, high + (abs(high) or 1.0) / 10
    rough = (high / 2 - low / 2) / intervals * 2  # halved, so that the difference cannot overflow
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 1e-300 else 1e-300
    tick = next((size * power for size in (1, 2, 5) if size * power >= rough * (1 - 1e-9)), 10 * power)
    first, last = math.floor(low / tick + 1e-9), math.ceil(high / tick - 1e-9)
    return _Axis(first * tick, max(last, first + 1) * tick, tick)


def _decades(low: float, high: float, intervals: int) -> _Axis:
    """Whole powers of ten."""
    first, last = math.floor(low + 1e-9), math.ceil(high - 1e-9)
    tick = max(math.ceil((last - first) / max(intervals, 1)), 1)
    return _Axis(first, first + max(math.ceil((last - first) / tick), 1) * tick, tick)


def _number(value: float, tick: float) -> str:
    """With as many digits as distinguish it from its neighbors: 0.00, 0.05, 0.10."""
    value = 0.0 if abs(value) < tick / 2 else value
    size = max(abs(value), tick)
    if tick == 0 or not 1e-4 <= size < 1e5 or tick < 1e-6:
        return f"{value:.6g}" if value == 0 or tick == 0 else f"{value:.3g}"
    return f"{value:.{max(0, -math.floor(math.log10(tick) + 1e-9))}f}"


def _ticks_below(steps: int, most: int) -> tuple[int, int, int]:
    """How many steps and how many characters from one tick to the next, and how many characters in all."""
    tick = max(round(_round_numbers(0, max(steps, 1), max(most // CLOSE, 1)).tick), 1)
    apart = max((most - 1) * tick // max(steps, 1), 1) if steps >= tick else most - 1
    return tick, apart, min(apart * steps // tick + 1, most) if steps > 0 else most


def _below(ticks: Sequence[int], apart: int, columns: int, left: int) -> list[str]:
    """The step axis and its numbers."""
    line, numbers = ["─"] * columns, [" "] * columns
    for index, step in enumerate(ticks):
        line[min(index * apart, columns - 1)] = "┬"
        text = str(step)
        start = max(min(index * apart - len(text) // 2, columns - len(text)), 0)
        numbers[start : start + len(text)] = text
    return [
        f"{'':>{left}} └{''.join(line)} step",
        f"{'':>{left}}  {''.join(numbers)}".rstrip(),
    ]


def _legend(curves: Sequence[Curve], *, color: bool) -> list[str]:
    from plotille import color as colored

    lines = []
    for index, curve in enumerate(curves):
        if curve.label is None:
            continue
        mark = "⠒⠒⠒" if color or len(curves) == 1 else f"⠒{LETTERS[index % len(LETTERS)]}⠒"
        if color:
            mark = colored(mark, fg=COLORS[index % len(COLORS)], mode="names")
        lines.append(f"{mark} {curve.label}")
    return lines
