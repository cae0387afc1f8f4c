"""The learning-rate range test: a short trial run with a learning rate that rises until the loss diverges."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from inspect import Parameter, signature
from math import inf
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.data import Dataset, IterableDataset

from ..engine.arrivals import Arrivals
from ..engine.reduction import Reduction, warn_of_ranks, world_size
from .range_test_result import LRRangeTestResult
from .training_state import preserved

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

LossOfBatch = Callable[[nn.Module, Any], Tensor]


def lr_range_test(
    model: nn.Module,
    optimizer: Optimizer,
    criterion: Callable[[Any, Any], Tensor] | None,
    train_loader: Iterable[Any],
    *,
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    num_iter: int = 100,
    mode: Literal["exp", "linear"] = "exp",
    smoothing: float = 0.05,
    divergence_factor: float = 4.0,
    accumulation_steps: int = 1,
    step_fn: LossOfBatch | None = None,
    validation_loader: Iterable[Any] | None = None,
    progress: bool = True,
    process_group: ProcessGroup | None = None,
) -> LRRangeTestResult:
    """Train for ``num_iter`` steps while the learning rate rises from ``start_lr`` to ``end_lr``, then undo everything.

    The range test of Smith (Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186), with the
    exponential growth, smoothing and stop at divergence of Gugger (How Do You Find A Good Learning Rate, 2018), as in
    fastai and torch-lr-finder.

    Afterwards, even after an exception or Ctrl-C, these are bit for bit what they were: the model's parameters, buffers
    and gradients, in the same storage, and which submodules are in training mode; the optimizer's state, groups and
    learning rates; the loaders' generators; the global random state of torch, CUDA, Python and NumPy. Attached
    schedulers are neither stepped nor disturbed. Other attributes of modules, and the state of datasets, are not
    restored.

    Args:
        model: on one device, the CPU or a CUDA device. It is put into training mode. If it is already in it, its
            submodules stay in the mode that they have, so layers frozen by ``eval()`` stay frozen.
        optimizer: of the model's parameters, or some of them. If its groups have different learning rates (initial
            ones, if a scheduler is attached), the largest follows the curve and the others keep their ratio to it. A
            tensor learning rate is written in place. An optimizer that needs a closure, as LBFGS does, is refused.
        criterion: computes the loss from the model's outputs and the targets; None with a ``step_fn``.
        train_loader: yields batches ``(inputs, targets)`` of tensors, or of dicts, lists and tuples of tensors, which
            are moved to the model's device. It starts over as often as needed. Running persistent workers of a
            DataLoader are left alone, and others are started meanwhile.
        start_lr: the first learning rate, positive.
        end_lr: the last, larger than ``start_lr``.
        num_iter: how many steps of the optimizer, 2 or more.
        mode: ``"exp"``, each learning rate the same multiple of the one before, or ``"linear"``.
        smoothing: weight of the newest loss in the exponential moving average, below 1: the smaller, the smoother. The
            average is bias-corrected, as Adam's are. 0 switches smoothing off, as 1 would.
        divergence_factor: the loss diverges if it is not finite, or if the smoothed loss is more than this multiple of
            its lowest value so far; if that is negative, more than ``divergence_factor - 1`` times its size above it.
            More than 1.
        accumulation_steps: how many batches a step accumulates gradients over; the recorded loss is their mean.
        step_fn: ``step_fn(model, batch)`` computes the loss of a batch of any kind, instead of ``criterion``. The place
            for ``torch.autocast``.
        validation_loader: if given, the recorded loss is the mean loss of its batches after each step, in evaluation
            mode and without gradients, instead of that of the training batches.
        progress: show a progress bar, if tqdm is installed (``pip install "fastsched[range-test]"``).
        process_group: the ranks that train together, for example ``torch.distributed.group.WORLD``. The recorded loss
            is then the mean of theirs, so that all have the same curve and suggestion, and stop together. Every rank
            has to call. Without a group each rank has the curve of its own losses, and a warning says so once.

    Returns:
        Learning rates and losses up to where the loss diverged, with suggestions and a plot.

    Raises:
        TypeError: an argument has the wrong type, a batch is not a pair, or a loss is not a tensor.
        ValueError: an argument is not as described, this rank is not in ``process_group``, a loader is empty or an
            iterator that ended too early, or a loss has several elements or does not require grad.

    The message names the argument and the fix. Errors that only show up in training are raised after everything has
    been restored.

    Waits for the device before the first step and after the last, not in between: losses stay on the device, which also
    decides where they diverge. On CUDA the host sees that in pinned memory, perhaps some steps later; the result ends
    where the device says. The optimizer itself may wait: see :func:`fastsched.use_tensor_lr`. With a ``process_group``
    on CUDA the host waits for the step before the last one, so that all ranks stop at the same step. If several
    processes train together without a group, none stops early, since the others would wait for it. Holds a second copy
    of parameters, buffers, gradients and optimizer state. Must not be called inside CUDA graph capture.

    Example::

        result = fastsched.lr_range_test(model, optimizer, torch.nn.CrossEntropyLoss(), loader)
        scheduler = fastsched.OneCycleLR(optimizer, max_lr=result.suggestion(), total_steps=1000)
    """
    device = _check_model(model)
    _check_optimizer(optimizer, model)
    _check_settings(start_lr, end_lr, num_iter, mode, smoothing, divergence_factor, accumulation_steps)
    _check_loader("train_loader", train_loader)
    if validation_loader is not None:
        _check_loader("validation_loader", validation_loader)
    loss_of = _loss_function(criterion, step_fn)
    ratios = _lr_ratios(optimizer)
    lrs = _curve(start_lr, end_lr, num_iter, mode)
    reduced = None if process_group is None else Reduction(process_group, "mean")
    if reduced is None:
        warn_of_ranks("lr_range_test", what="has the curve of its own losses", stacklevel=3)
    history = _LossHistory(device, num_iter, smoothing, divergence_factor, reduced)
    stops_early = reduced is not None or world_size() == 1

    modules = [module for module in (model, criterion) if isinstance(module, nn.Module)]
    loaders = [loader for loader in (train_loader, validation_loader) if loader is not None]
    with preserved(modules, optimizer, loaders), torch.enable_grad(), _steps(num_iter, progress) as steps:
        for module in modules:
            if not module.training:
                module.train()
        batches = _cycled(train_loader, num_iter * accumulation_steps)
        try:
            for step in steps:
                _write_lrs(optimizer, ratios, lrs[step])
                optimizer.zero_grad()
                loss = _accumulate(model, loss_of, batches, accumulation_steps, device)
                optimizer.step()
                if validation_loader is not None:
                    loss = _validate(modules, loss_of, validation_loader, device)
                history.add(step, loss)
                if stops_early and history.seen_to_diverge():
                    break
        finally:
            batches.close()
        losses, smoothed, diverged_at = history.read()
    return LRRangeTestResult(
        lrs=lrs[: len(losses)],
        losses=losses,
        smoothed=smoothed,
        mode=mode,
        num_iter=num_iter,
        diverged_at=diverged_at,
        diverged_lr=None if diverged_at is None else lrs[diverged_at],
    )


class _LossHistory:
    """The losses so far, raw and smoothed, and where they diverge, all on the device."""

    def __init__(
        self,
        device: torch.device,
        num_iter: int,
        smoothing: float,
        divergence_factor: float,
        reduction: Reduction | None = None,
    ):
        self._reduction = reduction
        self._smoothing = smoothing
        self._factor = divergence_factor
        self._records = torch.full((3, num_iter), torch.nan, dtype=torch.float64, device=device)
        self._average = torch.zeros((), dtype=torch.float64, device=device)
        self._lowest = torch.full((), inf, dtype=torch.float64, device=device)
        self._diverged = torch.zeros((), dtype=torch.bool, device=device)
        # What the host looks at. On CUDA each step sends a copy to pinned memory, and the host sees what has arrived.
        self._seen = self._diverged
        # If there are several ranks, all of them look at the same step.
        self._sent = Arrivals() if reduction is not None and device.type != "cpu" else None
        if device.type == "cuda" and self._sent is None:
            self._seen = torch.zeros((), dtype=torch.bool, device="cpu", pin_memory=True)

    @torch.no_grad()
    def add(self, step: int, loss: Tensor) -> None:
        """Record the loss of this step, a float64 tensor of no dimensions. Never waits for the device."""
        if self._reduction is not None:
            of_all, _ = self._reduction.reduce(loss, loss.device)
            loss = cast(Tensor, of_all).to(loss.device)
        smoothed = self._smooth(step, loss)
        torch.minimum(self._lowest, smoothed, out=self._lowest)
        # The second is larger if the lowest loss is negative.
        limit = torch.maximum(self._lowest * self._factor, self._lowest * (2 - self._factor))
        diverges = (smoothed > limit) | ~torch.isfinite(loss)
        self._diverged |= diverges
        for record, value in zip(self._records, (loss, smoothed, diverges), strict=True):
            record[step].copy_(value)
        if self._sent is not None:
            self._sent.send(self._diverged)
            self._sent.forget(2)
        elif self._seen is not self._diverged:
            self._seen.copy_(self._diverged, non_blocking=True)

    def _smooth(self, step: int, loss: Tensor) -> Tensor:
        if self._smoothing == 0:
            return loss
        self._average.mul_(1 - self._smoothing).add_(loss * self._smoothing)
        return self._average / (1 - (1 - self._smoothing) ** (step + 1))

    def seen_to_diverge(self) -> bool:
        """Whether the host knows by now that the loss has diverged.

        Does not wait for a CUDA device, except for the step before the last one if all ranks have to agree.
        """
        if self._sent is not None:
            return len(self._sent) > 1 and self._sent.wait(1) != [0]
        return bool(self._seen.item())

    def read(self) -> tuple[list[float], list[float], int | None]:
        """Losses and smoothed losses before the step that diverged, and that step. Waits for the device."""
        losses, smoothed, diverges = self._records.tolist()
        diverged_at = diverges.index(1.0) if 1.0 in diverges else None
        return losses[:diverged_at], smoothed[:diverged_at], diverged_at


def _accumulate(
    model: nn.Module, loss_of: LossOfBatch, batches: Iterator[Any], count: int, device: torch.device
) -> Tensor:
    """Accumulate the gradients of the mean loss of the next ``count`` batches, and return that mean."""
    total = torch.zeros((), dtype=torch.float64, device=device)
    for _ in range(count):
        loss = _checked(loss_of(model, _moved(next(batches), device)))
        if not loss.requires_grad:
            raise ValueError(
                "the loss does not require grad: make criterion or step_fn compute it from the model's outputs without "
                "detach(), .item() or torch.no_grad()"
            )
        (loss / count).backward()
        total += _as_scalar(loss)
    return total / count


@torch.no_grad()
def _validate(modules: list[nn.Module], loss_of: LossOfBatch, loader: Iterable[Any], device: torch.device) -> Tensor:
    """The mean over the loader's batches of the loss in evaluation mode."""
    modes = [(module, module.training) for root in modules for module in root.modules()]
    for root in modules:
        root.eval()
    total = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    for batch in loader:
        total += _as_scalar(_checked(loss_of(modules[0], _moved(batch, device))))
        count += 1
    for module, training in modes:
        module.training = training
    if count == 0:
        raise ValueError(
            "validation_loader gave no batch: it is empty, or an exhausted iterator; pass a DataLoader or a list"
        )
    return total / count


