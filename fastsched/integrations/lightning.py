"""Early stopping for Lightning."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch

from ..tools.early_stopping import EarlyStopping

# Two packages define it, and a trainer only takes callbacks of its own package: use the one already imported, if any.
if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError as missing:
        if missing.name not in ("lightning", "lightning.pytorch"):
            raise
        from pytorch_lightning import Callback


class EarlyStoppingCallback(Callback):  # type: ignore[misc]
    """Stops a Lightning trainer with :class:`fastsched.EarlyStopping`.

    It is stepped with a logged metric at the end of each validation of ``fit``, except the sanity check's, and sets
    ``trainer.should_stop``. Counters, settings and best weights are saved in the trainer's checkpoints, so resuming is
    exact. Several callbacks may monitor different metrics.

    With several processes the metric is reduced over all of them, so that they stop together.

    Args:
        monitor: the name under which the metric is logged.
        restore_best: keep the weights of the best validation, and put them back into the module at the end of ``fit``
            (after the last checkpoint has been written). If no validation improved, the weights stay as they are.
        arguments: those of :class:`fastsched.EarlyStopping`, except ``model`` and ``process_group``. Lightning's own
            callback counts epochs as ``patience_counts="keras"`` does.

    Raises:
        ValueError, TypeError: an argument is out of range.
        ValueError: later, at the end of a validation, nothing was logged under the name ``monitor``.
        ImportError: when the module is imported, neither ``lightning`` nor ``pytorch_lightning`` is installed.

    Sync: waits for the device once per validation, to stop without delay.

    Example:
        Stop after more than five validations without improvement, with the best weights::

            from fastsched.integrations.lightning import EarlyStoppingCallback

            callback = EarlyStoppingCallback("val_loss", patience=5, restore_best=True)
            trainer = lightning.Trainer(max_epochs=100, callbacks=[callback])

    Attributes:
        stopper: the :class:`fastsched.EarlyStopping`; with ``restore_best``, each fitted module gets its own.
    """

    def __init__(self, monitor: str, *, restore_best: bool = False, **arguments: Any):
        super().__init__()
        for name, instead in (("model", "pass restore_best=True"), ("process_group", "leave it out")):
            if name in arguments:
                raise TypeError(f"{name} comes from the trainer; {instead}")
        self.monitor = monitor
        self.restore_best = restore_best
        self.stopper = EarlyStopping(**arguments)
        self._arguments = arguments
        self._module: Any = None  # whose weights the stopper keeps
        self._loaded: dict[str, Any] | None = None  # a state waiting for its module

    @property
    def state_key(self) -> str:
        """The key of this callback's state in checkpoints."""
        return f"{type(self).__qualname__}{ {'monitor': self.monitor, 'mode': self.stopper.mode} }"

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to keep the module's weights, and load a state from a checkpoint."""
        if self.restore_best and self._module is not pl_module:
            self.stopper = EarlyStopping(**self._arguments, model=pl_module)
            self._module = pl_module
        if self._loaded is not None:
            self.stopper.load_state_dict(self._loaded)
            self._loaded = None
        if trainer.world_size > 1 and torch.distributed.is_initialized():
            self.stopper.process_group = torch.distributed.group.WORLD

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Step the stopper: after the module's own hooks have logged, before checkpoints are written."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            logged = ", ".join(map(repr, metrics)) or "nothing"
            raise ValueError(f"monitor={self.monitor!r} was not logged by the end of validation; logged: {logged}")
        self.stopper.step(metrics[self.monitor])
        if self.stopper.should_stop:
            trainer.should_stop = True

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the best weights back if ``restore_best``."""
        if self.restore_best and not math.isinf(self.stopper.best):
            self.stopper.restore_best()

    def state_dict(self) -> dict[str, Any]:
        """The stopper's state."""
        return self.stopper.state_dict() if self._loaded is None else self._loaded

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned; with ``restore_best``, once ``fit`` has the module.

        Raises KeyError, TypeError or ValueError, as :meth:`fastsched.EarlyStopping.load_state_dict` does.
        """
        if self.restore_best:
            self._loaded = dict(state_dict)
        else:
            self.stopper.load_state_dict(state_dict)
