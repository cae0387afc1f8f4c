"""fastsched: torch.optim.lr_scheduler on a compiled core.

Change the import, keep the training loop::

    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=5)

One more line moves the decision to the device, where the metric and the learning rates live::

    fastsched.use_tensor_lr(optimizer)
"""

from .plateau import ReduceLROnPlateau
from .tensor_lr import use_tensor_lr

__version__ = "0.1.0"
__all__ = ["ReduceLROnPlateau", "__version__", "use_tensor_lr"]
