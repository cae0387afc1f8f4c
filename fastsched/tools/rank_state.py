"""The state of a scheduler on many ranks: checking that it is the same, and making it so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..engine import lr_buffer
from ..engine.capture import refuse_capture
from ..engine.lr_buffer import set_lrs
from ..engine.reduction import check_group

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_OF_GROUPS = ("initial_lr", "max_lr", "min_lr", "swa_lr")  # what schedulers keep in param groups besides the LR


def assert_ranks_agree(scheduler: Any, process_group: ProcessGroup | None = None) -> None:
    """Raise if ranks have diverged: compare counters, settings and learning rates, to the last bit.

    Every rank of the group has to call it; all of them raise, or none. ::

        if epoch % 10 == 0:
            fastsched.assert_ranks_agree(scheduler)

    Args:
        scheduler: any scheduler with ``state_dict()``, including torch's and an :class:`fastsched.EarlyStopping`, whose
            best weights are not compared.
        process_group: the ranks; all by default.

    Raises:
        AssertionError: they differ; names the first entry that does, with its value on each rank.
        TypeError, ValueError: there is no such group, or ``scheduler`` has no state.
        RuntimeError: inside CUDA graph capture.

    Waits for the device and for the other ranks. Not for compiled code.
    """
    group = _group(process_group)
    mine = dict(_entries(_state(scheduler), "state_dict()"))
    for index, param_group in enumerate(_param_groups(scheduler)):
        mine[f"param_groups[{index}]['lr']"] = repr(_number(param_group["lr"]))
    every: list[Any] = [None] * group.size()
    torch.distributed.all_gather_object(every, mine, group=group)
    for name in dict.fromkeys(name for entries in every for name in entries):
        values: dict[str, list[int]] = {}
        for rank, entries in zip(torch.distributed.get_process_group_ranks(group), every, strict=True):
            values.setdefault(entries.get(name, "missing"), []).append(rank)
        if len(values) > 1:
            said = "; ".join(f"{value} on {_ranks(ranks)}" for value, ranks in values.items())
            raise AssertionError(
                f"the ranks' {type(scheduler).__name__} differ: {name} is {said}; give it process_group=, and make "
                "them equal with fastsched.broadcast_state"
            )


def broadcast_state(scheduler: Any, src: int = 0, process_group: ProcessGroup | None = None) -> None:
    """Give all ranks the scheduler state and learning rates of one of them, to the last bit.

    Every rank of the group has to call it, with a scheduler constructed the same way, for example after loading a
    checkpoint on one rank. Tensors keep their storage, so captured graphs and compiled steps continue from the new
    state.

    Args:
        scheduler: any scheduler with ``state_dict()`` and ``load_state_dict()``, including torch's and an
            :class:`fastsched.EarlyStopping`, whose best weights are sent too, unless they are sharded.
        src: the global rank that has the state.
        process_group: the ranks; all by default.

    Raises:
        TypeError, ValueError: there is no such group, or ``scheduler`` has no state.
        TypeError, ValueError, KeyError: the state does not fit; raised by ``load_state_dict`` on the ranks where it
            does not, which are then unchanged.
        RuntimeError: inside CUDA graph capture.

    Waits for the device and for the other ranks. Not for compiled code.

    Example::

        if torch.distributed.get_rank() == 0:
            scheduler.load_state_dict(torch.load("scheduler.pt"))
        fastsched.broadcast_state(scheduler, src=0)
    """
    group = _group(process_group)
    own = _state(scheduler)
    sharded = any(hasattr(type(weight), "full_tensor") for weight in own.get("best_weights", {}).values())
    groups = _param_groups(scheduler)
    lrs = lr_buffer.exact(scheduler.optimizer) if groups else []
    settings = [
        {name: _number(group[name]) for name in _OF_GROUPS if isinstance(group.get(name), (int, float, Tensor))}
        for group in groups
    ]
    if sharded:
        own = {name: value for name, value in own.items() if name != "best_weights"}
    sent = [(own, [_number(lr) for lr in lrs], settings) if torch.distributed.get_rank() == src else None]
    torch.distributed.broadcast_object_list(sent, src=src, group=group)
    if torch.distributed.get_rank() == src:
        return
    state, lrs, settings = sent[0]  # type: ignore[misc]
    if len(lrs) != len(groups):
        raise ValueError(f"rank {src} has {len(lrs)} param groups, this one {len(groups)}; construct them the same way")
    if sharded:
        state = {**state, "best_weights": _state(scheduler)["best_weights"]}
    scheduler.load_state_dict(state)
    for param_group, entries in zip(groups, settings, strict=True):
        for name, value in entries.items():
            if isinstance(param_group.get(name), Tensor):
                param_group[name].fill_(value)
            elif param_group.get(name) != value:
                param_group[name] = value
    if groups:
        set_lrs(scheduler.optimizer, lrs)


def _group(process_group: Any) -> Any:
    refuse_capture("ranks are compared, or their state is sent; do that outside the capture")
    distributed = torch.distributed
    if process_group is not None:
        check_group(process_group)
    elif not (distributed.is_available() and distributed.is_initialized()):
        raise ValueError("there are no ranks: call torch.distributed.init_process_group() first")
    return distributed.group.WORLD if process_group is None else process_group


def _state(scheduler: Any) -> dict[str, Any]:
    if not hasattr(scheduler, "state_dict") or not hasattr(scheduler, "load_state_dict"):
        raise TypeError(f"scheduler must have state_dict() and load_state_dict(), got {type(scheduler).__name__}")
    return dict(scheduler.state_dict())


def _param_groups(scheduler: Any) -> list[dict[str, Any]]:
    return list(getattr(getattr(scheduler, "optimizer", None), "param_groups", ()))


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _entries(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every number in a state by its place, as text that differs if its bits do."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key != "best_weights":
                yield from _entries(entry, f"{name}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        yield f"len({name})", str(len(value))
        for index, entry in enumerate(value):
            yield from _entries(entry, f"{name}[{index}]")
    elif isinstance(value, Tensor):
        yield name, f"{value.tolist()!r} ({value.dtype})"
    elif value is None or isinstance(value, (bool, int, float, str)):
        yield name, repr(value)
    else:  # a function, whose repr has an address in it
        yield name, f"of type {type(value).__qualname__}"


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
