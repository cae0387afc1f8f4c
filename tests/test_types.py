"""What mypy and pyright say about a user's script."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from torch.optim import lr_scheduler as torch_schedulers

import fastsched

SCRIPTS = Path(__file__).parent / "typed"
RIGHT, WRONG = SCRIPTS / "right.py", SCRIPTS / "wrong.py"
PACKAGE_PATH = Path(fastsched.__file__).parents[1]  # type checkers do not follow an editable installation
INSTALLED = PACKAGE_PATH in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
SCHEDULERS = [
    name for name in (*torch_schedulers.__all__, "SWALR") if name.endswith(("LR", "Restarts", "Plateau", "Scheduler"))
]


def mypy(script: Path) -> list[tuple[int, str, str]]:
    """Every line number with its message, and whether that is an error or a note."""
    environment = os.environ if INSTALLED else {**os.environ, "MYPYPATH": str(PACKAGE_PATH)}
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-pretty", str(script)]
    checked = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert not checked.stderr
    return [(int(line), *said) for line, *said in re.findall(r"\.py:(\d+): (error|note): (.*)", checked.stdout)]


def mypy_errors(script: Path, _scratch: Path) -> dict[int, str]:
    return {line: message for line, kind, message in mypy(script) if kind == "error"}


def pyright_errors(script: Path, scratch: Path) -> dict[int, str]:
    """By basedpyright, pyright in a package with its own Node, in pyright's mode ``strict``."""
    settings = {"typeCheckingMode": "strict", "include": [str(script)]}
    if not INSTALLED:
        settings["extraPaths"] = [str(PACKAGE_PATH)]
    project = scratch / "pyrightconfig.json"
    project.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(project)]
    said = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    assert said["summary"]["filesAnalyzed"] == 1
    problems = [problem for problem in said["generalDiagnostics"] if problem["severity"] == "error"]
    return {problem["range"]["start"]["line"] + 1: problem["message"] for problem in problems}


CHECKERS = pytest.mark.parametrize("errors", [mypy_errors, pyright_errors], ids=["mypy", "pyright"])


@CHECKERS
def test_a_right_script_passes(errors, tmp_path):
    assert errors(RIGHT, tmp_path) == {}


def test_the_right_script_runs():
    runpy.run_path(str(RIGHT))


@CHECKERS
def test_every_wrong_line_is_found_and_no_other(errors, tmp_path):
    lines = WRONG.read_text().splitlines()
    assert errors(WRONG, tmp_path).keys() == {
        number for number, line in enumerate(lines, 1) if line.endswith("# wrong")
    }


def revealed(module: str, scratch: Path) -> dict[str, str]:
    """The types of all constructors and of what all of torch's classes share, without module names."""
    script = scratch / "revealed.py"
    names = [f"{name}{member}" for name in SCHEDULERS for member in MEMBERS]
    swalr = "fastsched" if module == "fastsched" else "torch.optim.swa_utils"
    lines = [f"import {module} as schedulers, {swalr} as averaging"]
    lines += [f"reveal_type({'averaging' if 'SWALR' in name else 'schedulers'}.{name})" for name in names]
    script.write_text("\n".join(lines))
    types = [said for _, _, said in mypy(script) if said.startswith("Revealed type is")]
    types = [re.sub(r"self: [\w.]+|\b(fastsched|torch)\.[\w.]*\.", "", said) for said in types]
    return dict(zip(names, types, strict=True))


MEMBERS = ("", ".get_last_lr", ".get_lr", ".load_state_dict", ".state_dict", ".base_lrs", ".last_epoch", ".optimizer")
WIDER = {  # than torch's, and nothing else is; patterns
    # Keywords that torch does not have.
    r", \*, .*(\) -> \w+\"$)": r"\1",
    r"Optimizer \| typing.Sequence\[Optimizer\]": "Optimizer",
    # Names that torch does not annotate.
    r"anneal_epochs: int =(.*), last_epoch: int =": r"anneal_epochs: Any =\1, last_epoch: Any =",
    r"lr_lambda: (.*) \| typing.Sequence\[": r"lr_lambda: \1 | list[",
    r"schedulers: typing.Sequence\[LRScheduler\], milestones": "schedulers: list[LRScheduler], milestones",
    r"Literal\['abs'\] \| Literal\['rel_abs'\]": "Literal['abs']",
}


def test_types_are_torchs(tmp_path):
    ours, theirs = (revealed(module, tmp_path) for module in ("fastsched", "torch.optim.lr_scheduler"))
    for wide, narrow in WIDER.items():
        ours = {name: re.sub(wide, narrow, said) for name, said in ours.items()}
    assert ours == theirs
