"""Ctrl-C at any line, and a second thread at any time: a scheduler's state is never lost."""

import sys
import threading

import pytest
import torch

import fastsched

from .interruption import interrupted
from .optimizers import stepped_sgd


def sequence(optimizer):
    return fastsched.SequentialLR(
        optimizer, [fastsched.LinearLR(optimizer, total_iters=9), fastsched.ExponentialLR(optimizer, 0.9)], [20]
    )


SCHEDULERS = {
    "LinearLR": lambda optimizer: fastsched.LinearLR(optimizer, total_iters=9),
    "CosineAnnealingWarmRestarts": lambda optimizer: fastsched.CosineAnnealingWarmRestarts(optimizer, 5),
    "LambdaLR": lambda optimizer: fastsched.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
    "OneCycleLR": lambda optimizer: fastsched.OneCycleLR(optimizer, 0.5, total_steps=50),
    "ReduceLROnPlateau": lambda optimizer: fastsched.ReduceLROnPlateau(optimizer, patience=3),
    "SequentialLR": sequence,
    "ChainedScheduler": lambda optimizer: fastsched.ChainedScheduler(
        [sequence(optimizer), fastsched.ReduceLROnPlateau(optimizer)]
    ),
}
CHANGES = {
    "to tensors": lambda scheduler: fastsched.use_tensor_lr(scheduler.optimizer),
    "to torch's code": lambda scheduler: scheduler.optimizer.param_groups[0].update(
        lr=torch.tensor(0.1, dtype=torch.float16)
    ),
    "of groups": lambda scheduler: scheduler.optimizer.add_param_group(
        {"params": [torch.nn.Parameter(torch.zeros(1))], "initial_lr": 0.1, "max_lr": 0.1, "min_lr": 0.1}
        | {"max_momentum": 0.9, "base_momentum": 0.8}
    ),
    "of counters": lambda scheduler: vars(scheduler).update(
        {name: getattr(scheduler, name) for name in ("last_epoch", "best") if hasattr(scheduler, name)}
    ),
}


def advance(scheduler):
    if scheduler._takes_metrics:
        scheduler.step(1.0)
    else:
        scheduler.step()


def epochs(state):
    """All epochs in a state, including those of children."""
    return [
        *([state["last_epoch"]] if "last_epoch" in state else []),
        *(epoch for child in state.get("_schedulers", []) for epoch in epochs(child)),
    ]


@pytest.mark.parametrize("kind", [float, torch.tensor])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        (name, change)
        for name in SCHEDULERS
        for change in CHANGES
        # where torch raises ValueError
        if not (name in ("LambdaLR", "CosineAnnealingWarmRestarts") and change == "of groups")
    ],
)
def test_a_step_that_changes_the_engine_may_be_interrupted_anywhere(name, kind, change):
    line, reached = 0, True
    while reached:
        line += 11 if line > 50 else 1  # each of the first lines, and a sample of the others
        scheduler = SCHEDULERS[name](stepped_sgd([kind(0.5)]))
        for _ in range(3):
            advance(scheduler)
        before = scheduler.state_dict()
        CHANGES[change](scheduler)
        reached = interrupted(lambda scheduler=scheduler: advance(scheduler), line)
        after = scheduler.state_dict()
        assert after.keys() >= before.keys()
        assert all(0 <= now - was <= 1 for now, was in zip(epochs(after), epochs(before), strict=True))
        advance(scheduler)
        assert sum(epochs(scheduler.state_dict())) > sum(epochs(after))
    assert line > 1


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_two_threads_may_take_the_first_steps(kind):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(150):
            scheduler = sequence(stepped_sgd([kind(0.5)]))
            barrier = threading.Barrier(2)

            def run(scheduler=scheduler, barrier=barrier):
                barrier.wait()
                for _ in range(10):
                    scheduler.step()
                    assert isinstance(scheduler.last_epoch, int)
                    assert "last_epoch" in scheduler.state_dict()

            errors = []
            threads = [
                threading.Thread(target=lambda run=run, errors=errors: collect(run, errors), name=f"stepper {n}")
                for n in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not errors
            assert 10 <= scheduler.last_epoch <= 20
    finally:
        sys.setswitchinterval(interval)


def collect(run, errors):
    try:
        run()
    except BaseException as error:
        errors.append(error)


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_a_second_thread_may_read_beside_steps(kind):
    scheduler = sequence(stepped_sgd([kind(0.5)]))
    done = threading.Event()
    errors = []

    def read():
        while not done.is_set():
            assert isinstance(scheduler.last_epoch, int)
            assert len(scheduler.get_last_lr()) == 1
            assert "last_epoch" in scheduler.state_dict()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        reader = threading.Thread(target=lambda: collect(read, errors))
        reader.start()
        for i in range(600):
            if i % 20 == 10:
                scheduler._milestones = list(scheduler._milestones)
            scheduler.step()
        done.set()
        reader.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
