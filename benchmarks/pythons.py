"""The short benchmark on several Pythons, which differ in what a step costs.

python benchmarks/pythons.py record   measures on this Python, into benchmarks/results/python-3.13.json or the like
python benchmarks/pythons.py show     the recorded ratios of all Pythons, side by side

`make test-pythons` does the first on each of $PYTHONS, after the tests, and then the second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import sys
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

RESULTS = ROOT / "benchmarks" / "results"
GROUPS = [1, 10, 100, 1000]
BY_OPERATOR = ["StepLR", "CosineAnnealingLR", "OneCycleLR", "ReduceLROnPlateau"], [1, 1000]


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
    operator_steps = [json.dumps(step) for step in by_operator()]
    minor = ".".join(platform.python_version_tuple()[:2])
    heads = [f" {json.dumps(name)}: {json.dumps(value)},\n" for name, value in result.items()]
    lines = ",\n".join(f"  {json.dumps(cell)}" for cell in cells)
    steps = ",\n  ".join(operator_steps)
    (RESULTS / f"python-{minor}.json").write_text(
        "{\n" + "".join(heads) + f' "cells": [\n{lines}\n ],\n "operator_steps": [\n  {steps}\n ]\n}}\n'
    )


def by_operator() -> list[dict[str, Any]]:
    """What eager steps cost the host where learning rates are on a device: here the device is the CPU."""
    from fastsched.cli.bench import compare
    from fastsched.engine import tensor

    steps = []
    for name, groups in itertools.product(*BY_OPERATOR):
        with mock.patch.object(tensor, "_on_host", return_value=False) as asked:
            us = compare(name, "tensor", groups).our_us
        assert asked.called  # or the step has gone without the operator
        steps.append({"schedule": name, "groups": groups, "us": round(us, 2)})
    return steps


def recorded() -> list[dict[str, Any]]:
    """By version, the oldest first."""
    found = [json.loads(file.read_text()) for file in RESULTS.glob("python-*.json")]
    return sorted(found, key=lambda result: [int(part) for part in result["python"].split(".")[:2]])


def summary(result: dict[str, Any], lrs: str, groups: int) -> str:
    """The worst ratio to torch and the mean over all schedules."""
    ratios = [cell["ratio"] for cell in result["cells"] if (cell["lrs"], cell["groups"]) == (lrs, groups)]
    return f"{min(ratios):.3g} / {statistics.geometric_mean(ratios):.3g}" if ratios else ""


def slowest(result: dict[str, Any], groups: int) -> str:
    """Of the steps by the operator, in microseconds."""
    times = [step["us"] for step in result.get("operator_steps", []) if step["groups"] == groups]
    return f"{max(times):.3g}" if times else ""


def table(results: list[dict[str, Any]]) -> list[list[str]]:
    head = ["torch / fastsched, worst / mean", *(f"Python {result['python']}" for result in results)]
    rows = [
        [f"{lrs} LRs, {groups} group{'s' if groups > 1 else ''}", *(summary(result, lrs, groups) for result in results)]
        for lrs in ("float", "tensor")
        for groups in GROUPS
    ]
    operator_steps = [
        [
            f"by the operator, {groups} group{'s' if groups > 1 else ''}, us",
            *(slowest(result, groups) for result in results),
        ]
        for groups in BY_OPERATOR[1]
    ]
    about = [
        [name.replace("_", " "), *(str(result[name]) for result in results)] for name in ("torch", "changes_of_dicts")
    ]
    return [head, *rows, *operator_steps, *about]


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
