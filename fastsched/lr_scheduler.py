"""The names of :mod:`torch.optim.lr_scheduler`: ``from fastsched import lr_scheduler`` in its place.

Those that have no compiled schedule yet are torch's own: ``LambdaLR``, ``MultiplicativeLR``, ``CyclicLR``,
``OneCycleLR``, and the base class ``LRScheduler`` for schedulers of your own.
"""

from torch.optim.lr_scheduler import (
    EPOCH_DEPRECATION_WARNING,
    CyclicLR,
    LambdaLR,
    LRScheduler,
    MultiplicativeLR,
    OneCycleLR,
    _LRScheduler,
)

from .compose import ChainedScheduler, SequentialLR
from .epoch import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from .plateau import ReduceLROnPlateau

__all__ = [
    "EPOCH_DEPRECATION_WARNING",
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
    "_LRScheduler",
]
