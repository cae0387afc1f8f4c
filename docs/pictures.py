"""How the pictures of the guide are drawn, and on what."""

import matplotlib.pyplot as plt
import torch

import fastsched


def axes():
    """Axes that fit the page."""
    return plt.subplots(figsize=(6.4, 2.8), layout="constrained")[1]


def plot(schedulers, steps, metrics=None):
    """``fastsched.plot`` on these."""
    return fastsched.plot(schedulers, steps, axes(), metrics)


def sgd(lr=0.1, momentum=0.0):
    """An optimizer of one param group."""
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=momentum)
