"""The short benchmark on several Pythons, which differ in what a step costs.

python benchmarks/pythons.py record   measures on this Python, into benchmarks/results/python-3.13.json or the like
python benchmarks/pythons.py show     the recorded ratios of all Pythons, side by side

`make test-pythons` does the first on each of $PYTHONS, after the tests, and then the second.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

RESULTS = ROOT / "benchmarks" / "results"
GROUPS = [1, 10, 100, 1000]


def record() -> None:
    import torch

    from benchmarks.report import processor
    from fastsched import _C
    from fastsched.cli.bench import SCHEDULES, measure

    cells = [
        {
            "schedule": cell.schedule,
            "lrs": cell.mode,
            "groups": cell.groups,
            "ratio": round(cell.ratio, 2),
            "torch_us": round(cell.torch_us, 2),
            "fastsched_us": round(cell.our_us, 2),
        }
        for cell in measure(list(SCHEDULES), GROUPS)
    ]
    result = {
        "python": platform.python_version(),
        "changes_of_dicts": _C.DICT_VERSIONS,
        "torch": torch.__version__.split("+")[0],
        "processor": processor(),
        "date": date.today().isoformat(),
    }
    minor = ".".join(platform.python_version_tuple()[:2])
    heads = [f" {json.dumps(name)}: {json.dumps(value)},\n" for name, value in result.items()]
    lines = ",\n".join(f"  {json.dumps(cell)}" for cell in cells)
    (RESULTS / f"python-{minor}.json").write_text("{\n" + "".join(heads) + f' "cells": [\n{lines}\n ]\n}}\n')


def recorded() -> list[dict[str, Any]]:
    """By version, the oldest first."""
    found = [json.loads(file.read_text()) for file in RESULTS.glob("python-*.json")]
    return sorted(found, key=lambda result: [int(part) for part in result["python"].split(".")[:2]])


def summary(result: dict[str, Any], lrs: str, groups: int) -> str:
    """The worst ratio to torch and the mean over all schedules."""
    ratios = [cell["ratio"] for cell in result["cells"] if (cell["lrs"], cell["groups"]) == (lrs, groups)]
    return f"{min(ratios):.3g} / {statistics.geometric_mean(ratios):.3g}" if ratios else ""


def table(results: list[dict[str, Any]]) -> list[list[str]]:
    head = ["torch / fastsched, worst / mean", *(f"Python {result['python']}" for result in results)]
    rows = [
        [f"{lrs} LRs, {groups} group{'s' if groups > 1 else ''}", *(summary(result, lrs, groups) for result in results)]
        for lrs in ("float", "tensor")
        for groups in GROUPS
    ]
    about = [
        [name.replace("_", " "), *(str(result[name]) for result in results)] for name in ("torch", "changes_of_dicts")
    ]
    return [head, *rows, *about]


def show() -> None:
    rows = table(recorded())
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["record", "show"])
    record() if parser.parse_args().command == "record" else show()


if __name__ == "__main__":
    main()
