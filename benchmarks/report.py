"""Turn a pytest-benchmark run into the committed result, and the committed result into tables and a chart.

python benchmarks/report.py record RUN.json [--machine cpu]   writes benchmarks/results/cpu.json
python benchmarks/report.py pages [--machine cpu]             from that: the chart, and the text between markers in
                                                              docs/measured.md and the README
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import matplotlib.pyplot as plt
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS = ["transformers", "timm", "pytorch-ignite", "optax", "jax"]
MODES = ("host", "tensor")
GROUPS = (1, 100, 1000)
# Targets for the geometric mean, over all schedules, of torch's time over fastsched's.
MEANS = {
    "host": {1: 8, 10: 12, 100: 15, 1000: 15},
    "tensor": {1: 5, 10: 25, 100: 200, 1000: 1000},
}

Case = dict[str, Any]
Result = dict[str, Any]


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def commit(run: dict[str, Any]) -> str:
    """The commit that was measured, which may not be the one checked out."""
    about = run["commit_info"]
    return about["id"][:7] + (" with changes" if about["dirty"] else "")


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def rounded(value: Any) -> Any:
    """Four digits: more would be noise."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def case_of(benchmark: dict[str, Any]) -> Case:
    plain = {name: value for name, value in benchmark["params"].items() if isinstance(value, (str, int))}
    suite = benchmark["name"].split("[")[0].removeprefix("test_")
    return rounded({"suite": suite, **plain, **benchmark["extra_info"]})


def record(run: Path, file: Path) -> Result:
    measured = json.loads(run.read_text())
    result = {
        "date": measured["datetime"][:10],
        "commit": commit(measured),
        "processor": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peers": {name: installed(name) for name in PEERS},
        "cases": [case_of(benchmark) for benchmark in measured["benchmarks"]],
    }
    result["targets"] = targets(result)
    file.parent.mkdir(exist_ok=True)
    cases = ",\n".join("  " + json.dumps(case) for case in result["cases"])
    head = json.dumps({name: value for name, value in result.items() if name != "cases"}, indent=1)
    file.write_text(f'{head[:-2]},\n "cases": [\n{cases}\n ]\n}}\n')  # a line for each case
    return result


def suite(result: Result, name: str, **criteria: Any) -> list[Case]:
    return [
        case
        for case in result["cases"]
        if case["suite"] == name and all(case.get(key) == value for key, value in criteria.items())
    ]


def ratio(case: Case, to: str = "torch") -> float:
    return case["ratio"][to][1]


def spread(case: Case, to: str = "torch") -> str:
    low, middle, high = case["ratio"][to]
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def floor_multiple(case: Case) -> float:
    return 1 / ratio(case, "floor")


def row_of(case: Case) -> str:
    return f"{case['schedule']}, {case['work']}"


def rows(cases: Iterable[Case]) -> list[str]:
    return list(dict.fromkeys(row_of(case) for case in cases))


def targets(result: Result) -> list[dict[str, Any]]:
    found = []

    def add(target: str, value: float, reached: bool, where: str = "") -> None:
        found.append({"target": target, "value": rounded(value), "reached": reached, "where": where})

    for mode, bars in MEANS.items():
        for groups, bar in bars.items():
            cases = suite(result, "step", mode=mode, groups=groups)
            if cases:
                mean = geometric_mean([ratio(case) for case in cases])
                add(f"{mode}, {groups} groups: geometric mean over torch at least {bar}", mean, mean >= bar)
    host = suite(result, "step", mode="host")
    if host:
        worst = min(host, key=ratio)
        add("host: no case below 3 times torch", ratio(worst), ratio(worst) >= 3, f"{row_of(worst)}, {worst['groups']}")
        missed = [case for case in host if ratio(case) < 3]
        found[-1]["cases_missed"] = [f"{row_of(case)}, {case['groups']}: {ratio(case)}" for case in missed]
    for mode, work, groups, bar in (("host", "changing", 1000, 1.5), ("tensor", None, 1, 2)):
        cases = [case for case in suite(result, "step", mode=mode, groups=groups) if work in (None, case["work"])]
        if cases:
            worst = max(cases, key=floor_multiple)
            name = f"{mode}, {groups} group{'s' * (groups > 1)}: every case at most {bar} times the floor"
            add(name, floor_multiple(worst), floor_multiple(worst) <= bar, row_of(worst))
            missed = [case for case in cases if floor_multiple(case) > bar]
            found[-1].update(
                median=rounded(median(map(floor_multiple, cases))),
                cases=len(cases),
                cases_missed=[f"{row_of(case)}: {floor_multiple(case):.2f}" for case in missed],
            )
    peers = suite(result, "peer") + suite(result, "jitted_plateau")
    if peers:
        worst = min(peers, key=lambda case: ratio(case, case["peer"]))
        value = ratio(worst, worst["peer"])
        add(
            "no peer faster in a shared case",
            value,
            value >= 1,
            f"{worst['peer']}: {worst['schedule']}, {worst['groups']}",
        )
    return found


