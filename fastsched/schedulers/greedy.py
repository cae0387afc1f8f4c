"""Up while a metric improves, down while it does not: transformers' GreedyLR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, SupportsFloat

from torch import Tensor

from .. import _C
from ..engine import lr_buffer
from ..engine.checkpoint import choice, counter, flag, numbers, whole
from ..engine.host import DETACHED
from ..engine.metric import completed
from ..engine.program import LAST_LR, instance_dict
from ..engine.reduction import ReduceOp, reduction
from ..engine.selection import Groups, Optimizers, select
from ..engine.untraced import OFF_PATH, untraced
from .plateau import _Plateau

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from typing_extensions import Never


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    return lambda where, value: choice(where, value, choices)


def _plain_numbers(where: str, values: Any) -> list[Any]:
    return [counter(where, value) for value in numbers(where, values)]


# What a state has, under transformers' names, and who reads it.
_PER_GROUP = ("min_lrs", "max_lrs", "_init_lrs", LAST_LR)
_STATE: dict[str, Callable[[str, Any], Any]] = {
    "mode": _one_of("min", "max"),
    "threshold_mode": _one_of("rel", "abs"),
    **dict.fromkeys(("factor", "threshold", "eps", "patience", "cooldown", "warmup"), counter),
    "window_size": whole,
    **dict.fromkeys(("reset_start", "reset_start_original", "best", "last_epoch"), counter),
    **dict.fromkeys(("num_bad_epochs", "num_good_epochs", "cooldown_counter", "warmup_counter"), counter),
    **dict.fromkeys(("verbose", "smooth"), flag),
    **dict.fromkeys(_PER_GROUP, _plain_numbers),
}
_AVERAGE = "_streaming_avg"
_NOT_FOLLOWED = ("verbose", "smooth", "window_size")  # with another value of these, another engine may have to step


class GreedyLR(_Plateau):
    """Raise the learning rates while a metric improves, and reduce them when it has stopped.

    The scheduler that transformers calls ``greedy``, with its arguments (arXiv:2512.14527; the formulas are those of
    transformers 5.23). More than ``patience`` epochs in a row that are better than the best before set every group's
    learning rate to ``min(lr / factor, max_lr)``, more than ``patience`` that are not to ``max(lr * factor, min_lr)``,
    each where that changes it by more than ``eps``. Once ``reset_start`` reductions, with no increase between them,
    have left all learning rates at ``min_lr``, it begins anew, from the learning rates that it was made with.

    With Python-number learning rates every step is bit-identical to that of transformers. Tensor learning rates,
    float32 or float64, are that trajectory rounded; the decision is made on their device, in float64, and nothing is
    read back. As it depends on all of them, learning rates of two dtypes, or on two devices, are stepped by Python.

    It is a :class:`torch.optim.lr_scheduler.ReduceLROnPlateau`, so frameworks hand the metric to it, and a
    ``SequentialLR`` or ``ChainedScheduler`` takes it as it takes torch's own.

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
        verbose: whether to print each change. Then Python steps it, and reads learning rates that are tensors.
        smooth: whether to judge the mean of the last ``window_size`` metrics in place of each metric.
        window_size: number of metrics in that mean. They are kept where the learning rates are, 8 bytes each. Where it
            is changed later, the newest that fit stay.
        reset_start: number of reductions with all learning rates at ``min_lr`` after which it begins anew.
        param_name: the entry of each group that it drives: ``"weight_decay"`` for instance.
        groups: of which groups, by position, or a function of a group that says whether; all of them by default.
        process_group: the ranks whose metrics are reduced to one by a collective before each decision, so that all
            decide alike, as in :class:`ReduceLROnPlateau`.
        reduce_op: what is made of the ranks' metrics: ``"mean"``, ``"sum"``, ``"min"`` or ``"max"``.

    Raises:
        ValueError: ``factor`` or ``window_size`` is out of its range, a mode is unknown, there is not one ``min_lr``
            or ``max_lr`` per group, or this rank is not in ``process_group``.
        TypeError: ``optimizer`` is not an Optimizer, or an argument is not a number.
        RuntimeError: the learning rates are on a CUDA device and fastsched has no CUDA operators.

    Waiting for the device, capture and compilation are as in :class:`ReduceLROnPlateau`; construction, ``state_dict``
    and ``load_state_dict`` wait for the device where learning rates are on one. ``step(metrics, epoch)`` notes down
    ``epoch`` in ``last_epoch``.

    Example::

        scheduler = fastsched.GreedyLR(optimizer, patience=5, min_lr=1e-5, max_lr=1e-2)
        for epoch in range(epochs):
            train(model, optimizer)
            scheduler.step(validation_loss(model))
    """

    _schedule: ClassVar[str] = "GreedyLR"
    _replaces: ClassVar[tuple[str, ...]] = ()

    warmup: int
    verbose: bool
    smooth: bool
    window_size: int
    reset_start: int
    num_good_epochs: int
    warmup_counter: int
    _window: list[float]  # the last metrics, in a ring
    _window_sum: float
    _window_count: int  # of those taken, below twice the window's size: the rest of the division is the next place

    def __init__(
        self,
        optimizer: Optimizers,
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
        *,
        param_name: str = "lr",
        groups: Groups = None,
        process_group: ProcessGroup | None = None,
        reduce_op: ReduceOp = "mean",
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
        driven = select(optimizer, param_name, groups)
        reduced = reduction(type(self).__name__, process_group, reduce_op)
        super().__init__(
            driven,
            given["mode"],
            given["factor"],
            given["patience"],
            given["threshold"],
            given["threshold_mode"],
            given["cooldown"],
            low,
            given["eps"],
        )
        count = len(driven.param_groups)
        self.default_max_lr = None if isinstance(high, list) else high
        self.max_lrs = list(high) if isinstance(high, list) else [high] * count
        if len(self.max_lrs) != count:
            raise ValueError(f"max_lr must be one for all or one per group: expected {count}, got {len(self.max_lrs)}")
        begin: dict[str, Any] = {"num_good_epochs": 0, "warmup_counter": 0}
        instance_dict(self).update(given, **begin, _window=[], _window_sum=0.0, _window_count=0)
        if any(isinstance(group["lr"], Tensor) for group in driven.param_groups):
            lr_buffer.bind(driven)
        self._init_lrs = self._exact_lrs()
        self._attend(_reduction=reduced)
        self._attach()

    def __setattr__(self, name: str, value: Never) -> None:  # no value: a checker takes no name that is not declared
        if name in _NOT_FOLLOWED:
            self._detach()
        super().__setattr__(name, value)

    def _decides_natively(self) -> bool:
        if self.verbose:
            _C.note_reason("verbose=True prints each change, which Python does; a History keeps them instead")
            return False
        return super()._decides_natively()

    def _attach(self, *, restore: bool = False) -> bool:
        if self._engine is DETACHED:
            self._fit_window()
        return super()._attach(restore=restore)

    @untraced(OFF_PATH)
    def _step_noting(self, metrics: SupportsFloat, epoch: int) -> None:
        self._step_plainly(metrics if isinstance(metrics, Tensor) else float(metrics))
        self.last_epoch = epoch

    def _step_as_torch(self, metrics: SupportsFloat) -> None:
        """By the compiled formula, on copies: for learning rates and settings that engines do not take."""
        current = float(completed(metrics) if isinstance(metrics, Tensor) else metrics)
        self._fit_groups()
        self._fit_window()
        attributes = instance_dict(self)
        plain = {name: read(name, attributes[name]) for name, read in _STATE.items() if name != LAST_LR}
        _check_ranges(plain)
        before = [float(lr) for lr in self._exact_lrs()]
        owns = [[float(value) for value in plain[name]] for name in ("min_lrs", "max_lrs", "_init_lrs")]
        program = _C.pack_node(self._schedule, {**attributes, **plain}, owns, list(range(len(before))))
        counters = _C.pack_counters(self._schedule, {**attributes, **plain})
        if program is None or not counters:
            raise ValueError(f"{type(self).__name__} cannot be stepped: {_C.take_reason()}")
        state = [*counters, *[0.0] * (_C.NODE_STATE_SIZE - len(counters)), *before, *attributes["_window"]]
        state, after = _C.step_once(program, state, before, current)
        changed = [new != old for new, old in zip(after, before, strict=True)]
        if any(changed):
            exact = lr_buffer.exact(self.optimizer)
            lrs = [new if differs else lr for new, differs, lr in zip(after, changed, exact, strict=True)]
            lr_buffer.set_lrs(self.optimizer, lrs)
        attributes.update(
            _C.unpack_counters(self._schedule, state[: _C.NODE_COUNTERS]),
            _window=state[len(state) - len(attributes["_window"]) :],
            _last_lr=lr_buffer.copied_lrs(self.optimizer),
        )
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            if self.verbose and new != old:
                print(f"step {self.last_epoch}: learning rate of param_groups[{index}] from {old:.4e} to {new:.4e}")

    def _exact_lrs(self) -> list[Any]:
        """Every group's learning rate as a number: a tensor's float64 one, where that is known."""
        return [float(lr) if isinstance(lr, Tensor) else lr for lr in lr_buffer.exact(self.optimizer)]

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
        for name, values in {**fitted, "_init_lrs": [*known, *self._exact_lrs()[len(known) :]]}.items():
            setattr(self, name, values)

    def _take_in_groups(self) -> None:
        super()._take_in_groups()
        self._fit_groups()

    def _fit_window(self) -> None:
        """Keep as many of the last metrics as the settings say; only while no engine holds them."""
        attributes = instance_dict(self)
        if "_window" not in attributes:
            return
        size = whole("window_size", self.window_size) if self.smooth else 0
        if len(attributes["_window"]) != size:
            values, total = _averaged(attributes["_window"], attributes["_window_count"], attributes["_window_sum"])
            attributes.update(_ring(values, total, size))

    def state_dict(self) -> dict[str, Any]:
        """The state, under the keys of transformers' ``GreedyLR``, which can load it.

        Learning rates are numbers in it, in float64 where they are tensors; waits for the device then. Of a scheduler
        of another entry than ``"lr"`` it says which, under ``"param_name"``.
        """
        everything = super().state_dict()
        state = {name: everything[name] for name in (*_STATE, "param_name") if name in everything}
        if self.smooth:
            values, total = _averaged(everything["_window"], everything["_window_count"], everything["_window_sum"])
            state[_AVERAGE] = {"window_size": self.window_size, "values": values, "sum": total}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state, of this class or of transformers'; settings that are not in it stay as they are.

        The learning rates are set to those of the state, as transformers does, but not where a composition loads the
        state of a child. With as many param groups and as large a window as were saved, tensors keep their storage, so
        that a captured CUDA graph goes on from the loaded state.

        Args:
            state_dict: what :meth:`state_dict` gave.

        Raises:
            TypeError, ValueError, KeyError: a step could not go on from it; names the key. Nothing is changed then.
            RuntimeError: inside CUDA graph capture.
        """
        super().load_state_dict(state_dict)

    def _write_lrs(self, state: Mapping[str, Any]) -> None:
        if LAST_LR in state:
            lr_buffer.set_lrs(self.optimizer, state[LAST_LR])

    def _checked(self, state_dict: Mapping[str, Any], where: str) -> dict[str, Any]:
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"{where} must be a dict, got {type(state_dict).__name__}")
        given = {name: value for name, value in state_dict.items() if name != _AVERAGE}
        for name in _STATE.keys() & given.keys():
            given[name] = _STATE[name](f"{where}[{name!r}]", given[name])
        groups = len(self.optimizer.param_groups)
        for name in _PER_GROUP:
            if name in given and len(given[name]) != groups:
                raise ValueError(
                    f"{where}[{name!r}] has {len(given[name])} values for {groups} param groups; load it into a "
                    "scheduler of an optimizer with as many groups"
                )
        settings = {name: given.get(name, getattr(self, name)) for name in ("factor", "smooth", "window_size")}
        _check_ranges(settings)
        values, total = _read_average(f"{where}[{_AVERAGE!r}]", state_dict.get(_AVERAGE))
        given.update(_ring(values, total, settings["window_size"] if settings["smooth"] else 0))
        return super()._checked(given, where)

    def _load(self, state: dict[str, Any]) -> None:
        if any(state.get(name, now) != now for name in _NOT_FOLLOWED for now in (getattr(self, name),)):
            self._detach()
        super()._load(state)
        self._init_is_better(self.mode, self.threshold, self.threshold_mode)