def _checked(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor):
        raise TypeError(f"the loss must be a tensor, got {type(loss).__name__}: return one from criterion or step_fn")
    if loss.numel() != 1:
        raise ValueError(
            f"the loss must have one element, got shape {tuple(loss.shape)}: reduce it, for example with .mean()"
        )
    return loss


def _as_scalar(loss: Tensor) -> Tensor:
    return loss.detach().reshape(()).double()


def _cycled(loader: Iterable[Any], needed: int) -> Generator[Any, None, None]:
    """The loader's batches, over and over."""
    given = 0
    while True:
        before = given
        for batch in loader:
            given += 1
            yield batch
        if given == 0:
            raise ValueError("train_loader is empty: it gave no batch")
        if given == before:
            raise ValueError(
                f"train_loader ended after {given} of {needed} batches and cannot start over: pass a DataLoader or a "
                "list instead of an iterator, or lower num_iter"
            )


def _moved(batch: Any, device: torch.device) -> Any:
    """The batch with all tensors in it on the device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if type(batch) is dict:
        return {key: _moved(value, device) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(_moved(value, device) for value in batch)
    if isinstance(batch, tuple) and hasattr(batch, "_make"):
        return batch._make(_moved(value, device) for value in batch)
    return batch


def _loss_function(criterion: Any, step_fn: Any) -> LossOfBatch:
    if step_fn is not None:
        if not callable(step_fn) or isinstance(step_fn, type):
            raise TypeError(f"step_fn must be a function of model and batch, got {_kind(step_fn)}")
        if criterion is not None:
            raise ValueError("criterion is not used with step_fn: pass criterion=None")
        return step_fn  # type: ignore[no-any-return]
    if isinstance(criterion, type):
        raise TypeError(
            f"criterion must be a function of outputs and targets, got {_kind(criterion)}: pass an instance, "
            f"{criterion.__name__}()"
        )
    if not callable(criterion):
        raise TypeError(
            f"criterion must be a function of outputs and targets, got {type(criterion).__name__}; or pass step_fn"
        )

    def loss_of(model: nn.Module, batch: Any) -> Any:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            what = (
                f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list)) else type(batch).__name__
            )
            raise TypeError(f"a batch must be a pair (inputs, targets), got {what}; pass step_fn for other batches")
        inputs, targets = batch
        return criterion(model(inputs), targets)

    return loss_of


def _curve(start: float, end: float, count: int, mode: str) -> list[float]:
    """``count`` learning rates from ``start`` to ``end``, both exact."""
    places = [step / (count - 1) for step in range(count)]
    if mode == "exp":
        return [start ** (1 - place) * end**place for place in places]
    return [start * (1 - place) + end * place for place in places]


def _lr_ratios(optimizer: Optimizer) -> list[float]:
    """Each group's learning rate relative to the largest; the initial ones where a scheduler has noted them."""
    lrs = []
    for index, group in enumerate(optimizer.param_groups):
        for name in ("lr", "initial_lr") if "initial_lr" in group else ("lr",):
            lr = group.get(name)
            number: Any = lr.item() if isinstance(lr, Tensor) and lr.numel() == 1 else lr
            if not isinstance(number, Real) or not 0 <= float(number) < inf:
                raise ValueError(
                    f"optimizer.param_groups[{index}][{name!r}] must be a finite number, 0 or more, got {lr!r}"
                )
        lrs.append(float(number))
    largest = max(lrs)
    return [lr / largest if largest > 0 else 1.0 for lr in lrs]


