"""How the pictures of schedulers.rst are drawn. ``plot`` there comes from here, and from here only."""

import matplotlib.pyplot as plt
import torch


def plot(schedulers, steps, path_or_axes=None, metrics=None):
    """Draw the learning rate of the first group over the steps; minimal, in the place of ``fastsched.plot``."""
    axes = plt.subplots(figsize=(6.4, 2.8), layout="constrained")[1] if path_or_axes is None else path_or_axes
    for name, scheduler in schedulers.items():
        lrs = [float(scheduler.optimizer.param_groups[0]["lr"])]
        for step in range(steps):
            scheduler.optimizer.step()
            scheduler.step(*([] if metrics is None else [metrics[step]]))
            lrs.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        axes.plot(lrs, label=name, drawstyle="steps-post")
    axes.set(xlabel="step", ylabel="learning rate")
    axes.legend()
    return axes


def sgd(lr=0.1):
    """An optimizer of one param group, for a scheduler to be drawn on."""
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
