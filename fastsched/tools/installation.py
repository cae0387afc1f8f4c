"""fastsched in place of torch's schedulers, wherever those are constructed.

torch's classes stay where they are, but calling one makes fastsched's scheduler of that name. So it does not matter who
holds a class or how: a module that imported it long ago, a registry, a default argument, a config that names it. There
is nothing to patch and nothing to restore, and a class remains itself for ``isinstance``, ``is`` and pickle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from .. import lr_scheduler
from ..schedulers.base import _EngineScheduler

_TORCHS = ("torch.optim.lr_scheduler", "torch.optim.swa_utils")


def _by_torchs() -> dict[type, type[_EngineScheduler]]:
    """Our class for each of torch's."""
    found = {}
    for name in lr_scheduler.__all__:
        ours = getattr(lr_scheduler, name)
        if isinstance(ours, type) and issubclass(ours, _EngineScheduler):
            found.update({base: ours for base in ours.__mro__ if base.__module__ in _TORCHS and base.__name__ == name})
    return found


_REPLACEMENTS = _by_torchs()
_lock = threading.Lock()
_installed = False
_blocks = 0  # open blocks of installed()
_active = False  # either of them
# Called with the class of every scheduler made meanwhile, fastsched's or not (:mod:`fastsched.pytest_plugin`).
on_construction: Callable[[type], None] | None = None


class _Construction:
    """``LRScheduler.__new__``, which every scheduler inherits.

    A descriptor, so that ``inspect.signature`` of each class still shows the arguments of its own ``__init__``.
    """

    def __get__(self, _scheduler: object, owner: type) -> Callable[..., Any]:
        def __new__(cls: type, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
            # Copying and unpickling pass no arguments: copies of torch's schedulers remain torch's.
            ours = _REPLACEMENTS.get(cls) if _active and (args or kwargs) else None
            if ours is not None:
                return ours.__new__(ours, *args, **kwargs)  # an instance of cls too, so Python calls its __init__
            if on_construction is not None:
                on_construction(cls)
            following = super(LRScheduler, cls).__new__  # type: ignore[misc]
            return following(cls) if following is object.__new__ else following(cls, *args, **kwargs)

        __new__.__wrapped__ = owner.__init__  # type: ignore[attr-defined,misc]
        return __new__


def _update() -> None:
    global _active
    _active = _installed or _blocks > 0
    # It stays for good: once a __new__ has been deleted, CPython can no longer call the class with arguments.
    if _active and not isinstance(vars(LRScheduler).get("__new__"), _Construction):
        LRScheduler.__new__ = _Construction()  # type: ignore[method-assign,assignment]


def install() -> None:
    """Make torch's scheduler classes construct fastsched's, for the whole process, whoever calls them.

    From then on ``torch.optim.lr_scheduler.StepLR(optimizer, 30)`` makes a :class:`fastsched.StepLR`, even if the call
    is in a framework that imported the class earlier, or has it in a table or as a default. torch's names keep torch's
    classes, of which fastsched's are subclasses: ``isinstance`` answers as before, for earlier schedulers too.

    Not replaced: schedulers that already exist; copies and pickles of those; subclasses of torch's classes, which may
    do anything and are stepped by their own code (derive from ``fastsched.StepLR`` instead).

    Calling it again changes nothing. It takes microseconds, and affects other threads too. Schedulers made meanwhile
    keep working after :func:`uninstall`. Does not wait for a device; not to be called in compiled code.

    Example::

        fastsched.install()
        trainer = transformers.Trainer(model, arguments, ...)  # its schedulers are fastsched's
    """
    global _installed
    with _lock:
        _installed = True
        _update()


def uninstall() -> None:
    """Undo :func:`install`: torch's classes make torch's schedulers again.

    Schedulers made in the meantime stay as they are. Without an earlier :func:`install` it changes nothing. Blocks of
    :func:`installed` stay in effect until they end.
    """
    global _installed
    with _lock:
        _installed = False
        _update()


@contextmanager
def installed() -> Iterator[None]:
    """As :func:`install`, for a ``with`` block or, as a decorator, a function; blocks may nest, and threads overlap.

    Leaving the block, even by an exception, restores what was before: still installed inside another block, or after
    :func:`install`.

    Example::

        with fastsched.installed():
            trainer.fit(model)
    """
    global _blocks
    with _lock:
        _blocks += 1
        _update()
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            _update()
