"""What of a noisy metric is judged, and how patience counts: the settings, and the rule where torch's code steps."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from numbers import Real
from typing import Any

SETTINGS: dict[str, Any] = {"accumulate": 1, "smoothing": 0.0, "patience_counts": "torch"}


def checked_setting(name: str, value: Any, where: str | None = None) -> Any:
    """One of :data:`SETTINGS` as a plain Python value.

    Args:
        name: which one.
        value: what a user gave.
        where: the expression that it is, for the errors.

    Raises:
        TypeError, ValueError: it is no such setting; says what is.
    """
    where = where or name
    if name == "patience_counts":
        if not isinstance(value, str) or value not in ("torch", "keras"):
            raise ValueError(f"{where} must be 'torch' or 'keras', got {value!r}")
        return str(value)
    if name == "accumulate":
        try:
            count = operator.index(value)
        except TypeError:
            if not (isinstance(value, float) and value.is_integer()):  # as some file formats read numbers back
                raise TypeError(f"{where} must be an int, how many metrics make one, got {value!r}") from None
            count = int(value)
        if isinstance(value, bool) or not 1 <= count < 2**53:
            raise ValueError(f"{where} must be 1 or more, how many metrics make one, got {value!r}")
        return count
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{where} must be a number from 0 to below 1, got {value!r}")
    if not 0.0 <= float(value) < 1.0:
        raise ValueError(f"{where} must be 0 or more and below 1, got {value!r}; 0 does not smooth")
    return float(value)


def judge(attributes: dict[str, Any], metric: float, settings: Mapping[str, Any]) -> float | None:
    """``JudgedMetric`` of csrc/schedule/formulas/judged_metric.h: the metric to judge now, None if more are to come.

    Args:
        attributes: where the counters are; those that are 0 are not there.
        metric: what the step was given.
        settings: ``accumulate`` and ``smoothing``.
    """
    if settings["accumulate"] != 1:
        mean, count = _added(attributes.get("accumulated_metric", 0.0), attributes.get("accumulated_count", 0), metric)
        if count < settings["accumulate"]:
            attributes.update(accumulated_metric=mean, accumulated_count=int(count))
            return None
        for name in ("accumulated_metric", "accumulated_count"):
            attributes.pop(name, None)
        metric = mean
    decay = settings["smoothing"]
    if decay != 0.0 and math.isfinite(metric):
        before = attributes.get("smoothed_metric", 0.0), attributes.get("smoothed_weight", 0.0)
        metric, weight = _added(*before, metric, decay)
        attributes.update(smoothed_metric=metric, smoothed_weight=weight)
    return metric


def _added(mean: float, weight: float, number: float, decay: float = 1.0) -> tuple[float, float]:
    weight = decay * weight + 1.0
    finite = math.isfinite(number) and math.isfinite(mean)
    return (mean + (number - mean) / weight if finite else mean + number), weight


def patience_for_torch(patience: Any, counts: str) -> Any:
    """The patience with which torch's code does what this one does here."""
    if counts != "keras":
        return patience
    return patience if math.isinf(patience) else max(math.ceil(patience), 1) - 1
