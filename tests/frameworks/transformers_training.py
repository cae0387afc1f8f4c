"""What tests of transformers' ``Trainer``, and trainers derived from it, share."""

from typing import Any

import torch
from training import data, kill_at, model, never_content, numbers

import fastsched

QUIET = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
EACH_EPOCH = {
    "num_train_epochs": 6, "eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "loss"
}  # fmt: skip


class Regression(torch.nn.Module):
    """The model, with the columns of :func:`rows`."""

    def __init__(self) -> None:
        super().__init__()
        self.model = model()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": torch.nn.functional.mse_loss(self.model(x), labels)}


def rows() -> list[dict[str, torch.Tensor]]:
    return [{"x": x, "labels": y} for x, y in data()]


class Recorded:
    """Put this before the trainer among the bases: ``lrs`` are the learning rates before each step."""

    killed_at: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lrs: list[float] = []

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        kill_at(self.killed_at, len(self.lrs))
        self.lrs.append(float(self.optimizer.param_groups[0]["lr"]))
        return super().training_step(*args, **kwargs)


class NeverContent:
    """Put this before a trainer with a plateau."""

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        return never_content(super().create_scheduler(*args, **kwargs))


def train(trainer: Any, killed_at: int | None = None, resume: bool = False) -> tuple[list[float], list[float], Any]:
    """The learning rates of all steps, those that were logged, and the weights."""
    trainer.killed_at = killed_at
    trainer.train(resume_from_checkpoint=resume)
    if torch.distributed.is_initialized():
        fastsched.assert_ranks_agree(trainer.lr_scheduler)
    logged = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    return trainer.lrs, logged, numbers(trainer.model)
