"""The names of :mod:`torch.optim.lr_scheduler`; replace that with ``from fastsched import lr_scheduler``.

The base class ``LRScheduler``, for schedulers of your own, is torch's.
"""

from torch.optim.lr_scheduler import (
    EPOCH_DEPRECATION_WARNING,
    LRScheduler,
    _LRScheduler,
)

from .schedulers.compose import ChainedScheduler, SequentialLR
from .schedulers.cyclic import CyclicLR, OneCycleLR
from .schedulers.epoch import (
    SWALR,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from .schedulers.functions import LambdaLR, MultiplicativeLR
from .schedulers.plateau import ReduceLROnPlateau
from .schedulers.warmup_plateau import WarmupReduceLROnPlateau

__all__ = [
    "EPOCH_DEPRECATION_WARNING",
    "SWALR",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
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
]
