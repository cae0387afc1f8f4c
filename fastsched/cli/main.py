"""The command line: ``fastsched info``, ``plot``, ``demo``, ``bench``, ``run``."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

import torch

from .. import _C, __version__
from ..engine import ops
from ..tools import expression, plotting
from ..tools.simulation import Ahead, look_ahead
from . import bench, demo, run


def _wrapped(names: Iterable[str]) -> str:
    return textwrap.fill(f"Schedulers: {', '.join(sorted(names))}.", width=118)


INFO = """\
Shows which versions are installed, which engines can step schedulers here, and why others cannot.
"""

PLOT = f"""\
Draws the learning rates of schedulers over the steps, in the terminal or, with -o, to a file.

An EXPR is a scheduler as in Python, but without its optimizer. Quote it:

  fastsched plot "StepLR(30, gamma=0.5)" --steps 100
  fastsched plot "OneCycleLR(max_lr=0.4, total_steps=3*30)" -o one_cycle.svg

Without --steps, the schedule is drawn for as long as it says it lasts.

A >> B is one after another (a SequentialLR). A lasts as long as its T_max, total_iters, total_steps or anneal_epochs
says; if it has none of these, use @:

  fastsched plot "LinearLR(0.1, total_iters=10) >> CosineAnnealingLR(90)"
  fastsched plot "ExponentialLR(0.97) @ 50 >> CosineAnnealingLR(50)"

warmup(10) is a linear warm-up over 10 steps. A * B is both at every step (a ChainedScheduler); it binds more tightly
than >>, and parentheses group as in Python:

  fastsched plot "warmup(10) >> StepLR(30, gamma=0.5) * ExponentialLR(0.99)" --steps 100

A ReduceLROnPlateau reads a metric at each step, from successive lines of a CSV file. Several EXPR share one plot:

  fastsched plot "CosineAnnealingLR(T_max=100)" "warmup(10) >> ReduceLROnPlateau(patience=5)" \\
      --steps 200 --metrics history.csv:val_loss -o schedules.png

{_wrapped(expression.CALLABLE)}
"""

DEMO = """\
Trains a small network on scikit-learn's digits three times: with torch's ReduceLROnPlateau, with fastsched's, and with
fastsched's on tensor learning rates. Shows when the learning rate was reduced and from what to what, whether all three
agree to the last bit, a chart, and what one step of each costs here. Takes seconds.
"""

BENCH = f"""\
Times one step of torch's schedulers and of fastsched's on this machine, in alternating rounds of one process, and
prints how many times as long torch's takes, and how many microseconds each takes. "float" means learning rates that
are Python numbers, "tensor" tensors on the CPU. Takes well under half a minute.

  fastsched bench
  fastsched bench --schedulers StepLR,OneCycleLR --groups 1,1000

{_wrapped(bench.SCHEDULES)}
"""


MOST_STEPS = 10**6  # a plot has no room for more
LONGEST_PATH = 2**15  # characters, on any system
LONGEST_LINE = 10**5  # characters of a metrics file


class UsageError(Exception):
    """What is wrong with the command line; names the argument."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, or exits with 2 if an argument is wrong."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        _exit(options.command or "", f"unrecognized arguments: {' '.join(map(_shortened, unknown))}")
    if options.command == "run":  # errors belong to the script
        return run.run(options.script, options.arguments, is_module=options.is_module)
    try:
        print(options.run(options), flush=True)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UsageError as error:
        _exit(options.command or "", str(error))
    except ImportError as error:
        _exit(options.command or "", str(error), status=1)
    return 0


