"""Schedules whose factors are given by functions of the user's."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import lr_scheduler as torch_lr_scheduler

from ..engine.checkpoint import function_state
from ..engine.program import Table
from ..engine.selection import Groups, Optimizers, select
from .epoch import _EpochScheduler

Functions = Callable[[int], float] | Sequence[Callable[[int], float]]


class _FunctionScheduler(_EpochScheduler):
    """A scheduler that calls one function of the epoch for each param group.

    The functions are called at every step, once for each group and in order, as torch does. With tensor learning rates
    they are tabulated if ``total_steps`` is given, and steps call no Python.
    """

    __slots__ = ("_tabulated", "_total_epochs")

    _unsaved: ClassVar[tuple[str, ...]] = ("optimizer", "lr_lambdas")

    lr_lambdas: list[Callable[[int], float]]
    _tabulated: tuple[list[Any], Table] | None
    _total_epochs: int | None

    def __init__(
        self,
        optimizer: Optimizers,
        lr_lambda: Functions,
        last_epoch: int = -1,
        *,
        total_steps: int | None = None,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        if total_steps is not None and (type(total_steps) is not int or total_steps < 1):
            raise ValueError(f"total_steps must be a positive int, the steps to tabulate; got {total_steps!r}")
        object.__setattr__(self, "_total_epochs", total_steps)
        object.__setattr__(self, "_tabulated", None)
        super().__init__(select(optimizer, param_name, groups), lr_lambda, last_epoch)  # type: ignore[call-arg,arg-type]

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state under torch's keys.

        Functions are not saved; of a callable object, its attributes are. It waits for the device if learning rates
        are on one, as :meth:`~fastsched.schedulers.base._EngineScheduler.state_dict` does.
        """
        saved = [
            None if isinstance(function, types.FunctionType) else vars(function).copy() for function in self.lr_lambdas
        ]
        return {**super().state_dict(), "lr_lambdas": saved}

    def _checked(self, state_dict: Mapping[str, Any], where: str) -> dict[str, Any]:
        if isinstance(state_dict, Mapping) and "lr_lambdas" not in state_dict:
            raise KeyError(f"{where} has no 'lr_lambdas'; it is not the state of a {type(self).__name__}")
        state = super()._checked(state_dict, where)
        place = f"{where}['lr_lambdas']"
        saved = state_dict["lr_lambdas"]
        if not isinstance(saved, (list, tuple)):
            raise TypeError(f"{place} must be a list, got {type(saved).__name__}")
        if len(saved) > len(self.lr_lambdas):
            raise ValueError(f"{place} has {len(saved)} entries for {len(self.lr_lambdas)} functions")
        entries = [
            None if own is None else function_state(f"{place}[{index}]", self.lr_lambdas[index], own)
            for index, own in enumerate(saved)
        ]
        return {**state, "lr_lambdas": (entries, self._table_with(entries, place))}

    def _load(self, state: dict[str, Any]) -> None:
        entries, table = state.pop("lr_lambdas")
        super()._load(state)
        if entries.count(None) < len(entries):  # the functions give other factors now
            self._load_functions(entries)
            object.__setattr__(self, "_tabulated", None if table is None else (list(self.lr_lambdas), table))
            self._engine.refresh(self)

    def _load_functions(self, entries: Sequence[Mapping[str, Any] | None]) -> None:
        for function, attributes in zip(self.lr_lambdas, entries, strict=False):
            if attributes is not None:
                vars(function).update(attributes)

    def _table_with(self, entries: Sequence[Mapping[str, Any] | None], where: str) -> Table | None:
        """The table to step on with once these are loaded; the functions are put back as they were."""
        if self._total_epochs is None or not any(entries) or not self._engine.steps_tensors:
            return None
        before = [(vars(function), vars(function).copy()) for function in self.lr_lambdas]
        try:
            self._load_functions(entries)
            return self._tabulate(self._total_epochs)
        except Exception as error:
            raise ValueError(f"{where} makes a function fail: {error}") from error
        finally:
            for attributes, values in before:
                attributes.clear()
                attributes.update(values)

    def _tabulate(self, steps: int) -> Table:
        return self._tabulated_by({id(function): function for function in self.lr_lambdas}, steps)

    def _tabulated_by(self, distinct: dict[int, Callable[[int], float]], steps: int) -> Table:
        column = {key: float(index) for index, key in enumerate(distinct)}
        factors = [float(function(epoch)) for epoch in range(steps + 1) for function in distinct.values()]
        return Table(factors, len(distinct), [column[id(function)] for function in self.lr_lambdas])

    def _calls_functions(self) -> bool:
        return self._total_epochs is None

    def _factors(self) -> list[Any]:
        # The epoch is read again each time, as in torch: a function may have set it.
        return [function(self.last_epoch) for function in self.lr_lambdas]

    def _table(self) -> Table | None:
        if self._total_epochs is None:  # until the first step writes the row
            columns = len(self.lr_lambdas)
            return Table([1.0] * columns, columns, [float(column) for column in range(columns)], of_step=True)
        # Functions may count their calls, so they are asked once.
        if self._tabulated is None or self._tabulated[0] != self.lr_lambdas:
            object.__setattr__(self, "_tabulated", (list(self.lr_lambdas), self._tabulate(self._total_epochs)))
        return self._tabulated[1]  # type: ignore[index]

    def _finish(self, lrs: list[Any]) -> None:
        # They are no longer plain numbers.
        self._detach()
        self._fall_back()
        groups = self.optimizer.param_groups
        for group, lr in zip(groups, lrs, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        self._last_lr = [lr.clone() if isinstance(lr, Tensor) else lr for lr in (group["lr"] for group in groups)]
        self._stepped_by_torch(None)
        self._attach()


class LambdaLR(_FunctionScheduler, torch_lr_scheduler.LambdaLR):
    """Multiply each base learning rate by a function of the epoch.

    ::

        lr(t) = base * f(t)

    As torch's :class:`torch.optim.lr_scheduler.LambdaLR`, whose arguments it takes. ``t`` counts calls of ``step()``;
    ``base`` is a group's learning rate when the scheduler was made.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        lr_lambda: a function from the epoch to a factor, or a list of them, one per param group.
        last_epoch: as in torch, the epoch before the one to begin at.
        total_steps: call the functions for every epoch up to this one now, once, and keep the factors with the
            learning rates, so that steps on tensor learning rates need no Python; beyond it the learning rates stay
            as they are. Without it the functions are called at each step, which then cannot be captured in a CUDA
            graph nor compiled with ``fullgraph=True``. Of no effect on Python numbers.
        param_name: the entry of each group that it drives: ``"weight_decay"`` or ``"betas[0]"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        ValueError: not one function per param group, or ``total_steps`` is not positive.

    Example::

        scheduler = fastsched.LambdaLR(optimizer, lambda epoch: 0.95**epoch, total_steps=1000)
    """

    _schedule: ClassVar[str] = "LambdaLR"


class MultiplicativeLR(_FunctionScheduler, torch_lr_scheduler.MultiplicativeLR):
    """Multiply each learning rate by a function of the epoch, at every step.

    ::

        lr(t) = lr(t - 1) * f(t)

    As torch's :class:`torch.optim.lr_scheduler.MultiplicativeLR`, whose arguments it takes. ``t`` counts calls of
    ``step()``.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        lr_lambda: a function from the epoch to a factor, or a list of them, one per param group.
        last_epoch: as in torch, the epoch before the one to begin at.
        total_steps: as in :class:`LambdaLR`.
        param_name: the entry of each group that it drives: ``"weight_decay"`` or ``"betas[0]"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        ValueError: not one function per param group, or ``total_steps`` is not positive.
        TypeError: ``lr_lambda`` is not callable.

    Example::

        scheduler = fastsched.MultiplicativeLR(optimizer, lambda epoch: 0.95)
    """

    _schedule: ClassVar[str] = "MultiplicativeLR"

    def _tabulate(self, steps: int) -> Table:
        # torch does not ask for epoch 0, unless a sequence comes to it: a function may not know it.
        def known(function: Callable[[int], float]) -> Callable[[int], float]:
            def factor(epoch: int) -> float:
                try:
                    return function(epoch)
                except Exception:
                    if epoch != 0:
                        raise
                    return 1.0

            return factor

        return self._tabulated_by({id(function): known(function) for function in self.lr_lambdas}, steps)
