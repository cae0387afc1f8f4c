"""Train on scikit-learn's digits with torch's ReduceLROnPlateau and with fastsched's, and compare.

Three runs of one network from one seed: with torch's scheduler, with fastsched's in its place, and with fastsched's on
learning rates that are tensors on the training device. The first two agree to the last bit. The third, whose float32
learning rates are decided on the device, has those of torch's scheduler for its losses, rounded.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler as torch_lr_scheduler
from tqdm import trange

import fastsched

device = "cuda" if torch.cuda.is_available() else "cpu"
LR = 0.03
PLATEAU = {"factor": 0.3, "patience": 2, "threshold": 1e-3, "cooldown": 1, "min_lr": 1e-5}


def digits():
    """Images and labels: 1400 to train on, 397 held out."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
    return *x.to(device).split([1400, 397]), *y.to(device).split([1400, 397])


def train(module, epochs, tensor_lr=False, title=""):
    """Train with the plateau of ``module``; return learning rates, validation losses and the final accuracy."""
    torch.manual_seed(0)
    x, held_x, y, held_y = digits()
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    optimizer = torch.optim.Adam([{"params": [parameter]} for parameter in model.parameters()], lr=LR, fused=True)
    if tensor_lr:
        fastsched.use_tensor_lr(optimizer)
    scheduler = module.ReduceLROnPlateau(optimizer, **PLATEAU)  # the line in question
    lrs, losses = [scheduler.get_last_lr()[0]], []
    for _ in trange(epochs, desc=title, unit="epoch"):
        for batch in torch.randperm(len(x)).to(device).split(128):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            losses.append(cross_entropy(model(held_x), held_y))
        scheduler.step(losses[-1])  # a tensor: torch waits for the device here, fastsched's tensor mode does not
        lrs.append(scheduler.get_last_lr()[0])
    accuracy = (model(held_x).argmax(1) == held_y).float().mean().item()
    return [float(lr) for lr in lrs], torch.stack(losses).tolist(), accuracy


def torchs_lrs(losses):
    """The learning rates of torch's scheduler for these losses, in Python floats."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = torch_lr_scheduler.ReduceLROnPlateau(optimizer, **PLATEAU)
    lrs = [LR]
    for loss in losses:
        scheduler.step(loss)
        lrs += scheduler.get_last_lr()
    return lrs


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for the plot")
options = parser.parse_args()

runs = {
    "torch": train(torch_lr_scheduler, options.epochs, title="torch"),
    "fastsched": train(fastsched, options.epochs, title="fastsched"),
    "fastsched, tensors": train(fastsched, options.epochs, tensor_lr=True, title="fastsched, tensors"),
}
lrs, losses, _ = runs["fastsched, tensors"]
rounded = torch.tensor(torchs_lrs(losses)).tolist()
equal = {"fastsched": runs["fastsched"] == runs["torch"], "fastsched, tensors": lrs == rounded}

table = Table("scheduler", "equals torch's", "final LR", "accuracy", title=f"{options.epochs} epochs on {device}")
for name, how in {"torch": "", "fastsched": "to the bit", "fastsched, tensors": "rounded to float32"}.items():
    verdict = f"{'yes' if equal[name] else 'NO'}, {how}" if how else ""
    lrs, losses, accuracy = runs[name]
    table.add_row(name, verdict, f"{lrs[-1]:.3g}", f"{accuracy:.1%}")
Console().print(table)

options.out.mkdir(parents=True, exist_ok=True)
picture = options.out / "digits_plateau.png"
fastsched.plot({name: np.array(lrs)[:, None] for name, (lrs, *_) in runs.items()}, None, picture, metrics=losses)
print(f"plot of the learning rates and the validation loss: {picture}")
if not all(equal.values()):
    raise SystemExit("the learning rates differ from torch's")
