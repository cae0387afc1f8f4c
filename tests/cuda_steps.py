"""Run by `make test-cuda-build` with a CUDA torch, GPU or not: on CUDA tensors each step is one operator.

The tensors are fake: they say that they are on "cuda" and have no memory, so a step that reads one raises. What runs is
listed: fastsched::step_ alone, after one copy of the settings that are tensors, if there are any.
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode

import fastsched
from fastsched import _C
from fastsched.engine import lr_buffer, metric, program
from fastsched.engine.tensor import TensorEngine
from fastsched.schedulers.base import _EngineScheduler

from .configurations import LONG_OWN
from .conftest import sgd
from .launch_modes import METRIC, SCHEDULERS
from .watching import Operators

STEP, COPY = torch.ops.fastsched.step_.default, torch.ops.aten._foreach_copy_.default
LOOKS = {torch.ops.prim.device.default, torch.ops.aten.slice.Tensor}  # at a fake's device, and views


def own(name: str) -> Any:
    return lambda module, optimizer: getattr(module, name)(optimizer, **LONG_OWN[name])


CASES = {
    **SCHEDULERS,
    **{name: own(name) for name in LONG_OWN},
    "SequentialLR": SCHEDULERS["warm-up then cosine"],
    "ChainedScheduler": SCHEDULERS["chain"],
    "WarmupReduceLROnPlateau": lambda module, optimizer: module.WarmupReduceLROnPlateau(optimizer, warmup_steps=3),
    "GreedyLR": SCHEDULERS["greedy"],
    "PhasesLR": lambda module, optimizer: module.PhasesLR(optimizer, [module.Phase(5, "cosine", 1.0, 0.1)]),
    "WarmupLinearLR": lambda module, optimizer: module.WarmupLinearLR(optimizer, 3, 20),
    "WarmupPolynomialLR": lambda module, optimizer: module.WarmupPolynomialLR(optimizer, 3, 20),
    "NoamLR": lambda module, optimizer: module.NoamLR(optimizer, 512, 3),
    "REXLR": lambda module, optimizer: module.REXLR(optimizer, 20),
}
READS_METRIC = {*METRIC, "WarmupReduceLROnPlateau", "GreedyLR"}
# Their construction on tensors reads a counter or the learning rates back, which is allowed.
MADE_ON_NUMBERS = {"CyclicLR", "GreedyLR", "greedy", "SequentialLR", "warm-up then cosine", "nested with plateau"}


def take_fakes_for_tensors() -> None:
    """fastsched steps tensors of torch's own class, not of subclasses."""

    def is_supported(lr: object) -> bool:
        return isinstance(lr, FakeTensor) and lr.numel() == 1 and lr.dtype in lr_buffer.LR_DTYPES

    lr_buffer.is_supported = program.is_supported = is_supported
    metric._PLAIN = (FakeTensor,)
    _C.use_tensor_types([FakeTensor])


def check(name: str, tensors_first: bool) -> None:
    """``tensors_first``: the scheduler is made on tensors, which are then also its base learning rates."""
    optimizer = sgd([0.5, 0.1, 0.7], "cuda")
    if tensors_first:
        fastsched.use_tensor_lr(optimizer)
    scheduler = CASES[name](fastsched, optimizer)
    if not tensors_first:
        fastsched.use_tensor_lr(optimizer)
        scheduler._detach()
        scheduler._attach()
    scheduler._engine.check_order()  # which the very first step reads
    arguments = [torch.zeros((), device="cuda")] if name in READS_METRIC else []
    for keywords in ({}, {}, {"found_inf": torch.zeros(1, device="cuda")}, {}):
        with Operators() as seen:
            scheduler.step(*arguments, **keywords)
        calls = [call for call in seen.calls if call not in LOOKS]
        if calls != [STEP] and not (tensors_first and calls == [COPY, STEP]):
            raise SystemExit(f"a step of {name} ran {', '.join(map(str, calls))}, and not {STEP} alone")
    if not isinstance(scheduler._engine, TensorEngine) or scheduler._engine.device.type != "cuda":
        raise SystemExit(f"{name} was not stepped on CUDA tensors")


def main() -> None:
    if torch.version.cuda is None:
        raise SystemExit(f"torch {torch.__version__} is a build without CUDA; this proves nothing")
    offered = [getattr(fastsched, name) for name in fastsched.__all__]
    classes = {one.__name__ for one in offered if inspect.isclass(one) and issubclass(one, _EngineScheduler)}
    if not classes <= CASES.keys():
        raise SystemExit(f"not checked: {', '.join(sorted(classes - CASES.keys()))}")
    warnings.filterwarnings(
        "ignore", "Accessing the data pointer of FakeTensor|SGD reads its learning rate", UserWarning
    )
    take_fakes_for_tensors()
    for name in CASES:
        for tensors_first in (False, True):
            if tensors_first and name in MADE_ON_NUMBERS:
                continue
            with FakeTensorMode(allow_non_fake_inputs=True):  # programs are packed on the host
                check(name, tensors_first)
    try:
        with FakeTensorMode():
            torch.zeros((), device="cuda").item()
    except DataDependentOutputException:
        print(f"{len(classes)} classes on CUDA tensors: each step is one operator, and reads nothing")
    else:
        raise SystemExit("a fake tensor was read, and nothing was raised: this proves nothing")


if __name__ == "__main__":
    main()
