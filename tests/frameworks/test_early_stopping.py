"""The callbacks of fastsched.integrations in complete training runs."""

import subprocess
import sys

import lightning
import lightning_training
import pytest
import torch
import transformers
from training import SECONDS, elsewhere, loader
from transformers_training import QUIET, Regression, rows

import fastsched
from fastsched.integrations.lightning import EarlyStoppingCallback
from fastsched.integrations.transformers import EarlyStoppingCallback as OfTransformers

LOSSES = [1.0, 0.5, 0.6, 0.7, 0.4, 0.8, 0.9, 1.0, 1.1]
STOPPED = 8  # with patience=2


class Scripted(lightning_training.Regression):
    """Trains; its validations return losses from a list."""

    def __init__(self, late=False):
        super().__init__()
        self.late = late
        self.weights = []

    def validation_step(self, batch):
        if not self.late:
            self.log("val_loss", LOSSES[self.current_epoch])

    def on_validation_epoch_end(self):
        if self.late:
            self.log("val_loss", LOSSES[self.current_epoch])
        if not self.trainer.sanity_checking:
            self.weights.append(self.model.weight.detach().clone())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(tmp_path, module, callbacks, epochs=9, checkpoint=None, **arguments):
    ran = lightning_training.trainer(tmp_path, epochs, callbacks=callbacks, **arguments)
    ran.fit(module, loader(), loader(), ckpt_path=checkpoint)
    return ran


@pytest.mark.parametrize("late", [False, True], ids=["in the step", "at the end"])
def test_lightning_stops(tmp_path, late):
    callback = EarlyStoppingCallback("val_loss", patience=2)
    ran = fit(tmp_path, Scripted(late), [callback])
    assert ran.current_epoch == STOPPED
    assert callback.stopper.last_epoch == STOPPED  # no sanity check among them
    ran.validate(verbose=False, dataloaders=loader(), model=Scripted())
    assert callback.stopper.last_epoch == STOPPED


def test_lightning_stops_where_its_own_callback_does(tmp_path):
    own = lightning.pytorch.callbacks.EarlyStopping("val_loss", patience=2)
    ours = EarlyStoppingCallback("val_loss", patience=2, patience_counts="keras")
    assert [fit(tmp_path, Scripted(), [callback]).current_epoch for callback in (own, ours)] == [4, 4]


@pytest.mark.parametrize("restore", [False, True])
def test_lightning_restores_the_best_weights(tmp_path, restore):
    module = Scripted()
    fit(tmp_path, module, [EarlyStoppingCallback("val_loss", patience=2, restore_best=restore)])
    assert torch.equal(module.model.weight, module.weights[LOSSES.index(0.4) if restore else -1])
    assert not torch.equal(module.weights[4], module.weights[-1])


def test_lightning_keeps_what_no_validation_judged(tmp_path):
    module = Scripted()
    before = module.model.weight.detach().clone()
    fit(tmp_path, module, [EarlyStoppingCallback("val_loss", restore_best=True)], epochs=1, limit_val_batches=0)
    assert not torch.equal(module.model.weight, before)


@pytest.mark.parametrize("restore", [False, True])
def test_lightning_resumes(tmp_path, restore):
    def callback():
        return EarlyStoppingCallback("val_loss", patience=2, restore_best=restore)

    first, second, whole = Scripted(), Scripted(), Scripted()
    fit(tmp_path, whole, [callback()])
    saver = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path / "saved", save_top_k=-1, filename="{epoch}")
    fit(tmp_path, first, [callback(), saver], epochs=6)
    resumed = callback()
    ran = fit(tmp_path, second, [resumed], checkpoint=tmp_path / "saved" / "epoch=5.ckpt")
    assert ran.current_epoch == STOPPED
    assert resumed.stopper.best == pytest.approx(0.4)
    assert torch.equal(second.model.weight, whole.model.weight)


def test_lightning_names_what_was_logged(tmp_path):
    with pytest.raises(ValueError, match=r"monitor='val_los' was not logged .* logged: 'val_loss'"):
        fit(tmp_path, Scripted(), [EarlyStoppingCallback("val_los")])


