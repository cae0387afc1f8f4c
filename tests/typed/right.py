"""A user's script that type checkers accept. It also runs."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import lr_scheduler as torch_lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import assert_type

import fastsched
from fastsched import lr_scheduler

model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
fastsched.use_tensor_lr(optimizer)

step_lr = assert_type(fastsched.StepLR(optimizer, 3, gamma=0.5), fastsched.StepLR)
assert_type(fastsched.MultiStepLR(optimizer, (2, 4)), fastsched.MultiStepLR)
assert_type(fastsched.ConstantLR(optimizer, total_iters=2), fastsched.ConstantLR)
linear = assert_type(fastsched.LinearLR(optimizer, 0.5, total_iters=2), fastsched.LinearLR)
assert_type(fastsched.ExponentialLR(optimizer, 0.9), fastsched.ExponentialLR)
assert_type(fastsched.PolynomialLR(optimizer, 5, power=2.0), fastsched.PolynomialLR)
assert_type(fastsched.CosineAnnealingLR(optimizer, T_max=5), fastsched.CosineAnnealingLR)
restarts = assert_type(fastsched.CosineAnnealingWarmRestarts(optimizer, 3), fastsched.CosineAnnealingWarmRestarts)
assert_type(fastsched.SWALR(optimizer, 0.05, anneal_strategy="linear"), fastsched.SWALR)
assert_type(fastsched.CyclicLR(optimizer, 0.1, [0.5], mode="exp_range", gamma=0.9), fastsched.CyclicLR)
assert_type(fastsched.OneCycleLR(optimizer, 0.1, total_steps=10), fastsched.OneCycleLR)
assert_type(fastsched.LambdaLR(optimizer, lambda epoch: 0.9**epoch, total_steps=10), fastsched.LambdaLR)
assert_type(fastsched.MultiplicativeLR(optimizer, [lambda epoch: 0.9]), fastsched.MultiplicativeLR)
plateau = assert_type(fastsched.ReduceLROnPlateau(optimizer, "max", min_lr=[1e-3]), fastsched.ReduceLROnPlateau)
chained = assert_type(fastsched.ChainedScheduler([linear, plateau]), fastsched.ChainedScheduler)
children = [fastsched.LinearLR(optimizer), fastsched.StepLR(optimizer, 3)]
sequence = assert_type(fastsched.SequentialLR(optimizer, children, milestones=[2]), fastsched.SequentialLR)
assert_type(lr_scheduler.StepLR(optimizer, 3), fastsched.StepLR)

found_inf = torch.zeros(())
optimizer.step()  # pyright: ignore[reportUnknownMemberType] -- in torch
assert_type(step_lr.step(), None)
step_lr.step(found_inf=found_inf)
restarts.step(0.5)
plateau.step(torch.ones(()))
plateau.step(metrics=0.5, found_inf=found_inf)
sequence.step()
sequence.step(metrics=0.5)
chained.step(torch.ones(()), found_inf=0.0)

assert_type(step_lr.get_last_lr(), list[float | Tensor])
assert_type(step_lr.base_lrs, list[float | Tensor])
assert_type(step_lr.lr_at(3), list[float])
assert_type(step_lr.last_epoch, int)
assert_type(step_lr.gamma, float)
assert_type(plateau.best, float)
assert_type(plateau.num_bad_epochs, int)
assert_type(step_lr.optimizer, torch.optim.Optimizer)
step_lr.load_state_dict(step_lr.state_dict())
plateau.patience = 3
late = fastsched.ReduceLROnPlateau(optimizer, deferred=True)
assert_type(late.flush(), None)
assert_type(late.deferred, bool)
assert_type(fastsched.EarlyStopping(deferred=True).flush(), None)


def names(schedulers: Sequence[LRScheduler]) -> list[str]:
    return [type(scheduler).__name__ for scheduler in schedulers]


def halved(scheduler: torch_lr_scheduler.StepLR) -> float:
    return scheduler.gamma / 2


class Warm(fastsched.LinearLR):
    def __init__(self, optimizer: torch.optim.Optimizer, name: str) -> None:
        super().__init__(optimizer, start_factor=0.1)
        self.name = name


names([step_lr, plateau, sequence, chained])
halved(step_lr)
assert_type(Warm(optimizer, "first").name, str)

stopping = fastsched.EarlyStopping(patience=3, model=model)
stopping.step(torch.ones(()))
stopping.patience = 4
assert_type(stopping.should_stop, bool)
assert_type(stopping.stopped_epoch, int | None)
history = fastsched.History(step_lr)
