"""Lightning: the recipes of docs/frameworks.md."""

import subprocess
import sys
import warnings

import pytest
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning_training import Regression, trainer
from recipes import recipe
from training import (
    SECONDS,
    WARM_UP_THEN_PLATEAU,
    WARMUP_REDUCE_LR_ON_PLATEAU,
    came_to,
    cosine,
    elsewhere,
    kill_at,
    loader,
    never_content,
    numbers,
    sgd,
    warm_up_then_plateau,
)

import fastsched


class Module(Regression):
    """Records its learning rate at the start of each epoch."""

    def __init__(self, configure, tensor_lr=False):
        super().__init__()
        self.configure = configure
        self.tensor_lr = tensor_lr
        self.lrs = []

    def validation_step(self, batch):
        self.log("val_loss", self.training_step(batch), sync_dist=True)

    def on_train_epoch_start(self):
        self.lrs.append(float(self.optimizers().param_groups[0]["lr"]))

    def configure_optimizers(self):
        optimizer = sgd(self, self.tensor_lr)
        return self.configure(optimizer)


def fit(module, tmp_path, checkpoint=None, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ran = trainer(tmp_path, **arguments)
        ran.fit(module, loader(), loader(), ckpt_path=checkpoint)
    return ran


def cosine_of_epochs(optimizer):
    return [optimizer], [cosine(optimizer)]


def swapped(folder, tensor_lr=False):
    module = Module(cosine_of_epochs, tensor_lr)
    ran = fit(module, folder)
    return came_to(ran.lr_scheduler_configs[0].scheduler, module.lrs, module)


class ByRecipe(Module):
    """Gets its schedule from a recipe, whose class comes before this one."""

    def __init__(self, tensor_lr=False):
        super().__init__(None, tensor_lr)

    def on_fit_start(self):
        optimizer = self.optimizers()
        [config] = self.trainer.lr_scheduler_configs
        if self.tensor_lr:
            fastsched.use_tensor_lr(optimizer.optimizer)
        scheduler = config.scheduler
        never_content(scheduler._schedulers[1] if hasattr(scheduler, "_schedulers") else scheduler)


class ThePlateau(recipe("lightning-plateau").WarmUpThenPlateau, ByRecipe):
    lrs_expected = WARMUP_REDUCE_LR_ON_PLATEAU


class TheComposition(recipe("lightning-composition").WarmUpThenPlateau, ByRecipe):
    lrs_expected = WARM_UP_THEN_PLATEAU


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("kind", [ThePlateau, TheComposition])
def test_warm_up_then_plateau(tmp_path, kind, tensor_lr):
    module = kind(tensor_lr)
    fit(module, tmp_path)
    assert module.lrs == pytest.approx(module.lrs_expected, rel=1e-6 if tensor_lr else 1e-15)


def test_without_reduce_on_plateau_the_plateau_asks_for_its_metric(tmp_path):
    def configure(optimizer):
        scheduler = warm_up_then_plateau(fastsched, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

    with pytest.raises(ValueError, match="needs its metric"):
        fit(Module(configure), tmp_path)


class SteppedByTheModule(recipe("lightning-resume").SteppedByTheModule, Module):
    def __init__(self, tensor_lr=False, killed_at=None):
        super().__init__(None, tensor_lr)
        self.killed_at = killed_at

    def configure_optimizers(self):
        optimizer = sgd(self, self.tensor_lr)
        self.scheduler = warm_up_then_plateau(fastsched, optimizer)
        return optimizer

    def on_train_epoch_start(self):
        kill_at(self.killed_at, self.current_epoch)
        super().on_train_epoch_start()


def by_the_module(folder, tensor_lr=False, killed_at=None, resume=False):
    module = SteppedByTheModule(tensor_lr, killed_at)
    saver = ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=True)
    fit(module, folder, checkpoint=f"{folder}/last.ckpt" if resume else None, callbacks=[saver])
    return module.lrs, numbers(module)


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
def test_going_on_after_a_kill(tmp_path, tensor_lr):
    lrs, weights = by_the_module(tmp_path / "whole", tensor_lr)
    assert lrs == pytest.approx(WARM_UP_THEN_PLATEAU, rel=1e-6 if tensor_lr else 1e-15)
    there = repr(str(tmp_path / "parts"))
    elsewhere(f"test_lightning.by_the_module({there}, {tensor_lr}, killed_at=4)", killed=True)
    assert elsewhere(f"test_lightning.by_the_module({there}, {tensor_lr}, resume=True)") == [lrs[4:], weights]


def test_learning_rates_are_logged(tmp_path):
    module = Module(cosine_of_epochs)
    logger = CSVLogger(tmp_path)
    callbacks = [LearningRateMonitor("epoch"), recipe("lightning-logging").LogLearningRate()]
    with fastsched.installed():
        fit(module, tmp_path, logger=logger, callbacks=callbacks, log_every_n_steps=1)
    logged = [line.split(",") for line in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()]
    columns = {
        name: [float(line[column]) for line in logged[1:] if line[column]] for column, name in enumerate(logged[0])
    }
    assert columns["lr-SGD"] == module.lrs
    assert columns["lr"] == [lr for lr in module.lrs for _ in range(4)]


def two_processes(folder):
    module = TheComposition()
    ran = fit(module, folder, accelerator="cpu", devices=2, num_nodes=1, strategy="ddp")
    fastsched.assert_ranks_agree(ran.lr_scheduler_configs[0].scheduler)
    return module.lrs, numbers(module)


def test_two_processes(tmp_path):
    first, second = elsewhere(f"test_lightning.two_processes({str(tmp_path)!r})", processes=2)
    assert first == second
    assert first[0] == WARM_UP_THEN_PLATEAU


CLI = """
import torch, lightning, sys
{imports}
from lightning.pytorch.cli import LightningCLI
class M(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
{before}
cli = LightningCLI(M, run=False, args=["--optimizer=SGD", "--optimizer.lr=0.1", *{args!r}])
optimizer = cli.model.configure_optimizers()
scheduler = optimizer[1][0] if isinstance(optimizer, tuple) else optimizer["lr_scheduler"]
scheduler = scheduler["scheduler"] if isinstance(scheduler, dict) else scheduler
print(type(scheduler).__module__, type(scheduler).__name__)
"""
STEP = ["--lr_scheduler=StepLR", "--lr_scheduler.step_size=3"]


def command_line(imports, before, args):
    code = CLI.format(imports=imports, before=before, args=args)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.parametrize(
    ("imports", "before", "args", "printed"),
    [
        ("", "", STEP, "torch.optim.lr_scheduler StepLR"),
        (
            "import fastsched",
            "",
            ["--lr_scheduler=torch.optim.lr_scheduler.StepLR", STEP[1]],
            "torch.optim.lr_scheduler StepLR",
        ),
        ("import fastsched", "", ["--lr_scheduler=fastsched.StepLR", STEP[1]], "fastsched.schedulers.epoch StepLR"),
        (
            "import fastsched",
            "fastsched.install()",
            ["--lr_scheduler=torch.optim.lr_scheduler.StepLR", STEP[1]],
            "fastsched.schedulers.epoch StepLR",
        ),
    ],
)
def test_the_command_line(imports, before, args, printed):
    done = command_line(imports, before, args)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == printed


def test_a_short_name_is_ambiguous_once_fastsched_is_imported():
    """As for any two subclasses of one name; jsonargparse says what to write."""
    done = command_line("import fastsched", "", STEP)
    assert done.returncode != 0
    assert "Multiple subclasses with name StepLR. Give the full class path" in " ".join(done.stderr.split())