def test_lightning_two_metrics_have_two_states():
    keys = {EarlyStoppingCallback(name, mode=mode).state_key for name in ("a", "b") for mode in ("min", "max")}
    assert len(keys) == 4


@pytest.mark.parametrize("name", ["model", "process_group"])
def test_lightning_what_the_trainer_has_is_refused(name):
    with pytest.raises(TypeError, match=name):
        EarlyStoppingCallback("val_loss", **{name: None})


class Parts(Scripted):
    def validation_step(self, batch):
        self.log("val_loss", 2 * LOSSES[self.current_epoch] * self.global_rank)


def two_processes(folder):
    callback = EarlyStoppingCallback("val_loss", patience=2)
    ran = fit(folder, Parts(), [callback], devices=2, strategy="ddp")
    return ran.current_epoch, round(callback.stopper.best, 6)


def test_lightning_judges_the_mean_of_two_processes(tmp_path):
    assert elsewhere(f"test_early_stopping.two_processes({str(tmp_path)!r})", processes=2) == [[STOPPED, 0.4]] * 2


OTHER_PACKAGE = """
import sys
sys.path.insert(0, {folder!r})
import pytorch_lightning
from fastsched.integrations.lightning import EarlyStoppingCallback
from training import loader, model
class Module(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = model()
    def training_step(self, batch):
        return self.model(batch[0]).square().mean()
    def validation_step(self, batch):
        self.log("val_loss", 1.0)
    def configure_optimizers(self):
        import torch
        return torch.optim.SGD(self.parameters(), lr=0.01)
assert isinstance(EarlyStoppingCallback("val_loss"), pytorch_lightning.Callback)
ran = pytorch_lightning.Trainer(
    default_root_dir={tmp!r}, max_epochs=9, logger=False, accelerator="cpu", enable_progress_bar=False,
    callbacks=[EarlyStoppingCallback("val_loss", patience=2, restore_best=True)],
)
ran.fit(Module(), loader(), loader())
assert "lightning.pytorch" not in sys.modules
print("stopped", ran.current_epoch)
"""


def test_lightning_by_its_other_package(tmp_path, request):
    script = tmp_path / "train.py"
    script.write_text(OTHER_PACKAGE.format(folder=str(request.path.parent), tmp=str(tmp_path)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("stopped")] == ["stopped 4"]


class ScriptedTrainer(transformers.Trainer):
    """Its evaluations return losses from a list."""

    def evaluation_loop(self, *args, **kwargs):
        output = super().evaluation_loop(*args, **kwargs)
        output.metrics["eval_loss"] = LOSSES[round(self.state.epoch) - 1]
        return output


def transformers_trainer(tmp_path, callback, epochs=9):
    each_epoch = {"num_train_epochs": epochs, "eval_strategy": "epoch", "save_strategy": "epoch"}
    arguments = transformers.TrainingArguments(
        str(tmp_path), restore_callback_states_from_checkpoint=True, **{**QUIET, **each_epoch}
    )
    return ScriptedTrainer(Regression(), arguments, train_dataset=rows(), eval_dataset=rows(), callbacks=[callback])


def test_transformers_stops_and_resumes(tmp_path):
    trainer = transformers_trainer(tmp_path, OfTransformers("loss", patience=2))
    trainer.train()
    assert trainer.state.epoch == STOPPED
    checkpoint = tmp_path / f"checkpoint-{trainer.state.global_step // STOPPED * 6}"
    resumed = transformers_trainer(tmp_path, OfTransformers("loss", patience=2))
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.epoch == STOPPED
    (callback,) = [one for one in resumed.callback_handler.callbacks if isinstance(one, OfTransformers)]
    assert callback.stopper.last_epoch == STOPPED


def test_transformers_names_what_there_is(tmp_path):
    with pytest.raises(ValueError, match=r"metric_for_best_model='eval_los' .* 'eval_loss'"):
        transformers_trainer(tmp_path, OfTransformers("los")).train()


def test_stoppers_alone_stop_there():
    stopper = fastsched.EarlyStopping(patience=2)
    assert [bool(stopper.step(loss)) for loss in LOSSES].index(True) + 1 == STOPPED
