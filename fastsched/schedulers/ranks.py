"""What schedulers that decide by a metric have in common on many ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..engine.metric import as_number
from ..engine.reduction import Reduction, accelerator, check_group, warn_of_ranks
from .base import _EngineScheduler


class _MetricScheduler(_EngineScheduler):
    """A scheduler that decides by a metric, which it may reduce over a process group before."""

    __slots__ = ()

    @property
    def process_group(self) -> Any:
        """The ranks whose metrics are reduced before a step decides; None where each decides by its own.

        May be written: a copy (``copy.deepcopy``, ``pickle``) has no group, because that belongs to its process.
        """
        return None if self._reduction is None else self._reduction.group

    @process_group.setter
    def process_group(self, group: Any) -> None:
        if group is not None:
            check_group(group)
        op = "mean" if self._reduction is None else self._reduction.op
        self._attend(_reduction=Reduction(group, op))

    def _reduced(self, metrics: Any, found_inf: Any, weight: Any) -> tuple[Any, Any]:
        """The metric and ``found_inf`` to step with, those of all ranks where there is a group."""
        reduction = self._reduction
        if reduction is None or reduction.group is None:
            if weight is not None:
                raise ValueError(
                    f"{type(self).__name__}: weight= is for a mean over ranks; construct it with process_group="
                )
            if reduction is not None and not torch.compiler.is_compiling():
                warn_of_ranks(type(self).__name__, metrics)
                if reduction.op == "mean":
                    self._attend(_reduction=None)  # nothing that a copy, or a group that is set, has to know
            return metrics, found_inf
        engine = self._engine
        if engine.steps_tensors and (self._deferred is None or engine.device.type != "cpu"):
            return reduction.reduce(metrics, engine.device, weight, found_inf)
        if self._deferred is not None:
            return reduction.reduce(metrics, accelerator(), weight, found_inf)
        metrics, found_inf = reduction.reduce(metrics, _device_of_lrs(self.optimizer), weight, found_inf)
        return None if metrics is None else as_number(metrics), None if found_inf is None else found_inf.item()


def _device_of_lrs(optimizer: Any) -> torch.device:
    lr = optimizer.param_groups[0].get("lr") if optimizer.param_groups else None
    return lr.device if isinstance(lr, Tensor) else torch.device("cpu")