def markdown(head: list[str], body: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in [head, ["---", *["---:"] * (len(head) - 1)], *body]]


def step_table(result: Result) -> str:
    """A table for each kind of learning rates, with a row per schedule; cells have the ratio and fastsched's time."""
    lines = []
    for mode, title in {"host": "Python-number learning rates", "tensor": "tensor learning rates, CPU"}.items():
        columns = [
            {row_of(case): case for case in suite(result, "step", mode=mode, groups=groups)} for groups in GROUPS
        ]
        body = []
        for row in rows(suite(result, "step")):
            cases = [column[row] for column in columns]
            body.append(
                [row, *(f"{ratio(case):.1f} ({case['microseconds']['fastsched'][1]:.2f} us)" for case in cases)]
            )
        means = [geometric_mean([ratio(case) for case in column.values()]) for column in columns]
        body.append(["geometric mean", *(f"{mean:.1f}" for mean in means)])
        changing = [[case for case in column.values() if case["work"] == "changing"] for column in columns]
        multiples = [median(map(floor_multiple, cases)) for cases in changing]
        body.append(["multiple of the floor, median of changing", *(f"{multiple:.2f}" for multiple in multiples)])
        lines += [*markdown([title, *(f"{groups} group{'s' * (groups > 1)}" for groups in GROUPS)], body), ""]
    about = f"{result['processor']}, Python {result['python']}, torch {result['torch']}, {result['date']}"
    lines.append(
        f"{about}, commit {result['commit']}. Medians of up to 25 rounds; quartiles and other group counts in the file."
    )
    return "\n".join(lines)


def peer_table(result: Result) -> str:
    """The ratio of each peer's time to fastsched's."""
    cases = suite(result, "peer") + suite(result, "jitted_plateau")
    groups = sorted({case["groups"] for case in cases})
    body = []
    for name in dict.fromkeys((case["peer"], case["schedule"]) for case in cases):
        by_groups = {case["groups"]: case for case in cases if (case["peer"], case["schedule"]) == name}
        body.append([": ".join(name), *(f"{ratio(by_groups[count], name[0]):.1f}" for count in groups)])
    versions = ", ".join(f"{name} {number}" for name, number in result["peers"].items())
    return "\n".join(
        [*markdown(["peer / fastsched", *map(str, groups)], body), "", f"Python {result['python']}, {versions}."]
    )


def percent(share: float) -> str:
    return f"{share * 100:.2g}%"


def training_table(result: Result) -> str:
    """The scheduler's share of an iteration, and the number of recompiles."""
    body = [
        [
            f"{case['execution']}, {case['mode']}",
            f"{case['iteration_ms']['none'][1]:.1f} ms",
            *(
                f"{percent(case['share'][name][1])} ({case['step_us'][name][1]:.0f} us)"
                for name in ("torch", "fastsched")
            ),
        ]
        for case in suite(result, "share_of_iteration")
    ]
    lines = markdown(["iteration", "without a scheduler", "torch's share", "fastsched's share"], body)
    counts = [
        [
            f"scheduler {'inside' if case['whole'] else 'after'}, {case['mode']}",
            str(case["recompiles"]),
            str(
                next(
                    other["recompiles"]
                    for other in suite(result, "recompiles", kind="fastsched", mode=case["mode"], whole=case["whole"])
                )
            ),
        ]
        for case in suite(result, "recompiles", kind="torch")
    ]
    steps = suite(result, "recompiles")[0]["steps"]
    head = [f"recompiles of `optimizer.step()` in {steps} steps", "torch", "fastsched"]
    return "\n".join([*lines, "", *markdown(head, counts), "", f"Python {result['python']}, torch {result['torch']}."])


