"""Schedules that go up and down, and cycle momentum the other way."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_lr_scheduler

from .. import _C
from ..engine.checkpoint import checked, function_state
from ..engine.host import DETACHED
from ..engine.momentum import has_tensor_momentum, kept_in_place
from ..engine.program import instance_dict
from ..engine.selection import Groups, Optimizers, select
from .epoch import _EpochScheduler

if TYPE_CHECKING:
    from typing_extensions import Never


class _MomentumCycler(_EpochScheduler):
    """Momentum that is a tensor is written in place: with Python-number learning rates and in torch's code, too."""

    def _update_lr(self, epoch: int | None = None) -> None:
        with kept_in_place(self, self.optimizer):
            super()._update_lr(epoch)

    def _unread(self) -> tuple[str, ...]:
        """Settings that may be anything."""
        return ()

    def _checked(self, state_dict: Mapping[str, Any], where: str) -> dict[str, Any]:
        state = checked(self, state_dict, where, self._unread())
        attributes = instance_dict(self)
        if state.get("cycle_momentum", attributes.get("cycle_momentum")):
            for name in ("use_beta1", *(name for name, place in _C.momentum_params(self._schedule) if place == "list")):
                if name not in state and name not in attributes:
                    raise KeyError(f"{where} has no {name!r}, which cycle_momentum needs")
            betas = state.get("use_beta1", attributes.get("use_beta1"))
            if betas and not all("betas" in group for group in self.optimizer.param_groups):
                raise ValueError(f"{where}['use_beta1'] must be False: the optimizer has no betas")
        return state

    def _attach_again(self) -> None:
        """The groups have their momentum tensors back, which were numbers while torch's code constructed."""
        if has_tensor_momentum(self.optimizer) or self._engine is DETACHED:
            self._detach()
            self._attach()


