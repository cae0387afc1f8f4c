"""Warm up, then lower the learning rate on plateaus, at every iteration; then look at what happened.

torch's SequentialLR refuses a plateau. Here the metric is a moving average of the training loss, so that the plateau
can be stepped after each batch. It stays on the device, where a History records every step.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import fastsched
from fastsched import lr_scheduler

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=60)
parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for the plot and the table")
options = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(images))
x = (torch.tensor(images, dtype=torch.float32)[order] / 16).to(device)
y = torch.tensor(labels)[order].to(device)
(x, held_x), (y, held_y) = x.split([1400, 397]), y.split([1400, 397])
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)

# The biases learn twice as fast as the weights: two param groups.
weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
biases = [parameter for parameter in model.parameters() if parameter.ndim == 1]
groups = [{"params": weights, "lr": 0.1}, {"params": biases, "lr": 0.2}]
optimizer = torch.optim.SGD(groups, momentum=0.9, fused=True)
fastsched.use_tensor_lr(optimizer)

WARM_UP = 50  # iterations
scheduler = lr_scheduler.SequentialLR(
    optimizer,
    [
        lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=WARM_UP),
        lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=40, cooldown=20, threshold=0.01),
    ],
    milestones=[WARM_UP],
)
history = fastsched.History(scheduler)

average = torch.full((), 2.3, device=device)  # starts at the loss of a guess among ten classes
for _ in range(options.epochs):
    for batch in torch.randperm(len(x)).to(device).split(100):
        optimizer.zero_grad()
        loss = cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        average.lerp_(loss.detach(), 0.05)
        scheduler.step(average)  # one operator, whichever schedule's turn it is

rows = history.to_numpy()  # here the host waits for the device, once
print(f"{len(rows)} steps, the first {WARM_UP} of them warm-up, on {device}")
for before, row in pairwise(rows):
    if row["reductions"]:
        change = f"from {before['lr'][0]:.3g} to {row['lr'][0]:.3g}, of biases to {row['lr'][1]:.3g}"
        print(f"step {row['step']:3}: average loss {row['metric']:.4f}, best {row['best']:.4f}; learning rate {change}")
with torch.no_grad():
    print(f"accuracy on held-out images: {(model(held_x).argmax(1) == held_y).float().mean():.1%}")

options.out.mkdir(parents=True, exist_ok=True)
history.plot(options.out / "warm_up_then_plateau.png")
history.to_csv(options.out / "warm_up_then_plateau.csv")
print(f"plot and table: {options.out / 'warm_up_then_plateau'}.png and .csv")
