"""Find a learning rate with a range test, then train with a OneCycleLR up to it.

The range test trains for 100 steps while the learning rate rises until the loss diverges, and puts everything back: the
training after it is the one that there would have been without.
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastsched

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for the plots")
options = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

images, labels = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
train_data, held_data = torch.utils.data.random_split(data, [1400, 397])
loader = DataLoader(train_data, batch_size=100, shuffle=True)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
criterion = nn.CrossEntropyLoss()

# 1. The range test, from tiny to far too large.
weights = [parameter.clone() for parameter in model.parameters()]
result = fastsched.lr_range_test(model, optimizer, criterion, loader, start_lr=1e-5, end_lr=10)
assert all(map(torch.equal, model.parameters(), weights)), "the range test has left a trace"
print(result)
for method in ("valley", "steep", "minimum", "slide"):
    print(f"{method:>8} suggests {result.suggestion(method):.3g}")

options.out.mkdir(parents=True, exist_ok=True)
picture = options.out / "range_test.png"
result.plot(picture, suggestion="steep")
print(f"plot of the loss over the learning rate: {picture}")

# 2. One cycle up to that learning rate, and down to almost nothing.
max_lr = result.suggestion("steep")
scheduler = fastsched.OneCycleLR(optimizer, max_lr=max_lr, epochs=options.epochs, steps_per_epoch=len(loader))
cycle = options.out / "one_cycle.png"
fastsched.plot({f"OneCycleLR, max_lr={max_lr:.3g}": scheduler}, scheduler.total_steps - 1, cycle)
print(f"plot of the coming cycle: {cycle}")


@torch.no_grad()
def evaluate():
    """Loss and accuracy on the held-out images."""
    x, y = held_data.dataset[held_data.indices]
    outputs = model(x.to(device))
    return criterion(outputs, y.to(device)).item(), (outputs.argmax(1) == y.to(device)).float().mean().item()


for epoch in range(1, options.epochs + 1):
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x.to(device)), y.to(device)).backward()
        optimizer.step()
        scheduler.step()
    if epoch % 5 == 0 or epoch == options.epochs:
        loss, accuracy = evaluate()
        lr = scheduler.get_last_lr()[0]
        print(f"epoch {epoch:2}: learning rate {lr:.2g}, held-out loss {loss:.4f}, accuracy {accuracy:.1%}")
