"""Metrics of many ranks made one, before a step decides by it."""

from __future__ import annotations

import warnings
from math import inf, isfinite, nan
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .capture import refuse_capture
from .metric import as_plain, is_complete

ReduceOp = Literal["mean", "sum", "min", "max"]


class Reduction:
    """How a rank's metric becomes that of all ranks: by one collective, queued before the decision.

    A process group belongs to its process. So copies (``copy.deepcopy``) and pickles have none, and change no metric.

    Attributes:
        group: the ranks, a process group; None leaves each with its own metric, and says so once.
        op: what is made of their metrics.
    """

    __slots__ = ("_devices", "_ranks", "group", "op")

    def __init__(self, group: Any, op: ReduceOp):
        if op not in get_args(ReduceOp):
            raise ValueError(f"reduce_op must be one of {', '.join(map(repr, get_args(ReduceOp)))}, got {op!r}")
        if group is not None:
            check_group(group)
        self.group = group
        self.op = op
        self._devices: list[torch.device] = [] if group is None else sorted(group._device_types, key=str)
        self._ranks: int = 1 if group is None else group.size()

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduction, (None, self.op)  # copy.deepcopy, too

    def __copy__(self) -> Reduction:
        return self

    def reduce(
        self, metric: Any, device: torch.device, weight: Any = None, found_inf: Any = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The metric of all ranks, a float64 tensor of no dimensions, and whether any of them found an inf.

        Both are on ``device``, where the learning rates are, if the group communicates there. All ranks get the same
        bits. Every rank has to call it: with a metric on all or none, with a weight likewise, and with ``found_inf``.

        Raises:
            TypeError, ValueError, RuntimeError: the metric or the weight is not a number; raised before communicating.
            RuntimeError: inside CUDA graph capture, where one of them is on the host.
        """
        _check_weight(weight, self.op)
        device = self._place(device)
        parts = [] if metric is None else self._parts(metric, weight, device)
        if found_inf is not None:
            parts.append((_scalar("found_inf", found_inf, device) != 0).double())
        if not parts:
            return None, None
        message = parts[0] if len(parts) == 1 else torch.stack(parts)
        message = _all_reduce(message, "max" if self.op in ("min", "max") else "sum", self.group)
        received = [message] if len(parts) == 1 else list(message.unbind())
        found = None if found_inf is None else received.pop()
        return None if metric is None else self._whole(received), found

    def _parts(self, metric: Any, weight: Any, device: torch.device) -> list[Tensor]:
        """What this rank has to say of the metric."""
        value = _scalar("metric", metric, device)
        if weight is not None:
            share = _scalar("weight", weight, device)
            # A rank without samples has nothing to say, whatever its metric is; often that is 0/0.
            return [torch.where(share == 0, 0.0, value * share), share]
        if self.op in ("mean", "sum"):
            return [value]
        # Of a NaN, collectives make one thing or another. A rank that has one speaks for all, as in a sum.
        value = -value if self.op == "min" else value
        return [torch.where(value.isnan(), -inf, value), value.isnan().double()]

    def _whole(self, received: list[Tensor]) -> Tensor:
        """The metric, from what all have said."""
        total, *more = received
        if self.op == "mean":
            return total / (more[0] if more else self._ranks)
        if self.op == "sum":
            return total
        return torch.where(more[0] != 0, nan, -total if self.op == "min" else total)

    def _place(self, device: torch.device) -> torch.device:
        """Where to communicate: on this device, or where the group can."""
        types = [one.type for one in self._devices]
        if device.type in types:
            return device
        if types[0] == "cpu":
            return torch.device("cpu")
        return torch.device(types[0], torch.accelerator.current_device_index())


def reduction(owner: str, process_group: Any, reduce_op: ReduceOp, *, decides: bool = True) -> Reduction | None:
    """What becomes of the metrics of a scheduler that is constructed so.

    None where nothing does. Without a group, but with other ranks about, they stay as they are, and a warning says so.

    Args:
        owner: the class, for messages.
        process_group: as its user gave it.
        reduce_op: likewise.
        decides: whether it decides by a metric.
    """
    made = Reduction(process_group, reduce_op)
    if process_group is not None and not decides:
        raise ValueError(f"{owner}: process_group is for a metric, and nothing here decides by one; leave it out")
    return made if process_group is not None or (decides and world_size() > 1) else None


def accelerator() -> torch.device:
    """The device that metrics come from where there is one, else the host."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def world_size() -> int:
    """How many ranks there are; 1 where torch.distributed is not in use."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def check_group(group: Any) -> None:
    """Raise TypeError or ValueError unless this is a process group that this rank is in."""
    distributed = torch.distributed
    if not distributed.is_available():
        raise ValueError("process_group: this torch is built without torch.distributed; leave it out")
    if group is distributed.GroupMember.NON_GROUP_MEMBER:
        raise ValueError("process_group: this rank is not in the group; construct it on the group's ranks only")
    if not isinstance(group, distributed.ProcessGroup):
        raise TypeError(
            f"process_group must be a process group, got {type(group).__name__}: pass "
            "torch.distributed.group.WORLD, or mesh.get_group() of a device mesh"
        )


def warn_of_ranks(owner: str, metric: Any = None, what: str = "decides by its own metric", stacklevel: int = 4) -> None:
    """Say once that ranks may drift apart; not where the metric is one that all of them have."""
    ranks = world_size()
    if owner in _warned or ranks == 1 or is_complete(metric):
        return
    _warned.add(owner)
    warnings.warn(
        f"{owner} was given no process_group=: each of the {ranks} ranks {what}, and where these differ so do their "
        "results; pass process_group=torch.distributed.group.WORLD, unless all ranks have the same already",
        UserWarning,
        stacklevel=stacklevel,
    )


_warned: set[str] = set()


def _check_weight(weight: Any, op: str) -> None:
    if weight is None:
        return
    if op != "mean":
        raise ValueError(f"weight= is for reduce_op='mean', and this is {op!r}: leave it out, or weigh the metric")
    if not isinstance(weight, Tensor):
        number = float(weight)
        if not (number >= 0 and isfinite(number)):
            raise ValueError(f"weight must be a finite number, 0 or more, got {weight!r}")
    elif weight.numel() != 1:
        raise ValueError(f"weight must have one element, got shape {tuple(weight.shape)}")


def _scalar(name: str, value: Any, device: torch.device) -> Tensor:
    """A float64 tensor of its own on the device, to be overwritten."""
    value = as_plain(value)
    if device.type != "cpu" and not (isinstance(value, Tensor) and value.device.type == device.type):
        refuse_capture(f"{name} is on the host and would be frozen; pass a tensor on {device}")
    if not isinstance(value, Tensor):
        # A sum, so that it does not become a constant of a compiled graph.
        number: Tensor = torch.zeros((), dtype=torch.float64, device=device) + value
        return number
    scalar = torch.empty((), dtype=torch.float64, device=device)
    return scalar.copy_(value.detach().reshape(()), non_blocking=device.type != "cpu")


def _all_reduce(message: Tensor, op: Literal["sum", "max"], group: Any) -> Tensor:
    """The collective, in place, or in a graph that is being compiled a functional one. Waits for no device."""
    if torch.compiler.is_compiling():
        from torch.distributed import _functional_collectives as functional

        reduced: Tensor = functional.all_reduce(message, op, group)
        return reduced
    ops = torch.distributed.ReduceOp
    torch.distributed.all_reduce(message, ops.MAX if op == "max" else ops.SUM, group=group)
    return message