@torch.no_grad()
def _write_lrs(optimizer: Optimizer, ratios: list[float], lr: float) -> None:
    for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * ratio)
        else:
            group["lr"] = lr * ratio


def _steps(count: int, progress: bool) -> AbstractContextManager[Iterable[int]]:
    if not progress or find_spec("tqdm") is None:
        return nullcontext(range(count))
    bar: AbstractContextManager[Iterable[int]]
    bar = importlib.import_module("tqdm.auto").tqdm(range(count), desc="LR range test", unit="step")
    return bar


def _kind(value: Any) -> str:
    """What was passed, for messages."""
    return f"the class {value.__name__} itself" if isinstance(value, type) else type(value).__name__


def _check_model(model: Any) -> torch.device:
    """The model's device."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {_kind(model)}")
    parameters = list(model.parameters())
    if not parameters:
        raise ValueError("model has no parameters: there is nothing to train")
    if any(is_lazy(tensor) for tensor in (*parameters, *model.buffers())):
        raise ValueError("model has uninitialized lazy parameters: call it once on a batch first")
    devices = sorted({str(parameter.device) for parameter in parameters})
    if len(devices) > 1:
        raise ValueError(f"model is on several devices, {', '.join(devices)}: move it to one")
    device = parameters[0].device
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"model must be on the CPU or a CUDA device, not {device}: move it")
    return device


def _check_optimizer(optimizer: Any, model: nn.Module) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {_kind(optimizer)}")
    closure = signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is Parameter.empty:
        raise ValueError(
            f"optimizer: {type(optimizer).__name__} evaluates the loss several times per step, through a closure; a "
            "range test takes an optimizer whose step() needs none, for example SGD or Adam"
        )
    ours = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in ours for group in optimizer.param_groups for parameter in group["params"]):
        raise ValueError("optimizer has none of the model's parameters: construct it with model.parameters()")


def _check_settings(
    start_lr: Any,
    end_lr: Any,
    num_iter: Any,
    mode: Any,
    smoothing: Any,
    divergence_factor: Any,
    accumulation_steps: Any,
) -> None:
    numbers = {
        "start_lr": start_lr,
        "end_lr": end_lr,
        "smoothing": smoothing,
        "divergence_factor": divergence_factor,
    }
    for name, number in numbers.items():
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            raise TypeError(f"{name} must be a number, got {type(number).__name__}")
    for name, integer, least in (("num_iter", num_iter, 2), ("accumulation_steps", accumulation_steps, 1)):
        if not isinstance(integer, int) or isinstance(integer, bool):
            raise TypeError(f"{name} must be an int, got {type(integer).__name__}")
        if integer < least:
            raise ValueError(f"{name} must be {least} or more, got {integer}")
    if not 0 < start_lr < inf:
        raise ValueError(f"start_lr must be positive and finite, got {start_lr}")
    if not start_lr < end_lr < inf:
        raise ValueError(f"end_lr must be finite and more than start_lr ({start_lr}), got {end_lr}")
    if mode not in ("exp", "linear"):
        raise ValueError(f"mode must be 'exp' or 'linear', got {mode!r}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be at least 0 and less than 1, got {smoothing}")
    if not divergence_factor > 1:
        raise ValueError(f"divergence_factor must be more than 1, got {divergence_factor}")


def _check_loader(name: str, loader: Any) -> None:
    if isinstance(loader, type) or not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")):
        raise TypeError(f"{name} must be iterable, a DataLoader or a list of batches, got {_kind(loader)}")
    # An IterableDataset may yield batches itself; other datasets give samples.
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        raise TypeError(
            f"{name} must give batches, and {type(loader).__name__} is a Dataset, which gives samples: pass a "
            "DataLoader of it, DataLoader(dataset, batch_size=...)"
        )
