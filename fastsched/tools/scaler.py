"""Whether a GradScaler skips the optimizer's step, for schedulers that should skip theirs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler


def found_inf(scaler: GradScaler, optimizer: Any) -> Tensor | float:
    """Whether the scaler found an inf or nan among the gradients, for ``scheduler.step(found_inf=...)``.

    Call it after ``scaler.unscale_(optimizer)`` or ``scaler.step(optimizer)`` and before ``scaler.update()``, which
    clears it.

    Args:
        scaler: a :class:`torch.amp.GradScaler`, or a subclass of it.
        optimizer: the one whose gradients it unscales, or a wrapper with that as its ``optimizer``, such as
            accelerate's.

    Returns:
        A tensor of one element on the device of the gradients (the first if there are several), not 0 if the step is
        skipped. A disabled scaler skips nothing: 0.0.

    Raises:
        TypeError: ``scaler`` is not a GradScaler.
        RuntimeError: the scaler has not looked at this optimizer's gradients since its last update.

    Does not wait for a device. May be captured along with the scaler's own steps. Breaks the graph under torch.compile.

    Example::

        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scheduler.step(found_inf=fastsched.found_inf(scaler, optimizer))
        scaler.update()
    """
    if not isinstance(scaler, GradScaler):
        raise TypeError(f"scaler must be a torch.amp.GradScaler, got {type(scaler).__name__}")
    if not scaler.is_enabled():
        return 0.0
    while id(optimizer) not in scaler._per_optimizer_states and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    found = []
    if id(optimizer) in scaler._per_optimizer_states:  # a defaultdict: looking up adds an entry
        found = list(scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values())
    if not found:
        raise RuntimeError(
            "the scaler has not looked at this optimizer's gradients since its last update: call found_inf after "
            "scaler.unscale_(optimizer) or scaler.step(optimizer), and before scaler.update()"
        )
    first: Tensor = found[0]
    if len(found) == 1:
        return first
    return torch.stack([one.to(first.device, non_blocking=True) for one in found]).amax(0)
