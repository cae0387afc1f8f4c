"""The small C sources of the benchmarks, compiled on first use."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

BUILT = Path(__file__).parent.parent / "build" / "benchmarks"


def library(source: Path, *flags: str) -> Path:
    """The shared library compiled from ``source``."""
    built = BUILT / f"{source.stem}.{sysconfig.get_config_var('SOABI')}.so"
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        BUILT.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CC", "cc") if source.suffix == ".c" else os.environ.get("CXX", "c++")
        optimized = ["-O3", "-DNDEBUG", "-shared", "-fPIC"]
        subprocess.run([*shlex.split(compiler), *optimized, str(source), "-o", str(built), *flags], check=True)
    return built


def extension(source: Path) -> Any:
    """The Python module compiled from ``source``."""
    built = library(source, f"-I{sysconfig.get_path('include')}")
    spec = importlib.util.spec_from_file_location(source.stem, built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
