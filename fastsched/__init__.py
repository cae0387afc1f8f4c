"""fastsched: torch.optim.lr_scheduler on a compiled core.

Change the import, keep the training loop::

    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=5)

One more line moves the decision to the device, where the metric and the learning rates live::

    fastsched.use_tensor_lr(optimizer)
"""

from importlib.util import find_spec as _find_spec

if _find_spec(f"{__name__}._C") is None:
    raise ImportError(
        "fastsched's compiled module is not here: Python is importing the source tree. Leave the checkout's folder, "
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
from .tools.early_stopping import EarlyStopping
from .tools.history import History
from .tools.installation import install, installed, uninstall
from .tools.plotting import plot
from .tools.range_test import lr_range_test
from .tools.range_test_result import LRRangeTestResult
from .tools.simulation import simulate

__version__ = "0.2.0"
__all__ = [
    "SWALR",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "EarlyStopping",
    "ExponentialLR",
    "History",
    "LRRangeTestResult",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "WarmupReduceLROnPlateau",
    "_LRScheduler",
    "__version__",
    "install",
    "installed",
    "lr_range_test",
    "lr_scheduler",
    "plot",
    "simulate",
    "uninstall",
    "use_float_lr",
    "use_tensor_lr",
]