def _exit(command: str, problem: str, status: int = 2) -> NoReturn:
    sys.stderr.write(f"{' '.join(['fastsched', command]).strip()}: error: {problem}\n")
    raise SystemExit(status)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage that --help shows."""
        _exit(self.prog.removeprefix("fastsched").strip(), message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fastsched",
        description="torch.optim.lr_scheduler on a compiled core.",
        epilog="fastsched COMMAND --help explains each command, with examples.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastsched {__version__}")
    parser.set_defaults(run=lambda _: parser.format_help().rstrip())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, run: Callable[[Any], str] | None, summary: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(run=run)
        return added

    command("info", lambda _: info(), "versions, which engines are available, and why others are not", INFO)

    drawing = command("plot", _plot, "draw schedules given as expressions", PLOT)
    drawing.add_argument("expressions", nargs="+", metavar="EXPR", help="a schedule; see above")
    drawing.add_argument(
        "--steps",
        type=_positive_int(MOST_STEPS),
        metavar="N",
        help="how many steps to draw; by default as long as the longest EXPR lasts, or one per metric",
    )
    drawing.add_argument(
        "--lr", type=_learning_rate, default=0.1, help="the optimizer's learning rate (default: %(default)s)"
    )
    drawing.add_argument(
        "--metrics",
        metavar="FILE[:COLUMN]",
        help="a CSV file with the metric of each step; COLUMN is its name, or its number from 1, and may be left out "
        "if there is only one. Rows without a value are skipped",
    )
    drawing.add_argument(
        "--scale",
        choices=("linear", "log"),
        help="of the learning rates; by default whichever shows more: log if they change by factors, over decades",
    )
    drawing.add_argument("--title", metavar="TEXT", help="written above the plot")
    drawing.add_argument(
        "-o", "--output", metavar="FILE", help="write an image, in the format of the extension: .png, .svg, .pdf"
    )

    command(
        "demo",
        lambda _: demo.run(shutil.get_terminal_size().columns),
        "train on digits with ReduceLROnPlateau, in seconds",
        DEMO,
    )

    timing = command("bench", _bench, "a short comparison with torch on this machine", BENCH)
    timing.add_argument(
        "--groups",
        type=_list_of(_positive_int(bench.MOST_GROUPS)),
        default=[1, 10, 100, 1000],
        help="numbers of param groups, separated by commas",
    )
    timing.add_argument(
        "--schedulers",
        type=_list_of(_schedule),
        default=list(bench.DEFAULT),
        metavar="NAMES",
        help=f"separated by commas (default: {','.join(bench.DEFAULT)})",
    )

    running = command("run", None, "run a script with fastsched in place of torch's schedulers", run.ABOUT)
    run.add_arguments(running)
    return parser


def _positive_int(most: int) -> Callable[[str], int]:
    def positive_int(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # also raised for thousands of digits
            value = 0
        if value < 1:
            raise argparse.ArgumentTypeError(f"must be a positive whole number, not {_shortened(text)!r}")
        if value > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, not {_shortened(text)}")
        return value

    return positive_int


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:40]}..."


def _learning_rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number, 0 or more, not {_shortened(text)!r}")
    return value


def _schedule(text: str) -> str:
    if text not in bench.SCHEDULES:
        raise argparse.ArgumentTypeError(
            f"there is no {_shortened(text)!r} to compare; choose from {', '.join(bench.SCHEDULES)}"
        )
    return text


def _list_of(convert: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def items(text: str) -> list[Any]:
        return [convert(item.strip()) for item in text.split(",")]

    return items


def info() -> str:
    """What is installed, which engines are available, and why others are not."""
    if ops.CUDA_UNAVAILABLE is not None:
        cuda = f"no: {ops.CUDA_UNAVAILABLE}"
    elif not torch.cuda.is_available():
        cuda = "operators loaded, but torch sees no CUDA device"
    else:
        cuda = f"yes, on {torch.cuda.get_device_name()}"
    built = "built" if ops.CUDA_LIBRARY.exists() else "not built"
    rows = {
        "fastsched": __version__,
        "torch": f"{torch.__version__} (CUDA {torch.version.cuda or 'none'})",
        "python": f"{platform.python_version()} on {platform.machine()}",
        "host engine": f"yes (notices changes of dicts by {_C.DICT_VERSIONS})",
        "step": "without a Python frame" if _C.QUICK_CALLS else "in a Python frame (not needed from Python 3.12 on)",
        "tensor engine, CPU": "yes",
        "CUDA operators": built,
        "tensor engine, CUDA": cuda,
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _plot(options: Any) -> str:
    metrics = None if options.metrics is None else read_metrics(options.metrics, options.steps or MOST_STEPS)
    schedulers: dict[str, Any] = {}
    lengths: list[int] = []
    for place, text in enumerate(options.expressions, start=1):
        try:
            parsed = expression.parse(text)
            schedulers[text] = parsed.build(_optimizer(options.lr))
        except expression.ExpressionError as error:
            raise UsageError(f"argument EXPR {place}: {error}") from None
        lengths += _length(parsed.lasts(schedulers[text]), schedulers[text])
    steps = options.steps or max(lengths, default=0) or (0 if metrics is None else len(metrics))
    if not steps:
        raise UsageError("argument --steps: give the number of steps to draw, as no EXPR says how long it lasts")
    if metrics is not None and len(metrics) < steps:
        of = f"--steps {steps}" if options.steps else f"{steps} steps; give --steps {len(metrics)}"
        raise UsageError(f"argument --metrics: {_shortened(options.metrics)} has {len(metrics)} numbers for {of}")
    drawn = {
        text: _ahead(f"argument EXPR {place}", text, scheduler, steps, metrics)
        for place, (text, scheduler) in enumerate(schedulers.items(), start=1)
    }
    if options.output is None:
        width = shutil.get_terminal_size().columns
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        return plotting.plot_text(plotting.trajectories(drawn, steps, metrics), width, scale=options.scale, color=color)
    try:
        plotting.plot(drawn, steps, options.output, metrics, scale=options.scale, title=options.title)
    except ImportError:
        raise
    except Exception as error:  # of any type: formats need backends and programs that may be missing
        reason = str(error).strip() or type(error).__name__
        raise UsageError(f"argument -o: {reason.splitlines()[0]}") from None
    return str(options.output)


def _ahead(argument: str, text: str, scheduler: Any, steps: int, metrics: list[float] | None) -> Ahead:
    try:
        return look_ahead(scheduler, steps, metrics)
    except ImportError:
        raise
    except Exception as error:  # whatever a scheduler raises at some step, its arguments are the cause
        reason = str(error) or type(error).__name__
        if metrics is None and reason.startswith("metrics: "):
            reason = f"{reason.split(';')[0].removeprefix('metrics: ')}; give --metrics FILE"
        raise UsageError(f"{argument}: {reason}\n  {text}") from None


def _length(steps: Any, scheduler: Any) -> list[int]:
    """How many steps to draw of a scheduler that lasts ``steps``; empty if that is unknown or too many."""
    while hasattr(scheduler, "_schedulers"):
        scheduler = scheduler._schedulers[-1]
    if not isinstance(steps, (int, float)) or not 1 <= steps <= MOST_STEPS:
        return []
    # A OneCycleLR counts the learning rate before the first step, too.
    return [max(int(steps) - hasattr(scheduler, "total_steps"), 1)]


def _optimizer(lr: float) -> torch.optim.Optimizer:
    # With momentum, which CyclicLR and OneCycleLR cycle.
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


def read_metrics(argument: str, most: int) -> list[float]:
    """The first numbers, ``most`` at most, of one column of a CSV file, given as ``FILE`` or ``FILE:COLUMN``."""
    import csv

    # Either part may contain a colon.
    ends = [len(argument), *(at for at in range(len(argument) - 1, 0, -1) if argument[at] == ":")]
    end = next((end for end in ends if end <= LONGEST_PATH and os.path.isfile(argument[:end])), ends[-1])
    path, column = argument[:end], argument[end + 1 :]

    def wrong(problem: str) -> UsageError:
        return UsageError(f"argument --metrics: {problem}")

    numbers: list[float] = []
    index = None
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for line, row in enumerate(csv.reader(_lines(file)), start=1):
                if not any(map(str.strip, row)):
                    continue
                if index is None:
                    named = any(_as_number(cell) is None for cell in row if cell.strip())
                    index = _column(column, [cell.strip() for cell in row] if named else [], len(row), wrong)
                    if named:
                        continue
                cell = row[index].strip() if index < len(row) else ""
                if not cell:
                    continue
                number = _as_number(cell)
                if number is None:
                    raise wrong(f"{_shortened(path)}, line {line}: {_shortened(cell)!r} is not a number")
                numbers.append(number)
                if len(numbers) == most:
                    break
    except (OSError, ValueError, csv.Error) as error:
        raise wrong(f"{_shortened(path)}: {getattr(error, 'strerror', None) or error}") from None
    if index is None:
        raise wrong(f"{_shortened(path)} is empty")
    return numbers


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file, none of them endless: what looks like a file may be a device."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and not line.endswith("\n"):
            raise ValueError(f"it is not a CSV file: a line is longer than {LONGEST_LINE} characters")
        yield line


def _column(name: str, header: Sequence[str], width: int, wrong: Callable[[str], UsageError]) -> int:
    known = f"the columns are {', '.join(header)}" if header else f"there are {width}, numbered from 1"
    if not name:
        if width > 1:
            raise wrong(f"say which column, as FILE:COLUMN; {known}")
        return 0
    if name in header:
        return header.index(name)
    if name.isdecimal() and len(name) < 10 and 1 <= int(name) <= width:
        return int(name) - 1
    raise wrong(f"there is no column {_shortened(name)!r}; {known}")


def _as_number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _bench(options: Any) -> str:
    cells: Iterable[bench.Cell] = bench.measure(options.schedulers, options.groups)
    return bench.table(cells, options.groups)
