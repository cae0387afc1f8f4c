"""``fastsched.install()`` with every trainer: learning rates and final weights as with torch, to the last bit."""

import pytest
import test_accelerate
import test_fastai
import test_lightning
import test_monai
import test_others
import test_torchtitan
import test_transformers
import test_trl
from training import Run, elsewhere

import fastsched

TRAINERS = {
    "accelerate": test_accelerate.swapped,
    "fastai": test_fastai.swapped,
    "ignite": test_others.swapped_ignite,
    "ignite, stepped": test_others.swapped_ignite_stepped,
    "Lightning": test_lightning.swapped,
    "MONAI": test_monai.swapped,
    "skorch": test_others.swapped_skorch,
    "torchtitan": test_torchtitan.swapped,
    "transformers": test_transformers.swapped,
    "TRL": test_trl.swapped,
}
COMPUTES_ITSELF = ["ignite"]  # from get_lr(), without a step
FAR = {"TRL": 1e-3}  # AdamW divides small gradients by their size


@pytest.mark.parametrize("trainer", TRAINERS)
def test_numbers(trainer, tmp_path):
    theirs = TRAINERS[trainer](tmp_path / "theirs")
    with fastsched.installed():
        ours = TRAINERS[trainer](tmp_path / "ours")
    assert theirs.scheduler.startswith("torch.")
    assert ours.scheduler.startswith("fastsched.")
    assert ours.engine == "host"
    assert ours.lrs == theirs.lrs
    assert len(set(ours.lrs)) > 2
    assert ours.weights == theirs.weights


@pytest.mark.parametrize(
    "trainer", [trainer for trainer in TRAINERS if trainer != "skorch"]
)  # constructs its optimizer late
def test_tensors(trainer, tmp_path):
    theirs = TRAINERS[trainer](tmp_path / "theirs")
    with fastsched.installed():
        ours = TRAINERS[trainer](tmp_path / "ours", tensor_lr=True)
    if trainer not in COMPUTES_ITSELF:
        assert ours.engine == "tensor"
    assert ours.lrs == pytest.approx(theirs.lrs, rel=1e-6)
    assert ours.weights == pytest.approx(theirs.weights, rel=1e-4, abs=FAR.get(trainer, 1e-6))


def test_deepspeed(tmp_path):
    theirs, ours, tensors = (
        Run(*elsewhere(f"test_deepspeed.swapped(installed={installed}, tensor_lr={tensor_lr})", processes=1)[0])
        for installed, tensor_lr in ((False, False), (True, False), (True, True))
    )
    assert theirs.scheduler.startswith("torch.")
    assert ours.scheduler.startswith("fastsched.")
    assert (ours.engine, tensors.engine) == ("host", "tensor")
    assert (ours.lrs, ours.weights) == (theirs.lrs, theirs.weights)
    assert tensors.lrs == pytest.approx(theirs.lrs, rel=1e-6)
    assert len(set(ours.lrs)) > 2
