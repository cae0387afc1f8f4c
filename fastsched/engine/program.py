"""Packing a scheduler, or a whole composition, into the program that ``csrc/schedule`` runs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from enum import IntEnum
from math import nan
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from .. import _C
from .lr_buffer import is_supported, lay_in, place_of_supported, stack_scalars
from .untraced import untraced

LAST_LR = "_last_lr"

# The instance's own dict, which a class may hide behind a property of that name.
instance_dict: Callable[[Any], dict[str, Any]] = vars(LRScheduler)["__dict__"].__get__


class Event(IntEnum):
    """What a step does; the numbers are those of ``csrc/schedule/plan/moment.h``."""

    STEP = 0
    INITIAL = 1
    AT_EPOCH = 2
    UNMEASURED = 3
    RESTART = 5


class Table(NamedTuple):
    """The factors that the functions of a LambdaLR gave: a row per epoch, a column per distinct function.

    Or a single row, with a column per group, which is rewritten before each step.
    """

    factors: list[float]
    columns: int
    column_of_group: list[float]
    of_step: bool = False


class Children(NamedTuple):
    """What a composite's node says of the nodes that follow it: their number, their sizes in float64 numbers."""

    children: int
    program_size: int
    state_size: int


NO_CHILDREN = Children(0, 0, 0)


class Setting(NamedTuple):
    """Own parameters that are tensors: written in place, they count from the next step on, as in torch.

    Attributes:
        start: where they belong in the program.
        values: their memory, of shape ``(n,)``.
        first: the tensor that is the first of them, as the user has it.
        tensors: all of them.
    """

    start: int
    values: Tensor
    first: Tensor
    tensors: list[Tensor]

    def within(self, start: int) -> Setting:
        """The same for a program that has this one's from ``start`` on."""
        return self._replace(start=start + self.start)

    def moved(self) -> bool:
        """Whether the tensor's memory is another now."""
        return self.first.data_ptr() != self.values.data_ptr()

    def is_of(self, start: int, tensors: list[Any]) -> bool:
        """Whether it is what would be made of these tensors for this place."""
        if (
            start != self.start
            or len(tensors) != len(self.tensors)
            or not all(map(operator.is_, tensors, self.tensors))
        ):
            return False
        return not self.scattered()

    def scattered(self) -> bool:
        """Whether the memory of any of the tensors is another now."""
        address, step = self.values.data_ptr(), self.values.stride(0) * self.values.element_size()
        count = len(self.tensors)
        addresses = list(range(address, address + count * step, step)) if step else [address] * count
        return list(map(Tensor.data_ptr, self.tensors)) != addresses


class Node(NamedTuple):
    """A scheduler's own node on its device, what steps copy into it, and how many metrics it keeps."""

    program: Tensor
    settings: list[Setting]
    window_size: int


def own_values(scheduler: Any, params: list[tuple[str, str]], table: Table | None) -> list[list[Any]] | None:
    """For each own parameter one value per group, a number or a tensor; None where torch would raise.

    Args:
        scheduler: whose optimizer's groups these are.
        params: as ``_C.own_params`` or ``_C.momentum_params`` describe them.
        table: of a scheduler that calls functions.
    """
    attributes = instance_dict(scheduler)
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
            _C.note_reason(f"`{name}` is not a list of one value per param group")
            return None
        owns.append(values[: len(groups)] + [nan] * (len(groups) - len(values)))  # nan: what a step does not read
    return owns


def has_values_for_groups(scheduler: Any) -> bool:
    """Whether its lists have an item for each group: not where groups came or went since it was made."""
    if not hasattr(scheduler, "_schedule"):
        return False  # another library's, of whose lists nothing is known: Python steps it
    attributes = instance_dict(scheduler)
    groups = len(scheduler.optimizer.param_groups)
    return all(
        len(attributes.get(name, ())) == groups for name, where in _C.own_params(scheduler._schedule) if where == "list"
    )


def pack(
    scheduler: Any, owns: list[list[Any]], positions: list[int], table: Table | None, children: Children = NO_CHILDREN
) -> bytes | None:
    """The scheduler's own node over slots; None if something is not a plain number.

    ``positions``: for each slot, which of the scheduler's groups it is; -1 for one that the scheduler leaves alone.
    Own parameters that are tensors are left as 0 there.
    """
    numbers = [_without_tensors(values) for values in owns]
    factors, columns, of_step = (table.factors, table.columns, table.of_step) if table is not None else ([], 0, False)
    return _C.pack_node(
        scheduler._schedule, instance_dict(scheduler), numbers, positions, factors, columns, *children, of_step=of_step
    )


@untraced("it makes tensors of settings")
def upload(
    packed: bytes,
    owns: list[list[Any]],
    positions: list[int],
    device: torch.device,
    known: Sequence[Setting] = (),
) -> Node:
    """A packed node on its device, with the tensors among the own parameters, which are not read.

    ``known`` are those of the node before, some of which may go on as they are.
    """
    program = torch.frombuffer(bytearray(packed), dtype=torch.float64).to(device, non_blocking=True)
    settings: list[Setting] = []
    for k, values in enumerate(owns):
        start = _C.NODE_SIZE + k * len(positions)
        of_slots = [values[position] if position >= 0 else None for position in positions]
        before = next((setting for setting in known if setting.is_of(start, of_slots)), None)
        settings += [before] if before is not None else _settings(of_slots, start)
    copy_settings(program, settings)
    return Node(program, settings, _C.window_size(packed))


