"""Packing a scheduler, or a whole composition, into the program that ``csrc/schedule`` runs."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from math import nan
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from . import _C
from .lr_buffer import stack_scalars

LAST_LR = "_last_lr"

# The instance's own dict, which a class may hide behind a property of that name.
own_dict: Callable[[Any], dict[str, Any]] = vars(LRScheduler)["__dict__"].__get__


class Event(IntEnum):
    """What a step does; the numbers are those of ``csrc/schedule/moment.h``."""

    STEP = 0
    INITIAL = 1
    AT_EPOCH = 2
    UNMEASURED = 3
    RESTART = 5


class Table(NamedTuple):
    """The factors that the functions of a LambdaLR gave: a row per epoch, a column per distinct function.

    Or a single row, with a column per group, which is written anew before each step.
    """

    factors: list[float]
    columns: int
    column_of_group: list[float]
    of_step: bool = False


class Below(NamedTuple):
    """What a composite's node says of the nodes that follow it: their number, their sizes in float64 numbers."""

    children: int
    program_size: int
    state_size: int


NOTHING_BELOW = Below(0, 0, 0)


def own_values(scheduler: Any, params: list[tuple[str, str]], table: Table | None) -> list[list[Any]] | None:
    """For each own parameter one value per group, a number or a tensor; None where torch would raise.

    Args:
        scheduler: whose optimizer's groups these are.
        params: as ``_C.own_params`` or ``_C.momentum_params`` describe them.
        table: of a scheduler that calls functions.
    """
    attributes = own_dict(scheduler)
    groups = scheduler.optimizer.param_groups
    needed = _C.steps_use_own(scheduler._schedule)
    owns = []
    for name, where in params:
        values: Any
        if where == "functions":
            values = table.column_of_group if table is not None else []
        elif where == "list":
            values = attributes.get(name)
        else:
            values = scheduler._group_values(name)
        if type(values) is not list or (needed and len(values) != len(groups)):
            return None
        owns.append(values[: len(groups)] + [nan] * (len(groups) - len(values)))  # nan: what a step does not read
    return owns


def has_values_for_groups(scheduler: Any) -> bool:
    """Whether its lists have an item for each group: not where groups came or went since it was made."""
    attributes = own_dict(scheduler)
    groups = len(scheduler.optimizer.param_groups)
    return all(
        len(attributes.get(name, ())) == groups for name, where in _C.own_params(scheduler._schedule) if where == "list"
    )


def pack(
    scheduler: Any, owns: list[list[Any]], indices: list[int], table: Table | None, below: Below = NOTHING_BELOW
) -> bytes | None:
    """The scheduler's own node over the groups at ``indices``; None if something is no plain number.

    Own parameters that are tensors are left as 0 there.
    """
    numbers = [[0.0 if isinstance(value, Tensor) else value for value in values] for values in owns]
    factors, columns, of_step = (table.factors, table.columns, table.of_step) if table is not None else ([], 0, False)
    return _C.pack_node(
        scheduler._schedule, own_dict(scheduler), numbers, indices, factors, columns, *below, of_step=of_step
    )


def upload(packed: bytes, owns: list[list[Any]], indices: list[int], device: torch.device) -> Tensor:
    """A packed node on its device; tensors among the own parameters are copied there, unread."""
    node = torch.frombuffer(bytearray(packed), dtype=torch.float64).to(device, non_blocking=True)
    for k, values in enumerate(owns):
        own = node[_C.NODE_SIZE + k * len(indices) :][: len(indices)]
        tensors = [values[index] for index in indices if isinstance(values[index], Tensor)]
        if len(tensors) == len(indices) and len({(tensor.device, tensor.dtype) for tensor in tensors}) == 1:
            own.copy_(stack_scalars(tensors), non_blocking=True)  # one operator for all, not one for each
        elif tensors:
            for slot, index in enumerate(indices):
                if isinstance(values[index], Tensor):
                    own[slot].copy_(values[index].detach().reshape(()), non_blocking=True)
    return node


def whole(scheduler: Any, steps: int) -> bytes:
    """The program of a scheduler and of all below it, over all groups, to be run on the host for ``steps`` steps.

    Raises:
        NotImplementedError: a scheduler is not a function of the step alone.
        ValueError: a setting is not a plain number.
    """
    scheduler._require_function_of_step()
    for child in scheduler._children():
        if not has_values_for_groups(child):
            raise ValueError(
                f"{type(child).__name__} has no base learning rate for some param group: groups were added or removed "
                "since it was made"
            )
    below = [whole(child, steps) for child in scheduler._children()]
    table = scheduler._tabulate(steps)
    owns = own_values(scheduler, _C.own_params(scheduler._schedule), table)
    packed = None
    if owns is not None:
        owns = [[value.item() if isinstance(value, Tensor) else value for value in values] for values in owns]
        sizes = Below(len(below), sum(map(len, below)) // 8, sum(map(_C.state_size, below)))
        packed = pack(scheduler, owns, list(range(len(scheduler.optimizer.param_groups))), table, sizes)
    if packed is None:
        raise ValueError(
            f"{type(scheduler).__name__} has a setting that is no plain number, or not one for each param group"
        )
    return b"".join([packed, *below])
