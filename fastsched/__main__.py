"""The command line: ``python -m fastsched info``."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence

import torch

from . import _C, __version__, ops


def info() -> str:
    """What is installed, which engines are available, and why one is not."""
    if ops.CUDA_UNAVAILABLE is not None:
        cuda = f"no: {ops.CUDA_UNAVAILABLE}"
    elif not torch.cuda.is_available():
        cuda = "operators loaded, but torch sees no CUDA device"
    else:
        cuda = f"yes, on {torch.cuda.get_device_name()}"
    versions = "trusted" if _C.dict_versions_trusted else "not available in this Python; groups are looked up instead"
    built = "built" if ops.CUDA_LIBRARY.exists() else "not built"
    rows = {
        "fastsched": __version__,
        "torch": f"{torch.__version__} (CUDA {torch.version.cuda or 'none'})",
        "python": f"{platform.python_version()} on {platform.machine()}",
        "host engine": f"yes (dict versions {versions})",
        "tensor engine, CPU": "yes",
        "CUDA operators": built,
        "tensor engine, CUDA": cuda,
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="fastsched", description="torch.optim.lr_scheduler on a compiled core.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="versions, which engines are available, and why one is not")
    parser.parse_args(arguments)
    print(info())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
