"""Counts the Python frames that plain steps run, in a process of its own, and prints them as JSON.

Where torch.compile has once raised an error with ``fullgraph=True``, torch (2.11 to 2.15) leaves its function for
frames installed for as long as the process lives, and from then on each step runs its Python function. So a count in a
process of many tests depends on those that ran before.
"""

import json
import sys

import torch

import fastsched

from .optimizers import sgd


def frames_of(function, call):
    """How many times a Python function's code runs in a call."""
    count = 0

    def profile(frame, event, _):
        nonlocal count
        count += event == "call" and frame.f_code is function.__code__

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def number(lr):
    return lr


def tensor(lr):
    return torch.tensor(lr, dtype=torch.float64)


MADE = {
    "plateau": (fastsched.ReduceLROnPlateau, (1.0,)),
    "warm-up, plateau": (lambda o: fastsched.WarmupReduceLROnPlateau(o, warmup_steps=2), (1.0,)),
    "step": (lambda o: fastsched.StepLR(o, 3), ()),
    "warm restarts": (lambda o: fastsched.CosineAnnealingWarmRestarts(o, 3), ()),
    "chain": (lambda o: fastsched.ChainedScheduler([fastsched.StepLR(o, 3), fastsched.ExponentialLR(o, 0.9)]), ()),
    "sequence": (
        lambda o: fastsched.SequentialLR(o, [fastsched.ConstantLR(o, 0.5, 9), fastsched.ReduceLROnPlateau(o)], [9]),
        (1.0,),
    ),
}


def begun(name, kind):
    make, metric = MADE[name]
    optimizer = sgd([kind(0.1)])
    scheduler = make(optimizer)
    for _ in range(2):
        optimizer.step()
        scheduler.step(*metric)
    return scheduler, metric


def plain_step(name, kind):
    """Frames of a step, and the epochs that it advanced."""
    scheduler, metric = begun(name, kind)
    counting = scheduler if name != "chain" else scheduler._schedulers[0]
    epoch = counting.last_epoch
    frames = frames_of(type(scheduler).step, lambda: scheduler.step(*metric))
    return [frames, counting.last_epoch - epoch]


def step_with_a_history():
    """Frames of a step that a history records, and how many it has then."""
    scheduler, _ = begun("plateau", number)
    history = fastsched.History(scheduler)
    frames = frames_of(type(scheduler).step, lambda: scheduler.step(1.0))
    return [frames, len(history)]


if __name__ == "__main__":
    plain = {f"{kind.__name__}, {name}": plain_step(name, kind) for kind in (number, tensor) for name in MADE}
    print(json.dumps(plain | {"history": step_with_a_history()}))
