"""Where plots are drawn (a file, existing axes or a new figure) and the style that they share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's, distinguishable with any color vision; without yellow, which is too pale for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GRAY = "#888888"
MOST_ROWS = 6  # of a legend


@contextmanager
def canvas(path_or_axes: Any) -> Iterator[Axes]:
    """Axes to draw on; a file is written when they are done.

    Args:
        path_or_axes: the file to write, in the format that its extension names (PNG without one), without pyplot or a
            display; or the matplotlib ``Axes`` to draw into; or None for a new pyplot figure, to be shown with
            ``plt.show()``.

    Raises:
        TypeError: it is not one of these.
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots are drawn with matplotlib: pip install 'fastsched[plot]'") from error

    if isinstance(path_or_axes, Axes):
        yield path_or_axes
    elif isinstance(path_or_axes, (str, os.PathLike)):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        yield figure.subplots()
        # If there is no extension, matplotlib would append one and write a different file.
        bare = os.path.splitext(path_or_axes)[1] in ("", ".")
        figure.savefig(path_or_axes, dpi=150, format="png" if bare else None)
    elif path_or_axes is None:
        from matplotlib import pyplot

        shown = pyplot.figure(figsize=(8, 4.5), layout="constrained")
        try:
            yield shown.subplots()
        except BaseException:
            pyplot.close(shown)
            raise
    else:
        raise TypeError(f"path_or_axes must be a path, a matplotlib Axes or None, got {type(path_or_axes).__name__}")


def beside(axes: Axes, label: str) -> Axes:
    """A new axis at the right, for other units, drawn behind the existing lines; each one is farther out."""
    others = sum(_shares(one, axes) for one in axes.figure.axes) - 1
    right = axes.twinx()
    right.spines["right"].set_position(("outward", 56 * others))
    right.set_ylabel(label, color="#555555")
    right.tick_params(axis="y", colors="#555555")
    axes.set_zorder(right.get_zorder() + 1)
    axes.patch.set_visible(False)
    return right


def finish(axes: Axes, title: str | None = None) -> None:
    """Add a grid, a title and a legend: above the axes, clear of all curves, and no wider than the axes."""
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    handles, labels = _entries(axes)
    before = _legend_height(axes)
    if labels:
        columns = min(len(labels), 4)
        legend = _legend(axes, handles, labels, columns)
        while columns > 1 and legend.get_window_extent().width > axes.bbox.width:
            columns -= 1
            legend = _legend(axes, handles, labels, columns)
        while legend.get_window_extent().width > axes.bbox.width and max(map(len, labels)) > 12:
            labels = [_shortened(label, max(map(len, labels)) * 9 // 10) for label in labels]
            legend = _legend(axes, handles, labels, columns)
        if len(labels) > columns * MOST_ROWS:
            shown = columns * MOST_ROWS - 1
            labels[shown:] = [f"and {len(labels) - shown} more"]
            _legend(axes, handles[: shown + 1], labels, columns)
    if axes.figure.get_layout_engine() is None:  # nothing else makes room for the legend
        place = axes.get_position()
        room = (_legend_height(axes) - before) / axes.figure.bbox.height
        axes.set_position((place.x0, place.y0, place.width, max(place.height - room, place.height / 2)))
    if title is not None or axes.get_title():
        axes.set_title(
            axes.get_title() if title is None else title, pad=6 + _legend_height(axes) * 72 / axes.figure.dpi
        )


def _shortened(label: str, length: int) -> str:
    """Cut out the middle: names of schedules often differ at their ends."""
    return label if len(label) <= length else f"{label[: length // 2]}\u2026{label[-(length // 2) + 1 :]}"


def _legend(axes: Axes, handles: list[Any], labels: list[str], columns: int) -> Any:
    return axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        frameon=False,
        ncols=columns,
        handlelength=1.8,
    )


def _legend_height(axes: Axes) -> float:
    """In pixels."""
    legend = axes.get_legend()
    return 0.0 if legend is None else legend.get_window_extent().height


def _entries(axes: Axes) -> tuple[list[Any], list[str]]:
    """The handles and labels of all axes in the same place as these."""
    handles: list[Any] = []
    labels: list[str] = []
    for one in axes.figure.axes:
        if _shares(one, axes):
            more = one.get_legend_handles_labels()
            handles += more[0]
            labels += more[1]
    return handles, labels


def _shares(one: Axes, axes: Axes) -> bool:
    """Whether ``one`` is ``axes``, or lies on top of them."""
    same_place = one.bbox.bounds == axes.bbox.bounds
    return one is axes or (same_place and bool(one.get_shared_x_axes().joined(one, axes)))
