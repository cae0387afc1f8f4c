"""Where pictures go: a file, axes that are there, or a figure to be shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@contextmanager
def canvas(path_or_axes: Any) -> Iterator[Axes]:
    """Axes to draw on; a file is written when they are done.

    Args:
        path_or_axes: the file to write, in the format that its extension names, without pyplot or a display; or the
            matplotlib ``Axes`` to draw into; or None for a new pyplot figure, to be shown with ``plt.show()``.

    Raises:
        TypeError: it is none of these.
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures are drawn with matplotlib: pip install 'fastsched[plot]'") from error

    if isinstance(path_or_axes, Axes):
        yield path_or_axes
    elif isinstance(path_or_axes, (str, os.PathLike)):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        yield figure.subplots()
        figure.savefig(path_or_axes, dpi=150)
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
