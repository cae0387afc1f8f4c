"""Optimizers in the states that schedulers meet them in."""

from __future__ import annotations

import torch

from .conftest import sgd


def stepped_sgd(initial):
    """An optimizer that torch's check of the order of calls takes for one that has stepped."""
    optimizer = sgd(initial)
    optimizer._opt_called = True
    return optimizer


class Wrapper(torch.optim.Optimizer):
    """As SAM and Lookahead do it: an optimizer that shows the groups of another."""

    def __init__(self, base):
        self.base = base
        super().__init__(base.param_groups, base.defaults)
        self.param_groups = base.param_groups
