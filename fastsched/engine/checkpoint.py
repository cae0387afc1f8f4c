"""What a state must be like for a scheduler to go on from it: all of it is looked at before anything is written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from .. import _C
from .program import LAST_LR, instance_dict
from .selection import LR

# What a step divides by.
_DIVISORS = frozenset({"step_size", "T_max", "T_i", "total_size", "step_ratio", "start_factor"})
# What torch has beside them, or takes in another way.
_TORCHS = {
    LAST_LR: "per group",
    "last_epoch": "finite",  # a fraction, too, as ``step(epoch)`` may leave it
    **dict.fromkeys(("use_beta1", "_is_initial", "_get_lr_called_within_step"), "flag"),
}
# The names of a param group's entries that a phase of OneCycleLR goes between.
_ENDS = {
    **dict.fromkeys(("start_lr", "end_lr"), ("initial_lr", "max_lr", "min_lr")),
    **dict.fromkeys(("start_momentum", "end_momentum"), ("max_momentum", "base_momentum")),
}


def checked(scheduler: Any, state_dict: Any, where: str, free: Collection[str] = ()) -> dict[str, Any]:
    """A copy of a state without what is never saved, for a scheduler to write into its attributes.

    Settings keep their type, because it decides how Python computes: ``numpy.float32`` for one. Counters become the
    plain numbers that engines hold.

    Args:
        scheduler: who is to go on from it.
        state_dict: from any version of torch, or of fastsched.
        where: the expression that ``state_dict`` is, for the errors.
        free: settings that may be anything.

    Raises:
        TypeError, ValueError, KeyError: a step could not go on from it, or it is the state of another class; names the
            key and says what is expected.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"{where} must be a dict, got {type(state_dict).__name__}")
    known = _C.ATTRIBUTES[scheduler._schedule]
    state = {name: value for name, value in state_dict.items() if name not in scheduler._unsaved}
    driven = state.pop("param_name", LR)
    if driven != scheduler.param_name:
        raise ValueError(
            f"{where} is of a schedule of {driven!r}, and this is one of {scheduler.param_name!r}; load it into a "
            f"scheduler that was made with param_name={driven!r}"
        )
    _require_own(scheduler, state, known, where)
    for name, value in state.items():
        place = f"{where}[{name!r}]"
        if name in free:
            continue
        must_be = _TORCHS.get(name) or known.get(name)
        if isinstance(must_be, tuple):
            choice(place, value, must_be)
        elif must_be in _READERS:
            state[name] = _READERS[must_be](place, value)
        elif must_be is None and callable(getattr(type(scheduler), str(name), None)) and not callable(value):
            raise TypeError(f"{place} would take the place of the method {name}(); remove it from the state")
        if name in _DIVISORS and (value == 0 or value != value):
            raise ValueError(f"{place} must not be 0 or NaN, because a step divides by it; got {value!r}")
    return state


