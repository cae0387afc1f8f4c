"""A whole training iteration in a CUDA graph: forward, backward, optimizer and scheduler.

Each replay trains on another batch and steps the plateau with the loss of that batch. Python runs none of it; a
History, kept on the device, says afterwards what happened. Without a GPU the same iterations run eagerly.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import fastsched

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=40)
options = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

images, labels = load_digits(return_X_y=True)
x = (torch.tensor(images, dtype=torch.float32) / 16).to(device)
y = torch.tensor(labels).to(device)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=True, capturable=device == "cuda")
fastsched.use_tensor_lr(optimizer)
PLATEAU = {"factor": 0.5, "patience": 40, "threshold": 0.01}
scheduler = fastsched.ReduceLROnPlateau(optimizer, **PLATEAU)
history = fastsched.History(scheduler)

# A replay reads the memory that was captured: the next batch is written into it.
batch = torch.zeros(100, dtype=torch.int64, device=device)
average = torch.full((), 2.3, device=device)  # of the loss; starts at that of a guess among ten classes


def iteration():
    """What is captured."""
    optimizer.zero_grad(set_to_none=False)  # gradients stay where they are
    loss = cross_entropy(model(x[batch]), y[batch])
    loss.backward()
    optimizer.step()
    average.lerp_(loss.detach(), 0.05)
    scheduler.step(average)


def batches():
    return torch.randperm(1500).to(device).split(100)


def captured():
    """The graph's replay, after a warm-up of real iterations on a side stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for indices in batches()[:3]:
            batch.copy_(indices)
            iteration()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        iteration()  # recorded, not run
    return graph.replay


if device == "cuda":
    replay = captured()
    print("captured forward, backward, Adam and plateau into one CUDA graph")
else:
    replay = iteration
    print("no GPU here: iterations that would be replays of a CUDA graph run eagerly")

for _ in range(options.epochs):
    for indices in batches():
        batch.copy_(indices)
        replay()

rows = history.to_numpy()  # here the host waits, once
print(f"{len(rows)} steps on {device}; learning rate from {rows['lr'][0, 0]:.3g} to {rows['lr'][-1, 0]:.3g}")
for row in rows[rows["reductions"] > 0]:
    print(f"step {row['step']:3}: average loss {row['metric']:.4f}, best {row['best']:.4f}, now {row['lr'][0]:.3g}")
with torch.no_grad():
    print(f"accuracy on held-out images: {(model(x[1500:]).argmax(1) == y[1500:]).float().mean():.1%}")

# torch's scheduler with the same metrics, one after another on the host.
reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.02)
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, **PLATEAU)
lrs = []
for metric in rows["metric"].tolist():
    plateau.step(metric)
    lrs += plateau.get_last_lr()
same = torch.tensor(lrs).tolist() == rows["lr"][:, 0].tolist()
print(f"learning rates equal torch's for these metrics, rounded to float32: {same}")
raise SystemExit(0 if same else "they are not")
