"""What every fastsched scheduler has in common: an engine that steps it and torch's face around that."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import torch
from torch.optim.lr_scheduler import LRScheduler

from .engine import DETACHED, Engine, StateAttribute, attach


class EngineScheduler(LRScheduler):
    """A torch scheduler that an engine steps where it can.

    A concrete class names its compiled schedule in ``_schedule`` and, in ``_replaces``, the torch methods whose
    work the engine does: a user's subclass that overrides one of those is stepped by torch's own code.
    """

    __slots__ = ("_engine",)

    _engine: Engine
    _schedule: ClassVar[str]
    _replaces: ClassVar[tuple[str, ...]]
    _held: ClassVar[frozenset[str]] = frozenset()  # the attributes an engine may hold
    _user_code: ClassVar[bool] = False

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:
        scheduler = super().__new__(cls)
        object.__setattr__(scheduler, "_engine", DETACHED)
        return scheduler

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_schedule" in vars(cls):
            cls._held = frozenset(name for name, value in vars(cls).items() if isinstance(value, StateAttribute))
        else:
            native: Any = next(base for base in cls.__mro__ if "_schedule" in vars(base))
            names = (*native._replaces, *native._held)
            cls._user_code = any(getattr(cls, name) is not getattr(native, name) for name in names)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._engine.refresh(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self._engine.state(), **self.__dict__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "_engine", DETACHED)
        self.__dict__.update(state)
        # An optimizer that is still being unpickled, because it refers back to its scheduler, has no groups
        # yet. Then, and where attaching fails, the first step attaches or says what is wrong.
        with suppress(AttributeError, RuntimeError):
            self._attach(restore=True)

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state under torch's keys.

        Plain Python values: it loads into torch's scheduler of the same name, and from a file with
        ``torch.load(..., weights_only=True)``. ``_last_lr`` holds the float64 learning rates, so that resuming
        loses nothing to the rounding of a float32 LR tensor.

        With learning rates on a CUDA device this waits for the device.
        """
        return {name: value for name, value in self.__getstate__().items() if name != "optimizer"}

    def _fit_groups(self) -> None:
        """Bring per-group hyperparameters to the optimizer's number of groups, or raise as torch would."""

    def _attach(self, *, restore: bool = False) -> bool:
        """Put the engine in charge that fits the optimizer as it is now; False if none does."""
        if self._user_code:
            return False
        engine = attach(self, restore=restore)
        object.__setattr__(self, "_engine", engine)
        return engine is not DETACHED

    def _detach(self) -> None:
        """Become a plain torch object, all state in ``__dict__``."""
        self._engine.detach(self)
        object.__setattr__(self, "_engine", DETACHED)

    def _load(self, state: Mapping[str, Any]) -> None:
        """Write checked values, what an engine holds into the storage it already has."""
        self.__dict__.update({name: value for name, value in state.items() if name not in self._held})
        self._engine.refresh(self)
        for name in self._held & state.keys():
            setattr(self, name, state[name])
        self._engine.resume()


def refuse_capture(reason: str) -> None:
    """Raise RuntimeError inside CUDA graph capture, where torch's own scheduler code would freeze silently."""
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"this scheduler step cannot be captured in a CUDA graph: {reason}")
