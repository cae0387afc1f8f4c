"""Train on scikit-learn's digits with torch's ReduceLROnPlateau and with fastsched's, and compare.

Both train the same network from the same seed, with Python-float learning rates ("host") and with tensor
learning rates on the training device ("tensor"). Run it with ``make demo``.
"""

from __future__ import annotations

import argparse
import timeit
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import lr_scheduler as torch_lr_scheduler
from tqdm import tqdm

import fastsched

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PLATEAU = {"factor": 0.3, "patience": 2, "threshold": 1e-3, "cooldown": 1, "min_lr": 1e-5}
SCHEDULERS = {"torch": torch_lr_scheduler.ReduceLROnPlateau, "fastsched": fastsched.ReduceLROnPlateau}


@dataclass
class Run:
    """What one training run leaves behind."""

    losses: list[float] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    accuracy: float = 0.0
    syncs: int = 0


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(images, dtype=torch.float32)[order].to(DEVICE) / 16
    y = torch.tensor(labels)[order].to(DEVICE)
    return x[:1400], y[:1400], x[1400:], y[1400:]


def make_optimizer(model: nn.Module, tensor: bool) -> torch.optim.Optimizer:
    """One param group per parameter; fused on a GPU, where it is what reads a tensor LR without a sync."""
    groups = [{"params": [parameter]} for parameter in model.parameters()]
    optimizer = torch.optim.Adam(groups, lr=0.03, fused=DEVICE.type == "cuda")
    return fastsched.use_tensor_lr(optimizer) if tensor else optimizer


def step_counting_syncs(scheduler: torch_lr_scheduler.ReduceLROnPlateau, metric: Tensor) -> int:
    """One step; how often the host waited for the device in it, as torch's own sync detector counts."""
    if DEVICE.type != "cuda":
        scheduler.step(metric)
        return 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        scheduler.step(metric)
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def train(name: str, tensor: bool, epochs: int) -> Run:
    torch.manual_seed(0)
    x, y, x_held, y_held = digits()
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(DEVICE)
    optimizer = make_optimizer(model, tensor)
    scheduler = SCHEDULERS[name](optimizer, **PLATEAU)
    run = Run()
    losses, lrs = [], []
    shuffle = torch.Generator().manual_seed(1)
    for _ in tqdm(range(epochs), desc=f"{name:9} {'tensor' if tensor else 'host':6}", unit="epoch"):
        for batch in torch.randperm(len(x), generator=shuffle).to(DEVICE).split(128):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = functional.cross_entropy(model(x_held), y_held)
        run.syncs += step_counting_syncs(scheduler, loss)
        losses.append(loss)
        lr = optimizer.param_groups[0]["lr"]
        lrs.append(lr.clone() if isinstance(lr, Tensor) else lr)
    run.losses = torch.stack(losses).tolist()
    run.lrs = [float(lr) for lr in lrs]
    run.accuracy = (model(x_held).argmax(1) == y_held).float().mean().item()
    return run


def float_trajectory(metrics: list[float], first_lr: float) -> list[float]:
    """The learning rates torch's scheduler gives, in Python floats, for these metrics."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=first_lr)
    scheduler = torch_lr_scheduler.ReduceLROnPlateau(optimizer, **PLATEAU)
    lrs = []
    for metric in metrics:
        scheduler.step(metric)
        lrs.append(optimizer.param_groups[0]["lr"])
    return lrs


def step_cost(tensor: bool, rounds: int = 15, number: int = 500) -> dict[str, float]:
    """Microseconds per step of a network with six groups, nothing changing; rounds of both alternate."""
    schedulers = {}
    for name, kind in SCHEDULERS.items():
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)).to(DEVICE)
        schedulers[name] = kind(make_optimizer(model, tensor), patience=10**9)
    metric = torch.ones((), device=DEVICE)
    samples: dict[str, list[float]] = {name: [] for name in schedulers}
    for _ in range(rounds):
        for name, scheduler in schedulers.items():
            samples[name].append(timeit.timeit(lambda s=scheduler: s.step(metric), number=number) / number * 1e6)
    return {name: median(times) for name, times in samples.items()}


def draw(runs: dict[tuple[str, bool], Run], file: Path) -> None:
    figure, (loss_axes, lr_axes) = plt.subplots(2, 1, sharex=True, figsize=(8, 6), layout="constrained")
    for (name, tensor), run in runs.items():
        width = (2 if tensor else 5) + (0 if name == "fastsched" else 3)  # equal curves stay visible, one in the other
        style = {"linewidth": width, "linestyle": ":" if tensor else "-"}
        label = f"{name}, {'tensor' if tensor else 'host'}"
        loss_axes.plot(run.losses, label=label, **style)
        lr_axes.plot(run.lrs, label=label, drawstyle="steps-post", **style)
    loss_axes.set(ylabel="validation loss", yscale="log", title="ReduceLROnPlateau on digits")
    lr_axes.set(xlabel="epoch", ylabel="learning rate", yscale="log")
    loss_axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path("demo-output/digits_plateau.png"))
    arguments = parser.parse_args()

    runs = {(name, tensor): train(name, tensor, arguments.epochs) for tensor in (False, True) for name in SCHEDULERS}
    ours = runs["fastsched", True]
    expected = torch.tensor(float_trajectory(ours.losses, 0.03)).tolist()  # rounded to float32
    equal = {
        False: runs["fastsched", False].lrs == runs["torch", False].lrs,
        True: ours.lrs == expected,
    }

    console = Console()
    table = Table(title=f"{arguments.epochs} epochs on {DEVICE.type}, six param groups")
    for column in ("mode", "scheduler", "equals torch", "accuracy", "final LR", "us/step", "syncs"):
        table.add_column(column, no_wrap=True)
    for tensor in (False, True):
        cost = step_cost(tensor)
        for name in SCHEDULERS:
            run = runs[name, tensor]
            table.add_row(
                "tensor" if tensor else "host",
                name,
                ""
                if name == "torch"
                else ("yes" if equal[tensor] else "NO") + (", rounded" if tensor else ", to the bit"),
                f"{run.accuracy:.1%}",
                f"{run.lrs[-1]:.3g}",
                f"{cost[name]:.2f}",
                str(run.syncs) if DEVICE.type == "cuda" else "-",
            )
    console.print(table)

    reductions = Table(title="Reductions made by fastsched")
    for column in ("mode", "epoch", "old LR", "new LR"):
        reductions.add_column(column)
    for tensor in (False, True):
        run = runs["fastsched", tensor]
        for epoch, (old, new) in enumerate(zip([0.03, *run.lrs], run.lrs, strict=False)):
            if new < old * 0.999:
                reductions.add_row("tensor" if tensor else "host", str(epoch), f"{old:.6g}", f"{new:.6g}")
    console.print(reductions)

    draw(runs, arguments.output)
    console.print(f"picture: {arguments.output}")
    if DEVICE.type == "cuda":
        console.print(f"host syncs in {arguments.epochs} tensor-mode steps: {ours.syncs} (fastsched)")
    if not all(equal.values()):
        raise SystemExit("the learning rates differ from torch's")


if __name__ == "__main__":
    main()