class CyclicLR(_MomentumCycler, torch_lr_scheduler.CyclicLR):
    """Let the learning rates go up and down between two bounds.

    ::

        lr(t) = base_lr + (max_lr - base_lr) * h(t) * s(t)

        h: from 0 to 1 in step_size_up epochs, and back in step_size_down
        s: 1 ("triangular"); 1/2 ** n in cycle n = 0, 1, ... ("triangular2"); gamma ** t ("exp_range")

    (Smith, arXiv:1506.01186.) As torch's :class:`torch.optim.lr_scheduler.CyclicLR`, whose arguments it takes. ``t``
    counts calls of ``step()``. The momentum goes from ``max_momentum`` down and back.

    With tensor learning rates, momentum that is a tensor as well is written on its device. Momentum in Python numbers
    is written by Python at each step, which does not wait for the device, but cannot be captured in a CUDA graph. A
    ``scale_fn`` is called by torch's code.

    Args:
        optimizer: the optimizer whose param groups it drives, or a list of several.
        base_lr: the lower bound, or one for each group.
        max_lr: the upper bound, or one for each group.
        step_size_up: epochs from the lower bound to the upper.
        step_size_down: epochs back; by default as many.
        mode: ``"triangular"``, ``"triangular2"`` or ``"exp_range"``.
        gamma: the base of ``"exp_range"``.
        scale_fn: in place of ``mode``: a function that returns ``s``.
        scale_mode: whether ``scale_fn`` is given the number of the cycle (``"cycle"``) or ``t`` (``"iterations"``).
        cycle_momentum: whether momentum (``"momentum"``, or the first of ``"betas"``) goes the other way.
        base_momentum: its lower bound, or one for each group.
        max_momentum: its upper bound, or one for each group.
        last_epoch: the epoch before the one to begin at; -1 starts from the beginning.
        param_name: the entry of each group that it drives; momentum is cycled only along with ``"lr"``.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or the optimizer has no momentum to cycle.

    Example::

        scheduler = fastsched.CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=2000)
    """

    _schedule: ClassVar[str] = "CyclicLR"
    _replaces: ClassVar[tuple[str, ...]] = (
        *_EpochScheduler._replaces,
        "scale_fn",
        "_triangular_scale_fn",
        "_triangular2_scale_fn",
        "_exp_range_scale_fn",
    )
    _unsaved: ClassVar[tuple[str, ...]] = ("optimizer", "_scale_fn_ref", "_scale_fn_custom")

    def __init__(
        self,
        optimizer: Optimizers,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: Literal["cycle", "iterations"] = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        driven = select(optimizer, param_name, groups)
        with kept_in_place(self, driven) if isinstance(driven, Optimizer) else nullcontext():
            begins = not any("initial_lr" in group for group in getattr(driven, "param_groups", ()))
            super().__init__(
                driven,
                base_lr,
                max_lr,
                step_size_up,
                step_size_down,
                mode,
                gamma,
                scale_fn,
                scale_mode,
                cycle_momentum and param_name == "lr",
                base_momentum,
                max_momentum,
                last_epoch,
            )
        self._part_from_bounds()
        self._attach_again()
        if begins:
            self._begin_exactly()

    def _part_from_bounds(self) -> None:
        # Where the learning rate was a number, torch makes the bound itself the group's, and then writes to it.
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            if isinstance(base, Tensor) and group["lr"] is base:
                group["lr"] = base.detach().clone()
                base.data = base.detach().clone()  # an LR buffer holds the memory that it had

    def _begin_exactly(self) -> None:
        # torch begins from the bound as an LR tensor's dtype holds it. The schedule goes on from the exact one.
        groups = self.optimizer.param_groups
        if not any(isinstance(group["lr"], Tensor) for group in groups):
            return
        for group, base in zip(groups, self.base_lrs, strict=True):
            if not isinstance(base, Tensor):
                group["initial_lr"] = base
        if self.last_epoch >= 0:  # a subclass's own step() may not have made the initial one
            self._update_lr(self.last_epoch)

    def __setattr__(self, name: str, value: Never) -> None:  # no value: a checker takes no name that is not declared
        if name in ("mode", "gamma", "_scale_fn_ref", "_scale_fn_custom"):
            self._detach()  # torch goes on with the function that it chose by these
        super().__setattr__(name, value)

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state under torch's keys; a ``scale_fn`` is not saved, but the attributes of an object are.

        Waits for the device if learning rates are on one.
        """
        function = self._scale_fn_custom
        saved = None if function is None or isinstance(function, types.FunctionType) else vars(function).copy()
        return {**super().state_dict(), "_scale_fn_custom": saved}

    def _unread(self) -> tuple[str, ...]:
        # With a function the mode is not read, and any scale_mode but "cycle" is "iterations"; else the mode decides.
        return ("scale_mode",) if self._scale_fn_custom is None else ("scale_mode", "mode")

    def _checked(self, state_dict: Mapping[str, Any], where: str) -> dict[str, Any]:
        function = self._scale_fn_custom
        state = super()._checked(state_dict, where)
        if function is None:
            state.pop("scale_mode", None)
        elif not isinstance(state.get("scale_mode"), (str, type(None))):
            raise TypeError(f"{where}['scale_mode'] must be 'cycle' or 'iterations', got {state['scale_mode']!r}")
        if "_scale_fn_custom" not in state_dict:
            raise KeyError(f"{where} has no '_scale_fn_custom'; it is not the state of a CyclicLR")
        saved = state_dict["_scale_fn_custom"]
        if saved is not None:
            saved = function_state(f"{where}['_scale_fn_custom']", function, saved)
        return {**state, "_scale_fn_custom": saved}

    def _load(self, state: dict[str, Any]) -> None:
        saved = state.pop("_scale_fn_custom")
        super()._load(state)
        if saved is not None:
            vars(self._scale_fn_custom).update(saved)
        if instance_dict(self).get("_scale_fn_custom") is not None:
            return
        if not self._expressible():
            self._init_scale_fn()
        scale_mode: Literal["cycle", "iterations"] = "iterations" if self.mode == "exp_range" else "cycle"
        if self.scale_mode != scale_mode:
            self.scale_mode = scale_mode  # as torch does when it chooses the function again

    def _expressible(self) -> bool:
        attributes = instance_dict(self)
        chosen = attributes.get("_scale_fn_ref")
        if attributes.get("_scale_fn_custom") is not None:
            return False
        if isinstance(chosen, partial):
            return (
                attributes["mode"] == "exp_range"
                and chosen.func is self._exp_range_scale_fn
                and len(chosen.args) == 1
                and type(chosen.args[0]) is type(attributes["gamma"])
                and chosen.args[0] == attributes["gamma"]
            )
        expected = {"triangular": self._triangular_scale_fn, "triangular2": self._triangular2_scale_fn}
        return chosen is not None and chosen is expected.get(attributes["mode"])


class OneCycleLR(_MomentumCycler, torch_lr_scheduler.OneCycleLR):
    """One cycle over the whole training: up to ``max_lr``, and down to far below where it began.

    ::

        lr = end + (start - end) * (1 + cos(pi * p)) / 2    p: from 0 to 1 within a phase

        phases: max_lr / div_factor -> max_lr -> max_lr / div_factor / final_div_factor

    or on straight lines (Smith and Topin, arXiv:1708.07120). As torch's
    :class:`torch.optim.lr_scheduler.OneCycleLR`, whose arguments it takes; it is stepped after every batch. The
    momentum goes from ``max_momentum`` to ``base_momentum`` and back.

    Stepping beyond ``total_steps`` raises ValueError; with tensor learning rates in compiled steps and graph replays,
    which cannot raise, the learning rates stay as they are. Momentum as in :class:`CyclicLR`.

    Args:
        optimizer: the optimizer whose param groups it drives, or a list of several.
        max_lr: the highest learning rate, or one for each group.
        total_steps: how many steps of the optimizer the cycle has; or else ``epochs`` and ``steps_per_epoch``.
        epochs: of the training; with ``steps_per_epoch`` in place of ``total_steps``.
        steps_per_epoch: batches of an epoch.
        pct_start: which part of the cycle goes up, between 0 and 1.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        cycle_momentum: whether momentum (``"momentum"``, or the first of ``"betas"``) goes the other way.
        base_momentum: its lower bound, or one for each group.
        max_momentum: its upper bound, or one for each group.
        div_factor: ``max_lr`` over the learning rate that it begins with.
        final_div_factor: the learning rate that it begins with over the last.
        three_phase: whether it first goes down as steeply as it went up, and then on to the last learning rate.
        last_epoch: the step before the one to begin at; -1 starts from the beginning.
        param_name: the entry of each group that it drives; momentum is cycled only along with ``"lr"``.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is missing, or the optimizer has no momentum to cycle.

    Example::

        scheduler = fastsched.OneCycleLR(optimizer, max_lr=0.1, epochs=10, steps_per_epoch=len(loader))
    """

    _schedule: ClassVar[str] = "OneCycleLR"
    _replaces: ClassVar[tuple[str, ...]] = (
        *_EpochScheduler._replaces,
        "_anneal_func",
        "_annealing_cos",
        "_annealing_linear",
    )

    def __init__(
        self,
        optimizer: Optimizers,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        driven = select(optimizer, param_name, groups)
        with kept_in_place(self, driven) if isinstance(driven, Optimizer) else nullcontext():
            super().__init__(
                driven,
                max_lr,
                total_steps,
                epochs,
                steps_per_epoch,
                pct_start,
                anneal_strategy,
                cycle_momentum and param_name == "lr",
                base_momentum,
                max_momentum,
                div_factor,
                final_div_factor,
                three_phase,
                last_epoch,
            )
        self._attach_again()

    def _epoch_limit(self) -> int | None:
        limit = instance_dict(self).get("total_steps")
        return limit if isinstance(limit, int) else None
