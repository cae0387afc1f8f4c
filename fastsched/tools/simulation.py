"""What a scheduler is going to do: the learning rates of future steps, without taking them."""

from __future__ import annotations

import copy
import inspect
import operator
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import Parameter
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsFloat

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchReduceLROnPlateau
from torch.overrides import TorchFunctionMode

from ..engine import lr_buffer
from ..engine.capture import in_capture
from ..schedulers.base import _EngineScheduler
from ..schedulers.compose import _Composite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Metrics = Iterable[SupportsFloat] | SupportsFloat

MOST = 5 * 10**8  # learning rates: 4 GB and, for one param group, about ten minutes


def simulate(scheduler: Any, steps: int, metrics: Metrics | None = None) -> NDArray[np.float64]:
    """The learning rates of the next ``steps`` steps, starting from the scheduler's current state.

    Works by stepping a copy, and so for any scheduler: fastsched's, torch's, your own, and compositions of them. It
    agrees with actual steps to the last bit; on a GPU, whose ``pow`` and ``cos`` are not the host's, to the last place
    of a double.

    Args:
        scheduler: anything with ``step()`` and an ``optimizer`` that has ``param_groups``.
        steps: how many steps, 0 or more. Each takes one or two microseconds, and 8 bytes per param group.
        metrics: what a ``ReduceLROnPlateau`` in it is given: at least one number per step, starting with the first
            step, or one number for all of them.

    Returns:
        float64, of shape ``(steps + 1, groups)``: the current learning rates in row 0, those after ``i`` steps in row
        ``i``.

    Raises:
        TypeError, ValueError: ``steps`` is not a whole number, or negative, or makes more than 500 million learning
            rates; ``metrics`` has fewer numbers than steps, or is missing where a step needs one; the scheduler cannot
            be copied.
        ImportError: NumPy is not installed.
        RuntimeError: inside CUDA graph capture.

    Errors raised by a step are passed on, for example beyond the ``total_steps`` of a ``OneCycleLR``.

    Scheduler, optimizer and random number generators are left as they were, even after an error or interrupt. Neither
    parameters nor optimizer state are copied: the copy's parameters have a shape but no values, so a scheduler of your
    own that reads weights raises. A scheduler's attributes are copied; functions, such as those of a ``LambdaLR``, are
    called as they are.

    Waits for the device if learning rates or counters are on one; the steps are taken on the host.

    Example::

        scheduler = fastsched.CosineAnnealingLR(optimizer, T_max=100)
        lrs = fastsched.simulate(scheduler, 100)  # lrs[50, 0] is what the first group has after 50 steps
    """
    return look_ahead(scheduler, steps, metrics).lrs


class Ahead(NamedTuple):
    """What :func:`simulate` returns, and the same for momentum if it is cycled."""

    lrs: NDArray[np.float64]
    momenta: NDArray[np.float64] | None


def look_ahead(scheduler: Any, steps: int, metrics: Metrics | None = None) -> Ahead:
    """Do what :func:`simulate` says."""
    try:
        import numpy as np
    except ImportError as error:
        raise ImportError("simulate returns a NumPy array: pip install 'fastsched[plot]', or numpy") from error

    if in_capture():
        raise RuntimeError("simulate cannot be captured in a CUDA graph: it reads the learning rates; call it before")
    count = _count(steps)
    series = None if metrics is None else metric_series(metrics, count)
    with torch.inference_mode(False), torch.no_grad(), _random_numbers_kept(), _twin_of(scheduler) as twin:
        groups = twin.optimizer.param_groups
        _count(steps, len(groups))
        lrs = np.empty((count + 1, len(groups)))
        lrs[0] = [float(group["lr"]) for group in groups]
        takes_metric = _takes_metric(twin)
        momenta = np.empty_like(lrs) if _cycles_momentum(twin) else None
        if momenta is not None:
            momenta[0] = list(map(_momentum, groups))
        if isinstance(twin, _Composite):
            twin._expect_no_metric()  # without metrics, the first step that needs one raises
        for step in range(count):
            if takes_metric is None:
                twin.step()
            elif series is None and _needs_metric(twin):
                raise ValueError(
                    f"metrics: step {step + 1} of this {type(twin).__name__} needs a metric, but none was given; pass "
                    "one number per step, or one for all"
                )
            elif takes_metric is Parameter.KEYWORD_ONLY:
                twin.step(metrics=None if series is None else series[step])
            else:
                twin.step(None if series is None else series[step])
            lrs[step + 1] = [float(group["lr"]) for group in groups]
            if momenta is not None:
                momenta[step + 1] = list(map(_momentum, groups))
    return Ahead(lrs, momenta)


def _momentum(group: dict[str, Any]) -> float:
    """SGD's momentum, or the first of Adam's betas."""
    momentum = group["momentum"] if "momentum" in group else group.get("betas", (float("nan"),))[0]
    return float(momentum)


def _cycles_momentum(scheduler: Any) -> bool:
    children = getattr(scheduler, "_schedulers", [])
    return getattr(scheduler, "cycle_momentum", False) or any(map(_cycles_momentum, children))


def metric_series(metrics: Metrics, steps: int) -> list[float]:
    """One number for each step, from a series or a constant."""
    if isinstance(metrics, (str, bytes, dict)):
        raise TypeError(f"metrics must be numbers, one per step, or one number for all; got {type(metrics).__name__}")
    _count(steps)
    values: Any = metrics.tolist() if isinstance(metrics, Tensor) else metrics
    try:
        values = iter(values)
    except TypeError:
        return [_number(metrics, "metrics")] * steps
    series = [_number(value, f"metrics[{index}]") for index, value in enumerate(islice(values, steps))]
    if len(series) < steps:
        raise ValueError(f"metrics has {len(series)} numbers for {steps} steps; give one per step, or take fewer steps")
    return series


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a number, got {value!r}") from error


