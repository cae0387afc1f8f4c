"""Kill a training run in the middle of an epoch, resume it from its checkpoint, and get the same bits.

A child process trains and is killed (SIGKILL) half-way. What resumes its training has nothing but the checkpoint, and
ends with the same weights and learning rates, to the last bit, as a run without an interruption. The learning rates are
float32 tensors; the scheduler's state has the float64 values that they are rounded from.
"""

import argparse
import os
import signal
from multiprocessing import get_context
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from fastsched import lr_scheduler, use_tensor_lr

device = "cuda" if torch.cuda.is_available() else "cpu"
BATCHES = 17  # per epoch


def train(epochs, checkpoint, kill_at=None):
    """Train, from the checkpoint if there is one; return the weights, and the learning rates of all iterations."""
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = (torch.tensor(images, dtype=torch.float32) / 16).to(device), torch.tensor(labels).to(device)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    use_tensor_lr(optimizer)
    warm_up = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=30)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=5)
    scheduler = lr_scheduler.SequentialLR(optimizer, [warm_up, plateau], milestones=[30])
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    iteration, lrs = 0, []

    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        torch.set_rng_state(saved["random"].cpu())
        iteration, lrs = saved["iteration"], saved["lrs"]
        print(f"  resuming at iteration {iteration}", flush=True)

    while iteration < epochs * BATCHES:
        if iteration % BATCHES == 0:  # an epoch begins
            states = {name: part.state_dict() for name, part in parts.items()}
            state = states | {
                "random": torch.get_rng_state(),
                "iteration": iteration,
                "lrs": lrs,
            }  # and CUDA's, if used
            torch.save(state, checkpoint.with_suffix(".new"))
            os.replace(checkpoint.with_suffix(".new"), checkpoint)  # so that there is always a complete one
            batches = torch.randperm(len(x)).split(-(-len(x) // BATCHES))
        batch = batches[iteration % BATCHES].to(device)
        optimizer.zero_grad()
        loss = cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        scheduler.step(loss)
        lrs.append(scheduler.get_last_lr()[0].item())
        iteration += 1
        if iteration == kill_at:
            print(f"  killed at iteration {iteration}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    return model.state_dict(), lrs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for the checkpoints")
    options = parser.parse_args()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which torch requires for deterministic runs on a GPU
    options.out.mkdir(parents=True, exist_ok=True)
    interrupted, uninterrupted = options.out / "interrupted.pt", options.out / "uninterrupted.pt"
    for file in (interrupted, uninterrupted):
        file.unlink(missing_ok=True)

    print("an interrupted run:", flush=True)
    half_way = options.epochs * BATCHES // 2 + 3
    process = get_context("spawn").Process(target=train, args=(options.epochs, interrupted, half_way))
    process.start()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise SystemExit(f"it ended with exit code {process.exitcode} instead")
    weights, lrs = train(options.epochs, interrupted)
    print("an uninterrupted run")
    whole_weights, whole_lrs = train(options.epochs, uninterrupted)

    same_lrs = lrs == whole_lrs
    same_weights = all(map(torch.equal, weights.values(), whole_weights.values()))
    print(f"the same {len(lrs)} learning rates ({len(set(lrs))} different ones): {same_lrs}")
    print(f"the same weights, to the last bit: {same_weights}")
    raise SystemExit(0 if same_lrs and same_weights else "the resumed run is not the same")
