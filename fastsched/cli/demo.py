"""A small training run, for ``fastsched demo``: digits, learning rates in tensors, a plateau."""

from __future__ import annotations

import sys
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..engine.tensor_lr import use_tensor_lr
from ..schedulers.plateau import ReduceLROnPlateau

EPOCHS = 40
LR = 0.03
NEEDED = "the demo needs scikit-learn, rich, tqdm and plotille: pip install 'fastsched[demo]'"


def run() -> str:
    """Train, and return what happened as text."""
    try:
        from rich.console import Console
        from rich.table import Table
        from sklearn.datasets import load_digits
        from tqdm import trange
    except ImportError as error:
        raise ImportError(NEEDED) from error

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = load_digits(return_X_y=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        order = torch.randperm(len(images))
        x = (torch.tensor(images, dtype=torch.float32)[order] / 16).to(device)
        y = torch.tensor(labels)[order].to(device)
        (x, held_x), (y, held_y) = x.split([1400, len(x) - 1400]), y.split([1400, len(y) - 1400])
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
        use_tensor_lr(optimizer)
        scheduler = ReduceLROnPlateau(optimizer, factor=0.3, patience=2, threshold=1e-3, cooldown=1, min_lr=1e-5)
        losses = []
        lrs = [scheduler.get_last_lr()[0]]
        for _ in trange(EPOCHS, unit="epoch", file=sys.stderr, leave=False, disable=None):
            for batch in torch.randperm(len(x)).to(device).split(128):
                optimizer.zero_grad()
                cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                losses.append(cross_entropy(model(held_x), held_y))
            scheduler.step(losses[-1])  # decided where the loss is; nothing waits for the device
            lrs.append(scheduler.get_last_lr()[0])
        accuracy = (model(held_x).argmax(1) == held_y).float().mean().item()

    reductions = Table(
        title=f"digits, {EPOCHS} epochs on {device.type}: what the plateau did", show_edge=False, pad_edge=False
    )
    for column in ("after epoch", "validation loss", "learning rate before", "after"):
        reductions.add_column(column, justify="right")
    for epoch, (before, after) in enumerate(pairwise(lrs)):
        if after < before:
            reductions.add_row(str(epoch + 1), f"{losses[epoch]:.4f}", f"{before:.3g}", f"{after:.3g}")
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(reductions)
    return f"{capture.get()}\nbest validation loss {scheduler.best:.4f}, accuracy at the end {accuracy:.1%}"
