"""A training step in one graph of torch.compile: forward, backward, weight update and scheduler.

The learning rate is a tensor, and so is the metric of the plateau. Neither is a constant of the graph, so nothing is
compiled again when they change; torch.compiler is told to raise if anything were. ``optimizer.step()`` leaves the
graph, as torch has decided; the function that it calls does not, and works on the optimizer's own state.
"""

import argparse
import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call, grad_and_value
from torch.nn.functional import cross_entropy
from torch.optim.sgd import sgd

import fastsched

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--backend", default="inductor", help="of torch.compile")
options = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

images, labels = load_digits(return_X_y=True)
x = (torch.tensor(images, dtype=torch.float32) / 16).to(device)
y = torch.tensor(labels).to(device)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
weights = dict(model.named_parameters())
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, fused=True)
fastsched.use_tensor_lr(optimizer)
scheduler = fastsched.ReduceLROnPlateau(optimizer, factor=0.5, patience=30)
smooth_loss = torch.full((), 2.3, device=device)  # the plateau's metric: a moving average, from that of a guess on


def loss_of(weights, batch):
    return cross_entropy(functional_call(model, weights, (x[batch],)), y[batch])


def eager_step(batch):
    """The same, written in the usual way."""
    optimizer.zero_grad()
    loss = loss_of(weights, batch)
    loss.backward()
    optimizer.step()
    smooth_loss.lerp_(loss.detach(), 0.1)
    scheduler.step(smooth_loss)


eager_step(torch.arange(120, device=device))  # makes the optimizer's state; the scheduler chooses its engine

values = {name: weight.detach() for name, weight in weights.items()}  # the same memory, not recorded by autograd
momenta = [optimizer.state[weight]["momentum_buffer"] for weight in weights.values()]
group = optimizer.param_groups[0]
settings = {name: group[name] for name in ("lr", "momentum", "weight_decay", "dampening", "nesterov", "maximize")}


@torch.compile(fullgraph=True, backend=options.backend)
def step(batch):
    gradients, loss = grad_and_value(loss_of)(values, batch)
    sgd([*values.values()], [*gradients.values()], momenta, foreach=True, **settings)
    smooth_loss.lerp_(loss, 0.1)
    scheduler.step(smooth_loss)


def batches():
    return torch.randperm(1500).to(device).split(100)  # all of one size, or there would be a graph for each


begin = time.perf_counter()
step(batches()[0])
print(f"compiled forward, backward, SGD and plateau into one graph in {time.perf_counter() - begin:.1f} s, on {device}")

lrs = []
with torch.compiler.set_stance("fail_on_recompile"):
    for _ in range(options.epochs):
        for batch in batches():
            step(batch)
            lrs.append(scheduler.get_last_lr()[0])
lrs = [lr.item() for lr in lrs]
print(f"{len(lrs)} steps with {len(set(lrs))} learning rates, from {lrs[0]:.3g} to {lrs[-1]:.3g}: nothing recompiled")
with torch.no_grad():
    accuracy = (model(x[1500:]).argmax(1) == y[1500:]).float().mean()
print(f"accuracy on {len(x) - 1500} held-out images: {accuracy:.1%}")
