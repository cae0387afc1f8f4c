"""A small training run, for ``fastsched demo``: digits and a plateau, with torch's scheduler and with fastsched's."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler as torch_lr_scheduler

from .. import lr_scheduler
from ..engine.tensor_lr import use_tensor_lr
from ..tools import plotting
from . import bench

EPOCHS = 40
LR = 0.03
PLATEAU: dict[str, Any] = {"factor": 0.3, "patience": 2, "threshold": 1e-3, "cooldown": 1, "min_lr": 1e-5}


class Run(NamedTuple):
    """The results of a training run."""

    lrs: list[float]  # before the first epoch, and after each
    losses: list[float]  # on held-out data, after each epoch
    accuracy: float
    groups: int


def run(width: int = 80) -> str:
    """Train three times, compare, and return what happened as text."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the demo trains on scikit-learn's digits: pip install 'fastsched[demo]'") from error

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load_digits(return_X_y=True)
    with torch.random.fork_rng(), bench.one_thread():
        torchs = _train(torch_lr_scheduler, data, device)
        ours = _train(lr_scheduler, data, device)
        on_device = _train(lr_scheduler, data, device, tensors=True)
    rounded = torch.tensor(_replayed(on_device.losses)).tolist()
    reductions = [
        [str(epoch), f"{ours.losses[epoch - 1]:.4f}", f"{before:.3g}", f"{after:.3g}"]
        for epoch, (before, after) in enumerate(pairwise(ours.lrs), start=1)
        if after < before
    ]
    costs = [bench.compare("ReduceLROnPlateau", mode, ours.groups) for mode in bench.MODES]
    return "\n".join(
        [
            f"digits, {EPOCHS} epochs on {device.type}, {ours.groups} param groups: what ReduceLROnPlateau did",
            "",
            *bench.aligned(["after epoch", "validation loss", "LR before", "LR after"], reductions),
            "",
            _drawn(ours, width),
            "",
            f"accuracy at the end: {ours.accuracy:.1%}",
            f"equal to torch's run to the last bit, learning rates and losses: {_yes(ours == torchs)}",
            f"with float32 tensor LRs, equal to torch's learning rates, rounded: {_yes(on_device.lrs == rounded)}",
            "",
            *bench.aligned(
                ["one step, idle", "torch", "fastsched", "ratio"],
                [
                    [
                        f"{bench.MODES[cell.mode]} LRs",
                        f"{cell.torch_us:.2f} us",
                        f"{cell.our_us:.2f} us",
                        f"{cell.ratio:.1f}",
                    ]
                    for cell in costs
                ],
            ),
        ]
    )


def _yes(equal: bool) -> str:
    return "yes" if equal else "NO"


def _drawn(ours: Run, width: int) -> str:
    import numpy as np

    [*lines] = plotting.lines_of(0, "ReduceLROnPlateau", np.array(ours.lrs)[:, None])
    return plotting.plot_text(plotting.Trajectories(lines, [], ours.losses), width, color=sys.stdout.isatty())


def _train(module: ModuleType, data: Any, device: torch.device, *, tensors: bool = False) -> Run:
    torch.manual_seed(0)
    images, labels = data
    order = torch.randperm(len(images))
    x = (torch.tensor(images, dtype=torch.float32)[order] / 16).to(device)
    y = torch.tensor(labels)[order].to(device)
    (x, held_x), (y, held_y) = x.split([1400, len(x) - 1400]), y.split([1400, len(y) - 1400])
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    groups = [{"params": [parameter]} for parameter in model.parameters()]
    optimizer = torch.optim.Adam(groups, lr=LR, fused=True)
    if tensors:
        use_tensor_lr(optimizer)
    scheduler = module.ReduceLROnPlateau(optimizer, **PLATEAU)
    losses, lrs = [], [scheduler.get_last_lr()[0]]
    for _ in _with_bar(range(EPOCHS)):
        for batch in torch.randperm(len(x)).to(device).split(128):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            losses.append(cross_entropy(model(held_x), held_y))
        scheduler.step(losses[-1])  # torch waits for the device here; with tensor learning rates fastsched does not
        lrs.append(scheduler.get_last_lr()[0])
    accuracy = (model(held_x).argmax(1) == held_y).float().mean().item()
    return Run([float(lr) for lr in lrs], torch.stack(losses).tolist(), accuracy, len(groups))


def _replayed(losses: Iterable[float]) -> list[float]:
    """The learning rates that torch's scheduler derives from these losses."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = torch_lr_scheduler.ReduceLROnPlateau(optimizer, **PLATEAU)
    lrs = [LR]
    for loss in losses:
        scheduler.step(loss)
        lrs.append(float(scheduler.get_last_lr()[0]))
    return lrs


def _with_bar(epochs: range) -> Iterable[int]:
    try:
        from tqdm import tqdm
    except ImportError:
        return epochs
    bar: Iterable[int] = tqdm(epochs, unit="epoch", file=sys.stderr, leave=False, disable=None)
    return bar
