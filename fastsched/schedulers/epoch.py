"""Schedules that are functions of the epoch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, SupportsFloat, TypeGuard, cast

from torch import Tensor
from torch.optim import lr_scheduler as torch_lr_scheduler
from torch.optim import swa_utils
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING, _warn_get_lr_called_within_step
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts as TorchWarmRestarts

from .. import _C
from ..engine.capture import refuse_capture
from ..engine.host import DETACHED
from ..engine.program import Event, instance_dict, own_values, pack
from ..engine.selection import Groups, Optimizers, select
from ..engine.untraced import OFF_PATH, untraced
from .base import _EngineScheduler

if TYPE_CHECKING:
    from typing_extensions import Never


class _EpochScheduler(_EngineScheduler):
    """A scheduler whose ``step()`` goes on to the next epoch.

    With Python-number learning rates steps are bit-identical to torch's. With tensor learning rates they are
    computed on their device in float64, each LR torch's float trajectory rounded to its dtype; then ``step`` never
    waits for the device, may be captured in a CUDA graph and traces under torch.compile. Construction may wait.
    """

    _replaces: ClassVar[tuple[str, ...]] = ("get_lr", "_get_closed_form_lr", "_update_lr")

    def step(
        self,
        epoch: int | None = None,
        metrics: SupportsFloat | None = None,  # a default of what is keyword-only is looked up at each call
        *,
        found_inf: Tensor | float | None = None,
    ) -> None:
        """Go on to the next epoch.

        Args:
            epoch: deprecated, as in torch: go to this epoch, by the closed form where there is one.
            metrics: not read: so one loop may say ``step(metrics=loss)`` to any scheduler.
            found_inf: whether this step is to be skipped, because a GradScaler skipped the optimizer's: a number, or a
                tensor with one element, which is read on the device if the learning rates are there.

        Warns, as torch does, if the first call comes before ``optimizer.step()``.
        """
        if epoch is not None:
            if not found_inf:
                self._step_to(epoch)
            return
        if found_inf is not None:
            self._step_unless(found_inf, None)
            return
        declined = self._engine.step(self, None)
        if declined is not None:
            self._step_off_path(declined)

    @untraced(OFF_PATH)
    def _step_off_path(self, declined: _C.Declined, metrics: Any = None) -> None:
        if declined.lrs is not None:
            self._finish(declined.lrs)
        elif not self._is_initial:
            super()._step_off_path(declined)
            if self._engine is DETACHED:
                self._attach()
        elif not self._begin_on_tensors():
            self._step_as_torch(None)

    def _warn_at_first_step(self) -> bool:
        first = self._step_count == 1
        if first and not getattr(self._engine, "order_checked", False):  # by a composition
            warn_about_order(self.optimizer, stacklevel=6)
        return first

    def _step_as_torch(self, metrics: Any) -> None:
        self._step_count += 1
        self._update_lr()

    @untraced(OFF_PATH)
    def _step_to(self, epoch: int) -> None:
        refuse_capture("step(epoch) is computed by Python")
        if self._step_count == 1:
            warn_about_order(self.optimizer, stacklevel=4)
        self._step_count += 1
        warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=3)
        self._update_lr(epoch)
        if not self._engine.holds_state:
            self._note(None)
        if self._engine is DETACHED:
            self._attach()

    @untraced(OFF_PATH)
    def _initial_step(self) -> None:
        begins = self.last_epoch == -1
        self._take_exact_bases()
        self._begin_stepping()
        if begins:
            self._note_first_lrs()

    def _begin_stepping(self) -> None:
        self._detach()
        super()._initial_step()
        self._attach()

    def _begin_on_tensors(self) -> bool:
        """The step that constructing a scheduler makes, on float64 learning rates behind tensors."""
        groups = self.optimizer.param_groups
        if not (groups and isinstance(groups[0]["lr"], Tensor) and self._attach()):
            return False
        if self._engine.move(self, Event.INITIAL):
            instance_dict(self)["_get_lr_called_within_step"] = False  # torch leaves this behind
            return True
        self._detach()
        return False

    def _update_lr(self, epoch: int | None = None) -> None:
        # What SequentialLR calls to start a child over, and step(epoch) to go there.
        self._follow_to_tensors()
        whole = _is_number(epoch) and epoch == epoch // 1
        if whole and self._engine.move(self, Event.AT_EPOCH, cast(float, epoch)):
            return
        self._detach()
        super()._update_lr(epoch)


_C.quick_call(_EpochScheduler.step, 1, 1)


class _FormulaScheduler(_EpochScheduler):
    """A schedule that torch does not have: a function of the epoch and the base learning rates.

    Where no engine steps it, and where others ask it for ``get_lr()``, the compiled formula answers: it stands nowhere
    else. Then settings and base learning rates that are tensors are read, which may wait for a device.
    """

    def _initial_step(self) -> None:
        # Of other numbers, ints for one, only Python knows how it computes with them.
        self.base_lrs[:] = [base if isinstance(base, Tensor) else float(base) for base in self.base_lrs]
        super()._initial_step()

    def get_lr(self) -> list[float | Tensor]:
        """The learning rates of the present epoch, as Python numbers."""
        _warn_get_lr_called_within_step(self)
        return self._get_closed_form_lr()

    def _get_closed_form_lr(self) -> list[float | Tensor]:
        groups = self.optimizer.param_groups
        owns = own_values(self, _C.own_params(self._schedule), None)
        numbers = [[float(value) for value in values] for values in owns] if owns is not None else None
        packed = None if numbers is None else pack(self, numbers, list(range(len(groups))), None)
        if packed is None:
            raise ValueError(
                f"{type(self).__name__} has a setting that is not a plain number, or not one for each param group"
            )
        return list(_C.lrs_at(packed, [float(group["lr"]) for group in groups], float(self.last_epoch)))


def warn_about_order(optimizer: Any, stacklevel: int) -> None:
    """Warn, as torch does at a scheduler's first step, if ``optimizer.step()`` did not come before it."""
    # torch's to the word: filters match them.
    if not hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        problem = (
            "Seems like `optimizer.step()` has been overridden after learning rate scheduler initialization. Please, "
            "make sure to call `optimizer.step()` before `lr_scheduler.step()`."
        )
    elif not getattr(optimizer, "_opt_called", False):
        problem = (
            "Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and later, you should "
            "call them in the opposite order: `optimizer.step()` before `lr_scheduler.step()`.  Failure to do this "
            "will result in PyTorch skipping the first value of the learning rate schedule."
        )
    else:
        return
    details = "See more details at https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate"
    warnings.warn(f"{problem} {details}", UserWarning, stacklevel=stacklevel)


