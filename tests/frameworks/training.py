"""A regression for every trainer, the learning rates that it should reach, and processes that are killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, TensorDataset

import fastsched

HERE = str(Path(__file__).parent)
SECONDS = 800  # per process; most take ten, but not on a busy machine


class Run(NamedTuple):
    """The outcome of a training run, as JSON values."""

    scheduler: str
    engine: str
    lrs: list[float]  # before each step
    weights: list[float]


def came_to(scheduler: Any, lrs: list[float], module: torch.nn.Module) -> Run:
    """What to compare between two runs."""
    kind = type(scheduler)
    return Run(f"{kind.__module__}.{kind.__qualname__}", fastsched.explain(scheduler).engine, lrs, numbers(module))


def installed_if(install: bool) -> AbstractContextManager[None]:
    """A run with torch's schedulers and the same with fastsched's."""
    return fastsched.installed() if install else nullcontext()


def cosine(optimizer: Any) -> Any:
    """A torch scheduler, for ``install()`` to replace."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8, eta_min=0.01)


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 4, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True))


def loader() -> DataLoader[Any]:
    return DataLoader(data(), batch_size=8)


def model() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 1)


def sgd(module: torch.nn.Module, tensor_lr: bool = False) -> torch.optim.SGD:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    if tensor_lr:
        fastsched.use_tensor_lr(optimizer)
    return optimizer


def numbers(module: torch.nn.Module) -> list[float]:
    """The parameters, as a flat list of numbers."""
    return [float(x) for parameter in module.parameters() for x in parameter.detach().flatten()]


def never_content(plateau: Any) -> Any:
    """Make every epoch of a plateau except the first a bad one, and each bad one halve the learning rate."""
    plateau.factor, plateau.patience, plateau.threshold, plateau.threshold_mode = 0.5, 0, 10.0, "abs"
    return plateau


def warm_up_then_plateau(module: Any, optimizer: Any) -> Any:
    """Only with fastsched: torch's SequentialLR does not take a plateau."""
    warm_up = module.LinearLR(optimizer, 0.25, total_iters=2)
    return module.SequentialLR(optimizer, [warm_up, never_content(module.ReduceLROnPlateau(optimizer))], [2])


# Their learning rates over the epochs, from 0.1. The composition already judges the metric of the step that ends the
# warm-up; the other one that of the next step.
WARM_UP_THEN_PLATEAU = [0.025, 0.0625, 0.1, 0.05, 0.025, 0.0125]
WARMUP_REDUCE_LR_ON_PLATEAU = [0.025, 0.0625, 0.1, 0.1, 0.05, 0.025]


def expected(make: Callable[[Any], Any], steps: int, lr: float = 0.1) -> list[float]:
    """The learning rates before each of the first steps of a torch scheduler."""
    optimizer = torch.optim.SGD(model().parameters(), lr=lr)
    scheduler = make(optimizer)
    lrs = []
    for _ in range(steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


def kill_at(step: int | None, steps: int) -> None:
    """End this process as a power cut would, if it has reached that step."""
    if step == steps:
        os.kill(os.getpid(), signal.SIGKILL)


def elsewhere(call: str, *, processes: int | None = None, killed: bool = False) -> Any:
    """The value of an expression such as ``"test_trl.train()"`` in another process, or in each of several."""
    code = f"""
import json, sys
sys.path.insert(0, {HERE!r})
import {call.partition(".")[0]}
result = {call}
print(json.dumps(["result", result]) + "\\n", end="", flush=True)
"""
    command = [sys.executable, "-c", code]
    if processes is not None:
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--no-python"]
        command = [sys.executable, *run, *command]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment)
    if killed:  # torchrun itself survives, and says so
        assert done.returncode == (-signal.SIGKILL if processes is None else 1), done.stderr[-4000:]
        assert processes is None or "SIGKILL" in done.stderr
        return None
    assert done.returncode == 0, done.stderr[-4000:]
    # Two processes may write to one line.
    found = [json.loads(f'["result"{part}')[1] for part in _results(done.stdout)]
    assert len(found) == (processes or 1), done.stdout
    return found if processes is not None else found[0]


def _results(text: str) -> list[str]:
    decoder = json.JSONDecoder()
    parts = []
    for part in text.split('["result"')[1:]:
        _, end = decoder.raw_decode('["result"' + part)
        parts.append(part[: end - len('["result"')])
    return parts