def contains_tensors(values: list[Any]) -> bool:
    """Whether some of them are tensors, asked once for each type: there may be a thousand of one."""
    return any(issubclass(kind, Tensor) for kind in _C.types_of(values))


def _without_tensors(values: list[Any]) -> list[Any]:
    if not contains_tensors(values):
        return values
    if _C.types_of(values) == {Tensor}:
        return [0.0] * len(values)
    return [0.0 if isinstance(value, Tensor) else value for value in values]


def copy_settings(program: Tensor, settings: list[Setting]) -> None:
    """Bring a program up to date with tensors that may have been written to; reads no device, traces."""
    if settings:
        torch._foreach_copy_(*copies_of(program, settings))


def copies_of(program: Tensor, settings: list[Setting]) -> tuple[list[Tensor], list[Tensor]]:
    """Where the settings belong in a program, and what belongs there."""
    places = [program[setting.start : setting.start + len(setting.values)] for setting in settings]
    return places, [setting.values for setting in settings]


def same_settings(some: list[Setting], others: list[Setting]) -> bool:
    """Whether these are in the same memory and belong to the same places."""
    return len(some) == len(others) and all(
        (one.start, one.values.data_ptr(), one.values.dtype, len(one.values))
        == (other.start, other.values.data_ptr(), other.values.dtype, len(other.values))
        for one, other in zip(some, others, strict=True)
    )


def _settings(values: list[Any], start: int) -> list[Setting]:
    if not contains_tensors(values):
        return []
    tensors = [value for value in values if isinstance(value, Tensor)]
    together = _side_by_side(tensors) if tensors and len(tensors) == len(values) else None
    if together is not None:
        return [Setting(start, together, tensors[0], tensors)]
    return [
        Setting(start + slot, value.detach().reshape(1), value, [value])
        for slot, value in enumerate(values)
        if isinstance(value, Tensor)
    ]


def _side_by_side(tensors: list[Tensor]) -> Tensor | None:
    """The memory of all of them, so that one copy serves: where they lie, or laid side by side like the LRs.

    None where they cannot be: then each is copied for itself.
    """
    first = tensors[0]
    if all(tensor is first for tensor in tensors):
        return first.detach().reshape(1).expand(len(tensors))
    where_they_lie = in_a_row(tensors)
    if where_they_lie is not None:
        return where_they_lie
    if place_of_supported(tensors) is None:
        return None
    size = first.element_size()
    storages = [tensor.untyped_storage() for tensor in tensors]
    # Only what is nobody's view is moved: others may have noted where a view is.
    alone = all(storage.nbytes() == size for storage in storages)
    if not alone or len({id(tensor) for tensor in tensors}) != len(tensors):
        return None
    together = stack_scalars(tensors)
    lay_in(together, tensors)
    return together


def in_a_row(tensors: list[Tensor]) -> Tensor | None:
    """The memory of tensors that are one element after another of one storage, in this order; else None.

    That is how those lie that were laid side by side, so it is asked in few words: there may be a thousand.
    """
    first, count = tensors[0], len(tensors)
    if _C.types_of(tensors) != {Tensor} or not is_supported(first):
        return None
    address, size, dtype = first.data_ptr(), first.element_size(), first.dtype
    storage = first.untyped_storage()
    if (
        list(map(Tensor.data_ptr, tensors)) != list(range(address, address + count * size, size))
        or address + count * size > storage.data_ptr() + storage.nbytes()
        or not all([tensor.dtype is dtype for tensor in tensors])  # noqa: C419 (a list is quicker)
        or set(map(Tensor.numel, tensors)) != {1}
    ):
        return None
    return first.detach().as_strided((count,), (1,))


_MINUTES = 10  # that the steps of a program may take, as predicted from:
_NODE_NS, _GROUP_NS = 50, 2  # nanoseconds that a step takes for each scheduler, and for each group of each
_MOST_FACTORS = 2 * 10**7  # of a LambdaLR: a gigabyte


def refuse_endless(scheduler: Any, steps: int) -> None:
    """Raise ValueError where so many steps of the scheduler's program would take too long, or too much memory."""
    schedulers = [scheduler]
    for one in schedulers:  # grows meanwhile
        schedulers += getattr(one, "_children", tuple)()
    groups = len(scheduler.optimizer.param_groups)
    most = _MINUTES * 60 * 10**9 // (len(schedulers) * (_NODE_NS + groups * _GROUP_NS))
    why = f"take longer than {_MINUTES} minutes"
    functions = max(len(getattr(one, "lr_lambdas", ())) for one in schedulers)
    if functions and _MOST_FACTORS // functions < most:
        most, why = _MOST_FACTORS // functions, "need gigabytes for what its functions return"
    if steps > most:
        raise ValueError(
            f"step must be at most {most} here: lr_at runs all steps, and more would {why}; ask for an earlier step"
        )


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
    children = [whole(child, steps) for child in scheduler._children()]
    table = scheduler._tabulate(steps)
    owns = own_values(scheduler, _C.own_params(scheduler._schedule), table)
    packed = None
    if owns is not None:
        owns = [[value.item() if isinstance(value, Tensor) else value for value in values] for values in owns]
        sizes = Children(len(children), sum(map(len, children)) // 8, sum(map(_C.state_size, children)))
        packed = pack(scheduler, owns, list(range(len(scheduler.optimizer.param_groups))), table, sizes)
    if packed is None:
        raise ValueError(
            f"{type(scheduler).__name__} has a setting that is not a plain number, or not one per param group"
        )
    return b"".join([packed, *children])