def _check_ranges(settings: Mapping[str, Any]) -> None:
    if not 0 < settings["factor"] < 1:
        raise ValueError(f"factor must be above 0 and below 1, got {settings['factor']!r}")
    if settings["smooth"] and not settings["window_size"] >= 1:
        raise ValueError(f"window_size must be 1 or more, got {settings['window_size']!r}")


def _bound(name: str, value: Any) -> Any:
    return _plain_numbers(name, value) if isinstance(value, (list, tuple)) else counter(name, value)


def _averaged(ring: list[float], count: int, total: float) -> tuple[list[float], float]:
    """The metrics that are averaged, the oldest first, and their running sum."""
    place = count % len(ring) if count >= len(ring) > 0 else 0
    return [*ring[place:count], *ring[:place]], total


def _ring(values: list[float], total: float, size: int) -> dict[str, Any]:
    """The attributes that keep so many of the newest."""
    dropped = max(len(values) - size, 0)
    for oldest in values[:dropped]:
        total -= oldest
    kept = values[dropped:]
    ring = [*map(float, kept), *[0.0] * (size - len(kept))]
    return {"_window": ring, "_window_sum": float(total) if kept else 0.0, "_window_count": len(kept)}


def _read_average(where: str, saved: Any) -> tuple[list[float], float]:
    if saved is None:
        return [], 0.0
    if not isinstance(saved, Mapping):
        raise TypeError(f"{where} must be a dict, got {type(saved).__name__}")
    values = _plain_numbers(f"{where}['values']", saved.get("values", []))
    return values, counter(f"{where}['sum']", saved.get("sum", 0.0))
