"""Early stopping, decided on the device that has the metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat, TypeVar, cast, overload

import torch
from torch import Tensor, nn

from .. import _C
from ..engine import arrivals, ops
from ..engine.arrivals import Arrivals, check_deferred
from ..engine.capture import in_capture, refuse_capture
from ..engine.checkpoint import number, whole
from ..engine.judged_metric import SETTINGS, checked_setting
from ..engine.lr_buffer import LRBuffer
from ..engine.metric import as_plain, traced
from ..engine.program import NO_CHILDREN
from ..engine.reduction import (
    ReduceOp,
    Reduction,
    accelerator,
    check_group,
    reduction,
    warn_of_ranks,
    world_size,
)
from ..engine.replica import Replica
from ..engine.representation import counted, described, shown
from ..engine.untraced import untraced
from .training_state import distinct, reshard, sharded

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from typing_extensions import Never

_RULE = "EarlyStopping"
_COUNTERS: list[str] = _C.counter_names(_RULE)
_LAST, _BEST, _STOPPED, _IMPROVED = map(_COUNTERS.index, ("last_epoch", "best", "stopped_epoch", "improved"))
_FRACTIONS = ("best", "accumulated_metric", "smoothed_metric", "smoothed_weight")
_OPTIONAL: dict[str, Any] = _C.optional_attributes(_RULE)
_SETTINGS = ("mode", "patience", "threshold", "threshold_mode", "baseline", "start_after", "stop_on_nan", *SETTINGS)


F = TypeVar("F", bound=Callable[..., Any])


class _Bound:
    # A method that cannot be mistaken for its result: uncalled, it would always be true.

    __slots__ = ("_method",)
    __doc__ = property(lambda self: self._method.__doc__)

    def __init__(self, method: Any):
        self._method = method

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(*args, **kwargs)

    def __bool__(self) -> bool:
        raise TypeError(f"{self._method.__qualname__} is a method: call it, {self._method.__name__}()")


class _Called:
    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self._function if instance is None else _Bound(self._function.__get__(instance, owner))


def _called(function: F) -> F:
    return cast(F, _Called(function))


class EarlyStopping:
    r"""Decides when to stop training because a metric has stopped improving.

    A metric improves by the rule of :class:`fastsched.ReduceLROnPlateau` with ``threshold_mode="rel_abs"``, and epochs
    are counted as there: it stops once there have been more than ``patience`` bad epochs in a row. (Keras and
    Lightning stop one epoch sooner: ``patience_counts="keras"``.) Once stopped, it stays stopped; further steps still
    keep track of the best metric. An epoch is whatever lies between two calls of ``step()``.

    The counters live where the metric is. With metrics on a CUDA device, only ``should_stop`` and the other attributes
    wait for it::

        stopper = fastsched.EarlyStopping(patience=5, model=model)
        for epoch in range(100):
            ...
            if stopper.step(validation_loss):
                break
        stopper.restore_best()

    Args:
        mode: ``"min"`` if lower is better, ``"max"`` if higher is.
        patience: how many bad epochs in a row are tolerated.
        threshold: how much better than the best counts as better.
        threshold_mode: whether ``threshold`` is relative to the absolute value of the best (``"rel"``, or
            ``"rel_abs"``, which is the same here: a negative metric has to get better, too) or absolute (``"abs"``).
        baseline: a metric that has to be beaten; an epoch that does not beat it is a bad one.
        start_after: how many epochs at the start to ignore.
        stop_on_nan: whether a NaN metric stops at once. If not, it counts as a bad epoch.
        model: the model whose best weights, parameters and buffers, to keep in a second copy on the same devices. If
            the metric is on a device, the device itself makes the copy when it improves.
        device: where the counters live; by default on the host at first, then wherever the metrics are.
        accumulate: how many metrics are averaged into one, as in :class:`fastsched.ReduceLROnPlateau`: for stepping at
            every iteration. ``patience`` counts these means; ``last_epoch``, ``stopped_epoch`` and ``start_after``
            count steps. With ``stop_on_nan``, a NaN among them stops at once.
        smoothing: judge an exponential average, as there.
        patience_counts: ``"torch"``, or ``"keras"`` to stop at the last of ``patience`` bad epochs, as there.
        process_group: the ranks, for example ``torch.distributed.group.WORLD``, whose metrics are reduced to one by a
            collective before each decision, so that all of them stop in the same step. Every rank has to step. Without
            a group, each rank decides by its own metric; if there are several, a warning says so once.
        reduce_op: how the ranks' metrics are reduced: ``"mean"``, ``"sum"``, ``"min"`` or ``"max"``.
        deferred: keep the counters on the host, and do not wait for a metric on an accelerator of any kind: the first
            later step or :meth:`poll` that finds it on the host decides by it, as in
            :class:`fastsched.ReduceLROnPlateau`. Attributes then show what has been decided so far, without waiting.

    Raises:
        ValueError, TypeError: an argument is out of range, or this rank is not in ``process_group``.
        ValueError: ``deferred=True`` with a ``model``, whose weights would have changed by the time of the decision, or
            with a ``device`` other than the host.
        RuntimeError: ``device`` is a CUDA device and fastsched has no CUDA operators.

    All of these are attributes that may be written, except ``model`` and ``device``.
    """

    mode: Literal["min", "max"]
    patience: float
    threshold: float
    threshold_mode: Literal["rel", "abs", "rel_abs"]
    baseline: float | None
    start_after: int
    stop_on_nan: bool
    accumulate: int = 1
    smoothing: float = 0.0
    patience_counts: Literal["torch", "keras"] = "torch"
    _snapshots: _Snapshots

    def __init__(
        self,
        mode: Literal["min", "max"] = "min",
        patience: float = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs", "rel_abs"] = "rel",
        baseline: float | None = None,
        start_after: int = 0,
        stop_on_nan: bool = True,
        *,
        model: nn.Module | None = None,
        device: torch.device | str | None = None,
        accumulate: int = 1,
        smoothing: float = 0.0,
        patience_counts: Literal["torch", "keras"] = "torch",
        process_group: ProcessGroup | None = None,
        reduce_op: ReduceOp = "mean",
        deferred: bool = False,
    ) -> None:
        check_deferred(deferred)
        like_torchs = (mode, patience, threshold, threshold_mode, baseline, start_after, stop_on_nan)
        for name, value in zip(_SETTINGS, (*like_torchs, accumulate, smoothing, patience_counts), strict=True):
            self.__dict__[name] = _checked(name, value)
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if model is not None and any(map(nn.parameter.is_lazy, [*model.parameters(), *model.buffers()])):
            raise ValueError("model has parameters without a shape: run it once, then pass model=")
        place = None if device is None else torch.device(device)
        if place is not None and place.type not in ("cpu", "cuda"):
            raise ValueError(f"device must be a CPU or CUDA device, got {place}; pass device='cpu'")
        if deferred and model is not None:
            raise ValueError(
                "deferred=True cannot keep the best weights: by the time a metric arrives, the model has changed; "
                "leave out model, or leave out deferred, as metrics on a CUDA device are not waited for anyway"
            )
        if deferred and place is not None and place.type != "cpu":
            raise ValueError(f"deferred=True decides on the host, and device is {place}: leave out one of them")
        self._deferred = Arrivals() if deferred else None
        self._reduction = reduction(type(self).__name__, process_group, reduce_op)
        counters = [_no_best(mode) if name == "best" else 0.0 for name in _COUNTERS]
        self._stays = place is not None or deferred
        self._place(place if place is not None else torch.device("cpu"), counters)
        self._weights = _Weights(model) if model is not None else None

    @overload
    def step(self, metric: SupportsFloat, *, weight: Tensor | float | None = None) -> bool | Tensor: ...
    @overload
    def step(self, *, metrics: SupportsFloat, weight: Tensor | float | None = None) -> bool | Tensor: ...
    def step(
        self,
        metric: SupportsFloat | None = None,
        *,
        metrics: SupportsFloat | None = None,
        weight: Tensor | float | None = None,
    ) -> bool | Tensor:
        """Judge a metric.

        Args:
            metric: a number, a numpy scalar, or a tensor with one element of any real dtype on any device. A DTensor
                is gathered first, on all of its ranks; with a ``process_group`` the metric is reduced.
            metrics: the same, under the name that schedulers use.
            weight: how much this rank's metric counts in the mean over the ``process_group``, for example its number of
                samples; equal by default. 0 leaves the metric out, even a NaN.

        Returns:
            What :meth:`poll` returns. In a compiled or captured step, where the host cannot know that: a tensor of no
            dimensions on the device, true once it is time to stop. Using it as a condition waits.

        Raises:
            TypeError, ValueError, RuntimeError: ``metric`` is not a number; nothing is counted.
            ValueError: ``weight`` is negative, or there is no mean over a ``process_group``.

        Sync: does not wait for the device, unless ``device`` is the host and the metric is on a GPU and not deferred;
        with a ``process_group`` it waits for the previous step, as :meth:`poll` does.

        Capture: may be captured in a CUDA graph if it has been stepped with a metric on the device, or was constructed
        with that ``device``. A metric on the host would be frozen into the graph and raises RuntimeError.

        Compile: traces under ``fullgraph=True`` on the same condition. A deferred metric is refused in capture, and
        breaks the graph.
        """
        if metrics is not None:
            if metric is not None:
                raise TypeError("step() got the metric twice, as metric and as metrics=; pass it once")
            metric = metrics
        if metric is None:
            raise TypeError("metric must be a number, or a tensor with one element, got None")
        compiling = torch.compiler.is_compiling()
        if self._weights is not None:
            if not compiling:
                self._weights.gather_no_more()
                self._weights.check()
            elif not self._model_fits:
                return self._step_off_path(metric, weight)
        metric = self._reduced(metric, weight)
        if self._deferred is not None and (self._deferred or arrivals.is_away(metric)):
            return self._put_off(metric)
        if compiling:
            metric = traced(metric, self._replica.buffer.device)
        elif isinstance(metric, Tensor) and metric.is_cuda and self._replica.buffer.on_host and not self._stays:
            refuse_capture("its counters are on the host; step once before capturing, or pass device=")
            self._place(metric.device, self._replica.counters[: len(_COUNTERS)].tolist())
        self._replica.call(metric)
        if self._weights is not None:
            improved = self._replica.state[_IMPROVED]
            if compiling or not self._replica.buffer.on_host:
                self._weights.keep_if(improved)
            elif improved.item() != 0:
                self._weights.keep()
        if compiling or (not self._replica.buffer.on_host and in_capture()):
            return self._replica.state[_STOPPED] != 0
        return self._stepped()

    @untraced("the model has changed; construct a new EarlyStopping")
    def _step_off_path(self, metric: Any, weight: Any) -> bool | Tensor:
        return self.step(metric, weight=weight)

    @untraced("the metric is sent to the host, where a later step decides by it")
    def _put_off(self, metric: Tensor | float) -> bool:
        self._deferred.put_off(self, metric)  # type: ignore[union-attr]
        return self.should_stop

    def _decide(self, metric: float) -> None:
        """Make a deferred step."""
        self._replica.call(float(metric))

    def flush(self) -> None:
        """Make all pending decisions; without ``deferred=True`` there are none.

        Waits for the device; ``state_dict()`` and copying do this themselves. Raises RuntimeError inside CUDA graph
        capture.
        """
        if self._deferred:
            self._deferred.settle(self, wait=True)

    @property
    def deferred(self) -> bool:
        """Whether decisions wait until a metric has arrived on the host; set at construction."""
        return self._deferred is not None

    def _reduced(self, metric: Any, weight: Any) -> Tensor | float:
        """The metric to step with, as an operator reads it; reduced over the ranks if there is a group."""
        reduced, compiling = self._reduction, torch.compiler.is_compiling()
        if reduced is not None and reduced.group is None and not compiling:
            warn_of_ranks(type(self).__name__, metric)
        own: Tensor | float = as_plain(metric) if compiling else _plain(metric)
        if reduced is None or reduced.group is None:
            if weight is not None:
                raise ValueError("weight= is for a mean over ranks; construct EarlyStopping with process_group=")
            return own
        buffer = self._replica.buffer
        if self._deferred is not None:
            of_all, _ = reduced.reduce(own, accelerator(), weight)
            return cast(Tensor, of_all)
        follows = isinstance(own, Tensor) and buffer.on_host and not self._stays  # where the counters are about to go
        of_all, _ = reduced.reduce(own, own.device if follows else buffer.device, weight)  # type: ignore[union-attr]
        return cast(Tensor, of_all)

    def _stepped(self) -> bool:
        """What the host knows right after an eager step."""
        if self._replica.buffer.on_host:
            return self.should_stop
        if self._snapshots.wanted:
            self._snapshots.take(self._replica.counters)
        if self.process_group is None:
            return self.poll()
        return self._snapshots.stopped(1)

    @_C.untraced_property
    @untraced("it looks at modules")
    def _model_fits(self) -> bool:
        """Checked by a guard of torch.compile's before each compiled step."""
        try:
            self._weights.check()  # type: ignore[union-attr]
        except RuntimeError:
            return False
        return True

    @_called
    def poll(self, behind: int | None = None) -> bool:
        """Whether to stop, for the training loop to ask.

        Args:
            behind: answer for the step this many before the last one, so that every rank and every run gets the same
                answer. Waits for that step if need be. Then poll exactly once per step, because that is how the steps
                of a captured CUDA graph are counted. By default it answers with what has reached the host so far: it
                never waits, and with metrics on a GPU it may be a step or two late. With a ``process_group``, ranks
                could then stop at different steps, so there the default is 1 with metrics on a GPU, 0 on the host.

        Raises:
            TypeError, ValueError: ``behind`` is not a whole number, or is negative.

        Not for compiled code, nor inside graph capture; poll between the steps.
        """
        if behind is not None and (not isinstance(behind, int) or isinstance(behind, bool)):
            raise TypeError(f"behind must be an int, got {type(behind).__name__}")
        if behind is not None and behind < 0:
            raise ValueError(f"behind must be 0 or more, got {behind}")
        if self._deferred:
            return self._poll_deferred(behind)
        if self._replica.buffer.on_host:
            if not behind:
                return self.should_stop
            counters = self._replica.counters.tolist()
            return bool(0 < counters[_STOPPED] <= counters[_LAST] - behind)
        if behind is None and self.process_group is None:
            return bool(self._replica.peek()[_STOPPED] != 0)
        refuse_capture("poll between replays, and not in the graph")
        return self._snapshots.poll(self._replica.counters, 1 if behind is None else behind)

    def _poll_deferred(self, behind: int | None) -> bool:
        if behind is None and world_size() > 1:
            behind = 1
        self._deferred.settle(self, behind or 0, wait=behind is not None)  # type: ignore[union-attr]
        counters = self._replica.counters.tolist()
        given = counters[_LAST] + len(self._deferred)  # type: ignore[arg-type]
        return bool(0 < counters[_STOPPED] <= given - (behind or 0))

    @property
    def process_group(self) -> Any:
        """The ranks whose metrics are reduced before a step decides; None if each rank decides by its own.

        May be written: a copy (``copy.deepcopy``, ``pickle``) has no group, because a group belongs to its process.
        """
        return None if self._reduction is None else self._reduction.group

    @process_group.setter
    def process_group(self, group: Any) -> None:
        if group is not None:
            check_group(group)
        self._reduction = Reduction(group, "mean" if self._reduction is None else self._reduction.op)
        self._snapshots.wanted |= group is not None

    @property
    def should_stop(self) -> bool:
        """Whether to stop. With metrics on a CUDA device this waits for the device."""
        return self._replica.state[_STOPPED].item() != 0

    @property
    def best(self) -> float:
        """The best metric so far, infinite if there is none. Reading it may wait for the device, as below."""
        return float(self._replica.state[_BEST].item())

    @property
    def num_bad_epochs(self) -> int:
        """How many bad epochs there have been since the last good one."""
        return int(self._counters()["num_bad_epochs"])

    @property
    def last_epoch(self) -> int:
        """How many metrics it has been given."""
        return int(self._counters()["last_epoch"])

    @property
    def stopped_epoch(self) -> int | None:
        """The epoch, counted from 1, in which it decided to stop; None if it has not."""
        return int(self._counters()["stopped_epoch"]) or None

    def restore_best(self) -> None:
        """Put the weights of the best metric back into the model, or the initial ones if no metric has improved.

        Writes in place, without waiting for a device; may be captured.

        Raises RuntimeError if there is no ``model``.
        """
        if self._weights is None:
            raise RuntimeError("restore_best() has no weights to restore: construct EarlyStopping with model=")
        self._weights.gather_no_more()
        self._weights.check()
        self._weights.restore()

    def state_dict(self) -> dict[str, Any]:
        """Counters and settings as plain Python values and, if there is a model, copies of its ``"best_weights"``.

        Can be loaded from a file with ``torch.load(..., weights_only=True)``. May wait for the device; with
        ``deferred=True`` it waits for all metrics.
        """
        self.flush()
        state = {name: getattr(self, name) for name in _SETTINGS} | self._counters()
        if self._weights is not None:
            state["best_weights"] = self._weights.state()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned into the existing storage: captured CUDA graphs continue from it.

        Raises a KeyError, TypeError or ValueError that names the key at fault, and then changes nothing.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dict, got {type(state_dict).__name__}")
        for name in (*_SETTINGS, *_COUNTERS, *(["best_weights"] if self._weights is not None else [])):
            if name not in state_dict and name not in _OPTIONAL:
                raise KeyError(f"state_dict has no {name!r}; it is not the state of an EarlyStopping like this one")
        settings = {name: _checked(name, state_dict[name]) for name in _SETTINGS if name in state_dict}
        counters = []
        for name in _COUNTERS:
            place = f"state_dict[{name!r}]"
            value = state_dict.get(name, _OPTIONAL.get(name))
            value = float(number(place, value)) if name in _FRACTIONS else whole(place, value)
            packed = _C.pack_counter(_RULE, name, value)
            if packed is None:
                raise ValueError(f"{place} must be a valid count, got {value!r}")
            counters.append(packed[1])
        weights = state_dict.get("best_weights", {})
        if _shapes(weights) != ({} if self._weights is None else _shapes(self._weights.best)):
            raise ValueError("state_dict['best_weights'] do not fit this model: pass the model that they came from")
        if any(weight.is_meta for weight in weights.values()):
            raise ValueError("state_dict['best_weights'] must have data: some are on the meta device")
        refuse_capture("a state is loaded; load it before the capture")
        if self._weights is not None:
            self._weights.load(weights)
        if self._deferred is not None:
            self._deferred.forget()  # metrics of the abandoned run
        vars(self).update(settings)
        self._upload()
        self._snapshots = _Snapshots(wanted=self._snapshots.wanted)
        self._replica.state[: len(_COUNTERS)] = torch.tensor(counters, dtype=torch.float64, device="cpu")
        if self._replica.mirror is not None:
            self._mirror(counters)

    def __setattr__(self, name: str, value: Never) -> None:  # Never: type checkers then reject undeclared names
        if name not in _SETTINGS:
            super().__setattr__(name, value)
            return
        value = _checked(name, value)
        refuse_capture("a setting was written; write it before the capture")
        before = self.mode
        self.__dict__[name] = value
        self._upload()
        if value != before and name == "mode" and self._counters()["last_epoch"] <= self.start_after:
            self._replica.state[_BEST] = _no_best(value)

    def __getstate__(self) -> dict[str, Any]:
        # Without the addresses in the device's state.
        self.flush()
        buffer = self._replica.buffer
        kept = {name: getattr(self, name) for name in (*_SETTINGS, "_reduction", "_stays", "_weights")}
        kept["_deferred"] = None if self._deferred is None else Arrivals()
        return kept | {"_placed": (buffer.device, self._replica.counters[: len(_COUNTERS)].tolist())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        placed = state.pop("_placed")
        self.__dict__.update({"_reduction": None, "_deferred": None, **state})
        self._place(*placed)

    def __repr__(self) -> str:
        """Settings and counters, without waiting for a device."""
        texts = {name: shown(getattr(self, name)) for name in _SETTINGS}
        if self.deferred:
            texts["deferred"] = "True"
        if self._weights is not None:
            texts["model"] = self._weights.kind
        devices = [str(self._replica.buffer.device)]
        texts["last_epoch"] = counted(devices, lambda: self.last_epoch)
        texts["stopped_epoch"] = counted(devices, lambda: self.stopped_epoch)
        return described(self, texts)

    def _counters(self) -> dict[str, Any]:
        counters: dict[str, Any] = _C.unpack_counters(_RULE, self._replica.counters.tolist())
        return counters

    def _program(self) -> Tensor:
        numbers = {
            "mode": self.mode,
            "threshold_mode": "abs" if self.threshold_mode == "abs" else "rel_abs",
            "threshold": self.threshold,
            "patience": self.patience,
            "baseline": math.nan if self.baseline is None else self.baseline,
            "start_after": self.start_after,
            "stop_on_nan": float(self.stop_on_nan),
            **{name: getattr(self, name) for name in SETTINGS},
        }
        packed = _C.pack_node(_RULE, numbers, [], [], [], 0, *NO_CHILDREN)
        assert packed is not None  # _checked has refused everything else
        return torch.frombuffer(bytearray(packed), dtype=torch.float64)

    def _upload(self) -> None:
        self._replica.program.copy_(self._program(), non_blocking=True)

    @torch.inference_mode(False)
    def _place(self, device: torch.device, counters: list[float]) -> None:
        """Keep the counters on this device from now on."""
        ops.require(device)
        state = torch.zeros(_C.NODE_STATE_SIZE, dtype=torch.float64, device="cpu")
        state[: len(counters)] = torch.tensor(counters, dtype=torch.float64, device="cpu")
        no_lrs = torch.empty(0, dtype=torch.float64, device=device)
        buffer = LRBuffer([], no_lrs, no_lrs.clone(), [])
        self._replica = Replica(
            buffer, [], self._program().to(device, non_blocking=True), state.to(device, non_blocking=True)
        )
        self._snapshots = _Snapshots(wanted=self.process_group is not None)
        if not buffer.on_host:
            self._mirror(counters)

    def _mirror(self, counters: list[float]) -> None:
        """Make steps leave the counters in host memory, so that not even the first poll waits."""
        numbers = torch.zeros(_C.NODE_COUNTERS, dtype=torch.float64, device="cpu")
        numbers[: len(counters)] = torch.tensor(counters, dtype=torch.float64, device="cpu")
        self._replica.reflect(numbers)


class _Snapshots:
    """The counters after each of the last steps, as they reach the host."""

    def __init__(self, *, wanted: bool):
        self.wanted = wanted  # eager steps should take one
        self._sent = Arrivals()
        self._unasked = False  # the last one is of a step that has not been polled yet
        self._kept = 2

    def take(self, counters: Tensor) -> None:
        self._sent.send(counters)
        self._sent.forget(self._kept)
        self._unasked = True

    def poll(self, counters: Tensor, behind: int) -> bool:
        self.wanted = True
        self._kept = max(self._kept, behind + 1)
        if not self._unasked:  # a captured graph or compiled code has stepped
            self.take(counters)
        self._unasked = False
        return self.stopped(behind)

    def stopped(self, behind: int) -> bool:
        """Whether it had stopped ``behind`` steps before the last one."""
        back = min(behind, len(self._sent) - 1)
        [counters] = self._sent.wait(back)
        return bool(0 < counters[_STOPPED] <= counters[_LAST] + back - behind)  # one snapshot is one step


_ANEW = "construct a new one"


class _Weights:
    """The parameters and buffers of a model, and copies of the best ones."""

    @torch.inference_mode(False)
    def __init__(self, model: nn.Module):
        self.kind = type(model).__name__
        self._shards = sharded([model])
        reshard(self._shards)
        # The place of each tensor rather than the tensor: modules, ``model.double()`` and loading replace tensors.
        self._modules = [
            (parent._modules, name, module)
            for parent in model.modules()
            for name, module in parent._modules.items()
            if module is not None
        ]
        self._places: dict[str, tuple[dict[str, Any], str]] = {}
        for path, module in model.named_modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        self._places[f"{path}.{name}" if path else name] = (tensors, name)
        self.best: dict[str, Tensor] = {
            name: tensors[key].detach().clone() for name, (tensors, key) in self._places.items()
        }

    def gather_no_more(self) -> None:
        """Make FSDP2 put its shards back in place, where a forward may have put gathered parameters."""
        reshard(self._shards)

    def check(self) -> None:
        """Raise RuntimeError if a module or a tensor is no longer in its place."""
        for modules, name, module in self._modules:
            if modules.get(name) is not module:
                raise RuntimeError(f"{name!r} of the model was replaced after EarlyStopping was constructed: {_ANEW}")
        for name, (tensors, key) in self._places.items():
            weight, best = tensors.get(key), self.best[name]
            if weight is None:
                raise RuntimeError(f"the model no longer has {name}: {_ANEW}")
            if weight.shape != best.shape:
                raise RuntimeError(
                    f"{name} of the model changed its shape after EarlyStopping was constructed, "
                    f"from {tuple(best.shape)} to {tuple(weight.shape)}: {_ANEW}"
                )

    def _now(self) -> Iterator[tuple[str, Tensor]]:
        for name, (tensors, key) in self._places.items():
            yield name, tensors[key].detach()

    def keep(self) -> None:
        for name, weight in self._now():
            self._fitting(name, weight).copy_(weight)

    def keep_if(self, improved: Tensor) -> None:
        """The same if ``improved`` is not 0, which each device checks itself."""
        flags: dict[torch.device, Tensor] = {}
        for name, tensor in self._now():
            # Each rank handles its own part of a DTensor: where() cannot mix DTensors with a plain tensor.
            weight, best = map(_local, (tensor, self._fitting(name, tensor)))
            if best.device not in flags:
                flags[best.device] = improved.to(best.device, non_blocking=True) != 0
            torch.where(flags[best.device], weight, best, out=best)

    @torch.no_grad()
    def restore(self) -> None:
        for name, (tensors, key) in self._places.items():
            weight = tensors[key]
            distinct(weight).copy_(distinct(self.best[name], weight), non_blocking=True)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        # Convert all of them before writing any: only the conversion can fail.
        fitting = {name: weight.detach().to(self.best[name]) for name, weight in weights.items()}
        for name, weight in fitting.items():
            self.best[name].copy_(weight)

    def state(self) -> dict[str, Tensor]:
        return {name: weight.clone() for name, weight in self.best.items()}

    def _fitting(self, name: str, weight: Tensor) -> Tensor:
        """The copy, moved to the weight's current device and dtype."""
        best = self.best[name]
        if (best.device, best.dtype) == (weight.device, weight.dtype):
            return best
        refuse_capture("the model has moved; step once before capturing")
        with torch.inference_mode(False):
            self.best[name] = weight.clone() if best.is_meta else best.to(weight.device, weight.dtype)
        return self.best[name]


def _local(tensor: Tensor) -> Tensor:
    part: Tensor = tensor.to_local() if hasattr(type(tensor), "to_local") else tensor  # type: ignore[attr-defined]
    return part


def _plain(metric: Any) -> Tensor | float:
    """The metric as an operator reads it, or an error that names it."""
    problem = "metric must be a number, or a tensor with one element"
    if metric is None:
        raise TypeError(f"{problem}, got None")
    try:
        return as_plain(metric)
    except (TypeError, ValueError, RuntimeError) as error:
        for kind in (TypeError, ValueError, RuntimeError):
            if isinstance(error, kind):
                raise kind(f"{problem}, got {type(metric).__name__}: {error}") from error
        raise


def _no_best(mode: str) -> float:
    return math.inf if mode == "min" else -math.inf


def _shapes(weights: Any) -> dict[str, torch.Size]:
    if not isinstance(weights, Mapping) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise ValueError("state_dict['best_weights'] must be tensors by name, as state_dict() returns them")
    return {name: weight.shape for name, weight in weights.items()}


def _checked(name: str, value: Any) -> Any:
    """The value of a setting as a plain Python one, or an error that names it."""
    if name in SETTINGS:
        return checked_setting(name, value)
    if name in ("mode", "threshold_mode"):
        choices = ("min", "max") if name == "mode" else ("rel", "abs", "rel_abs")
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{name} must be {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}, got {value!r}")
        return value
    if name == "stop_on_nan":
        if not isinstance(value, bool):
            raise TypeError(f"stop_on_nan must be True or False, got {value!r}")
        return value
    if name == "baseline" and value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = int(float(value)) if isinstance(value, int) else float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    least = -math.inf if name == "baseline" else 0
    if not number >= least:
        raise ValueError(f"{name} must be {'a number' if name == 'baseline' else '0 or more'}, got {value!r}")
    return number
