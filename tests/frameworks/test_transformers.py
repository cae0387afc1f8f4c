"""The transformers Trainer: the recipes of docs/frameworks.md."""

import pytest
import torch
import transformers
from recipes import recipe
from training import WARMUP_REDUCE_LR_ON_PLATEAU, came_to, data, elsewhere, kill_at, model, never_content, numbers

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

    killed_at = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lrs = []

    def training_step(self, *args, **kwargs):
        kill_at(self.killed_at, len(self.lrs))
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


def swapped(folder, tensor_lr=False):
    trainer = recorded(folder, tensor_lr=tensor_lr, lr_scheduler_type="cosine", warmup_steps=3)
    trainer.train()
    return came_to(trainer.lr_scheduler, trainer.lrs, trainer.model)


class WarmUpThenPlateau(recipe("transformers-plateau").WarmUpThenPlateau, Recorded):
    """Stepped after each evaluation."""

    def create_scheduler(self, *args, **kwargs):
        return never_content(super().create_scheduler(*args, **kwargs))


def warm_up_then_plateau(folder, tensor_lr=False, killed_at=None, resume=False, **arguments):
    trainer = recorded(
        folder, WarmUpThenPlateau, tensor_lr, eval_strategy="epoch", num_train_epochs=6, metric_for_best_model="loss",
        save_strategy="epoch", **arguments,
    )  # fmt: skip
    trainer.killed_at = killed_at
    trainer.train(resume_from_checkpoint=resume)
    logged = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    return trainer.lrs, logged, numbers(trainer.model)


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
def test_warm_up_then_plateau_goes_on_after_a_kill(tmp_path, tensor_lr):
    lrs, logged, weights = warm_up_then_plateau(tmp_path / "whole", tensor_lr)
    assert lrs[::4] == pytest.approx(WARMUP_REDUCE_LR_ON_PLATEAU, rel=1e-6 if tensor_lr else 1e-15)
    assert logged == pytest.approx(lrs, rel=1e-6 if tensor_lr else 1e-15)
    there = repr(str(tmp_path / "parts"))
    elsewhere(f"test_transformers.warm_up_then_plateau({there}, {tensor_lr}, killed_at=18)", killed=True)
    resumed = elsewhere(f"test_transformers.warm_up_then_plateau({there}, {tensor_lr}, resume=True)")
    assert resumed == [lrs[16:], logged, weights]


def test_two_processes(tmp_path):
    first, second = elsewhere(
        f"test_transformers.warm_up_then_plateau({str(tmp_path)!r}, ddp_backend='gloo')", processes=2
    )
    assert first[::2] == second[::2]
    assert first[0] == [lr for lr in WARMUP_REDUCE_LR_ON_PLATEAU for _ in range(2)]
