"""The examples: each runs as a reader would run it, with less to do, and its output shows that it worked."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
# Arguments that make each take little time, and what it must print then.
RUNS = {
    "compiled_step": (
        ["--epochs", "2", "--backend", "aot_eager"],
        [r"compiled .* into one graph", r"^30 steps with .*: nothing recompiled$", r"accuracy .*: [5-9]\d\.\d%"],
    ),
    "cuda_graph": (
        ["--epochs", "12"],
        [r"captured|no GPU here", r"^\d+ steps on (cpu|cuda)", r"equal torch's for these metrics.*: True$"],
    ),
    "digits_plateau": (
        ["--epochs", "12", "--out", "pictures"],
        [r"fastsched +│ yes, to the bit", r"fastsched, tensors +│ yes, rounded to float32", r"12/12 "],
    ),
    "early_stopping": (
        ["--epochs", "100"],
        [
            r"learning rate lowered from 0.01 to 0.003",
            r"epoch +\d+: stopped after more than 10 epochs",
            r"best weights",
        ],
    ),
    "exact_resume": (
        ["--epochs", "3", "--out", "checkpoints"],
        [
            r"killed at iteration 28\n +resuming at iteration 17\n",
            r"same 51 learning rates .*: True",
            r"last bit: True",
        ],
    ),
    "one_cycle_after_range_test": (
        ["--epochs", "5", "--out", "pictures"],
        [r"diverged at step", r"valley suggests 0\.\d", r"epoch +5: .* accuracy [8-9]\d\.\d%"],
    ),
    "warm_up_then_plateau": (
        ["--epochs", "45", "--out", "pictures"],
        [r"^630 steps, the first 50 ", r"from 0\.1 to 0\.05, of biases to 0\.1", r"accuracy .* 9\d\.\d%"],
    ),
}
WRITES = {
    "digits_plateau": ["pictures/digits_plateau.png"],
    "exact_resume": ["checkpoints/interrupted.pt"],
    "one_cycle_after_range_test": ["pictures/range_test.png", "pictures/one_cycle.png"],
    "warm_up_then_plateau": ["pictures/warm_up_then_plateau.png", "pictures/warm_up_then_plateau.csv"],
}


@pytest.fixture(scope="module")
def finished(request, tmp_path_factory):
    """The runs of all tested examples, two at a time: they spend most of their time importing."""
    for module in ("matplotlib", "rich", "sklearn", "tqdm"):
        pytest.importorskip(module)
    names = {item.callspec.params["name"] for item in request.session.items if "finished" in item.fixturenames}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "MPLBACKEND": "agg"}

    def run(name):
        folder = tmp_path_factory.mktemp(name)
        process = subprocess.run(
            [sys.executable, EXAMPLES / f"{name}.py", *RUNS[name][0]],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=240,
        )
        return process, folder

    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run, name) for name in sorted(names)}


@pytest.mark.parametrize("name", RUNS)
def test_an_example_does_what_it_says(finished, name):
    process, folder = finished[name].result()
    assert process.returncode == 0, process.stdout
    for pattern in RUNS[name][1]:
        assert re.search(pattern, process.stdout, flags=re.MULTILINE), process.stdout
    for file in WRITES.get(name, []):
        content = (folder / file).read_bytes()
        assert content.startswith(b"\x89PNG") if file.endswith(".png") else content
    assert {file.parts[0] for file in map(Path, WRITES.get(name, []))} == {path.name for path in folder.iterdir()}


@pytest.mark.skipif(not EXAMPLES.exists(), reason="needs the checkout")
def test_every_example_is_short_tested_and_listed():
    files = sorted(EXAMPLES.iterdir())
    assert [file.stem for file in files if file.suffix == ".py"] == sorted(RUNS)
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text().splitlines()) < 100, file
        assert f"../examples/{file.name}\n" in (ROOT / "docs" / "examples.md").read_text()
