"""What a scheduler needs of a param group that was added after it was made."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .lr_buffer import exact

# Lists with an item for each group, in which a group that comes later is as the last one before.
_LIKE_THE_LAST = ("lr_lambdas", "min_lrs", "max_lrs", "base_momentums", "max_momentums")
# The same in the groups themselves.
_ENTRIES = ("swa_lr", "max_momentum", "base_momentum")
# OneCycleLR's, at a fixed ratio to the initial learning rate.
_RATIOS = ("max_lr", "min_lr")


def take_in(scheduler: Any) -> None:
    """Give a scheduler, of fastsched's or of torch's, what it has one of for each group, for those that came later.

    Settings that are lists are continued in lists of their own.
    """
    optimizer = scheduler.optimizer
    groups = list(optimizer.param_groups)
    bases = getattr(scheduler, "base_lrs", None)
    if isinstance(bases, list) and len(bases) < len(groups):
        for group, lr in zip(groups, exact(optimizer), strict=True):
            group.setdefault("initial_lr", lr)
        came = [group["initial_lr"] for group in groups[len(bases) :]]
        _continue_entries(groups, len(bases))
        scheduler.base_lrs = [*bases, *map(_own, came)]
    for name in _LIKE_THE_LAST:
        values = getattr(scheduler, name, None)
        if isinstance(values, list) and values and len(values) < len(groups):
            setattr(scheduler, name, [*values, *(_own(values[-1]) for _ in groups[len(values) :])])


def _continue_entries(groups: list[Any], known: int) -> None:
    """Write into groups from ``known`` on what schedulers have written into those before."""
    if known == 0:
        return
    last = groups[known - 1]
    for group in groups[known:]:
        for name in _ENTRIES:
            if name in last:
                group.setdefault(name, _own(last[name]))
        for name in _RATIOS:
            if name in last and "initial_lr" in last:
                group.setdefault(name, group["initial_lr"] * (last[name] / last["initial_lr"]))


def _own(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
