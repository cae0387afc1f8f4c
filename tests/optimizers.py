"""Optimizers in the states in which schedulers encounter them."""

from __future__ import annotations

import torch

from .conftest import sgd


def stepped_sgd(initial):
    """An optimizer that, to torch's check of the call order, has already stepped."""
    optimizer = sgd(initial)
    optimizer._opt_called = True
    return optimizer


class Wrapper(torch.optim.Optimizer):
    """Like SAM and Lookahead: an optimizer that exposes another's groups."""

    def __init__(self, base):
        self.base = base
        super().__init__(base.param_groups, base.defaults)
        self.param_groups = base.param_groups
