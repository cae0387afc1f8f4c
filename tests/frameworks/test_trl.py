"""TRL: supervised fine-tuning of a tiny language model with random weights."""

import datasets
import torch
import transformers
import trl
from recipes import recipe
from tokenizers import Tokenizer, models, pre_tokenizers
from training import WARMUP_REDUCE_LR_ON_PLATEAU, came_to, elsewhere, kill_at, never_content, numbers

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


class Recorded(trl.SFTTrainer):
    """Notes the learning rate of each step."""

    killed_at = None

    def training_step(self, *args, **kwargs):
        self.lrs = [*getattr(self, "lrs", []), float(self.optimizer.param_groups[0]["lr"])]
        kill_at(self.killed_at, len(self.lrs))
        return super().training_step(*args, **kwargs)


class WarmUpThenPlateau(recipe("transformers-plateau").WarmUpThenPlateau, Recorded):
    """The Trainer's recipe, on an SFTTrainer."""

    def create_scheduler(self, *args, **kwargs):
        return never_content(super().create_scheduler(*args, **kwargs))


def trainer(folder, kind=Recorded, **changed):
    quiet = {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "logging_steps": 1}
    given = {"learning_rate": 0.1, "num_train_epochs": 3, "per_device_train_batch_size": 4, "save_strategy": "no"}
    arguments = trl.SFTConfig(output_dir=str(folder), max_length=16, **{**quiet, **given, **changed})
    return kind(language_model(), arguments, train_dataset=TEXTS, eval_dataset=TEXTS, processing_class=tokenizer())


def swapped(folder, tensor_lr=False):
    made = trainer(folder, lr_scheduler_type="cosine", warmup_steps=3)
    if tensor_lr:
        fastsched.use_tensor_lr(made.create_optimizer())
    made.train()
    return came_to(made.lr_scheduler, made.lrs, made.model)


def warm_up_then_plateau(folder, killed_at=None, resume=False):
    made = trainer(
        folder, WarmUpThenPlateau, eval_strategy="epoch", num_train_epochs=6, metric_for_best_model="loss",
        save_strategy="epoch",
    )  # fmt: skip
    made.killed_at = killed_at
    made.train(resume_from_checkpoint=resume)
    logged = [entry["learning_rate"] for entry in made.state.log_history if "learning_rate" in entry]
    return made.lrs, logged, numbers(made.model)


def test_warm_up_then_plateau_goes_on_after_a_kill(tmp_path):
    # In a process of its own as well: other numbers of threads add up in another order.
    lrs, logged, weights = elsewhere(f"test_trl.warm_up_then_plateau({str(tmp_path / 'whole')!r})")
    assert lrs == [lr for lr in WARMUP_REDUCE_LR_ON_PLATEAU for _ in range(4)]
    assert logged == lrs
    there = str(tmp_path / "parts")
    elsewhere(f"test_trl.warm_up_then_plateau({there!r}, killed_at=19)", killed=True)
    assert elsewhere(f"test_trl.warm_up_then_plateau({there!r}, resume=True)") == [lrs[16:], logged, weights]
