"""fastsched: torch.optim.lr_scheduler on a compiled core.

Change the import, keep the training loop::

    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=5)

One more line moves the decision to the device, where the metric and the learning rates live::

    fastsched.use_tensor_lr(optimizer)
"""

from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from os import environ as _environ
from typing import TYPE_CHECKING
from typing import Any as _Any

if _find_spec(f"{__name__}._C") is None:
    raise ImportError(
        "fastsched's compiled module is missing: Python is importing the source tree. Leave the checkout's folder, "
        "or build in place with `make build` and use .venv/bin/python"
    )

from . import lr_scheduler
from .engine.tensor_lr import use_float_lr, use_tensor_lr
from .lr_scheduler import (
    SWALR,
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    WarmupReduceLROnPlateau,
    _LRScheduler,
)
from .schedulers.by_name import available_schedulers, get_scheduler
from .schedulers.greedy import GreedyLR
from .schedulers.phases import Phase, PhasesLR
from .schedulers.warmup import (
    REXLR,
    DecayingRestartsLR,
    InverseSqrtLR,
    NoamLR,
    WarmupCosineLR,
    WarmupLinearLR,
    WarmupLR,
    WarmupPolynomialLR,
    WarmupStableDecayLR,
    with_warmup,
)

if TYPE_CHECKING:  # imported on first use: see __getattr__
    from .tools.early_stopping import EarlyStopping
    from .tools.explanation import Explanation, explain
    from .tools.expression import build as parse
    from .tools.history import History
    from .tools.installation import install, installed, uninstall
    from .tools.plotting import plot
    from .tools.range_test import lr_range_test
    from .tools.range_test_result import LRRangeTestResult
    from .tools.rank_state import assert_ranks_agree, broadcast_state
    from .tools.scaler import found_inf
    from .tools.simulation import simulate

__version__ = "0.2.0"
__all__ = [
    "REXLR",
    "SWALR",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "DecayingRestartsLR",
    "EarlyStopping",
    "Explanation",
    "ExponentialLR",
    "GreedyLR",
    "History",
    "InverseSqrtLR",
    "LRRangeTestResult",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "NoamLR",
    "OneCycleLR",
    "Phase",
    "PhasesLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "WarmupCosineLR",
    "WarmupLR",
    "WarmupLinearLR",
    "WarmupPolynomialLR",
    "WarmupReduceLROnPlateau",
    "WarmupStableDecayLR",
    "_LRScheduler",
    "__version__",
    "assert_ranks_agree",
    "available_schedulers",
    "broadcast_state",
    "explain",
    "found_inf",
    "get_scheduler",
    "install",
    "installed",
    "lr_range_test",
    "lr_scheduler",
    "parse",
    "plot",
    "simulate",
    "uninstall",
    "use_float_lr",
    "use_tensor_lr",
    "with_warmup",
]

# Tools, which are loaded on first use: the module of each, and its name there.
_TOOLS = {
    "EarlyStopping": ("early_stopping", "EarlyStopping"),
    "Explanation": ("explanation", "Explanation"),
    "explain": ("explanation", "explain"),
    "History": ("history", "History"),
    "LRRangeTestResult": ("range_test_result", "LRRangeTestResult"),
    "assert_ranks_agree": ("rank_state", "assert_ranks_agree"),
    "broadcast_state": ("rank_state", "broadcast_state"),
    "found_inf": ("scaler", "found_inf"),
    "install": ("installation", "install"),
    "installed": ("installation", "installed"),
    "uninstall": ("installation", "uninstall"),
    "lr_range_test": ("range_test", "lr_range_test"),
    "plot": ("plotting", "plot"),
    "simulate": ("simulation", "simulate"),
    "parse": ("expression", "build"),
}
# New places of modules that were in this folder up to 0.1. None was public, but scripts may import them.
_MOVED = {
    "schedulers": ("compose", "cyclic", "epoch", "functions", "plateau"),
    "engine": ("capture", "checkpoint", "lr_buffer", "metric", "momentum", "ops", "program", "replica", "tensor_lr"),
    "tools": ("early_stopping", "expression", "history", "picture", "plotting", "range_test", "simulation"),
    "cli": ("bench", "demo"),
}
_RENAMED = {"scheduler": "schedulers.base", "tensor_engine": "engine.tensor"}

if not TYPE_CHECKING:  # otherwise type checkers would accept any name

    def __getattr__(name: str) -> _Any:
        if name in _TOOLS:
            module, named = _TOOLS[name]
            globals()[name] = value = getattr(_import_module(f"{__name__}.tools.{module}"), named)
            return value
        places = [f"{folder}.{name}" for folder, names in _MOVED.items() if name in names]
        place = places[0] if places else _RENAMED.get(name)
        if place is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return _import_module(f"{__name__}.{place}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


if _environ.get("FASTSCHED_LOG", "0") not in ("", "0"):
    _import_module(f"{__name__}.tools.explanation").log_to_stderr()
