import os
import re
import shlex
import subprocess
import sys

import pytest
import torch

import fastsched
from fastsched.__main__ import main
from fastsched.cli import bench, demo
from fastsched.cli import main as cli


def test_info_names_versions_and_says_why_an_engine_is_missing():
    output = subprocess.check_output([sys.executable, "-m", "fastsched", "info"], text=True)
    assert f"fastsched            {fastsched.__version__}" in output
    assert torch.__version__ in output
    assert "host engine          yes" in output
    cuda = next(line for line in output.splitlines() if line.startswith("tensor engine, CUDA"))
    if torch.version.cuda is None:
        assert "is a build without CUDA" in cuda
    else:
        assert "yes" in cuda or "no CUDA device" in cuda or "Rebuild" in cuda


def test_a_wrong_command_points_at_the_argument(capsys):
    with pytest.raises(SystemExit):
        main(["fly"])
    assert "COMMAND" in capsys.readouterr().err


def test_without_a_command_it_shows_what_there_is(capsys):
    assert main([]) == 0
    output = capsys.readouterr().out
    assert all(re.search(rf"^ +{command} ", output, re.MULTILINE) for command in ("info", "plot", "demo", "bench"))


def test_its_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"fastsched {fastsched.__version__}\n"


@pytest.fixture
def history(tmp_path, monkeypatch):
    """A log as a training loop would write it, in the current folder."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("plotille")
    monkeypatch.chdir(tmp_path)
    lines = ["epoch,loss,val:loss", *(f"{epoch},{1 / (epoch + 1)},1.0" for epoch in range(40)), "", "40,0.5,"]
    (tmp_path / "history.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    (tmp_path / "numbers.csv").write_text("1.0\n0.5\n0.25\n")
    (tmp_path / "wrong.csv").write_text("loss\n1.0\nhigh\n")
    (tmp_path / "empty.csv").write_text("\n\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    return tmp_path


EXAMPLE = ["CosineAnnealingLR(T_max=100)", "warmup(10) >> ReduceLROnPlateau(patience=5)"]


def test_plot_into_a_file(history, capsys):
    assert main(["plot", *EXAMPLE, "--steps", "40", "--metrics", "history.csv:loss", "-o", "out.png"]) == 0
    assert capsys.readouterr().out == "out.png\n"
    assert (history / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["out.svg", "out", "out.", "a.b/out"])
def test_what_it_prints_is_the_file_that_it_writes(history, capsys, name):
    (history / "a.b").mkdir()
    before = set(history.rglob("*"))
    assert main(["plot", "StepLR(3)", "--steps", "9", "-o", name]) == 0
    assert capsys.readouterr().out == f"{name}\n"
    assert set(history.rglob("*")) - before == {history / name}


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        (["CosineAnnealingLR(20)"], 20),
        (["StepLR(3)", "warmup(10) >> CosineAnnealingLR(30)"], 40),
        (["OneCycleLR(0.1, total_steps=41)"], 40),
        (["OneCycleLR(0.1, epochs=4, steps_per_epoch=10)"], 39),
        (["LinearLR(total_iters=10) * StepLR(30) >> StepLR(3)"], None),
        (["StepLR(30)"], None),
        (["ReduceLROnPlateau()", "--metrics", "numbers.csv"], 3),
        (["CosineAnnealingLR(20)", "--metrics", "numbers.csv", "--steps", "2"], 2),
    ],
)
def test_as_many_steps_as_the_expression_says(history, capsys, arguments, last):
    drawn = main(["plot", *arguments]) if last else None
    if last is None:
        with pytest.raises(SystemExit):
            main(["plot", *arguments])
        return
    assert drawn == 0
    [_, *charts] = capsys.readouterr().out.split("└")
    ticks = [int(number) for number in charts[0].splitlines()[1].split()]
    assert last - (ticks[1] - ticks[0]) < ticks[-1] <= last


def test_the_scale_and_the_title(history, capsys):
    for scale, top in (("linear", "0.10"), ("log", "0.1")):
        assert main(["plot", "StepLR(3, gamma=0.5)", "--steps", "9", "--scale", scale]) == 0
        assert f"{top} ┤" in capsys.readouterr().out
    assert main(["plot", "StepLR(3)", "--steps", "9", "--scale", "log", "--title", "by a tenth", "-o", "out.svg"]) == 0
    assert "by a tenth" in (history / "out.svg").read_text()


def test_plot_in_the_terminal(history, capsys):
    assert main(["plot", *EXAMPLE, "--steps", "40", "--metrics", "history.csv:val:loss", "--lr", "0.2"]) == 0
    output = capsys.readouterr().out
    assert all(text in output for text in (*EXAMPLE, "metric", "0.01 ┤"))
    assert main(["plot", "StepLR(3)", "--steps", "4"]) == 0
    assert "StepLR(3)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("numbers.csv", [1.0, 0.5, 0.25]),
        ("numbers.csv:1", [1.0, 0.5, 0.25]),
        ("history.csv:val:loss", [1.0] * 40),  # the last row has none
        ("history.csv:3", [1.0] * 40),
        ("history.csv:epoch", list(range(41))),
    ],
)
def test_a_column_of_metrics(history, argument, expected):
    assert cli.read_metrics(argument, 100) == expected
    assert cli.read_metrics(argument, 2) == expected[:2]


WRONG = [
    (["plot", "StepLR(3)"], "argument --steps: give the number of steps to draw, as no EXPR says how long it lasts"),
    (["plot", "CosineAnnealingLR(2000000)"], "argument --steps: give the number of steps"),
    (["plot", "CosineAnnealingLR(20)", "--metrics", "numbers.csv"], "has 3 numbers for 20 steps; give --steps 3"),
    (["plot", "--steps", "3"], "the following arguments are required: EXPR"),
    (["plot", "StepLR(3)", "--steps", "0"], "argument --steps: must be a positive whole number, not '0'"),
    (["plot", "StepLR(3)", "--steps", "x"], "argument --steps: must be a positive whole number, not 'x'"),
    (["plot", "StepLR(3)", "--steps", "3", "--lr", "x"], "argument --lr: must be a number, 0 or more, not 'x'"),
    (["plot", "StepLR(3)", "--steps", "3", "--lr", "nan"], "argument --lr: must be a number"),
    (["plot", "StepLR(3)", "--steps", "3", "-o", "x.qqq"], "argument -o: Format 'qqq' is not supported"),
    (["plot", "StepLR(3)", "--steps", "3", "-o", "no/x.png"], "argument -o: [Errno 2] No such file"),
    (["plot", "StepLR(3)", "--step", "3"], "unrecognized arguments: --step 3"),
    (
        ["plot", "StepLR(3)", EXAMPLE[1], "--steps", "20"],
        "argument EXPR 2: step 11 of this SequentialLR needs a metric",
    ),
    (["plot", EXAMPLE[1], "--steps", "20"], "give --metrics FILE"),
    (["plot", "OneCycleLR(1, 5)", "--steps", "9"], "argument EXPR 1: Tried to step 6 times"),
    (
        ["plot", "StepLR(0)", "--steps", "9"],
        "argument EXPR 1: step_size must be 1 or more, not 0\n  StepLR(0)\n         ^",
    ),
    (["plot", "StepLR('30')", "--steps", "9"], "argument EXPR 1: step_size must be a number, not '30'\n"),
    (
        ["plot", "StepLR(3)", "StepLR(3, gama=1)", "--steps", "9"],
        "argument EXPR 2: StepLR has no argument gama; did you mean gamma?\n  StepLR(3, gama=1)\n            ^^^^^^\n",
    ),
    (["--metrics", "none.csv"], "argument --metrics: none.csv: No such file"),
    (["--metrics", "none.csv:loss"], "argument --metrics: none.csv: No such file"),
    (["--metrics", "."], "argument --metrics: .: Is a directory"),
    (["--metrics", "binary.csv"], "argument --metrics: binary.csv: "),
    (["--metrics", "empty.csv"], "argument --metrics: empty.csv is empty"),
    (["--metrics", "wrong.csv"], "argument --metrics: wrong.csv, line 3: 'high' is not a number"),
    (["--metrics", "numbers.csv"], "argument --metrics: numbers.csv has 3 numbers for --steps 9"),
    (["--metrics", "numbers.csv:loss"], "there is no column 'loss'; there are 1, numbered from 1"),
    (["--metrics", "history.csv"], "say which column, as FILE:COLUMN; the columns are epoch, loss, val:loss"),
    (["--metrics", "history.csv:4"], "there is no column '4'; the columns are epoch, loss, val:loss"),
    (["--metrics", "a" * 300 + ":loss"], f"argument --metrics: {'a' * 40}...: File name too long"),
    (["--metrics", "a" * 100_000], f"argument --metrics: {'a' * 40}...: File name too long"),
    (["--metrics", ":" * 100_000], "argument --metrics: :: No such file"),
    (["--metrics", "a\0b"], "argument --metrics: a\0b: embedded null byte"),
    (["--metrics", "/dev/zero"], "/dev/zero: it is not a CSV file: a line is longer than 100000 characters"),
    (["--metrics", "/dev/zero:loss"], "/dev/zero: it is not a CSV file"),
    (["--metrics", "/dev/null"], "argument --metrics: /dev/null is empty"),
    (["--metrics", "numbers.csv:" + "9" * 5000], f"there is no column '{'9' * 40}...'; there are 1"),
    (["plot", "StepLR(3)", "--steps", "1000001"], "argument --steps: must be at most 1000000, not 1000001"),
    (["plot", "StepLR(3)", "--steps", "1" * 4000], f"argument --steps: must be at most 1000000, not {'1' * 40}...\n"),
    (["plot", "StepLR(3)", "--steps", "1" * 5000], f"must be a positive whole number, not '{'1' * 40}...'\n"),
    (["plot", "StepLR(3)", "--steps", "3", "--lr", "9" * 5000], f"must be a number, 0 or more, not '{'9' * 40}...'\n"),
    (["bench", "--groups", "1,1000000000"], "argument --groups: must be at most 100000, not 1000000000"),
    (["bench", "--groups", "1,0"], "argument --groups: must be a positive whole number, not '0'"),
    (["bench", "--groups", ""], "argument --groups: must be a positive whole number, not ''"),
    (
        ["bench", "--schedulers", "StepLR,Foo"],
        "argument --schedulers: there is no 'Foo' to compare; choose from StepLR,",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(arguments)[:60] for arguments, _ in WRONG])
def test_errors_name_the_argument(history, capsys, arguments, message):
    if arguments[0] == "--metrics":
        arguments = ["plot", "ReduceLROnPlateau()", "--steps", "9", *arguments]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert f"fastsched {arguments[0]}: error: " in captured.err
    assert message in captured.err
    assert captured.err.count("\n") == 1 or "\n  " in captured.err  # with the expression, if that is at fault
    assert captured.out == ""


def test_a_format_whose_tool_is_missing_is_a_line(history, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as caught:
        main(["plot", "StepLR(3)", "--steps", "3", "-o", "x.pgf"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"fastsched plot: error: argument -o: .*xelatex.*\n", error)


def test_only_as_many_metrics_as_there_are_steps_are_read(history):
    reader, writer = os.pipe()
    os.write(writer, b"loss\n1.0\n0.5\n0.25\n" * 1000)  # of a program that never ends
    try:
        assert cli.read_metrics(f"/dev/fd/{reader}:loss", 2) == [1.0, 0.5]
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("command", ["info", "plot", "demo", "bench"])
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) >= 5
    assert max(map(len, text.splitlines())) <= 120


def test_the_examples_of_the_help_work(history, capsys):
    with pytest.raises(SystemExit):
        main(["plot", "--help"])
    (history / "history.csv").write_text("val_loss\n" + "1.0\n" * 200)
    text = capsys.readouterr().out.replace("\\\n", "")
    lines = re.findall(r"^  fastsched (.*)$", text, flags=re.MULTILINE)
    assert len(lines) == 6
    for line in lines:
        assert main(shlex.split(line)) == 0


def test_a_reader_that_leaves_early_is_no_traceback(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        assert main(["info"]) == 0


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("plotille", ["plot", "StepLR(3)", "--steps", "3"], "plot"),
        ("matplotlib.axes", ["plot", "StepLR(3)", "--steps", "3", "-o", "x.png"], "plot"),
        ("numpy", ["plot", "StepLR(3)", "--steps", "3"], "plot"),
        ("sklearn.datasets", ["demo"], "demo"),
    ],
)
def test_what_is_missing_is_asked_for_by_name(capsys, monkeypatch, module, arguments, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 1
    assert f"pip install 'fastsched[{extra}]'" in capsys.readouterr().err


@pytest.mark.parametrize("with_tqdm", [False, True])
def test_demo_shows_reductions_equality_cost_and_a_chart(capsys, monkeypatch, with_tqdm):
    pytest.importorskip("sklearn")
    if not with_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(demo, "EPOCHS", 12)
    monkeypatch.setattr(bench, "CELL_SECONDS", 0.0)
    before = torch.get_rng_state()
    assert main(["demo"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^\d+ +0\.\d+ +0\.03 +0\.009$", output, flags=re.MULTILINE)
    assert re.search(r"accuracy at the end: 9\d\.\d%", output)
    assert len(re.findall(r": yes$", output, flags=re.MULTILINE)) == 2
    assert len(re.findall(r"LRs +[\d.]+ us +[\d.]+ us +[\d.]+$", output, flags=re.MULTILINE)) == 2
    assert "⠒⠒⠒ ReduceLROnPlateau" in output
    assert torch.equal(torch.get_rng_state(), before)


def test_demo_says_where_it_is_not_equal():
    runs = [demo.Run([0.1, lr], [1.0], 0.9, 1) for lr in (0.1, 0.1 + 2**-56)]
    assert demo._yes(runs[0] == runs[1]) == "NO"


def test_bench_compares(capsys, monkeypatch):
    monkeypatch.setattr(bench, "ROUND_SECONDS", 1e-5)
    monkeypatch.setattr(bench, "CELL_SECONDS", 0.0)
    threads = torch.get_num_threads()
    assert main(["bench", "--groups", "1,3", "--schedulers", "StepLR,ReduceLROnPlateau"]) == 0
    assert torch.get_num_threads() == threads
    output = capsys.readouterr().out
    for name in ("StepLR", "ReduceLROnPlateau"):
        for mode in ("float", "tensor"):
            [row] = [line for line in output.splitlines() if re.match(rf"{name}(, idle)?\s.*{mode}", line)]
            assert len(re.findall(r"[\d.]+ ±\d+% \([\d.]+ / [\d.]+ us\)", row)) == 2


def test_bench_steps_what_it_says():
    """Each step changes every learning rate, with both libraries, except for idle ones."""
    for name in bench.SCHEDULES:
        for mode in ("float", "tensor"):
            optimizer = bench.groups_of(3, mode)
            scheduler = getattr(fastsched, name)(optimizer, **bench.SCHEDULES[name])
            optimizer.step()
            lrs = fastsched.simulate(scheduler, 900, 1.0)
            if mode == "tensor":  # rounded to float32 they do not change at every step
                assert lrs.shape == (901, 3)
            elif name in bench.IDLE:
                assert (lrs == lrs[0]).all()
            else:
                assert (lrs[1:] != lrs[:-1]).all()
