"""Lightning: the recipes of docs/frameworks.md."""

import subprocess
import sys
import warnings

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from training import WARM_UP_THEN_PLATEAU, expected, loader, model, warm_up_then_plateau

import fastsched


class Module(lightning.LightningModule):
    """Records its learning rate at each epoch's start."""

    def __init__(self, configure, tensor_lr=False):
        super().__init__()
        self.model = model()
        self.configure = configure
        self.tensor_lr = tensor_lr
        self.lrs = []

    def training_step(self, batch):
        x, y = batch
        return torch.nn.functional.mse_loss(self.model(x), y)

    def validation_step(self, batch):
        self.log("val_loss", self.training_step(batch))

    def on_train_epoch_start(self):
        self.lrs.append(float(self.optimizers().param_groups[0]["lr"]))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        if self.tensor_lr:
            fastsched.use_tensor_lr(optimizer)
        return self.configure(optimizer)


def trainer(tmp_path, epochs=6, **arguments):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    return lightning.Trainer(default_root_dir=tmp_path, max_epochs=epochs, **{**quiet, **arguments})


def fit(module, tmp_path, checkpoint=None, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ran = trainer(tmp_path, **arguments)
        ran.fit(module, loader(), loader(), ckpt_path=checkpoint)
    return ran


def swapped(optimizer):
    return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)]


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
def test_the_swap(tmp_path, tensor_lr):
    module = Module(swapped, tensor_lr)
    with fastsched.installed():
        ran = fit(module, tmp_path)
    assert type(ran.lr_scheduler_configs[0].scheduler) is fastsched.CosineAnnealingLR
    lrs = expected(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5), 6)
    assert module.lrs == (pytest.approx(lrs, rel=1e-6) if tensor_lr else lrs)


def monitored(optimizer):
    """A composition says by itself that it takes a metric: Lightning looks for a plateau's class."""
    scheduler = warm_up_then_plateau(fastsched, optimizer)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss", "reduce_on_plateau": True},
    }


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
def test_warm_up_then_plateau(tmp_path, tensor_lr):
    module = Module(monitored, tensor_lr)
    fit(module, tmp_path)
    assert module.lrs == pytest.approx(WARM_UP_THEN_PLATEAU, rel=1e-6)


def test_without_reduce_on_plateau_the_plateau_asks_for_its_metric(tmp_path):
    def configure(optimizer):
        scheduler = warm_up_then_plateau(fastsched, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

    with pytest.raises(ValueError, match="needs its metric"):
        fit(Module(configure), tmp_path)


class SteppedByHand(Module):
    """The recipe that resumes exactly: Lightning loses a step of a metric's scheduler at each resume."""

    def __init__(self, tensor_lr=False):
        super().__init__(None, tensor_lr)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        if self.tensor_lr:
            fastsched.use_tensor_lr(optimizer)
        self.scheduler = warm_up_then_plateau(fastsched, optimizer)
        return optimizer

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.scheduler.step(self.trainer.callback_metrics["val_loss"])

    def on_save_checkpoint(self, checkpoint):
        checkpoint["scheduler"] = self.scheduler.state_dict()

    def on_load_checkpoint(self, checkpoint):
        self.saved = checkpoint["scheduler"]

    def on_fit_start(self):
        if hasattr(self, "saved"):
            self.scheduler.load_state_dict(self.saved)


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
def test_resuming(tmp_path, tensor_lr):
    first, second = SteppedByHand(tensor_lr), SteppedByHand(tensor_lr)
    fit(first, tmp_path, epochs=4).save_checkpoint(tmp_path / "four.ckpt")
    fit(second, tmp_path, checkpoint=tmp_path / "four.ckpt")
    assert first.lrs + second.lrs == pytest.approx(WARM_UP_THEN_PLATEAU, rel=1e-6)


def test_learning_rates_are_logged(tmp_path):
    module = Module(swapped)
    logger = CSVLogger(tmp_path)
    with fastsched.installed():
        fit(module, tmp_path, logger=logger, callbacks=[LearningRateMonitor("epoch")], log_every_n_steps=1)
    logged = [line.split(",") for line in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()]
    column = logged[0].index("lr-SGD")
    assert [float(line[column]) for line in logged[1:] if line[column]] == module.lrs


PROCESSES = """
import sys
sys.path.insert(0, {folder!r})
from test_lightning import *
module = Module(monitored)
fit(module, {tmp!r}, accelerator="cpu", devices=2, strategy="ddp")
print(module.lrs)
"""


def test_two_processes(tmp_path, request):
    script = tmp_path / "train.py"
    script.write_text(PROCESSES.format(folder=str(request.path.parent), tmp=str(tmp_path)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == 2
    for line in lines:
        assert [float(lr) for lr in line[1:-1].split(",")] == pytest.approx(WARM_UP_THEN_PLATEAU)


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
    code = CLI.format(imports=imports, before=before, args=args)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == printed


def test_a_short_name_is_ambiguous_once_fastsched_is_imported():
    """As for any two subclasses of one name; jsonargparse says what to write."""
    code = CLI.format(imports="import fastsched", before="", args=STEP)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode != 0
    assert "Multiple subclasses with name StepLR. Give the full class path" in " ".join(done.stderr.split())
