"""What all Lightning tests share."""

from pathlib import Path
from typing import Any

import lightning
import torch
from training import model


class Regression(lightning.LightningModule):
    """The model; subclasses define validation and the optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.model = model()

    def training_step(self, batch: Any) -> torch.Tensor:
        x, y = batch
        return torch.nn.functional.mse_loss(self.model(x), y)


def trainer(folder: Path | str, epochs: int = 6, **arguments: Any) -> lightning.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    return lightning.Trainer(default_root_dir=folder, max_epochs=epochs, **{**quiet, **arguments})
