"""plot: what is drawn, where, and that pyplot is not touched."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import fastsched
from fastsched.tools import plotting

from .conftest import sgd
from .optimizers import stepped_sgd

matplotlib = pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")
figures = pytest.importorskip("matplotlib.figure")
METRICS = [1.0] * 12


def axes_of_mine():
    return figures.Figure().subplots()


def step_lr(*initial, gamma=0.5):
    return fastsched.StepLR(stepped_sgd(initial or [0.1]), 4, gamma)


def warm_up():
    return fastsched.LinearLR(stepped_sgd([0.1]), 0.1, total_iters=4)


def in_a_row(first, kind, *arguments):
    """The first for four steps, then another kind of scheduler."""
    return fastsched.SequentialLR(first.optimizer, [first, kind(first.optimizer, *arguments)], [4])


def plateau():
    return fastsched.ReduceLROnPlateau(stepped_sgd([0.1]), patience=1, factor=0.5)


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_it_draws_what_simulate_gives():
    scheduler = step_lr()
    mine = axes_of_mine()
    assert fastsched.plot(scheduler, 12, mine) is mine
    [line] = mine.get_lines()
    assert line.get_xdata().tolist() == list(range(13))
    np.testing.assert_array_equal(line.get_ydata(), fastsched.simulate(scheduler, 12)[:, 0])
    assert labels(mine) == ["StepLR"]
    assert (mine.get_xlabel(), mine.get_ylabel()) == ("step", "learning rate")
    assert mine.get_yscale() == "linear"
    assert scheduler.last_epoch == 0


def test_groups_that_agree_are_one_line_and_are_named_only_where_some_do_not():
    mine = axes_of_mine()
    schedulers = {"one": step_lr(0.1, 0.1), "two": step_lr(0.1, 0.2, 0.1, 0.1, 0.3)}
    fastsched.plot(schedulers, 12, mine)
    assert labels(mine) == ["one", "two, groups 0, 2-3", "two, group 1", "two, group 4"]
    colors = [line.get_color() for line in mine.get_lines()]
    assert colors[0] != colors[1] == colors[2] == colors[3]
    assert len({line._unscaled_dash_pattern for line in mine.get_lines()[1:]}) == 3


def test_many_different_groups_have_one_line_in_the_legend():
    mine = axes_of_mine()
    fastsched.plot({"many": step_lr(*(0.1 + 0.01 * group for group in range(20)))}, 12, mine)
    assert len(mine.get_lines()) == 20
    assert labels(mine) == ["many, 20 groups"]


def test_arrays_and_a_metric_series_on_an_axis_of_its_own():
    lrs = fastsched.simulate(plateau(), 12, METRICS)
    for schedulers, steps in ((lrs, None), ({"plateau": plateau()}, 12)):
        mine = axes_of_mine()
        fastsched.plot(schedulers, steps, mine, iter(METRICS))
        np.testing.assert_array_equal(mine.get_lines()[0].get_ydata(), lrs[:, 0])
        [beside] = [axes for axes in mine.figure.axes if axes is not mine]
        assert beside.get_lines()[0].get_xdata()[0] == 1  # what the first step is given
        assert beside.get_lines()[0].get_ydata().tolist() == METRICS
        assert labels(mine)[1:] == ["metric"]


def test_one_number_for_all_steps_is_nothing_to_draw():
    mine = axes_of_mine()
    fastsched.plot(plateau(), 12, mine, 1.0)
    assert mine.figure.axes == [mine]
    assert mine.get_lines()[0].get_ydata()[-1] < 0.1


@pytest.mark.parametrize(
    ("schedulers", "scale"),
    [
        (lambda: step_lr(gamma=0.5), "linear"),
        (lambda: step_lr(gamma=0.01), "log"),
        (lambda: step_lr(gamma=0.1), "log"),
        (lambda: fastsched.MultiStepLR(stepped_sgd([0.1]), [6], 0.1), "linear"),  # one decade
        (lambda: fastsched.ExponentialLR(stepped_sgd([0.1]), 0.5), "log"),
        (lambda: fastsched.ExponentialLR(stepped_sgd([torch.tensor(1e-4)]), 2.0), "log"),
        (lambda: in_a_row(warm_up(), fastsched.StepLR, 2, 0.1), "log"),
        (lambda: fastsched.ReduceLROnPlateau(stepped_sgd([0.1]), patience=0), "log"),
        # straight lines and cosines are not bent, however low they go, and zeros do not count as decades
        (lambda: fastsched.LinearLR(stepped_sgd([0.1]), 1e-6, total_iters=12), "linear"),
        (lambda: fastsched.LinearLR(stepped_sgd([0.1]), 1.0, 0.0, total_iters=6), "linear"),
        (lambda: fastsched.LinearLR(stepped_sgd([0.1]), 1.0, 1e-4, total_iters=6), "linear"),
        (lambda: fastsched.CosineAnnealingLR(stepped_sgd([0.1]), 8, eta_min=1e-7), "linear"),
        (lambda: fastsched.CosineAnnealingWarmRestarts(stepped_sgd([0.1]), 5), "linear"),
        (lambda: fastsched.PolynomialLR(stepped_sgd([0.1]), 10, 2.0), "linear"),
        (lambda: fastsched.OneCycleLR(stepped_sgd([0.1]), 0.1, total_steps=20, cycle_momentum=False), "linear"),
        (lambda: fastsched.CyclicLR(stepped_sgd([0.1]), 1e-4, 0.1, 4, cycle_momentum=False), "linear"),
        (lambda: fastsched.LambdaLR(stepped_sgd([0.1]), lambda step: (step + 1) ** -0.5), "linear"),
        (lambda: {"high": step_lr(1.0), "low": step_lr(0.001)}, "log"),
        (
            lambda: {"cosine": fastsched.CosineAnnealingLR(stepped_sgd([0.1]), 12), "steps": step_lr(gamma=0.1)},
            "linear",
        ),
        (lambda: {"line": fastsched.LinearLR(stepped_sgd([0.1]), total_iters=4), "steps": step_lr(gamma=0.1)}, "log"),
        (lambda: {f"{lr}": fastsched.PolynomialLR(stepped_sgd([lr]), 12) for lr in (1.0, 0.001)}, "linear"),
        (lambda: step_lr(0.1, 0.0, gamma=0.1), "log"),  # a group that rests
        # touching zero is no reason
        (lambda: fastsched.CosineAnnealingLR(stepped_sgd([0.1]), 12), "linear"),
        (lambda: step_lr(0.0), "linear"),
    ],
)
def test_the_scale_is_logarithmic_where_that_shows_more(schedulers, scale):
    mine = axes_of_mine()
    schedulers = schedulers()
    metrics = 1.0 if isinstance(schedulers, fastsched.ReduceLROnPlateau) else None
    fastsched.plot(schedulers, 12, mine, metrics)
    assert mine.get_yscale() == scale
    assert mine.get_ylabel() == ("learning rate (log scale)" if scale == "log" else "learning rate")


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_the_scale_is_what_one_says(scale):
    for scheduler in (step_lr(gamma=0.01), step_lr(gamma=0.5)):
        mine = axes_of_mine()
        fastsched.plot(scheduler, 12, mine, scale=scale, title="what is to come")
        assert (mine.get_yscale(), mine.get_title()) == (scale, "what is to come")


def test_stairs_for_steps_and_lines_for_what_is_smooth():
    mine = axes_of_mine()
    fastsched.plot(
        {"steps": step_lr(), "smooth": warm_up(), "both": in_a_row(warm_up(), fastsched.StepLR, 4, 0.5)}, 12, mine
    )
    steps, smooth, both = mine.get_lines()
    assert [line.get_drawstyle() for line in (steps, smooth, both)] == ["steps-post", "default", "default"]
    assert len(smooth.get_xdata()) == 13
    drops = np.flatnonzero(np.diff(both.get_xdata()) == 0)
    assert both.get_xdata()[drops].tolist() == [8, 12]
    restarts = axes_of_mine()
    fastsched.plot(fastsched.CosineAnnealingWarmRestarts(stepped_sgd([0.1]), 6), 11, restarts)
    x, y = restarts.get_lines()[0].get_data()
    assert x.tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11]
    assert y[7] == 0.1


def test_a_run_of_large_factors_has_no_stairs():
    mine = axes_of_mine()
    fastsched.plot(fastsched.StepLR(stepped_sgd([0.1]), 1, 0.1), 12, mine)
    assert len(mine.get_lines()[0].get_xdata()) == 13
    assert mine.get_lines()[0].get_drawstyle() == "default"


def test_groups_are_called_by_their_names():
    def groups(*named):
        given = [
            {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} | ({"name": name} if name else {})
            for lr, name in named
        ]
        return fastsched.StepLR(torch.optim.SGD(given), 4)

    mine = axes_of_mine()
    fastsched.plot({"two": groups((0.1, "body"), (1.0, "head"), (0.1, None), (1.0, "more"))}, 12, mine)
    assert labels(mine) == ["two, body, group 2", "two, head, more"]
    mine = axes_of_mine()
    fastsched.plot({"five": groups(*((0.1, f"layer {i}") for i in range(5)), (1.0, "head"))}, 12, mine)
    assert labels(mine) == ["five, layer 0, layer 1, 3 more", "five, head"]


def test_momentum_is_drawn_where_it_cycles():
    for optimizer, place in (
        (torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9), lambda group: group["momentum"]),
        (torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.1), lambda group: group["betas"][0]),
    ):
        scheduler = fastsched.OneCycleLR(optimizer, max_lr=0.1, total_steps=13)
        mine = axes_of_mine()
        fastsched.plot(scheduler, 12, mine)
        [right] = [axes for axes in mine.figure.axes if axes is not mine]
        assert right.get_ylabel() == "momentum"
        assert labels(mine) == ["OneCycleLR", "momentum"]
        drawn = right.get_lines()[0].get_ydata()
        expected = [place(optimizer.param_groups[0])]
        for _ in range(12):
            optimizer.step()
            scheduler.step()
            expected.append(place(optimizer.param_groups[0]))
        assert drawn.tolist() == expected
    mine = axes_of_mine()
    fastsched.plot(fastsched.CyclicLR(stepped_sgd([0.1]), 0.1, 1.0, cycle_momentum=False), 12, mine)
    assert mine.figure.axes == [mine]


@pytest.mark.parametrize(
    ("name", "begins"), [("a.png", b"\x89PNG"), ("a", b"\x89PNG"), ("b.svg", b"<?xml"), ("c.pdf", b"%PDF")]
)
def test_a_file_in_the_format_of_its_extension(tmp_path, name, begins):
    fastsched.plot({"a >> b": step_lr(), "b": plateau()}, 12, tmp_path / name, METRICS)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_a_picture_has_its_lines_in_their_colors(tmp_path):
    file = str(tmp_path / "picture.png")
    fastsched.plot({"one": step_lr(), "two": plateau()}, 12, file, METRICS)
    seen = {color for _, color in Image.open(file).convert("RGB").getcolors(1 << 20)}
    for color in (*plotting.COLORS[:2], plotting.METRIC_COLOR):
        assert tuple(bytes.fromhex(color[1:])) in seen


def test_files_leave_pyplot_alone_and_need_no_display(tmp_path):
    script = (
        "import sys, torch, fastsched, matplotlib; matplotlib.use('QtAgg', force=False)\n"
        "scheduler = fastsched.StepLR(torch.optim.SGD([torch.zeros(1)]), 1)\n"
        f"fastsched.plot(scheduler, 3, {str(tmp_path / 'x.png')!r})\n"
        "print('matplotlib.pyplot' in sys.modules, matplotlib.rcParams['backend'])"
    )
    output = subprocess.check_output([sys.executable, "-W", "ignore", "-c", script], text=True, env={"PATH": ""})
    assert output.split() == ["False", "QtAgg"]
    assert (tmp_path / "x.png").exists()


def test_without_a_place_it_is_a_new_pyplot_figure(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    pyplot.switch_backend("Agg")
    before = pyplot.get_fignums()
    axes = fastsched.plot(step_lr(), 12)
    assert pyplot.get_fignums() == [*before, axes.figure.number]
    pyplot.close(axes.figure)


@pytest.mark.parametrize("place", ["file", "axes"])
@pytest.mark.parametrize(("length", "count"), [(5, 1), (30, 4), (300, 4), (60, 40)])
def test_the_legend_is_above_the_lines_and_no_wider_than_the_picture(place, length, count, tmp_path):
    names = [f"{'a rather long name' * length}"[:length] + f" of {i}" for i in range(count)]
    lrs = np.linspace(0.1, 1, 13)[:, None]
    axes = fastsched.plot(
        dict.fromkeys(names, lrs), path_or_axes=tmp_path / "x.png" if place == "file" else axes_of_mine(), title="all"
    )
    axes.figure.draw_without_rendering()
    legend, title = axes.get_legend().get_window_extent(), axes.title.get_window_extent()
    assert axes.get_window_extent().y1 <= legend.y0
    assert legend.y1 <= title.y0 < title.y1 <= axes.figure.bbox.y1
    assert legend.width <= axes.get_window_extent().width
    assert legend.height < axes.figure.bbox.height / 2
    if count < 40:
        assert [text[-4:] for text in labels(axes)] == [name[-4:] for name in names]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({},), ValueError, "schedulers is empty"),
        ((None, 3), TypeError, "scheduler must have step"),
        ((step_lr(),), ValueError, "steps is missing"),
        (({"a": np.zeros(3)},), ValueError, r"schedulers\['a'\] must be an array of shape \(steps \+ 1, groups\)"),
        ((np.zeros((3, 1), complex),), ValueError, r"schedulers\['learning rate'\] must be an array"),
        ((step_lr(), 3, 7), TypeError, "path_or_axes must be a path, a matplotlib Axes or None, got int"),
        ((step_lr(), 3, None, [1.0]), ValueError, "metrics has 1 numbers for 3 steps"),
        ((step_lr(), 3, "x.nothing"), ValueError, "nothing"),
        (
            (step_lr(), 3, "x.png", None, {"scale": "sqrt"}),
            ValueError,
            "scale must be 'linear', 'log' or None, got 'sqrt'",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        fastsched.plot(*arguments[:4], **dict(*arguments[4:]))
    assert not list(tmp_path.iterdir())


def test_matplotlib_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(ImportError, match=r"pip install 'fastsched\[plot\]'"):
        fastsched.plot(step_lr(), 3)


def text(schedulers, steps=12, metrics=None, width=60, color=False):
    return plotting.plot_text(plotting.trajectories(schedulers, steps, metrics), width, color=color)


def test_a_plot_in_the_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # to plotille this means a terminal
    drawn = text({"one": step_lr(), "two": plateau()}, metrics=METRICS)
    assert max(map(len, drawn.splitlines())) <= 60
    assert "⠒a⠒ one" in drawn
    assert "⠒b⠒ two" in drawn
    assert "metric" in drawn
    assert "\x1b" not in drawn
    assert "\x1b" in text(step_lr(), color=True)


def column_of(drawn, column):
    """The rows, from the top, in which a chart has something in a column behind its axis."""
    chart = [
        line.partition("┤")[2] or line.partition("│")[2] for line in drawn.splitlines() if "┤" in line or "│" in line
    ]
    return [row for row, line in enumerate(chart) if line[column : column + 1].strip(" \u2800")]


def test_every_point_is_drawn_from_the_top_row_to_the_bottom_row():
    drawn = text(fastsched.LinearLR(stepped_sgd([1.0]), 1.0, 0.0, total_iters=12))
    rows = [line for line in drawn.splitlines() if "┤" in line or "│" in line]
    assert column_of(drawn, 0) == [0]
    last = max(len(row.partition("┤")[2] or row.partition("│")[2]) for row in rows) - 1
    assert column_of(drawn, last) == [len(rows) - 1]
    flat = text(fastsched.ConstantLR(stepped_sgd([1.0]), 1.0))
    assert [line.partition("┤")[0].strip() for line in flat.splitlines() if "⠤⠤⠤⠤" in line] == ["1.00"]


@pytest.mark.parametrize("steps", [1, 7, 12, 59, 100, 12345])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_ticks_are_even_and_their_numbers_are_round(steps, width):
    drawn = text(fastsched.CosineAnnealingLR(stepped_sgd([0.07]), max(steps, 2)), steps, width=width).splitlines()
    assert max(map(len, drawn)) <= width
    [below] = [index for index, line in enumerate(drawn) if "└" in line]
    ticks = [column for column, character in enumerate(drawn[below]) if character == "┬"]
    assert len(set(np.diff(ticks))) <= 1
    numbers = [int(number) for number in drawn[below + 1].split()]
    assert numbers == list(range(0, steps + 1, numbers[1] if len(numbers) > 1 else steps + 1))
    assert len(ticks) == len(numbers)
    rows = [index for index, line in enumerate(drawn) if "┤" in line]
    assert len(set(np.diff(rows))) == 1
    heights = [float(drawn[row].partition("┤")[0]) for row in rows]
    assert heights == pytest.approx(np.linspace(heights[0], heights[-1], len(heights)).tolist())
    assert heights[0] >= 0.07


def test_momentum_and_the_scale_in_the_terminal():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    drawn = text(fastsched.OneCycleLR(optimizer, 0.1, total_steps=13))
    assert "\n\nmomentum\n" in drawn
    decades = plotting.plot_text(plotting.trajectories(step_lr(), 12, None), 60, scale="log", color=False)
    assert [line.split("┤")[0].strip() for line in decades.splitlines() if "┤" in line] == ["0.1", "0.01"]


@pytest.mark.parametrize("initial", [0.0, 1e-300, 1.0, 1e300, float("inf"), float("nan")])
@pytest.mark.parametrize("gamma", [1.0, 1e-4])
@pytest.mark.parametrize("steps", [0, 1, 12])
def test_any_learning_rate_can_be_drawn(initial, gamma, steps):
    scheduler = fastsched.StepLR(stepped_sgd([1.0]), 1, gamma)
    scheduler.optimizer.param_groups[0]["lr"] = initial
    assert len(text(scheduler, steps).splitlines()) < 50
    assert fastsched.plot(scheduler, steps, axes_of_mine()).get_lines()


def test_plotille_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotille", None)
    with pytest.raises(ImportError, match=r"pip install 'fastsched\[plot\]'"):
        text(step_lr())


def test_tensor_learning_rates():
    mine = axes_of_mine()
    fastsched.plot(fastsched.StepLR(sgd([torch.tensor(0.1)]), 4, 0.5), 12, mine)
    assert mine.get_lines()[0].get_ydata()[-1] == pytest.approx(0.0125)