def _is_number(epoch: object) -> TypeGuard[float]:
    """Whether an engine can go to this epoch: a plain number that a double holds exactly."""
    return type(epoch) in (int, float) and abs(cast(float, epoch)) <= 2**53


class StepLR(_EpochScheduler, torch_lr_scheduler.StepLR):
    """Multiply the learning rates by ``gamma`` every ``step_size`` epochs.

    ::

        lr(t) = base * gamma ** (t // step_size)

    As torch's :class:`torch.optim.lr_scheduler.StepLR`, whose arguments it takes.
    ``t`` counts calls of ``step()``, which is what an epoch is here; ``base`` is a group's learning rate when the
    scheduler was made.

    Args:
        optimizer: the optimizer whose param groups it drives, or a list of several.
        step_size: epochs from one reduction to the next.
        gamma: the factor.
        last_epoch: the epoch before the one to begin at; -1 starts from the beginning, anything else needs
            ``"initial_lr"`` in the groups, as in torch.
        param_name: the entry of each group that it drives: ``"weight_decay"`` or ``"betas[0]"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or a group lacks the entry; the message names it.

    Example::

        scheduler = fastsched.StepLR(optimizer, step_size=30, gamma=0.1)
    """

    _schedule: ClassVar[str] = "StepLR"

    def __init__(
        self,
        optimizer: Optimizers,
        step_size: int,
        gamma: float = 0.1,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        super().__init__(select(optimizer, param_name, groups), step_size, gamma, last_epoch)


class MultiStepLR(_EpochScheduler, torch_lr_scheduler.MultiStepLR):
    """Multiply the learning rates by ``gamma`` at every milestone, as often as it is listed.

    ::

        lr(t) = base * gamma ** n(t)    n(t): how many milestones are <= t

    As torch's :class:`torch.optim.lr_scheduler.MultiStepLR`, whose arguments it takes.
    ``t`` counts calls of ``step()``, which is what an epoch is here; ``base`` is a group's learning rate when the
    scheduler was made.

    Args:
        optimizer: the optimizer whose param groups it drives, or a list of several.
        milestones: epochs; they need not be sorted.
        gamma: the factor.
        last_epoch: the epoch before the one to begin at; -1 starts from the beginning, anything else needs
            ``"initial_lr"`` in the groups, as in torch.
        param_name: the entry of each group that it drives: ``"weight_decay"`` or ``"betas[0]"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or a group lacks the entry; the message names it.

    Example::

        scheduler = fastsched.MultiStepLR(optimizer, milestones=[30, 80], gamma=0.1)
    """

    _schedule: ClassVar[str] = "MultiStepLR"

    def __init__(
        self,
        optimizer: Optimizers,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        super().__init__(select(optimizer, param_name, groups), milestones, gamma, last_epoch)


class ConstantLR(_EpochScheduler, torch_lr_scheduler.ConstantLR):
    """Multiply the learning rates by ``factor`` until epoch ``total_iters``.

    ::

        lr(t) = base * factor    for t < total_iters, then base

    As torch's :class:`torch.optim.lr_scheduler.ConstantLR`, whose arguments it takes.
    ``t`` counts calls of ``step()``, which is what an epoch is here; ``base`` is a group's learning rate when the
    scheduler was made.

    Args:
        optimizer: the optimizer whose param groups it drives, or a list of several.
        factor: between 0 and 1.
        total_iters: for how many epochs.
        last_epoch: the epoch before the one to begin at; -1 starts from the beginning, anything else needs
            ``"initial_lr"`` in the groups, as in torch.
        param_name: the entry of each group that it drives: ``"weight_decay"`` or ``"betas[0]"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or a group lacks the entry; the message names it.

    Example::

        scheduler = fastsched.ConstantLR(optimizer, factor=0.5, total_iters=4)
    """

    _schedule: ClassVar[str] = "ConstantLR"

    def __init__(
        self,
        optimizer: Optimizers,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        super().__init__(select(optimizer, param_name, groups), factor, total_iters, last_epoch)


class LinearLR(_EpochScheduler, torch_lr_scheduler.LinearLR):
    """Change the learning rates linearly from ``start_factor`` to ``end_factor`` of their base: a warm-up, by default.

    ::

        lr(t) = base * (start_factor + (end_factor - start_factor) * min(t, total_iters) / total_iters)

    As torch's :class:`torch.optim.lr_scheduler.LinearLR`, whose arguments it takes.
    ``t`` counts calls of ``step()``, which is what an epoch is here; ``base`` is a group's learning rate when the
    scheduler was made.

    Args:
        optimizer: the optimizer whose param groups it drives, or a list of several.
        start_factor: of the base, in epoch 0; more than 0 and at most 1.
        end_factor: of the base, from epoch ``total_iters`` on; between 0 and 1.
        total_iters: how many epochs it takes.
        last_epoch: the epoch before the one to begin at; -1 starts from the beginning, anything else needs
            ``"initial_lr"`` in the groups, as in torch.
        param_name: the entry of each group that it drives: ``"weight_decay"`` or ``"betas[0]"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or a group lacks the entry; the message names it.

    Example::

        scheduler = fastsched.LinearLR(optimizer, start_factor=0.1, total_iters=10)
    """

    _schedule: ClassVar[str] = "LinearLR"

    def __init__(
        self,
        optimizer: Optimizers,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        super().__init__(select(optimizer, param_name, groups), start_factor, end_factor, total_iters, last_epoch)


class ExponentialLR(_EpochScheduler, torch_lr_scheduler.ExponentialLR):
    """Multiply the learning rates by ``gamma`` every epoch.

    ::

        lr(t) = base * gamma ** t

    As torch's :class:`torch.optim.lr_scheduler.ExponentialLR`, whose arguments it takes.
    ``t`` counts calls of ``step()``, which is what an epoch is here; ``base`` is a group's learning rate when the
    scheduler was made.

    Args:
        optimizer: the optimizer whose param groups it drives, or a list of several.
        gamma: the factor.
        last_epoch: the epoch before the one to begin at; -1 starts from the beginning, anything else needs
            ``"initial_lr"`` in the groups, as in torch.
        param_name: the entry of each group that it drives: ``"weight_decay"`` or ``"betas[0]"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or a group lacks the entry; the message names it.

    Example::

        scheduler = fastsched.ExponentialLR(optimizer, gamma=0.95)
    """

    _schedule: ClassVar[str] = "ExponentialLR"

    def __init__(
        self,
        optimizer: Optimizers,
        gamma: float,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        super().__init__(select(optimizer, param_name, groups), gamma, last_epoch)


class PolynomialLR(_EpochScheduler, torch_lr_scheduler.PolynomialLR):
    """Decay the learning rates to zero over ``total_iters`` epochs by a polynomial.

    ::

        lr(t) = base * (1 - min(t, total_iters) / total_iters) ** power

    As torch's :class:`torch.optim.lr_scheduler.PolynomialLR`, whose arguments it takes.
    ``t`` counts calls of ``step()``, which is what an epoch is here; ``base`` is a group's learning rate when the
    scheduler was made.

    Args:
        optimizer: the optimizer whose param groups it drives, or a list of several.
        total_iters: how many epochs it takes.
        power: of the polynomial; 1 is a straight line.
        last_epoch: the epoch before the one to begin at; -1 starts from the beginning, anything else needs
            ``"initial_lr"`` in the groups, as in torch.
        param_name: the entry of each group that it drives: ``"weight_decay"`` or ``"betas[0]"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or a group lacks the entry; the message names it.

    Example::

        scheduler = fastsched.PolynomialLR(optimizer, total_iters=100, power=0.9)
    """

    _schedule: ClassVar[str] = "PolynomialLR"

    def __init__(
        self,
        optimizer: Optimizers,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        super().__init__(select(optimizer, param_name, groups), total_iters, power, last_epoch)


class CosineAnnealingLR(_EpochScheduler, torch_lr_scheduler.CosineAnnealingLR):
    """Anneal the learning rates along a cosine from their base to ``eta_min`` and back, with period ``2 * T_max``.

    ::

        lr(t) = eta_min + (base - eta_min) * (1 + cos(pi * t / T_max)) / 2

    As torch's :class:`torch.optim.lr_scheduler.CosineAnnealingLR`, whose arguments it takes.
    ``t`` counts calls of ``step()``, which is what an epoch is here; ``base`` is a group's learning rate when the
    scheduler was made.
    It is computed in torch's recursive form (Loshchilov and Hutter, arXiv:1608.03983, without the restarts).

    Args:
        optimizer: the optimizer whose param groups it drives, or a list of several.
        T_max: epochs from the base down to ``eta_min``.
        eta_min: the lowest learning rate.
        last_epoch: the epoch before the one to begin at; -1 starts from the beginning, anything else needs
            ``"initial_lr"`` in the groups, as in torch.
        param_name: the entry of each group that it drives: ``"weight_decay"`` or ``"betas[0]"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or a group lacks the entry; the message names it.

    Example::

        scheduler = fastsched.CosineAnnealingLR(optimizer, T_max=100, eta_min=1e-5)
    """

    _schedule: ClassVar[str] = "CosineAnnealingLR"

    def __init__(
        self,
        optimizer: Optimizers,
        T_max: int,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        super().__init__(select(optimizer, param_name, groups), T_max, eta_min, last_epoch)


class CosineAnnealingWarmRestarts(_EpochScheduler, TorchWarmRestarts):
    """Anneal the learning rates along a cosine to ``eta_min``, and start over after ``T_0``, then ``T_0 * T_mult``, ...

    ::

        lr = eta_min + (base - eta_min) * (1 + cos(pi * T_cur / T_i)) / 2

        T_cur: epochs since the last restart; T_i: how many there are until the next

    As torch's :class:`torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`, whose arguments it takes.
    ``t`` counts calls of ``step()``, which is what an epoch is here; ``base`` is a group's learning rate when the
    scheduler was made.
    (SGDR, arXiv:1608.03983.)

    Args:
        optimizer: the optimizer whose param groups it drives, or a list of several.
        T_0: epochs until the first restart.
        T_mult: by which factor each period is longer than the one before; a whole number.
        eta_min: the lowest learning rate.
        last_epoch: the epoch before the one to begin at; -1 starts from the beginning, anything else needs
            ``"initial_lr"`` in the groups, as in torch.
        param_name: the entry of each group that it drives: ``"weight_decay"`` or ``"betas[0]"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or a group lacks the entry; the message names it.

    Example::

        scheduler = fastsched.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)
    """

    _schedule: ClassVar[str] = "CosineAnnealingWarmRestarts"
    _replaces: ClassVar[tuple[str, ...]] = ("get_lr",)  # torch's step calls nothing else

    def __init__(
        self,
        optimizer: Optimizers,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        super().__init__(select(optimizer, param_name, groups), T_0, T_mult, eta_min, last_epoch)

    def step(
        self,
        epoch: float | None = None,
        metrics: SupportsFloat | None = None,
        *,
        found_inf: Tensor | float | None = None,
    ) -> None:
        """Go on to the next epoch, or to ``epoch``, which may be a fraction: between batches, for instance.

        ``metrics`` is not read, and ``found_inf`` as in the other schedulers: whether to skip this step. Along with an
        ``epoch`` Python reads it.

        Raises ValueError if ``epoch`` is negative.
        """
        if found_inf is not None:
            if epoch is None:
                self._step_unless(found_inf, None)
            elif not found_inf:
                self.step(epoch)
            return
        if epoch is not None or self._is_initial or self._engine.step(self, None) is not None:
            self._step_elsewhere(epoch)

    def _step_off_path(self, declined: _C.Declined, metrics: Any = None) -> None:
        self._step_elsewhere(None)

    @untraced(OFF_PATH)
    def _step_elsewhere(self, epoch: float | None) -> None:
        if epoch is None and self._is_initial:
            if self._begin_on_tensors():
                return
        elif epoch is None:
            refuse_capture("it is the first step, or its settings changed; step once before capturing")
            self._detach()
            if self._attach() and self._engine.step(self, None) is None:
                return
        elif _is_number(epoch) and epoch >= 0 and self._engine.move(self, Event.AT_EPOCH, epoch):
            return
        self._detach()
        if epoch is None and not self._is_initial:
            self._fall_back()
        TorchWarmRestarts.step(self, epoch)
        if not self._is_initial:
            self._stepped_by_torch(None)
            self._attach()

    def _update_lr(self, epoch: int | None = None) -> None:
        # There is no closed form: torch only notes the epoch.
        if epoch == 0 and self._engine.move(self, Event.RESTART):
            return
        self._detach()
        TorchWarmRestarts._update_lr(self, epoch)


_C.quick_call(CosineAnnealingWarmRestarts.step, 1, 1)


class SWALR(_EpochScheduler, swa_utils.SWALR):
    """Anneal each learning rate from wherever it is to ``swa_lr``, for stochastic weight averaging.

    ::

        lr = alpha * swa_lr + (1 - alpha) * lr_0

        alpha: from 0 to 1 over anneal_epochs, on a line or a cosine; lr_0: where it was

    As torch's :class:`torch.optim.swa_utils.SWALR`, whose arguments it takes.
    ``t`` counts calls of ``step()``, which is what an epoch is here; ``base`` is a group's learning rate when the
    scheduler was made.
    (Izmailov et al., arXiv:1803.05407.)

    Args:
        optimizer: the optimizer whose param groups it drives, or a list of several.
        swa_lr: the learning rate to reach, or one for each group.
        anneal_epochs: how many epochs it takes.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        last_epoch: the epoch before the one to begin at; -1 starts from the beginning, anything else needs
            ``"initial_lr"`` in the groups, as in torch.
        param_name: the entry of each group that it drives: ``"weight_decay"`` or ``"betas[0]"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.

    Raises:
        TypeError, ValueError: an argument has the wrong type, or a group lacks the entry; the message names it.

    Example::

        scheduler = fastsched.SWALR(optimizer, swa_lr=0.05, anneal_epochs=5)
    """

    _schedule: ClassVar[str] = "SWALR"
    _replaces: ClassVar[tuple[str, ...]] = (
        "get_lr",
        "_update_lr",
        "_get_initial_lr",
        "_linear_anneal",
        "_cosine_anneal",
    )
    _unsaved: ClassVar[tuple[str, ...]] = ("optimizer", "anneal_func")

    def __init__(
        self,
        optimizer: Optimizers,
        swa_lr: float,
        anneal_epochs: int = 10,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        last_epoch: int = -1,
        *,
        param_name: str = "lr",
        groups: Groups = None,
    ) -> None:
        super().__init__(select(optimizer, param_name, groups), swa_lr, anneal_epochs, anneal_strategy, last_epoch)

    def __setattr__(self, name: str, value: Never) -> None:  # no value: a checker takes no name that is not declared
        if name in ("anneal_func", "_anneal_strategy"):
            self._detach()  # torch goes on with the function that it chose by these
        super().__setattr__(name, value)

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        if not self._expressible():
            self._set_anneal_func(self._anneal_strategy)

    def _expressible(self) -> bool:
        attributes = instance_dict(self)
        known = {"cos": self._cosine_anneal, "linear": self._linear_anneal}
        return attributes.get("anneal_func") is known.get(attributes["_anneal_strategy"], self)

    def _require_function_of_step(self) -> None:
        raise NotImplementedError(
            "SWALR.lr_at: it anneals from whatever the learning rates are when it begins; step it"
        )
