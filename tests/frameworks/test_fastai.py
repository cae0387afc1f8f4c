"""fastai: a Learner with a torch optimizer."""

import functools
from pathlib import Path

import torch
from fastai.basics import Callback, DataLoaders, Learner, OptimWrapper
from recipes import recipe
from training import (
    WARMUP_REDUCE_LR_ON_PLATEAU,
    came_to,
    cosine,
    elsewhere,
    kill_at,
    loader,
    model,
    never_content,
    numbers,
)

import fastsched


class Recorded(Callback):
    order = 0  # before the schedule

    def __init__(self, tensor_lr=False, killed_at=None):
        self.tensor_lr, self.killed_at, self.lrs = tensor_lr, killed_at, []

    def before_fit(self):
        if self.tensor_lr:
            fastsched.use_tensor_lr(self.opt.opt)

    def before_batch(self):
        if self.training:
            self.lrs.append(float(self.opt.opt.param_groups[0]["lr"]))

    def after_epoch(self):
        kill_at(self.killed_at, self.epoch)


def learner(folder="."):
    Path(folder).mkdir(exist_ok=True)
    sgd = functools.partial(OptimWrapper, opt=torch.optim.SGD)
    loaders = DataLoaders(loader(), loader())
    return Learner(loaders, model(), torch.nn.functional.mse_loss, sgd, lr=0.1, wd=0.0, path=Path(folder))


def fit(learner, epochs, callbacks, **arguments):
    with learner.no_logging():
        learner.fit(epochs, cbs=callbacks, **arguments)


def swapped(folder=None, tensor_lr=False):
    made, recorded = learner(), Recorded(tensor_lr)
    schedule = recipe("fastai-batches").Schedule(cosine)
    fit(made, 2, [recorded, schedule])
    return came_to(schedule.scheduler, recorded.lrs, made.model)


def plateau(optimizer):
    return never_content(fastsched.WarmupReduceLROnPlateau(optimizer, warmup_steps=2, warmup_start_factor=0.25))


def warm_up_then_plateau(folder, killed_at=None, resume=False, tensor_lr=False):
    made, recorded = learner(folder), Recorded(tensor_lr, killed_at)
    schedule = recipe("fastai-plateau").PlateauSchedule(plateau)
    fit(made, 6, [recorded, schedule], **({"start_epoch": schedule.resume(made)} if resume else {}))
    return recorded.lrs, numbers(made.model)


def test_warm_up_then_plateau_goes_on_after_a_kill(tmp_path):
    lrs, weights = warm_up_then_plateau(tmp_path / "whole")
    assert lrs == [lr for lr in WARMUP_REDUCE_LR_ON_PLATEAU for _ in range(4)]
    there = repr(str(tmp_path / "parts"))
    elsewhere(f"test_fastai.warm_up_then_plateau({there}, killed_at=4)", killed=True)
    assert elsewhere(f"test_fastai.warm_up_then_plateau({there}, resume=True)") == [lrs[16:], weights]
