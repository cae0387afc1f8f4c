"""Early stopping for the transformers Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers.trainer_callback import ExportableState, TrainerCallback

from ..tools.early_stopping import EarlyStopping

_TRAINERS = ("model", "device", "process_group", "reduce_op")  # arguments that make no sense here


class EarlyStoppingCallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Stops a transformers ``Trainer`` with :class:`fastsched.EarlyStopping`.

    It is stepped with a metric of each evaluation during ``train()``. Counters and settings are saved with the
    Trainer's checkpoints, and restored with ``TrainingArguments(restore_callback_states_from_checkpoint=True)``. For
    the best weights, use the Trainer's ``load_best_model_at_end=True``.

    Args:
        metric_for_best_model: the metric, with or without ``"eval_"``; by default that of the ``TrainingArguments``, or
            ``"loss"``.
        settings: arguments of :class:`fastsched.EarlyStopping`, except ``model``, ``device``, ``process_group`` and
            ``reduce_op``. If the metric comes from the ``TrainingArguments``, their ``greater_is_better`` gives the
            default of ``mode``. transformers' own callback counts evaluations as ``patience_counts="keras"`` does.

    Raises:
        ValueError, TypeError: an argument is out of range.
        ValueError: later, the Trainer does not evaluate (when training begins), or an evaluation had no such metric
            (when training continues).
        ImportError: when the module is imported, transformers is not installed.

    Sync: does not wait for a device, as the Trainer's metrics are Python numbers.

    Example:
        Stop after more than three evaluations without improvement::

            from fastsched.integrations.transformers import EarlyStoppingCallback

            trainer = transformers.Trainer(model, arguments, callbacks=[EarlyStoppingCallback("loss", patience=3)], ...)

    Attributes:
        stopper: the :class:`fastsched.EarlyStopping`.
    """

    def __init__(self, metric_for_best_model: str | None = None, **settings: Any):
        for name in _TRAINERS:
            if name in settings:
                raise TypeError(
                    f"{name} is not for this callback: the Trainer passes it a number that is the same on every rank"
                )
        self.metric_for_best_model = metric_for_best_model
        self.stopper = EarlyStopping(**settings)
        self._settings = settings
        self._training = False
        self._found: bool | None = None  # whether the last evaluation, over all its data sets, had the metric
        self._names: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Apply the Trainer's arguments."""
        if args.eval_strategy == "no" and not args.eval_on_start:
            raise ValueError("the Trainer never evaluates: pass eval_strategy= to TrainingArguments")
        theirs = self.metric_for_best_model is None and args.metric_for_best_model is not None
        if theirs and args.greater_is_better is not None and "mode" not in self._settings:
            self.stopper.mode = "max" if args.greater_is_better else "min"
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            self.stopper.process_group = torch.distributed.group.WORLD
        self._training = True

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any], **kwargs: Any) -> None:
        """Step the stopper; with several data sets, at the one that has the metric."""
        if not self._training:
            return
        name = self._metric(args)
        self._names += metrics
        self._found = bool(self._found) or name in metrics
        if name in metrics:
            self.stopper.step(metrics[name])
            if self.stopper.should_stop:
                control.should_training_stop = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raise ValueError if there was no such metric: by now all data sets have been evaluated."""
        names, found = self._names, self._found
        if found is None:
            return
        self._names, self._found = [], None
        if not found:
            raise ValueError(
                f"metric_for_best_model={self._metric(args)!r} was not among the metrics of the evaluation: "
                f"{', '.join(map(repr, names))}"
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ignore evaluations after training; raise as :meth:`on_step_begin` does."""
        self._training = False
        self.on_step_begin(args, state, control)

    def state(self) -> dict[str, Any]:
        """What the Trainer saves in its checkpoints and rebuilds the callback from: plain numbers and strings."""
        return {
            "args": {"metric_for_best_model": self.metric_for_best_model, **self._settings},
            "attributes": {"stopper_state": self.stopper.state_dict()},
        }

    @property
    def stopper_state(self) -> dict[str, Any]:
        """The stopper's state; writing loads it."""
        return self.stopper.state_dict()

    @stopper_state.setter
    def stopper_state(self, state: Mapping[str, Any]) -> None:
        self.stopper.load_state_dict(state)

    def _metric(self, args: Any) -> str:
        name: str = self.metric_for_best_model or args.metric_for_best_model or "loss"
        return name if name.startswith("eval_") else f"eval_{name}"
