"""Count the instructions of a step with valgrind: a figure that does not depend on the machine's load.

python benchmarks/instructions.py record   writes benchmarks/results/instructions.json
python benchmarks/instructions.py check    fails if a count is more than a tenth above the recorded one

A change that makes a step more expensive has to record the new counts in the same commit. Without valgrind, `check`
says that nothing was checked, and passes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import compiled  # noqa: E402
from benchmarks.counting.steps import FEWER, MORE  # noqa: E402

FILE = ROOT / "benchmarks" / "results" / "instructions.json"
GROWTH = 1.1


def toolchain() -> dict[str, str]:
    """What a count depends on besides the code."""
    import torch

    compiler = subprocess.check_output(["c++", "--version"], text=True).splitlines()[0]
    valgrind = subprocess.check_output(["valgrind", "--version"], text=True).strip()
    return {
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "compiler": compiler,
        "valgrind": valgrind,
    }


def count() -> dict[str, float]:
    """Instructions per step, by case."""
    compiled.extension(ROOT / "benchmarks" / "counting" / "callgrind_requests.c")  # here, where it is quick
    from benchmarks import floor

    floor.dict_writes()
    with tempfile.TemporaryDirectory() as folder:
        # Hashes of strings and the number of threads are fixed, so that every run takes the same path.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(ROOT)
        subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--instr-atstart=no",
                f"--callgrind-out-file={folder}/out",
                sys.executable,
                "-m",
                "benchmarks.counting.steps",
            ],
            env=environment,
            cwd=ROOT,
            check=True,
            stderr=None if os.environ.get("FASTSCHED_VALGRIND_LOG") else subprocess.DEVNULL,
        )
        totals: dict[str, dict[int, int]] = {}
        for file in Path(folder).iterdir():
            text = file.read_text()
            found = re.search(r"^desc: Trigger: Client Request: (.*): (\d+)$", text, flags=re.MULTILINE)
            total = re.search(r"^(?:totals|summary): (\d+)", text, flags=re.MULTILINE)
            if found and total:
                totals.setdefault(found[1], {})[int(found[2])] = int(total[1])
    return {name: (total[MORE] - total[FEWER]) / (MORE - FEWER) for name, total in sorted(totals.items())}


def show(counts: dict[str, float], before: dict[str, float]) -> None:
    for name, instructions in counts.items():
        change = f"{instructions / before[name] - 1:+7.1%}" if name in before else "    new"
        print(f"{instructions:10.1f}  {change}  {name}")


def committed() -> dict[str, Any]:
    return json.loads(FILE.read_text()) if FILE.exists() else {"toolchain": {}, "instructions_per_step": {}}


def record() -> None:
    counts = count()
    show(counts, committed()["instructions_per_step"])
    FILE.write_text(json.dumps({"toolchain": toolchain(), "instructions_per_step": counts}, indent=1) + "\n")


def check() -> None:
    recorded = committed()
    before = recorded["instructions_per_step"]
    here = toolchain()
    for name in ("architecture", "python"):
        # Most of a step's instructions are the interpreter's, so these counts do not apply to another one.
        theirs = recorded["toolchain"].get(name, "")
        if theirs.split(".")[:2] != here[name].split(".")[:2]:
            print(f"NOT CHECKED: the committed instruction counts are for {name} {theirs}, this is {here[name]}.")
            return
    counts = count()
    show(counts, before)
    grown = [name for name, instructions in counts.items() if instructions > GROWTH * before.get(name, instructions)]
    unequal = before.keys() ^ counts.keys()
    if unequal:
        print(f"Not in both the code and {FILE.relative_to(ROOT)}: {', '.join(sorted(unequal))}.")
    if grown:
        print(f"More than {GROWTH - 1:.0%} above the committed count: {'; '.join(grown)}.")
    if grown or unequal:
        print(f"Counted with {here}, committed with {recorded['toolchain']}.")
        raise SystemExit("If that is meant, run `make counts` and commit the figures with the change.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["record", "check"])
    command = parser.parse_args().command
    if shutil.which("valgrind") is None:
        print("NOT CHECKED: no valgrind here to count instructions with (apt-get install valgrind).")
        raise SystemExit(1 if command == "record" else 0)
    if command == "record":
        record()
    else:
        check()


if __name__ == "__main__":
    main()
