"""The transformers Trainer: the recipes of docs/frameworks.md."""

import pytest
import transformers
from recipes import recipe
from training import WARMUP_REDUCE_LR_ON_PLATEAU, came_to, elsewhere, installed_if
from transformers_training import EACH_EPOCH, QUIET, NeverContent, Recorded, Regression, rows, train

import fastsched


class RecordedTrainer(Recorded, transformers.Trainer):
    """Trains the model of :mod:`transformers_training`."""


def recorded(folder, kind=RecordedTrainer, tensor_lr=False, **changed):
    given = {"learning_rate": 0.1, "num_train_epochs": 3, "per_device_train_batch_size": 8, "optim": "sgd"}
    arguments = transformers.TrainingArguments(str(folder), logging_steps=1, **{**QUIET, **given, **changed})
    trainer = kind(Regression(), arguments, train_dataset=rows(), eval_dataset=rows())
    if tensor_lr:
        fastsched.use_tensor_lr(trainer.create_optimizer())
    return trainer


@pytest.mark.parametrize("name", ["linear", "cosine", "cosine_with_restarts", "inverse_sqrt", "constant_with_warmup"])
def test_the_swap(name, tmp_path):
    runs = []
    for install in (False, True):
        trainer = recorded(tmp_path, lr_scheduler_type=name, warmup_steps=3)
        with installed_if(install):
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
        with installed_if(install):
            trainer.train()
        runs.append(trainer.lrs)
        assert isinstance(trainer.lr_scheduler, fastsched.ReduceLROnPlateau) is install
    assert runs[0] == runs[1] == [0.1] * 8 + [0.05] * 4


def swapped(folder, tensor_lr=False):
    trainer = recorded(folder, tensor_lr=tensor_lr, lr_scheduler_type="cosine", warmup_steps=3)
    trainer.train()
    return came_to(trainer.lr_scheduler, trainer.lrs, trainer.model)


class WarmUpThenPlateau(NeverContent, recipe("transformers-plateau").WarmUpThenPlateau, RecordedTrainer):
    """Stepped after each evaluation."""


def warm_up_then_plateau(folder, tensor_lr=False, killed_at=None, resume=False, **arguments):
    return train(recorded(folder, WarmUpThenPlateau, tensor_lr, **EACH_EPOCH, **arguments), killed_at, resume)


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
