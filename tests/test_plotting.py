"""plot: what is drawn, where, and that nothing of pyplot's is touched."""

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
        (lambda: {"high": step_lr(1.0), "low": step_lr(0.001)}, "log"),
        # a touch of zero is no reason
        (lambda: fastsched.CosineAnnealingLR(stepped_sgd([0.1]), 12), "linear"),
        (lambda: step_lr(0.0), "linear"),
    ],
)
def test_the_scale_is_logarithmic_where_that_shows_more(schedulers, scale):
    mine = axes_of_mine()
    fastsched.plot(schedulers(), 12, mine)
    assert mine.get_yscale() == scale


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("b.svg", b"<?xml"), ("c.pdf", b"%PDF")])
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


def test_the_legend_is_outside_of_the_lines_way(tmp_path):
    axes = fastsched.plot(
        {f"a rather long name, number {i}": step_lr(0.1 * i) for i in range(1, 5)}, 12, tmp_path / "x.png"
    )
    legend = axes.get_legend().get_window_extent()
    assert legend.y0 >= axes.get_window_extent().y1
    assert legend.x1 <= axes.figure.bbox.x1
    assert legend.y1 <= axes.figure.bbox.y1


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
    ],
)
def test_bad_arguments_are_refused(arguments, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        fastsched.plot(*arguments)
    assert not list(tmp_path.iterdir())


def test_matplotlib_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(ImportError, match=r"pip install 'fastsched\[plot\]'"):
        fastsched.plot(step_lr(), 3)


def text(schedulers, steps=12, metrics=None, width=60, color=False):
    return plotting.plot_text(*plotting.trajectories(schedulers, steps, metrics), width, color=color)


def test_a_plot_in_the_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # plotille's word for a terminal
    drawn = text({"one": step_lr(), "two": plateau()}, metrics=METRICS)
    assert max(map(len, drawn.splitlines())) <= 60
    assert "a⠤ one" in drawn
    assert "b⠤ two" in drawn
    assert "metric" in drawn
    assert "\x1b" not in drawn
    assert "\x1b" in text(step_lr(), color=True)


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
