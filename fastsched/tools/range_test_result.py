"""What a learning-rate range test found: the curve, suggestions, a plot."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import asdict, dataclass
from math import log, sqrt
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from .picture import COLORS, GRAY, canvas, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Method = Literal["valley", "steep", "minimum", "slide"]
MARKERS = {"valley": "o", "steep": "s", "minimum": "v", "slide": "D"}

# For the interval slide rule: the width of the interval, in steps, and the difference of slopes that ends the slide.
_INTERVAL = 15
_SLOPE_DIFFERENCE = 0.005


@dataclass(frozen=True, repr=False)
class LRRangeTestResult:
    """The curve of a learning-rate range test, up to where the loss diverged.

    Attributes:
        lrs: the learning rate of each step, in the param group with the largest; float32 LR tensors held it rounded.
        losses: the loss at each step, all finite; as many as ``lrs``.
        smoothed: their exponential moving average.
        mode: ``"exp"`` or ``"linear"``, how the learning rate rose.
        num_iter: how many steps were planned.
        diverged_at: the step at which the loss diverged, the first one not in the lists; None if it did not.
        diverged_lr: the learning rate there.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    mode: str
    num_iter: int
    diverged_at: int | None
    diverged_lr: float | None

    @property
    def diverged(self) -> bool:
        """Whether the loss diverged before the last learning rate."""
        return self.diverged_at is not None

    def suggestion(self, method: Method = "valley", *, skip_start: int | None = None, skip_end: int = 0) -> float:
        """A learning rate to train with, read off the smoothed curve.

        Args:
            method: which rule.

                - ``"valley"``: two thirds of the way down the longest valley, the longest falling subsequence of the
                  losses (ESRI's rule in ArcGIS, fastai's default).
                - ``"steep"``: where the loss falls the most per logarithm of the learning rate (Gugger, How Do
                  You Find A Good Learning Rate, 2018; fastai, torch-lr-finder).
                - ``"minimum"``: a tenth of the learning rate with the lowest loss (the same).
                - ``"slide"``: the interval slide rule (Chang, Automated Learning Rate Suggester, 2019; fastai). An
                  interval of 15 steps slides down from the end of the curve for as long as the slopes of the loss, per
                  step, at its two ends differ by more than 0.005; the suggestion is its last lower end. That difference
                  is absolute: it is meant for losses of the size of a cross entropy, over about 100 steps.
            skip_start: how many steps at the beginning to leave out, where the average is over few losses and still
                noisy; a tenth of them by default.
            skip_end: how many at the end.

        Raises:
            TypeError, ValueError: ``method`` is not one of these, or a skip is not a whole number of 0 or more; or the
                curve has no suggestion, because it is too short or the loss does not fall by more than its noise. The
                message says what to change.
        """
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(map(repr, get_args(Method)))}, got {method!r}")
        part = self._part(skip_start, skip_end)
        lrs, losses = self.lrs[part], self.smoothed[part]
        least = _INTERVAL + 1 if method == "slide" else 3
        if len(losses) < least:
            raise ValueError(
                f"the curve is too short for method {method!r}: {len(losses)} steps, {least} are needed; raise num_iter"
                + (", or lower start_lr, because the loss diverged" if self.diverged else "")
            )
        if min(losses[1:]) >= losses[0]:
            raise ValueError(
                f"the loss never falls below where it began, at lr {lrs[0]:.3g}: lower start_lr, or train on more data"
            )
        lowest = losses.index(min(losses))
        if lowest < len(losses) // 20 or _is_noise(self.losses[part][: lowest + 1]):
            raise ValueError(
                f"the loss never fell: between lr {lrs[0]:.3g} and {lrs[lowest]:.3g} there is only noise, which would "
                "suggest a different rate each time; raise end_lr or num_iter, accumulate gradients, or check that the "
                "model trains"
            )
        return {"valley": _valley, "steep": _steep, "minimum": _minimum, "slide": _slide}[method](lrs, losses)

    def _part(self, skip_start: Any, skip_end: Any) -> slice:
        if skip_start is None:
            skip_start = len(self.lrs) // 10
        for name, skip in (("skip_start", skip_start), ("skip_end", skip_end)):
            if not isinstance(skip, int) or isinstance(skip, bool):
                raise TypeError(f"{name} must be an int, got {type(skip).__name__}")
            if skip < 0:
                raise ValueError(f"{name} must be 0 or more, got {skip}")
        return slice(skip_start, max(len(self.lrs) - skip_end, 0))

    def plot(
        self,
        path_or_axes: Any = None,
        *,
        suggestion: Method | Literal["all"] | None = "all",
        title: str | None = "Learning-rate range test",
    ) -> Axes:
        """Draw the losses over the learning rates, raw and smoothed, and the suggestions.

        Args:
            path_or_axes: as for :func:`fastsched.plot`.
            suggestion: the method whose suggestion is marked, or ``"all"``; None marks none. If the curve has none, the
                legend says so.
            title: written above the plot; None for no title.

        Returns:
            The axes.

        Raises:
            ImportError: matplotlib is not installed.
            TypeError: ``path_or_axes`` is something else.
            ValueError: there is no such method.

        Example::

            result = fastsched.lr_range_test(model, optimizer, criterion, loader)
            result.plot("range_test.png", suggestion="steep")
        """
        if suggestion not in (None, "all", *get_args(Method)):
            names = ", ".join(map(repr, get_args(Method)))
            raise ValueError(f"suggestion must be one of {names}, 'all' or None, got {suggestion!r}")
        with canvas(path_or_axes) as axes:
            self._draw(axes)
            for method in get_args(Method):
                if suggestion in (method, "all"):
                    self._mark(axes, method)
            finish(axes, title)
        return axes

    def _draw(self, axes: Axes) -> None:
        if self.losses and not axes.has_data():
            # The last raw losses before divergence would flatten all the others.
            low, high = min(self.losses), max(self.smoothed)
            margin = 0.05 * (high - low) or 0.5
            axes.set_ylim(low - margin, high + margin)
        axes.plot(self.lrs, self.losses, color=GRAY, alpha=0.6, linewidth=1, label="loss")
        axes.plot(self.lrs, self.smoothed, color=COLORS[0], linewidth=2, label="loss, smoothed")
        if self.diverged_lr is not None:
            label = f"diverged at {self.diverged_lr:.3g}"
            axes.axvline(self.diverged_lr, color=COLORS[1], linestyle=":", linewidth=1.5, label=label)
        if self.mode == "exp":
            axes.set_xscale("log")
        axes.set(xlabel="learning rate (log scale)" if self.mode == "exp" else "learning rate", ylabel="loss")

    def _mark(self, axes: Axes, method: Method) -> None:
        try:
            lr = self.suggestion(method)
        except ValueError:
            axes.plot([], [], " ", label=f"{method}: no suggestion")
            return
        color = COLORS[2 + get_args(Method).index(method)]
        nearest = min(range(len(self.lrs)), key=lambda step: abs(log(self.lrs[step] / lr)))
        axes.axvline(lr, color=color, linestyle="--", linewidth=1, label="_")
        axes.plot(
            [lr],
            [self.smoothed[nearest]],
            MARKERS[method],
            color=color,
            markersize=8,
            markeredgecolor="white",
            label=f"{method}: {lr:.3g}",
            zorder=4,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON; ``LRRangeTestResult(**that)`` is equal to this."""
        return asdict(self)

    def __repr__(self) -> str:
        parts = [f"{len(self.lrs)} of {self.num_iter} steps"]
        if self.lrs:
            lowest = min(range(len(self.lrs)), key=self.smoothed.__getitem__)
            parts.append(f"lr {self.lrs[0]:.3g} to {self.lrs[-1]:.3g}, {self.mode}")
            parts.append(f"lowest smoothed loss {self.smoothed[lowest]:.4g} at lr {self.lrs[lowest]:.3g}")
        if self.diverged:
            parts.append(f"diverged at step {self.diverged_at}, lr {self.diverged_lr:.3g}")
        return f"LRRangeTestResult({'; '.join(parts)})"


def _is_noise(losses: list[float]) -> bool:
    """Whether losses in random order would fall this much in one test out of a hundred, by Kendall's rank correlation.

    3 standard deviations rather than 2.3, because the last loss is chosen as the one with the lowest average. Losses
    that fall at every step are not noise, however few.
    """
    count = len(losses)
    falls = 0
    before: list[float] = []
    for loss in losses:
        falls += len(before) - bisect_right(before, loss)  # pairs in which the later loss is lower
        falls -= bisect_left(before, loss)  # minus those in which it is higher
        insort(before, loss)
    deviation = sqrt(count * (count - 1) * (2 * count + 5) / 18)
    all_fall = count * (count - 1) / 2
    return falls < min(3 * deviation, all_fall)


def _steep(lrs: list[float], losses: list[float]) -> float:
    return lrs[int(_slopes(losses, [log(lr) for lr in lrs]).argmin())]


def _minimum(lrs: list[float], losses: list[float]) -> float:
    return lrs[losses.index(min(losses))] / 10


def _valley(lrs: list[float], losses: list[float]) -> float:
    valley = _longest_falling(losses)
    return lrs[valley[2 * (len(valley) - 1) // 3]]


def _slide(lrs: list[float], losses: list[float]) -> float:
    slopes = _slopes(losses, list(range(len(losses)))).tolist()
    found = lower = len(lrs) - 1 - _INTERVAL
    while lower >= 0 and abs(slopes[lower + _INTERVAL] - slopes[lower]) > _SLOPE_DIFFERENCE:
        found = lower
        lower -= 1
    return lrs[found]


def _slopes(values: list[float], places: list[float]) -> Tensor:
    """Central differences; one-sided at both ends."""
    coordinates = torch.tensor(places, dtype=torch.float64, device="cpu")
    return torch.gradient(torch.tensor(values, dtype=torch.float64, device="cpu"), spacing=(coordinates,))[0]


def _longest_falling(values: list[float]) -> list[int]:
    """The places of a longest strictly falling subsequence, by patience sorting."""
    tops: list[float] = []  # at n, negated: the highest value that can end a falling subsequence of n + 1 values
    ends: list[int] = []
    before: list[int] = []
    for place, value in enumerate(values):
        length = bisect_left(tops, -value)
        tops[length : length + 1] = [-value]
        ends[length : length + 1] = [place]
        before.append(ends[length - 1] if length > 0 else -1)
    falling = [ends[-1]]
    while before[falling[-1]] >= 0:
        falling.append(before[falling[-1]])
    return falling[::-1]