def smallest(cases: list[Case]) -> Case:
    return min(cases, key=ratio)


def indifferent(result: Result) -> str:
    """Where a faster scheduler gains nothing, or fastsched is slower."""
    eager = suite(result, "share_of_iteration", execution="eager", mode="host")[0]
    steps = {name: eager["step_us"][name][1] for name in ("torch", "fastsched")}
    epoch_us = eager["iterations_per_epoch"] * eager["iteration_ms"]["none"][1] * 1e3
    one = [case["microseconds"] for case in suite(result, "step", mode="host", groups=1)]
    gain = max(case["torch"][1] - case["fastsched"][1] for case in one)
    lines = [
        f"- A scheduler that steps once per epoch. An epoch of the run above is {eager['iterations_per_epoch']} "
        f"iterations, {epoch_us / 1e6:.2g} s. One step of torch's scheduler for {eager['groups']} groups takes "
        f"{percent(steps['torch'] / epoch_us)} of that, one of fastsched's {percent(steps['fastsched'] / epoch_us)}. "
        "Longer epochs make both smaller.",
        f"- One param group with a Python-float learning rate, even at every iteration: the most that fastsched saves "
        f"with any schedule is {gain:.1f} us, {percent(gain / 10_000)} of an iteration of 10 ms.",
    ]
    called = suite(result, "step", mode="host", groups=1000, schedule="LambdaLR")
    if called:
        lines.append(
            f"- Your own function on Python-float learning rates: torch and fastsched both call it once per group. "
            f"LambdaLR with 1000 groups is only {ratio(called[0]):.1f} times as fast as torch's."
        )
    names = {
        "construction": "construction",
        "state_dict": "`state_dict()`",
        "load_state_dict": "`load_state_dict()`",
        "get_last_lr": "`get_last_lr()`",
    }
    body = []
    for name, label in names.items():
        cells = []
        for mode in MODES:
            for groups in (1, 1000):
                times = [case["microseconds"] for case in suite(result, name, mode=mode, groups=groups)]
                middles = [median(case[kind][1] for case in times) for kind in ("torch", "fastsched")]
                cells.append(" / ".join(f"{value:.3g}" for value in middles))
        body.append([label, *cells])
    head = ["us, torch / fastsched", *(f"{mode}, {groups}" for mode in MODES for groups in (1, 1000))]
    lines += [
        "- Everything but steps costs more than with torch, once per run, per checkpoint, or per line of a log. "
        "Medians over the schedules:",
        "",
        *markdown(head, body),
    ]
    return "\n".join(lines)


def headline(result: Result) -> str:
    """The means over all schedules."""
    head = ["torch's time per step / fastsched's", *(f"{groups} param group{'s' * (groups > 1)}" for groups in GROUPS)]
    body = []
    for mode, name in {"host": "Python-number learning rates", "tensor": "tensor learning rates, CPU"}.items():
        steps = [suite(result, "step", mode=mode, groups=groups) for groups in GROUPS]
        body.append([name, *(f"{geometric_mean(map(ratio, cases)):.0f}" for cases in steps)])
    about = f"{result['processor']}, Python {result['python']}, torch {result['torch']}"
    return "\n".join(
        [*markdown(head, body), "", f"Geometric mean over all schedulers; {about}, commit {result['commit']}."]
    )


PAGES = {
    ROOT / "README.md": {"headline": headline},
    ROOT / "docs" / "measured.md": {
        "benchmarks": step_table,
        "peers": peer_table,
        "training": training_table,
        "indifferent": indifferent,
    },
}