def _count(steps: int, groups: int = 1) -> int:
    if isinstance(steps, bool):
        raise TypeError("steps must be an int, got bool")
    try:
        count = operator.index(steps)
    except TypeError:
        raise TypeError(f"steps must be an int, got {type(steps).__name__}") from None
    if count < 0:
        raise ValueError(f"steps must be 0 or more, got {count}")
    if (count + 1) * groups > MOST:
        raise ValueError(
            f"steps must be less than {MOST // groups} with {groups} param group{'s' * (groups > 1)}: every step is "
            f"taken, and its learning rates are kept, {MOST} at most"
        )
    return count


def _takes_metric(scheduler: Any) -> Any:
    """How ``step()`` takes a metric, as a kind of ``inspect.Parameter``; None if it reads none."""
    if isinstance(scheduler, TorchReduceLROnPlateau):
        return Parameter.POSITIONAL_OR_KEYWORD
    if isinstance(scheduler, _EngineScheduler) and not scheduler._takes_metrics and scheduler._is_native():
        return None  # it accepts one by keyword but ignores it
    metrics = inspect.signature(scheduler.step).parameters.get("metrics")
    return None if metrics is None else metrics.kind


def _needs_metric(scheduler: Any) -> bool:
    """Whether the next step needs a metric."""
    if isinstance(scheduler, TorchReduceLROnPlateau):
        return True
    if isinstance(scheduler, _Composite):
        return scheduler._needs_metric()
    metrics = inspect.signature(scheduler.step).parameters["metrics"]
    return metrics.default is metrics.empty


class _StandIn(Optimizer):
    """A copy of an optimizer's groups, without weights, for a scheduler to step; it claims to have stepped."""

    _opt_called = True

    def __init__(self, original: Any, memo: dict[int, Any]):
        self._original = original
        self._memo = memo
        super().__init__([torch.empty(0, device="cpu")], {})
        del self.defaults  # so that __getattr__ returns the original's
        del self.param_groups  # until the scheduler is copied, or the copy would choose an engine and resume

    def __getattr__(self, name: str) -> Any:
        # User code may ask for more than the groups; a method is copied as a method of this object.
        if name == "param_groups" or name.startswith("__"):
            raise AttributeError(name)
        with _CopiesOnHost():
            return copy.deepcopy(getattr(self._original, name), self._memo)

    def step(self, closure: Any = None) -> Any:
        """Do nothing: there are no weights."""

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


@contextmanager
def _twin_of(scheduler: Any) -> Iterator[Any]:
    """A copy of the scheduler with a stand-in for its optimizer, on the host."""
    if not hasattr(getattr(scheduler, "optimizer", None), "param_groups") or not hasattr(scheduler, "step"):
        raise TypeError(
            f"scheduler must have step() and an optimizer with param_groups; got {type(scheduler).__name__}"
        )
    memo: dict[int, Any] = {}
    try:
        yield _twin(scheduler, memo)
    finally:
        memo.clear()  # it and the stand-ins refer to each other, and would stay until the garbage collector runs


def _twin(scheduler: Any, memo: dict[int, Any]) -> Any:
    stand_ins = [_StandIn(optimizer, memo) for optimizer in _optimizers(scheduler.optimizer)]
    for stand_in in stand_ins:
        memo[id(stand_in._original)] = stand_in
        for group in stand_in._original.param_groups:
            memo.update({id(parameter): _shape_of(parameter) for parameter in group["params"]})
        lr_buffer.duplicate(stand_in._original, stand_in, memo)
    try:
        with _CopiesOnHost():
            twin = copy.deepcopy(scheduler, memo)
            groups = [copy.deepcopy(stand_in._original.param_groups, memo) for stand_in in stand_ins]
    except Exception as error:
        raise TypeError(
            f"simulate steps a copy, and this {type(scheduler).__name__} cannot be copied: {error}; remove what "
            "copy.deepcopy refuses, or give it a __deepcopy__"
        ) from error
    for stand_in, param_groups in zip(stand_ins, groups, strict=True):
        stand_in.param_groups = param_groups
    if isinstance(twin, _EngineScheduler):
        twin._attend(_reduction=None)  # no process group: metrics are taken as already reduced
    return twin


def _optimizers(optimizer: Any) -> list[Any]:
    """The optimizer and any that it wraps."""
    found: list[Any] = []
    waiting = [optimizer]
    while waiting:
        one = waiting.pop()
        if any(one is other for other in found):
            continue
        found.append(one)
        for value in getattr(one, "__dict__", {}).values():
            values = value if isinstance(value, (list, tuple)) else [value]
            waiting += [item for item in values if isinstance(item, Optimizer)]
    return found


def _shape_of(parameter: Tensor) -> Tensor:
    shape = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
    return torch.nn.Parameter(shape, requires_grad=parameter.requires_grad)


class _CopiesOnHost(TorchFunctionMode):
    """Makes ``copy.deepcopy`` copy tensors to the host, even if they are part of an autograd graph."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not Tensor.__deepcopy__ or type(args[0]) is not Tensor:
            return function(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().to("cpu", copy=True).requires_grad_(tensor.requires_grad)
        return memo[id(tensor)]


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Around user code that may draw random numbers."""
    import numpy as np

    state, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
