"""timm without its models, which import torchvision; that needs a CUDA build of torch."""

import importlib.util
import sys

spec = importlib.util.find_spec("timm")
package = importlib.util.module_from_spec(spec)  # whose __init__ is not run
sys.modules.setdefault("timm", package)
