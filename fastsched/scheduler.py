"""What every fastsched scheduler has in common: an engine that steps it and torch's face around that."""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from . import _C
from .engine import DETACHED, LAST_LR, Engine, StateAttribute, attach, own_dict


class EngineScheduler(LRScheduler):
    """A torch scheduler that an engine steps where it can.

    A concrete class names its compiled schedule in ``_schedule`` and, in ``_replaces``, the torch methods whose
    work the engine does. Where one of those is not torch's, because a user's subclass overrides it or somebody
    replaced it on the object, torch's own code steps and calls it.
    """

    __slots__ = ("_engine",)

    _engine: Engine
    _schedule: ClassVar[str]
    _replaces: ClassVar[tuple[str, ...]]
    _hyperparameters: ClassVar[frozenset[str]] = frozenset()  # the attributes that engines read
    _native: ClassVar[dict[str, Any]] = {}  # what the attributes that engines replace or hold are by default

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:
        scheduler = super().__new__(cls)
        object.__setattr__(scheduler, "_engine", DETACHED)
        return scheduler

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_schedule" in vars(cls):
            held = (*_C.counter_names(cls._schedule), LAST_LR)
            for name in held:
                attribute = StateAttribute()
                attribute.__set_name__(cls, name)
                setattr(cls, name, attribute)
            cls._hyperparameters = frozenset(_C.param_names(cls._schedule))
            cls._native = {name: getattr(cls, name) for name in (*held, *cls._replaces)}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._replaces:
            self._detach()
        super().__setattr__(name, value)
        if name in self._hyperparameters:
            self._engine.refresh(self)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        """The object's own dict with the whole state in it, for code that reads or writes that directly.

        With learning rates on a CUDA device this waits for the device. torch.compile, which looks at it while
        tracing, sees the dict as it is.
        """
        attributes = own_dict(self)
        if not torch.compiler.is_compiling():
            self._engine.lend(attributes)
        return attributes

    def _state(self) -> dict[str, Any]:
        attributes = own_dict(self)
        self._engine.settle(attributes)
        return {**self._engine.state(), **attributes}

    def __getstate__(self) -> Any:
        slots = {
            name: getattr(self, name)
            for name in copyreg._slotnames(type(self))  # type: ignore[attr-defined]
            if name != "_engine" and hasattr(self, name)
        }
        return (self._state(), slots) if slots else self._state()

    def __setstate__(self, state: Any) -> None:
        state, slots = state if isinstance(state, tuple) else (state, {})
        object.__setattr__(self, "_engine", DETACHED)
        own_dict(self).update(state)
        for name, value in slots.items():
            object.__setattr__(self, name, value)
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
        return {name: _plain(value) for name, value in self._state().items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state from :meth:`state_dict`, of this class or of torch's.

        Never writes the optimizer's learning rates. With as many param groups as were saved, tensors keep their
        storage, so that a captured CUDA graph goes on from the loaded state.
        """
        self._load(state_dict)

    def _fit_groups(self) -> None:
        """Bring per-group hyperparameters to the optimizer's number of groups, or raise as torch would."""

    def _attach(self, *, restore: bool = False) -> bool:
        """Put the engine in charge that fits the optimizer as it is now; False if none does."""
        attributes = own_dict(self)
        if any(name in attributes for name in self._replaces) or any(
            getattr(type(self), name) is not attribute for name, attribute in self._native.items()
        ):
            return False
        engine = attach(self, restore=restore)
        object.__setattr__(self, "_engine", engine)
        return engine is not DETACHED

    def _detach(self) -> None:
        """Become a plain torch object, all state in ``__dict__``; what was written there meanwhile stands."""
        if self._engine is not DETACHED:
            own_dict(self).update(self._state())
            object.__setattr__(self, "_engine", DETACHED)

    def _load(self, state: Mapping[str, Any]) -> None:
        """Write these values, what an engine holds into the storage it already has."""
        held = {name for name in state if isinstance(self._native.get(name), StateAttribute)}
        own_dict(self).update({name: value for name, value in state.items() if name not in held})
        self._engine.refresh(self)
        for name in held:
            setattr(self, name, state[name])
        self._engine.resume()


def _plain(value: Any) -> Any:
    """Tensor learning rates in a list, ``base_lrs`` for one, as Python floats."""
    if type(value) is list and any(isinstance(item, Tensor) for item in value):
        return [item.item() if isinstance(item, Tensor) and item.numel() == 1 else item for item in value]
    return value
