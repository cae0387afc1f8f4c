"""Turn a pytest-benchmark run into the committed result, and the committed result into the README's table.

python benchmarks/report.py record RUN.json   writes benchmarks/results/cpu.json
python benchmarks/report.py readme            writes the table in README.md between its markers
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from datetime import date
from pathlib import Path
from statistics import geometric_mean

import torch

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "cpu.json"
PLATEAU = {"idle": "ReduceLROnPlateau, idle", "reducing": "ReduceLROnPlateau, reducing"}
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.check_output(["git", *arguments], cwd=ROOT, text=True).strip()

    changed = git("status", "--porcelain", "--", "csrc", "fastsched", "benchmarks/*.py")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def record(run: Path) -> None:
    benchmarks = json.loads(run.read_text())["benchmarks"]
    result = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cases": [{**case["params"], **case["extra_info"]} for case in benchmarks],
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


MODES = ("host", "tensor")
GROUPS = (1, 100, 1000)


def table(result: dict) -> str:
    """One row per schedule; each cell the ratio to torch and fastsched's own time."""
    cases = {(case["work"], case["mode"], case["groups"]): case for case in result["cases"]}
    works = sorted({work for work, _, _ in cases}, key=lambda work: (work in PLATEAU, work))
    columns = [(mode, groups) for mode in MODES for groups in GROUPS]
    rows = [
        "| torch / fastsched | " + " | ".join(f"{mode}, {groups}" for mode, groups in columns) + " |",
        "| --- " + "| ---: " * len(columns) + "|",
    ]
    for work in works:
        cells = [
            f"{case['ratio']:.1f} ({case['fastsched_us']:.2f} us)"
            for case in (cases[(work, *column)] for column in columns)
        ]
        rows.append(f"| {PLATEAU.get(work, work)} | " + " | ".join(cells) + " |")
    means = [geometric_mean([cases[(work, *column)]["ratio"] for work in works]) for column in columns]
    rows.append("| geometric mean | " + " | ".join(f"{mean:.1f}" for mean in means) + " |")
    rows += [
        "",
        f"{result['processor']}, Python {result['python']}, torch {result['torch']}, {result['date']}, "
        f"commit {result['commit']}. Medians of 25 rounds; quartiles and other group counts in the file.",
    ]
    return "\n".join(rows)


def readme() -> None:
    file = ROOT / "README.md"
    text = file.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    file.write_text(f"{before}{BEGIN}\n{table(json.loads(RESULT.read_text()))}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("run", type=Path)
    commands.add_parser("readme")
    arguments = parser.parse_args()
    if arguments.command == "record":
        record(arguments.run)
    else:
        readme()


if __name__ == "__main__":
    main()
