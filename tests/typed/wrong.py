"""What a type checker must find: exactly the lines that end in "# wrong". It does not run."""

import torch
from torch.optim import Optimizer

import fastsched


def train(optimizer: Optimizer, model: torch.nn.Module) -> None:
    fastsched.StepLR(optimizer)  # wrong
    fastsched.StepLR(optimizer, "3")  # wrong
    fastsched.StepLR(optimizer, 3, gama=0.5)  # wrong
    fastsched.StepLR(model, 3)  # wrong
    fastsched.MultiStepLR(optimizer, 3)  # wrong
    fastsched.ConstantLR(optimizer, factor="half")  # wrong
    fastsched.LinearLR(optimizer, start=0.1)  # wrong
    fastsched.ExponentialLR(optimizer)  # wrong
    fastsched.PolynomialLR(optimizer, "5")  # wrong
    fastsched.CosineAnnealingLR(optimizer, eta_min=0.1)  # wrong
    fastsched.CosineAnnealingWarmRestarts(optimizer, 3, T_mul=2)  # wrong
    fastsched.SWALR(optimizer, 0.05, anneal_strategy="cosine")  # wrong
    fastsched.CyclicLR(optimizer, 0.1)  # wrong
    fastsched.CyclicLR(optimizer, 0.1, 0.5, mode="triangle")  # wrong
    fastsched.OneCycleLR(optimizer, 0.1, steps=3)  # wrong
    fastsched.OneCycleLR(optimizer, max_lr="0.1")  # wrong
    fastsched.LambdaLR(optimizer, 0.5)  # wrong
    fastsched.LambdaLR(optimizer, lambda epoch: "half")  # wrong
    fastsched.MultiplicativeLR(optimizer, lambda epoch: 0.5, total_steps="all")  # wrong
    fastsched.ReduceLROnPlateau(optimizer, mode="minimum")  # wrong
    fastsched.ReduceLROnPlateau(optimizer, patience=None)  # wrong
    fastsched.ReduceLROnPlateau(optimizer, deferred="later")  # wrong
    fastsched.ChainedScheduler(optimizer)  # wrong
    fastsched.SequentialLR(optimizer, [optimizer], milestones=[])  # wrong
    fastsched.SequentialLR(optimizer, [fastsched.StepLR(optimizer, 3)])  # wrong
    fastsched.EarlyStopping(mode="minimum")  # wrong

    step_lr = fastsched.StepLR(optimizer, 3)
    step_lr.step(metrics="0.5")  # wrong
    step_lr.step("next")  # wrong
    step_lr.gama = 0.5  # wrong
    step_lr.gamma = "half"  # wrong
    step_lr.get_last_lr(0)  # wrong
    step_lr.lr_at("3")  # wrong
    plateau: fastsched.ReduceLROnPlateau = step_lr  # wrong
    cycle = fastsched.CyclicLR(optimizer, 0.1, 0.5)
    cycle.max_lr = 0.5  # wrong
    swa = fastsched.SWALR(optimizer, 0.05)
    swa.strategy = "cos"  # wrong
    plateau = fastsched.ReduceLROnPlateau(optimizer)
    plateau.step()  # wrong
    plateau.step(metric=0.5)  # wrong
    plateau.step([0.5])  # wrong
    plateau.patience = "long"  # wrong
    plateau.patients = 3  # wrong
    chained = fastsched.ChainedScheduler([step_lr, plateau])
    chained.step(metric=0.5)  # wrong
    chained.step("0.5")  # wrong
    stopping = fastsched.EarlyStopping()
    stopping.step()  # wrong
    stopping.patients = 3  # wrong