def _require_own(scheduler: Any, state: dict[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Raise KeyError for another class's state: a counter is missing, or settings are and it has some of others."""
    name = type(scheduler).__name__
    for counter in _C.counter_names(scheduler._schedule):
        # _step_count keeps its value, as missing settings do: states of the first versions of torch lack it.
        if counter in scheduler._optional:
            state.setdefault(counter, scheduler._optional[counter])  # not counted in the run that the state is from
        elif counter not in state and counter != "_step_count":
            raise KeyError(f"{where} has no {counter!r}; it is not the state of a {name}")
    attributes = instance_dict(scheduler)
    missing = [key for key in known if key in attributes and key not in state]
    settings = {key for others in _C.ATTRIBUTES.values() for key in others}
    foreign = [key for key in state if key in settings and key not in known and key not in attributes]
    if missing and foreign:
        raise KeyError(f"{where} has no {missing[0]!r}, but {foreign[0]!r}; it is not the state of a {name}")


def number(where: str, value: Any) -> Any:
    """The value, which Python can compute with as with a number: a NumPy scalar or a tensor with one element is one."""
    if isinstance(value, Tensor):
        plain = value.numel() == 1 and not value.is_complex() and not value.is_meta
    else:
        kind = getattr(getattr(value, "dtype", None), "kind", "") if getattr(value, "ndim", None) == 0 else ""
        plain = isinstance(value, Real) or kind in tuple("biuf")
    if not plain:
        raise TypeError(f"{where} must be a number, got {value!r}")
    try:
        float(value)
    except OverflowError:
        raise ValueError(f"{where} must be a number that a float can hold, got one of more than 300 digits") from None
    return value


def counter(where: str, value: Any) -> Any:
    """The value of a counter as a plain number, where that is the same number."""
    value = number(where, value)
    if not isinstance(value, Real):
        value = value.item()  # a tensor's or an array's
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, float) else value


def finite(where: str, value: Any) -> Any:
    """A counter, int or float, that may be fractional: where ``step(epoch)`` went to."""
    value = counter(where, value)
    if not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, got {value!r}")
    return int(value) if value == value // 1 else value


def whole(where: str, value: Any) -> int:
    """A counter of what happened so many times."""
    value = counter(where, value)
    if not (math.isfinite(value) and value == value // 1):
        raise ValueError(f"{where} must be a whole number, got {value!r}")
    return int(value)


def numbers(where: str, values: Any) -> list[Any]:
    """A list of numbers; one of torch's or NumPy's arrays is taken apart."""
    kinds = _C.types_of(values) if type(values) is list else {list}
    if kinds <= {float, int}:
        with suppress(OverflowError):
            if int in kinds:
                list(map(float, values))
            return list(values)  # without a name for each
    array = getattr(values, "ndim", 0) == 1
    if not array and (not isinstance(values, Sequence) or isinstance(values, (str, bytes))):
        raise TypeError(f"{where} must be a list, got {type(values).__name__}")
    return [number(f"{where}[{index}]", value) for index, value in enumerate(values)]


def fixed(where: str, values: Any) -> tuple[Any, ...]:
    """Numbers in a tuple."""
    return tuple(numbers(where, values))


def flag(where: str, value: Any) -> Any:
    """Whatever has a truth value."""
    try:
        bool(value)
    except Exception as error:
        raise TypeError(f"{where} must be True or False, got {value!r}") from error
    return value


def choice(where: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of some strings."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{where} must be one of {choices}, got {value!r}")
    return value


def counts(where: str, values: Any) -> Counter[Any]:
    """How often each number is in a list; of torch.distributed.checkpoint's keys, numbers and strings, the numbers."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{where} must be a Counter, got {type(values).__name__}")
    found: Counter[Any] = Counter()
    for key in sorted(values, key=lambda key: isinstance(key, str)):  # strings last
        count = counter(f"{where}[{key!r}]", values[key])
        if not isinstance(key, str):
            found[counter(f"the key {key!r} of {where}", key)] = count
            continue
        try:
            found.setdefault(float(key), count)
        except ValueError:
            raise TypeError(f"the key {key!r} of {where} must be a number") from None
    return Counter({int(key) if key == key // 1 else key: count for key, count in found.items()})


def phases(where: str, values: Any) -> list[dict[str, Any]]:
    """The phases of a OneCycleLR: where each ends, and the names of the param groups' entries that it goes between."""
    if not isinstance(values, (list, tuple)) or not values:
        raise TypeError(f"{where} must be a list of phases, got {values!r}")
    for index, phase in enumerate(values):
        place = f"{where}[{index}]"
        if not isinstance(phase, Mapping):
            raise TypeError(f"{place} must be a dict, got {type(phase).__name__}")
        for key in ("end_step", *_ENDS):
            if key not in phase:
                raise KeyError(f"{place} has no {key!r}")
        number(f"{place}['end_step']", phase["end_step"])
        for key, names in _ENDS.items():
            choice(f"{place}[{key!r}]", phase[key], names)
    return [dict(phase) for phase in values]


def function_state(where: str, function: Any, saved: Any) -> Any:
    """What to write into a callable object's attributes."""
    if not isinstance(saved, Mapping) or not all(isinstance(name, str) for name in saved):
        raise TypeError(f"{where} must be the attributes of an object, a dict, or None; got {saved!r}")
    if not isinstance(getattr(function, "__dict__", None), dict):
        raise ValueError(f"{where} must be None, because {function!r} has no attributes to load")
    return saved


_READERS: dict[Any, Callable[[str, Any], Any]] = {
    "number": number,
    "finite": finite,
    "whole": whole,
    "flag": flag,
    "per group": numbers,
    "list": numbers,
    "numbers": fixed,
    "counts": counts,
    "phases": phases,
}
