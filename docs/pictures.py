"""Draw docs/_static/schedules.png, every scheduler at a glance, for GitHub as well: python docs/pictures.py."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image

from fastsched import lr_scheduler as schedulers
from fastsched import simulate
from fastsched.tools.plotting import corners

FILE = Path(__file__).parent / "_static" / "schedules.png"
STEPS = 100
SHAPES = {
    "StepLR": {"step_size": 20, "gamma": 0.6},
    "MultiStepLR": {"milestones": [30, 60, 80], "gamma": 0.5},
    "ConstantLR": {"factor": 0.5, "total_iters": 30},
    "LinearLR": {"start_factor": 0.1, "total_iters": 40},
    "ExponentialLR": {"gamma": 0.97},
    "PolynomialLR": {"total_iters": 90, "power": 2.0},
    "CosineAnnealingLR": {"T_max": 100},
    "CosineAnnealingWarmRestarts": {"T_0": 15, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.02, "max_lr": 0.1, "step_size_up": 15, "mode": "triangular2", "cycle_momentum": False},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": STEPS + 1, "cycle_momentum": False},
    "LambdaLR": {"lr_lambda": lambda step: min((step + 1) / 10, ((step + 1) / 10) ** -0.5)},
    "MultiplicativeLR": {"lr_lambda": lambda step: 1 - 1 / (step + 10)},
    "SWALR": {"swa_lr": 0.02, "anneal_epochs": 60},
    "ReduceLROnPlateau": {"factor": 0.5, "patience": 8},
}


def sgd():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def composed():
    """A warm-up, then a plateau; steps and a decay at once."""
    optimizer = sgd()
    warm_up = schedulers.LinearLR(optimizer, 0.1, total_iters=15)
    plateau = schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=8)
    yield "SequentialLR", schedulers.SequentialLR(optimizer, [warm_up, plateau], [15])
    optimizer = sgd()
    parts = [schedulers.StepLR(optimizer, 25, 0.6), schedulers.ExponentialLR(optimizer, 0.99)]
    yield "ChainedScheduler", schedulers.ChainedScheduler(parts)


def main():
    drawn = [(name, getattr(schedulers, name)(sgd(), **settings)) for name, settings in SHAPES.items()]
    figure, panels = plt.subplots(4, 4, figsize=(10, 6.4), sharex=True, layout="constrained")
    for axes, (name, scheduler) in zip(panels.flat, [*drawn, *composed()], strict=True):
        axes.plot(*corners(simulate(scheduler, STEPS, 1.0)[:, 0]), color="#0072B2")
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 0.105)
        axes.set_yticks([0, 0.05, 0.1])
        axes.tick_params(labelsize=7)
        axes.grid(color="#DDDDDD", linewidth=0.6)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("learning rate", fontsize=9)
    figure.savefig(FILE, dpi=110)
    Image.open(FILE).convert("RGB").quantize(32).save(FILE, optimize=True)


if __name__ == "__main__":
    main()
