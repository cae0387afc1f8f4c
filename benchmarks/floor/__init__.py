"""The physical limit, of which step costs are given as multiples."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .. import compiled

SOURCES = Path(__file__).parent


@cache
def dict_writes() -> Any:
    """``write_lrs(groups)``, ``write_lrs_and_momenta(groups)``, ``write_lrs_by(groups, function)``, ``nothing()``."""
    return compiled.extension(SOURCES / "dict_writes.c")


@cache
def empty_op() -> Callable[[], None]:
    """An operator call without a Python frame around it, the cheapest way to make one."""
    folder = Path(torch.__file__).parent
    flags = ["-std=c++17", "-DTORCH_TARGET_VERSION=0x020b000000000000", f"-I{folder / 'include'}"]
    built = compiled.library(SOURCES / "empty_op.cpp", *flags, f"-L{folder / 'lib'}", "-ltorch_cpu")
    torch.ops.load_library(str(built))
    return torch.ops.fastsched_floor.nothing.default._op
