"""How the pictures of schedulers.rst are drawn, and on what."""

import matplotlib.pyplot as plt
import torch


def draw(schedulers, steps, path_or_axes, metrics=None):
    """The learning rates of the first param group over the steps, in the place of ``fastsched.plot``."""
    for name, scheduler in schedulers.items():
        group = scheduler.optimizer.param_groups[0]
        lrs = [group["lr"]]
        for step in range(steps):
            scheduler.optimizer.step()
            scheduler.step(*([] if metrics is None else [metrics[step]]))
            lrs.append(group["lr"])
        path_or_axes.plot(lrs, label=name, drawstyle="steps-post")
    path_or_axes.set(xlabel="step", ylabel="learning rate")
    path_or_axes.legend()
    return path_or_axes


def plot(schedulers, steps, metrics=None):
    """``fastsched.plot`` on axes that fit the page."""
    _, axes = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
    return draw(schedulers, steps, path_or_axes=axes, metrics=metrics)


def sgd(lr=0.1):
    """An optimizer of one param group."""
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
