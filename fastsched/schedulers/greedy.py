"""Up while a metric improves, down while it does not: transformers' GreedyLR."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import nan
from typing import Any, ClassVar, Literal, SupportsFloat

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_lr_scheduler

from ..engine import lr_buffer
from ..engine.capture import refuse_capture
from ..engine.checkpoint import choice, counter, flag, numbers
from ..engine.metric import completed
from ..engine.untraced import untraced

_BY_PYTHON = (
    "GreedyLR is stepped by Python, which reads the metric and the learning rates; without fullgraph=True that is done "
    "between two graphs; with it, step it outside the compiled function"
)


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    return lambda where, value: choice(where, value, choices)


def _plain_numbers(where: str, values: Any) -> list[Any]:
    return [counter(where, value) for value in numbers(where, values)]


# What a state has, under transformers' names, and who reads it.
_PER_GROUP = ("min_lrs", "max_lrs", "_init_lrs", "_last_lr")
_STATE: dict[str, Callable[[str, Any], Any]] = {
    "mode": _one_of("min", "max"),
    "threshold_mode": _one_of("rel", "abs"),
    **dict.fromkeys(("factor", "threshold", "eps", "patience", "cooldown", "warmup", "window_size"), counter),
    **dict.fromkeys(("reset_start", "reset_start_original", "best", "last_epoch"), counter),
    **dict.fromkeys(("num_bad_epochs", "num_good_epochs", "cooldown_counter", "warmup_counter"), counter),
    **dict.fromkeys(("verbose", "smooth"), flag),
    **dict.fromkeys(_PER_GROUP, _plain_numbers),
}
_AVERAGE = "_streaming_avg"


class GreedyLR(torch_lr_scheduler.ReduceLROnPlateau):
    """Raise the learning rates while a metric improves, and reduce them when it has stopped.

    The scheduler that transformers calls ``greedy``, with its arguments. More than ``patience`` epochs in a row that
    are better than the best before set every group's learning rate to ``min(lr / factor, max_lr)``, more than
    ``patience`` that are not to ``max(lr * factor, min_lr)``, each where that changes it by more than ``eps``. Once
    ``reset_start`` reductions, with no increase between them, have left all learning rates at ``min_lr``, it begins
    anew, from the learning rates that it was made with.

    With Python-number learning rates every step is bit-identical to that of transformers 5. Tensor learning rates,
    float32 or float64, are written in place and are that trajectory rounded; float64 copies of them are kept.

    It is a :class:`torch.optim.lr_scheduler.ReduceLROnPlateau`, so frameworks hand the metric to it, and a
    ``SequentialLR`` or ``ChainedScheduler`` takes it as it takes torch's own. It is not compiled: what a step does next
    depends on the learning rates that it leaves, so Python takes it, and it has neither ``lr_at`` nor
    ``process_group``. Where there are several ranks give all of them the same metric.

    Args:
        optimizer: any :class:`torch.optim.Optimizer`.
        mode: whether the metric should fall (``"min"``) or rise (``"max"``).
        factor: what to multiply or divide the learning rates by, above 0 and below 1.
        patience: number of good, or of bad, epochs in a row that change nothing.
        threshold: how much better than the best counts as better.
        threshold_mode: whether ``threshold`` is absolute (``"abs"``) or relative to the best (``"rel"``).
        cooldown: number of epochs after a reduction that are not judged.
        warmup: number of epochs after an increase that are not judged.
        min_lr: lower bound of the learning rate, one for all groups or one per group.
        max_lr: upper bound, likewise.
        eps: a change that is not larger than this is not made.
        verbose: whether to print each change.
        smooth: whether to judge the mean of the last ``window_size`` metrics in place of each metric.
        window_size: number of metrics in that mean.
        reset_start: number of reductions with all learning rates at ``min_lr`` after which it begins anew.

    Raises:
        ValueError: ``factor`` or ``window_size`` is out of its range, a mode is unknown, or there is not one ``min_lr``
            or ``max_lr`` per group.
        TypeError: ``optimizer`` is not an Optimizer, or an argument is not a number.
        RuntimeError: the learning rates are on a CUDA device and fastsched has no CUDA operators.

    Construction, ``state_dict`` and ``load_state_dict`` wait for the device where learning rates are on one.

    Example::

        scheduler = fastsched.GreedyLR(optimizer, patience=5, min_lr=1e-5, max_lr=1e-2)
        for epoch in range(epochs):
            train(model, optimizer)
            scheduler.step(validation_loss(model))
    """

    _why_python: ClassVar[str] = (
        "what a step does next depends on the learning rates that it leaves, so Python takes it"
    )

    warmup: int
    verbose: bool
    smooth: bool
    window_size: int
    reset_start: int

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.95,
        patience: int = 10,
        threshold: float = 1e-6,
        threshold_mode: Literal["rel", "abs"] = "abs",
        cooldown: int = 0,
        warmup: int = 0,
        min_lr: Sequence[float] | float = 1e-3,
        max_lr: Sequence[float] | float = 1.0,
        eps: float = 1e-8,
        verbose: bool = False,
        smooth: bool = False,
        window_size: int = 50,
        reset_start: int = 500,
    ) -> None:
        given: dict[str, Any] = {
            "mode": mode,
            "factor": factor,
            "patience": patience,
            "threshold": threshold,
            "threshold_mode": threshold_mode,
            "cooldown": cooldown,
            "warmup": warmup,
            "eps": eps,
            "verbose": verbose,
            "smooth": smooth,
            "window_size": window_size,
            "reset_start": reset_start,
            "reset_start_original": reset_start,
        }
        given = {name: _STATE[name](name, value) for name, value in given.items()}
        _check_ranges(given)
        low, high = _bound("min_lr", min_lr), _bound("max_lr", max_lr)
        self._window: deque[float] = deque()
        self._window_sum = 0.0
        self.reset_start_original = given["reset_start_original"]
        super().__init__(
            optimizer,
            given["mode"],
            given["factor"],
            given["patience"],
            given["threshold"],
            given["threshold_mode"],
            given["cooldown"],
            low,
            given["eps"],
        )
        groups = len(optimizer.param_groups)
        self.default_max_lr = None if isinstance(high, list) else high
        self.max_lrs = list(high) if isinstance(high, list) else [high] * groups
        if len(self.max_lrs) != groups:
            raise ValueError(f"max_lr must be one for all or one per group: expected {groups}, got {len(self.max_lrs)}")
        self.__dict__.update(given)
        if any(isinstance(group["lr"], Tensor) for group in optimizer.param_groups):
            lr_buffer.bind(optimizer)
        self._init_lrs = self._exact_lrs()

    def _reset(self) -> None:
        super()._reset()
        self.num_good_epochs = 0
        self.warmup_counter = 0
        self.reset_start = self.reset_start_original
        self._window.clear()
        self._window_sum = 0.0

    @untraced(_BY_PYTHON)
    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take note of a metric, and change the learning rates if enough epochs in a row were good or bad.

        Args:
            metrics: a number, a NumPy scalar, or a tensor with one element on any device.
            epoch: what to note down in ``last_epoch``; one more than before by default.

        Raises:
            TypeError, ValueError, RuntimeError: as ``float(metrics)`` does where that is not a number.
            RuntimeError: ``min_lr`` or ``max_lr`` is a list and param groups have been added since.
            RuntimeError: inside CUDA graph capture.

        Sync: waits for the device that the metric is on; and where it changes learning rates, for theirs.

        Capture: refused. Compile: not traced; the graph breaks here, and with ``fullgraph=True`` that is an error.
        """
        refuse_capture("GreedyLR reads the metric and the learning rates; step it between replays")
        current = float(completed(metrics) if isinstance(metrics, Tensor) else metrics)
        self._fit_groups()
        if self.smooth:
            current = self._averaged(current)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.cooldown_counter > 0 or self.warmup_counter > 0:
            if self.cooldown_counter > 0:
                self.cooldown_counter -= 1
            else:
                self.warmup_counter -= 1
            self.num_bad_epochs = self.num_good_epochs = 0
        else:
            self._judge(current)
        self._last_lr = lr_buffer.copied_lrs(self.optimizer)

    def _judge(self, current: float) -> None:
        if self._is_better(current, self.best):  # type: ignore[no-untyped-call]
            self.best = current
            self.num_good_epochs += 1
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
            self.num_good_epochs = 0
        if self.num_good_epochs > self.patience:
            self._increase_lr()
            self.warmup_counter = self.warmup
            self.num_good_epochs = 0
        elif self.num_bad_epochs > self.patience:
            self._reduce_lr(self.last_epoch)
            self.cooldown_counter = self.cooldown  # also where it began anew, as in transformers
            self.num_bad_epochs = 0

    def _averaged(self, metric: float) -> float:
        # A running sum, rounding errors and all: transformers' numbers.
        self._window.append(metric)
        self._window_sum += metric
        if len(self._window) > self.window_size:
            self._window_sum -= self._window.popleft()
        return self._window_sum / len(self._window)

    def _reduce_lr(self, epoch: int) -> None:
        before = self._exact_lrs()
        wanted = [max(float(lr) * self.factor, low) for lr, low in zip(before, self.min_lrs, strict=True)]
        pairs = zip(before, wanted, strict=True)
        lrs = [low if float(lr) - low > self.eps else lr for lr, low in pairs]
        self._set_lrs(lrs, before)
        if any(lr > low for lr, low in zip(lrs, self.min_lrs, strict=True)):
            return
        self.reset_start -= 1
        if self.reset_start <= 0:
            self._set_lrs(self._init_lrs, lrs)
            self._reset()

    def _increase_lr(self) -> None:
        before = self._exact_lrs()
        wanted = [min(float(lr) / self.factor, high) for lr, high in zip(before, self.max_lrs, strict=True)]
        pairs = zip(before, wanted, strict=True)
        self._set_lrs([high if high - float(lr) > self.eps else lr for lr, high in pairs], before)
        self.reset_start = self.reset_start_original

    def _exact_lrs(self) -> list[Any]:
        """Every group's learning rate as a number: a tensor's float64 one, where that is known."""
        return [float(lr) if isinstance(lr, Tensor) else lr for lr in lr_buffer.exact(self.optimizer)]

    def _set_lrs(self, lrs: list[Any], before: list[Any]) -> None:
        lr_buffer.set_lrs(self.optimizer, lrs)
        if self.verbose:
            for index, (old, new) in enumerate(zip(before, lrs, strict=True)):
                if new != old:
                    print(f"step {self.last_epoch}: learning rate of param_groups[{index}] from {old:.4e} to {new:.4e}")

    def _fit_groups(self) -> None:
        groups = len(self.optimizer.param_groups)
        if groups == len(self.min_lrs) == len(self.max_lrs) == len(self._init_lrs):
            return
        fitted = {}
        for name, default in (("min_lr", self.default_min_lr), ("max_lr", self.default_max_lr)):
            bounds = getattr(self, f"{name}s")
            if len(bounds) != groups and default is None:
                raise RuntimeError(
                    f"{name}s has {len(bounds)} values for {groups} param groups: a group was added to the optimizer; "
                    f"set scheduler.{name}s to one bound per group"
                )
            fitted[f"{name}s"] = [*bounds[:groups], *[default] * (groups - len(bounds))]
        known = self._init_lrs[:groups]
        self.__dict__.update(fitted, _init_lrs=[*known, *self._exact_lrs()[len(known) :]])

    def _last_numbers(self) -> list[Any]:
        """What ``get_last_lr()`` has, as numbers."""
        if not any(isinstance(lr, Tensor) for lr in self._last_lr):
            return list(self._last_lr)
        exact = self._exact_lrs()[: len(self._last_lr)]
        return [_unrounded(lr, master) for lr, master in zip(self._last_lr, exact, strict=True)]

    def _resume(self, lrs: list[Any]) -> None:
        """Go on from these numbers where tensors hold them rounded, or will once an optimizer's state is loaded."""
        if not any(isinstance(group["lr"], Tensor) for group in self.optimizer.param_groups):
            return
        buffers = lr_buffer.bind(self.optimizer) or []
        for buffer, places in zip(buffers, lr_buffer.positions(self.optimizer, buffers), strict=True):
            mine = [float(lrs[place]) if 0 <= place < len(lrs) else nan for place in places]
            buffer.resume(torch.tensor(mine, dtype=torch.float64, device=buffer.device))
        self._last_lr = lr_buffer.copied_lrs(self.optimizer)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last_lr": self._last_numbers()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with suppress(AttributeError, RuntimeError):  # an optimizer that refers back to its scheduler has no groups yet
            self._resume(state["_last_lr"])

    def state_dict(self) -> dict[str, Any]:
        """The state, under the keys of transformers' ``GreedyLR``, which can load it.

        Learning rates are numbers in it, in float64 where they are tensors; waits for the device then.
        """
        state = {name: getattr(self, name) for name in _STATE}
        state |= {name: list(state[name]) for name in _PER_GROUP}
        state["_last_lr"] = self._last_numbers()
        if self.smooth:
            window = list(self._window)
            state[_AVERAGE] = {"window_size": self.window_size, "values": window, "sum": self._window_sum}
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state, of this class or of transformers'; what is not in it stays as it is.

        The learning rates are set to those of the state, tensors in place.

        Args:
            state_dict: what :meth:`state_dict` gave.

        Raises:
            TypeError, ValueError: a step could not go on from it; names the key. Nothing is changed then.
            RuntimeError: inside CUDA graph capture.
        """
        refuse_capture("a state is loaded; load it before the capture")
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dict, got {type(state_dict).__name__}")
        state = {
            name: read(f"state_dict[{name!r}]", state_dict[name]) for name, read in _STATE.items() if name in state_dict
        }
        groups = len(self.optimizer.param_groups)
        for name in _PER_GROUP:
            if len(state.get(name, ())) not in (0, groups) or (name in state and not state[name]):
                raise ValueError(
                    f"state_dict[{name!r}] has {len(state[name])} values for {groups} param groups; load it into a "
                    "scheduler of an optimizer with as many groups"
                )
        _check_ranges({"factor": self.factor, "smooth": self.smooth, "window_size": self.window_size} | state)
        window, total = _read_average(state_dict.get(_AVERAGE))
        lrs = state.pop("_last_lr", None)
        self.__dict__.update(state)
        self._init_is_better(self.mode, self.threshold, self.threshold_mode)
        if window is not None:
            self._window, self._window_sum = window, total
        if lrs is not None:
            lr_buffer.set_lrs(self.optimizer, lrs)
            self._last_lr = lr_buffer.copied_lrs(self.optimizer)
            self._resume(lrs)


def _check_ranges(settings: Mapping[str, Any]) -> None:
    if not 0 < settings["factor"] < 1:
        raise ValueError(f"factor must be above 0 and below 1, got {settings['factor']!r}")
    if settings["smooth"] and not settings["window_size"] >= 1:
        raise ValueError(f"window_size must be 1 or more, got {settings['window_size']!r}")


def _bound(name: str, value: Any) -> Any:
    return _plain_numbers(name, value) if isinstance(value, (list, tuple)) else counter(name, value)


def _unrounded(lr: Any, master: Any) -> Any:
    if not isinstance(lr, Tensor):
        return lr
    rounded = float(lr)
    return master if torch.tensor(master, dtype=lr.dtype, device="cpu").item() == rounded else rounded


def _read_average(saved: Any) -> tuple[deque[float] | None, float]:
    where = f"state_dict[{_AVERAGE!r}]"
    if saved is None:
        return None, 0.0
    if not isinstance(saved, Mapping):
        raise TypeError(f"{where} must be a dict, got {type(saved).__name__}")
    values = _plain_numbers(f"{where}['values']", saved.get("values", []))
    return deque(values), counter(f"{where}['sum']", saved.get("sum", 0.0))
