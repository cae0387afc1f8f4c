"""Build, test and measure fastsched on the CUDA machine that this runs on, offline, into one JSON file.

python benchmarks/gpu.py [RESULT.json [PART ...]]     by default benchmarks/results/gpu.json and all parts:
build tests measurements memcheck synccheck

The file is written after every part; named parts are added to those already in it. Needs nvcc, a CUDA build of torch in
the Python that runs this, and the requirements of the build and the tests: installed, or in wheels/, where
`make gpu-wheels` puts them on a machine with a network. Exits with a nonzero status if a part failed. GPU tests may not
be skipped.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import xml.etree.ElementTree
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
VENV = ROOT / ".venv-gpu"
WHEELS = ROOT / "wheels"
PYTHON = str(VENV / "bin" / "python")
TESTED_WITH = ("pytest", "pytest-timeout", "pytest-benchmark", "hypothesis", "sybil")
EXPECTED = ("matplotlib", "pandas", "scikit-learn", "tqdm")  # too large to be carried along in wheels/
NEEDED = ("pybind11", "scikit-build-core", "numpy", *TESTED_WITH, *EXPECTED)
LIMIT = 540  # seconds a part may take
TAIL = 4000  # characters of output kept of a part that failed


def run(name: str, command: list[str], limit: float, **environment: str) -> dict[str, Any]:
    """The part's record: whether it went well, how long it took, and the end of its output if it did not."""
    print(f"== {name}", flush=True)
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
            check=False,
        )
        output, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output, status = (error.stdout or b"").decode(errors="replace"), -1
    except OSError as error:  # no such program
        output, status = str(error), 127
    record: dict[str, Any] = {"ok": status == 0, "seconds": round(time.perf_counter() - begin, 1)}
    if status != 0:
        record.update(status=status, output=output[-TAIL:])
        print(output[-TAIL:], flush=True)
    else:
        record["last line"] = output.strip().splitlines()[-1] if output.strip() else ""
    return record


def build() -> dict[str, Any]:
    made = run("environment", [sys.executable, "-m", "venv", "--without-pip", str(VENV)], 120)
    if not made["ok"]:
        return made
    # torch, pip and everything else come from the Python that runs this, even if that is itself in an environment.
    [packages] = (VENV / "lib").glob("python*/site-packages")
    torch = find_spec("torch")
    outer = {sysconfig.get_path("purelib"), str(Path(torch.origin).parents[1]) if torch and torch.origin else ""}
    (packages / "outer.pth").write_text("\n".join(sorted(outer)) + "\n")
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install"]
    offline = ["--no-index", "--find-links", str(WHEELS)] if WHEELS.is_dir() else ["--retries", "0"]
    installed = run("what the build and the tests need", [*pip, *offline, *NEEDED], 300)
    if not installed["ok"]:
        return installed
    command = [*pip, "--no-build-isolation", "--no-deps", "--no-index", "--editable", "."]
    return run("build", command, LIMIT, FASTSCHED_CUDA="ON")


def counted(report: Path) -> dict[str, int]:
    if not report.exists():
        return {}
    suites = list(xml.etree.ElementTree.parse(report).getroot().iter("testsuite"))
    return {
        name: sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    }


def tests(folder: Path, required: dict[str, str]) -> dict[str, Any]:
    report = folder / "tests.xml"
    command = [PYTHON, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    record = run("GPU tests", command, LIMIT, **required)
    record.update(counted(report))
    return record


def sanitized(tool: str, required: dict[str, str]) -> dict[str, Any]:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        return {"ok": True, "last line": "compute-sanitizer is not on PATH: not checked"}
    checked = [
        PYTHON,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "tests/test_ops.py",
        "tests/test_peek.py",
        "tests/test_compose.py",
    ]
    checked += ["-k", "transition or found_inf or device_again or one_operator_call"]
    # Each tensor gets its own allocation, or writes past its end would go unnoticed.
    environment = {**required, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return run(
        tool, [sanitizer, "--tool", tool, "--error-exitcode", "9", *checked, "--timeout", "500"], LIMIT, **environment
    )


def measured() -> dict[str, Any]:
    record = run("measurements", [PYTHON, "benchmarks/gpu_steps.py"], LIMIT)
    if record["ok"]:
        record["result"] = json.loads(record.pop("last line"))
    return record


def about() -> dict[str, Any]:
    script = (
        "import json, torch, fastsched; p = torch.cuda.get_device_properties(0); "
        "print(json.dumps({'device': p.name, 'memory_GiB': round(p.total_memory / 2**30), 'torch': torch.__version__, "
        "'cuda': torch.version.cuda, 'fastsched': fastsched.__version__}))"
    )
    versions = run("versions", [PYTHON, "-c", script], 120)
    driver = run("driver", ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], 60)
    nvcc = run("nvcc", ["nvcc", "--version"], 60)
    git = run("commit", ["git", "rev-parse", "--short", "HEAD"], 60)
    return {
        "date": date.today().isoformat(),
        "commit": os.environ.get("FASTSCHED_COMMIT") or git.get("last line", "unknown"),
        "python": platform.python_version(),
        "driver": driver.get("last line", "unknown"),
        "nvcc": nvcc.get("last line", "unknown"),
        **(json.loads(versions["last line"]) if versions["ok"] else {}),
    }


def main() -> int:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "results" / "gpu.json"
    chosen = sys.argv[2:] or ["build", "tests", "measurements", "memcheck", "synccheck"]
    result: dict[str, Any] = json.loads(target.read_text()) if target.exists() and sys.argv[2:] else {"parts": {}}
    parts = result["parts"]
    required = {"FASTSCHED_REQUIRE_CUDA": "1"}
    target.parent.mkdir(parents=True, exist_ok=True)
    for part in chosen:
        if part == "build":
            parts[part] = build()
            result.update(about() if parts[part]["ok"] else {})
        elif part == "tests":
            with tempfile.TemporaryDirectory() as folder:
                parts[part] = tests(Path(folder), required)
        elif part == "measurements":
            parts[part] = measured()
        else:
            parts[part] = sanitized(part, required)
        target.write_text(json.dumps(result, indent=1) + "\n")
        if not parts["build"]["ok"]:
            break
    failed = [name for name, part in parts.items() if not part["ok"]]
    print(f"{target}: {'failed: ' + ', '.join(failed) if failed else 'all parts went well'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
