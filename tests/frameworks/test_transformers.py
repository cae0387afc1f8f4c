"""The transformers Trainer: the recipes of docs/frameworks.md."""

import signal
import subprocess
import sys

import pytest
import torch
import transformers
from training import data, expected, model, warm_up_then_plateau

import fastsched


class Regression(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model()

    def forward(self, x, labels):
        return {"loss": torch.nn.functional.mse_loss(self.model(x), labels)}


EXAMPLES = [{"x": x, "labels": y} for x, y in data()]


class Recorded(transformers.Trainer):
    """Notes the learning rate of each step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lrs = []

    def training_step(self, *args, **kwargs):
        self.lrs.append(float(self.optimizer.param_groups[0]["lr"]))
        return super().training_step(*args, **kwargs)


def arguments(tmp_path, **changed):
    quiet = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no"}
    given = {"learning_rate": 0.1, "num_train_epochs": 3, "per_device_train_batch_size": 8, "optim": "sgd"}
    return transformers.TrainingArguments(output_dir=str(tmp_path), **{**quiet, **given, **changed})


def recorded(tmp_path, kind=Recorded, tensor_lr=False, **changed):
    trainer = kind(Regression(), arguments(tmp_path, **changed), train_dataset=EXAMPLES, eval_dataset=EXAMPLES)
    if tensor_lr:
        fastsched.use_tensor_lr(trainer.create_optimizer())
    return trainer


@pytest.mark.parametrize("name", ["linear", "cosine", "cosine_with_restarts", "inverse_sqrt", "constant_with_warmup"])
def test_the_swap(name, tmp_path):
    runs = []
    for install in (False, True):
        trainer = recorded(tmp_path, lr_scheduler_type=name, warmup_steps=3)
        if install:
            with fastsched.installed():
                trainer.train()
        else:
            trainer.train()
        runs.append(trainer.lrs)
        assert isinstance(trainer.lr_scheduler, fastsched.LambdaLR) is install
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 2


def test_a_plateau(tmp_path):
    runs = []
    for install in (False, True):
        trainer = recorded(
            tmp_path,
            lr_scheduler_type="reduce_lr_on_plateau",
            eval_strategy="epoch",
            metric_for_best_model="loss",
            lr_scheduler_kwargs={"patience": 0, "threshold": 10.0, "threshold_mode": "abs", "factor": 0.5},
        )
        if install:
            with fastsched.installed():
                trainer.train()
        else:
            trainer.train()
        runs.append(trainer.lrs)
        assert isinstance(trainer.lr_scheduler, fastsched.ReduceLROnPlateau) is install
    assert runs[0] == runs[1] == [0.1] * 8 + [0.05] * 4


def test_tensor_learning_rates(tmp_path):
    with fastsched.installed():
        trainer = recorded(tmp_path, tensor_lr=True, lr_scheduler_type="cosine", warmup_steps=3)
        trainer.train()
    assert fastsched.explain(trainer.lr_scheduler).engine == "tensor"
    plain = recorded(tmp_path, lr_scheduler_type="cosine", warmup_steps=3)
    plain.train()
    assert trainer.lrs == pytest.approx(plain.lrs, rel=1e-6, abs=1e-9)


class WarmUpThenPlateau(Recorded):
    """The Trainer steps at every batch; a schedule of epochs is stepped where the metric is."""

    def create_scheduler(self, num_training_steps, optimizer=None):
        self.epochs = warm_up_then_plateau(fastsched, self.optimizer if optimizer is None else optimizer)
        self.lr_scheduler = fastsched.LambdaLR(torch.optim.SGD([torch.zeros(1)], 1.0), lambda step: 1.0)
        return self.lr_scheduler

    def evaluate(self, *args, **kwargs):
        metrics = super().evaluate(*args, **kwargs)
        self.epochs.step(metrics["eval_loss"])
        return metrics

    def _get_learning_rate(self):
        return self.epochs.peek()["lrs"][0]  # does not wait for a GPU


def test_warm_up_then_plateau_and_logging(tmp_path):
    trainer = recorded(tmp_path, WarmUpThenPlateau, eval_strategy="epoch", num_train_epochs=6)
    trainer.train()
    assert trainer.lrs[::4] == pytest.approx([0.025, 0.0625, 0.1, 0.05, 0.025, 0.0125])
    logged = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert logged == trainer.lrs


RUN = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from test_transformers import *

class Killed(Recorded):
    def training_step(self, *args, **kwargs):
        if {kill} and len(self.lrs) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(*args, **kwargs)

fastsched.install()
trainer = recorded({tmp!r}, Killed, lr_scheduler_type="cosine", warmup_steps=3, save_strategy="epoch")
trainer.train(resume_from_checkpoint={resume})
assert type(trainer.lr_scheduler) is fastsched.LambdaLR
print(trainer.lrs)
"""


def run(tmp_path, request, kill, resume):
    code = RUN.format(folder=str(request.path.parent), tmp=str(tmp_path), kill=kill, resume=resume)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=False)


def test_resuming_after_a_kill(tmp_path, request):
    killed = run(tmp_path, request, kill=True, resume=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run(tmp_path, request, kill=False, resume=True)
    assert resumed.returncode == 0, resumed.stderr
    lrs = [float(lr) for lr in resumed.stdout.splitlines()[-1][1:-1].split(",")]
    assert lrs == expected(lambda o: transformers.get_cosine_schedule_with_warmup(o, 3, 12), 12)[8:]
