"""Plateaus that are stepped at every iteration, as docs/frameworks.md describes."""

import lightning_training
import torch
import transformers
from training import loader
from transformers_training import QUIET, Regression, rows

import fastsched

PLATEAU = {"factor": 0.5, "patience": 1, "threshold": 0.3}


class Module(lightning_training.Regression):
    def __init__(self):
        super().__init__()
        self.losses = []

    def training_step(self, batch):
        loss = super().training_step(batch)
        self.log("train_loss", loss)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = fastsched.ReduceLROnPlateau(optimizer, **PLATEAU, deferred=True)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "train_loss", "interval": "step"},
        }


def agree(scheduler, losses):
    alone = fastsched.ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1), **PLATEAU)
    for loss in losses:
        alone.step(loss)
    scheduler.flush()
    assert scheduler.optimizer.param_groups[0]["lr"] == alone.optimizer.param_groups[0]["lr"] < 0.1
    assert (scheduler.best, scheduler.last_epoch) == (alone.best, alone.last_epoch)


def test_lightning_hands_the_logged_loss_over(tmp_path):
    module = Module()
    trainer = lightning_training.trainer(tmp_path, epochs=3)
    trainer.fit(module, loader())
    agree(trainer.lr_scheduler_configs[0].scheduler, module.losses)


class Trainer(transformers.Trainer):
    def create_scheduler(self, num_training_steps, optimizer=None):
        optimizer = self.optimizer if optimizer is None else optimizer
        self.plateau = fastsched.ReduceLROnPlateau(optimizer, **PLATEAU, deferred=True)
        self.losses = []
        # The scheduler that the Trainer steps at each batch drives an optimizer of its own, which nothing uses.
        self.lr_scheduler = fastsched.LambdaLR(torch.optim.SGD([torch.zeros(1)], 1.0), lambda step: 1.0)
        return self.lr_scheduler

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.plateau.step(loss.detach())
        self.losses.append(loss.item())
        return loss


def test_transformers_steps_a_plateau_in_its_training_step(tmp_path):
    given = {"num_train_epochs": 3, "per_device_train_batch_size": 8, "optim": "sgd", "learning_rate": 0.1}
    trainer = Trainer(
        Regression(), transformers.TrainingArguments(str(tmp_path), **QUIET, **given), train_dataset=rows()
    )
    trainer.train()
    agree(trainer.plateau, trainer.losses)
