"""TRL: supervised fine-tuning of a tiny language model with random weights."""

import datasets
import pytest
import torch
import transformers
import trl
from recipes import recipe
from tokenizers import Tokenizer, models, pre_tokenizers
from training import WARMUP_REDUCE_LR_ON_PLATEAU, came_to, elsewhere
from transformers_training import EACH_EPOCH, QUIET, NeverContent, Recorded, train

import fastsched

TEXTS = datasets.Dataset.from_dict({"text": [f"a {'b ' * (i % 5 + 1)}c" for i in range(16)]})


def tokenizer():
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "a": 2, "b": 3, "c": 4}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def language_model():
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=5, n_positions=16, n_embd=4, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=1, pad_token_id=0
        )
    )


class RecordedSFTTrainer(Recorded, trl.SFTTrainer):
    """Of the language model."""


class WarmUpThenPlateau(NeverContent, recipe("transformers-plateau").WarmUpThenPlateau, RecordedSFTTrainer):
    """The Trainer's recipe, on an SFTTrainer."""


def trainer(folder, kind=RecordedSFTTrainer, **changed):
    given = {"learning_rate": 0.1, "num_train_epochs": 3, "per_device_train_batch_size": 4, "bf16": False}
    arguments = trl.SFTConfig(str(folder), max_length=16, logging_steps=1, **{**QUIET, **given, **changed})
    return kind(language_model(), arguments, train_dataset=TEXTS, eval_dataset=TEXTS, processing_class=tokenizer())


def swapped(folder, tensor_lr=False):
    made = trainer(folder, lr_scheduler_type="cosine", warmup_steps=3)
    if tensor_lr:
        fastsched.use_tensor_lr(made.create_optimizer())
    made.train()
    return came_to(made.lr_scheduler, made.lrs, made.model)


def warm_up_then_plateau(folder, killed_at=None, resume=False, **arguments):
    return train(trainer(folder, WarmUpThenPlateau, **EACH_EPOCH, **arguments), killed_at, resume)


@pytest.mark.parametrize("processes", [1, 2])
def test_warm_up_then_plateau_goes_on_after_a_kill(tmp_path, processes):
    # Even a single one, in a separate process: a different number of threads would add in a different order.
    def run(folder, arguments="", killed=False):
        call = f"test_trl.warm_up_then_plateau({str(tmp_path / folder)!r}, ddp_backend='gloo'{arguments})"
        return elsewhere(call, processes=processes, killed=killed)

    steps = 4 // processes  # of an epoch
    lrs, logged, weights = run("whole")[0]
    assert lrs == logged == [lr for lr in WARMUP_REDUCE_LR_ON_PLATEAU for _ in range(steps)]
    # At the second step of an epoch: at the first, one process may still be saving.
    run("parts", f", killed_at={4 * steps + 1}", killed=True)
    assert run("parts", ", resume=True") == [[lrs[4 * steps :], logged, weights]] * processes
