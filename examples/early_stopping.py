"""Train on digits until it no longer helps: a plateau lowers the learning rate, early stopping ends training.

Both are given the validation loss as a tensor. Whether it improved is decided where it is, the best weights are kept
there, and on a GPU the host waits for none of it.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import fastsched

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=200, help="at most this many")
options = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(images))
x = (torch.tensor(images, dtype=torch.float32)[order] / 16).to(device)
y = torch.tensor(labels)[order].to(device)
(x, held_x), (y, held_y) = x.split([1400, 397]), y.split([1400, 397])

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
fastsched.use_tensor_lr(optimizer)
scheduler = fastsched.ReduceLROnPlateau(optimizer, factor=0.3, patience=3)
stopper = fastsched.EarlyStopping(patience=10, model=model)


@torch.no_grad()
def evaluate():
    """Loss and accuracy on the held-out images, tensors on the device."""
    outputs = model(held_x)
    return cross_entropy(outputs, held_y), (outputs.argmax(1) == held_y).float().mean()


losses, lrs = [], [scheduler.get_last_lr()[0]]
for _ in range(options.epochs):
    for batch in torch.randperm(len(x)).to(device).split(128):
        optimizer.zero_grad()
        cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    loss, _ = evaluate()
    scheduler.step(loss)
    stopper.step(loss)
    losses.append(loss)
    lrs.append(scheduler.get_last_lr()[0])
    if stopper.poll():  # never waits; on a GPU it may answer for an epoch ago
        break

# Here the host reads what happened.
losses, lrs = torch.stack(losses).tolist(), torch.stack(lrs).tolist()
for epoch, (loss, before, after) in enumerate(zip(losses, lrs, lrs[1:], strict=False), start=1):
    if after < before:
        print(f"epoch {epoch:3}: validation loss {loss:.4f}, learning rate lowered from {before:.2g} to {after:.2g}")
if stopper.stopped_epoch is None:
    print(f"not stopped in {options.epochs} epochs")
else:
    print(f"epoch {stopper.stopped_epoch:3}: stopped after more than {stopper.patience} epochs without improvement")
print(f"epoch {losses.index(stopper.best) + 1:3}: had the best validation loss, {stopper.best:.4f}")

loss, accuracy = evaluate()
print(f"with the last weights: loss {loss:.4f}, accuracy {accuracy:.1%}")
stopper.restore_best()
loss, accuracy = evaluate()
print(f"with the best weights: loss {loss:.4f}, accuracy {accuracy:.1%}")
if loss.item() != stopper.best:
    raise SystemExit("these are not the weights that had the best loss")
