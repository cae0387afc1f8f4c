"""Which engine steps a scheduler, and why not a faster one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from .. import _C
from ..engine.host import DETACHED, Engine, attach
from ..engine.program import instance_dict
from ..engine.untraced import untraced
from ..schedulers.base import _EngineScheduler


@dataclass(frozen=True)
class Explanation:
    """What steps a scheduler; see :func:`explain`. Prints a line for each scheduler in it.

    Attributes:
        scheduler: the name of its class.
        engine: ``"host"``, compiled code that writes Python numbers into the param groups; ``"tensor"``, one operator
            where the learning rates are; ``"torch"``, Python code, torch's or other.
        where: for the tensor engine, the devices, for example ``"cpu"``.
        reasons: what rules out something faster, or capture and compilation, and what to change.
        children: for a composition, the same for each scheduler in it.
    """

    scheduler: str
    engine: Literal["host", "tensor", "torch"]
    where: str = ""
    reasons: tuple[str, ...] = ()
    children: tuple[Explanation, ...] = ()

    def lines(self, indent: str = "") -> list[str]:
        """The lines of the text, with children indented."""
        engine = {
            "host": "the host engine steps it (Python numbers, compiled code)",
            "tensor": f"the tensor engine steps it (one operator on {self.where})",
            "torch": "Python code steps it",
        }[self.engine]
        reasons = [f"{indent}  - {reason}" for reason in self.reasons]
        below = [line for child in self.children for line in child.lines(f"{indent}  ")]
        return [f"{indent}{self.scheduler}: {engine}", *reasons, *below]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    __repr__ = __str__


@untraced("it looks at Python objects")
def explain(scheduler: LRScheduler) -> Explanation:
    """Say which engine will make the next step of a scheduler, and why not a faster one.

    The reasons come from the code that chooses the engine: it chooses again, as the next step would, but without
    changing the engine in use.

    Args:
        scheduler: any scheduler, fastsched's, torch's or your own.

    Returns:
        An :class:`Explanation`: print it, or read its ``engine`` and ``reasons``.

    Raises:
        TypeError: it is not a scheduler.
        RuntimeError: attributes or groups were changed, inside CUDA graph capture.

    May wait for the device that has the learning rates. Breaks the graph under torch.compile.

    Example::

        >>> print(fastsched.explain(fastsched.StepLR(optimizer, 30)))
        StepLR: the host engine steps it (Python numbers, compiled code)

    With ``FASTSCHED_LOG=1`` in the environment, the logger ``"fastsched"`` reports the same on stderr as schedulers
    step, once for each scheduler and reason.
    """
    name = type(scheduler).__name__
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(f"scheduler must be a scheduler, got {name}; a framework's wrapper holds one")
    if not isinstance(scheduler, _EngineScheduler):
        return Explanation(name, "torch", reasons=(reason_of_other_class(type(scheduler)),))
    reasons = []
    step_is_own = type(scheduler).step is not type(scheduler)._native_step or "step" in instance_dict(scheduler)
    if step_is_own:
        reasons.append("its own step() is Python code, which may call the engine's")
    engine = _engine_of_next_step(scheduler)
    noted = _C.take_reason()
    fallback = scheduler._fallback
    kind = engine.kind
    where = ""
    if engine.steps_tensors:
        where = ", ".join(engine.devices)
        reasons += engine.by_python()
    elif engine is DETACHED:
        reasons.append(noted)
    elif noted and not engine.holds_state:
        tensors = any(isinstance(group.get("lr"), Tensor) for group in scheduler.optimizer.param_groups)
        reasons.append(f"one {'operator' if tensors else 'pass'} cannot step all of it: {noted}")
    if kind != "torch" and fallback is not None and fallback[1] == getattr(scheduler, "last_epoch", None):
        reasons.append(f"torch's code made the last step: {fallback[0]}")
    children = tuple(map(explain, scheduler._children()))
    return Explanation(name, kind, where, tuple(reasons), children)


def _engine_of_next_step(scheduler: _EngineScheduler) -> Engine:
    """The current engine if it can continue, otherwise the one that would be chosen."""
    engine = scheduler._engine
    _C.take_reason()
    if engine.steps_tensors and (engine.fits(scheduler) or engine.rebuild(scheduler)):
        return engine
    if not scheduler._decides_natively():
        return DETACHED
    engine.expose_state(instance_dict(scheduler))  # choosing reads the state there; the next step takes it out again
    return attach(scheduler)


def reason_of_other_class(kind: type) -> str:
    """Why fastsched does not step schedulers of this class, and what to change."""
    for base in kind.__mro__:
        if base.__module__ in ("torch.optim.lr_scheduler", "torch.optim.swa_utils") and base is not LRScheduler:
            ours = f"fastsched.{base.__name__}"
            if base is kind:
                return f"it is torch's; construct {ours}, or call fastsched.install() before it is made"
            return f"{kind.__name__} is derived from torch's {base.__name__}; derive it from {ours}"
    problem = f"{kind.__name__} is not one of torch's schedulers but a class of its own"
    return f"{problem}; fastsched.LambdaLR takes any function"


def log_to_stderr() -> None:
    """What ``FASTSCHED_LOG=1`` in the environment asks for."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("fastsched: %(message)s"))
    log = logging.getLogger("fastsched")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