def write_pages(result: Result) -> None:
    for file, sections in PAGES.items():
        text = file.read_text()
        for name, section in sections.items():
            begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
            before, rest = text.split(begin)
            after = rest.split(end)[1]
            text = f"{before}{begin}\n{section(result)}\n{end}{after}"
        file.write_text(text)


def chart(result: Result, stem: Path) -> None:
    """Cost of a step over param groups: the geometric mean over all schedules, in a band from cheapest to dearest."""
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(10, 4.5), layout="constrained")
    titles = {"host": "Python-float learning rates", "tensor": "tensor learning rates, CPU"}
    for axes, mode in zip(panels, MODES, strict=True):
        groups = sorted({case["groups"] for case in suite(result, "step", mode=mode)})
        floor = "one C loop of dict writes" if mode == "host" else "one empty operator call"
        for name, label, color in (
            ("torch", "torch", "tab:orange"),
            ("fastsched", "fastsched", "tab:blue"),
            ("floor", floor, "tab:gray"),
        ):
            times = [
                [
                    case["microseconds"][name][1]
                    for case in suite(result, "step", mode=mode, groups=count, work="changing")
                ]
                for count in groups
            ]
            style = {"linestyle": "--"} if name == "floor" else {"marker": "o"}
            axes.plot(groups, list(map(geometric_mean, times)), label=label, color=color, **style)
            if name != "floor":
                axes.fill_between(
                    groups, list(map(min, times)), list(map(max, times)), color=color, alpha=0.15, linewidth=0
                )
        axes.set(xscale="log", yscale="log", xlabel="param groups", title=titles[mode])
        axes.grid(alpha=0.3)
        axes.legend()
    panels[0].set_ylabel("microseconds per step that changes every LR")
    drawn = BytesIO()
    figure.savefig(drawn, dpi=120)
    # 64 colors are enough for lines and bands, and make the file a quarter of the size.
    Image.open(drawn).convert("RGB").quantize(64).save(stem.with_suffix(".png"), optimize=True)


def show(result: Result) -> None:
    """The ratios to torch, median and quartiles, and which targets they reach."""
    console = Console(width=200)
    for mode in MODES:
        cases = suite(result, "step", mode=mode)
        groups = sorted({case["groups"] for case in cases})
        table = Table(title=f"torch / fastsched, {mode}: median (quartiles)")
        for column in ("schedule", *(f"{count} groups" for count in groups)):
            table.add_column(column, no_wrap=True)
        for row in rows(cases):
            table.add_row(row, *(spread(case) for case in cases if row_of(case) == row))
        console.print(table)
    for name in ("peer", "jitted_plateau"):
        table = Table(title=f"peer / fastsched ({name}): median (quartiles)")
        cases = suite(result, name)
        groups = sorted({case["groups"] for case in cases})
        for column in ("schedule", *(f"{count} groups" for count in groups)):
            table.add_column(column, no_wrap=True)
        for label in dict.fromkeys((case["peer"], case["schedule"]) for case in cases):
            table.add_row(
                ": ".join(label),
                *(spread(case, case["peer"]) for case in cases if (case["peer"], case["schedule"]) == label),
            )
        console.print(table)
    for target in result["targets"]:
        console.print(f"{'reached' if target['reached'] else 'MISSED '}  {target['value']:>8}  {target['target']}")
        if "median" in target:
            console.print(
                f"         median {target['median']}, {len(target['cases_missed'])} of {target['cases']} beyond"
            )
        for case in target.get("cases_missed", []):
            console.print(f"         beyond it: {case}")
    if "not installed" in result["peers"].values():
        console.print(f"NOT MEASURED: {[name for name, found in result['peers'].items() if found == 'not installed']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("run", type=Path)
    writing = commands.add_parser("pages")
    for command in (recording, writing):
        command.add_argument("--machine", default="cpu")
    arguments = parser.parse_args()
    file = RESULTS / f"{arguments.machine}.json"
    if arguments.command == "record":
        result = record(arguments.run, file)
        show(result)
    else:
        result = json.loads(file.read_text())
        write_pages(result)
    chart(result, RESULTS / f"{arguments.machine}_step_cost")


if __name__ == "__main__":
    main()
