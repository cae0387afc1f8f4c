"""Results of a learning-rate range test: suggestions, a plot, plain data."""

import json
import math
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastsched
from fastsched import LRRangeTestResult
from fastsched.tools.range_test_result import Method, _longest_falling, _slopes

METHODS = Method.__args__


def result(loss_of, start=1e-5, end=1e3, steps=161, mode="exp", **changed):
    """The curve of a loss that is a function of the learning rate, as if already smoothed."""
    places = [step / (steps - 1) for step in range(steps)]
    lrs = [start ** (1 - p) * end**p if mode == "exp" else start * (1 - p) + end * p for p in places]
    losses = [loss_of(lr) for lr in lrs]
    values = {"lrs": lrs, "losses": losses, "smoothed": losses, "mode": mode, "num_iter": steps}
    return LRRangeTestResult(**{**values, "diverged_at": None, "diverged_lr": None, **changed})


def falling_s(lr):
    """Steepest at 0.1, by the logarithm."""
    return -math.tanh(math.log10(lr) + 1)


def bowl(lr):
    """Lowest at 1, from 1e-5 up a straight line down and a steeper one up again, by the logarithm."""
    x = math.log10(lr)
    return 1 - x if x < 0 else 1 + 3 * x


def test_steep_finds_the_steepest_slope_by_the_logarithm_of_the_learning_rate():
    assert result(falling_s).suggestion("steep") == pytest.approx(0.1)
    linear = result(lambda lr: math.exp(-((lr - 6) ** 2) / 8) + 3 - 0.5 * math.log(lr), 1, 20, 400, "linear")
    # By the logarithm, d/dx = lr d/dlr, which is largest beyond the inflection at 8.
    slopes = [-(lr**2 - 6 * lr) / 4 * math.exp(-((lr - 6) ** 2) / 8) - 0.5 for lr in linear.lrs]
    assert linear.suggestion("steep") == linear.lrs[slopes.index(min(slopes))] > 8.2


def test_minimum_is_a_tenth_of_where_the_loss_is_lowest():
    assert result(bowl).suggestion("minimum") == pytest.approx(0.1)


def test_valley_is_two_thirds_of_the_way_down():
    # The valley is from 1e-5, or what is left of that without the first tenth, to 1.
    assert result(bowl).suggestion("valley", skip_start=0) == pytest.approx(10 ** (-5 / 3), rel=0.1)
    assert result(bowl).suggestion("valley") == pytest.approx(10 ** (-4.2 / 3), rel=0.1)


def test_valley_looks_through_small_bumps():
    curve = result(lambda lr: bowl(lr) + (0.06 if round(20 * math.log10(lr)) % 7 == 0 else 0))
    assert curve.suggestion("valley", skip_start=0) == pytest.approx(10 ** (-5 / 3), rel=0.3)


def test_slide_stops_where_the_slopes_at_both_ends_of_the_interval_agree():
    straight = [5 - 0.05 * step if step <= 100 else 0.15 * (step - 100) for step in range(161)]
    curve = result(bowl, losses=straight, smoothed=straight)
    assert curve.suggestion("slide") == curve.lrs[160 - 15]  # they agree at once
    bent = [5 - 0.05 * step if step <= 100 else 0.01 * (step - 100) ** 2 for step in range(161)]
    curve = result(bowl, losses=bent, smoothed=bent)
    # Up to 99 all slopes are -0.05. At 100 the central difference is -0.02, and beyond that they grow.
    assert curve.suggestion("slide") == curve.lrs[100 - 15]


def slide_by_the_book(lrs, losses, width=15, threshold=0.005):
    slopes = [losses[1] - losses[0]]
    slopes += [(b - a) / 2 for a, b in zip(losses, losses[2:], strict=False)]
    slopes += [losses[-1] - losses[-2]]
    right, left = -1, -1 - width
    found = lrs[left]
    while left >= -len(losses) and abs(slopes[right] - slopes[left]) > threshold:
        found = lrs[left]
        right, left = right - 1, left - 1
    return found


@given(st.lists(st.floats(-1, 1), min_size=20, max_size=60))
def test_slide_is_the_interval_slide_rule(bumps):
    losses = [math.tanh((20 - step) / 8) + 0.1 * bump for step, bump in enumerate(bumps)]
    curve = result(bowl, steps=len(losses), losses=losses, smoothed=losses)
    if min(losses[1:]) < losses[0]:
        assert curve.suggestion("slide", skip_start=0) == slide_by_the_book(curve.lrs, losses)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40))
def test_the_longest_falling_subsequence(values):
    places = _longest_falling(values)
    assert places == sorted(set(places))
    assert all(values[a] > values[b] for a, b in pairwise(places))
    lengths = []
    for i, value in enumerate(values):
        lengths.append(1 + max((lengths[j] for j in range(i) if values[j] > value), default=0))
    assert len(places) == max(lengths)


def test_slopes_are_numpys_gradient():
    numpy = pytest.importorskip("numpy")
    places = [0.0, 0.5, 2.0, 2.25, 7.0]
    values = [1.0, 3.0, -2.0, 0.0, 0.5]
    assert _slopes(values, places).tolist() == pytest.approx(numpy.gradient(values, places).tolist())


def test_skips_leave_out_both_ends():
    noisy_ends = result(lambda lr: {1e-5: 50, 1e3: -50}.get(lr, falling_s(lr)))
    assert noisy_ends.suggestion("steep", skip_end=1) == pytest.approx(0.1)
    assert noisy_ends.suggestion("steep", skip_start=0, skip_end=1) == pytest.approx(1e-5)
    assert noisy_ends.suggestion("steep") == pytest.approx(1e3)


@pytest.mark.parametrize("method", METHODS)
def test_no_suggestion_where_the_loss_never_falls(method):
    with pytest.raises(ValueError, match=r"never falls below where it began, at lr 6\.31e-05: lower start_lr"):
        result(lambda lr: lr).suggestion(method)


@pytest.mark.parametrize(("method", "least"), [("valley", 3), ("steep", 3), ("minimum", 3), ("slide", 16)])
def test_no_suggestion_on_a_curve_that_is_too_short(method, least):
    assert result(falling_s, steps=least).suggestion(method, skip_start=0) > 0
    message = f"too short for method '{method}': {least - 1} steps, {least} are needed; raise num_iter$"
    with pytest.raises(ValueError, match=message):
        result(falling_s, steps=least - 1).suggestion(method, skip_start=0)
    diverged = result(falling_s, steps=2, diverged_at=2, diverged_lr=1.0)
    with pytest.raises(ValueError, match="or lower start_lr, because the loss diverged"):
        diverged.suggestion(method, skip_start=0)


def test_bad_arguments_of_a_suggestion():
    curve = result(bowl)
    with pytest.raises(ValueError, match="method must be one of 'valley', 'steep', 'minimum', 'slide', got 'best'"):
        curve.suggestion("best")
    for name in ("skip_start", "skip_end"):
        with pytest.raises(ValueError, match=f"{name} must be 0 or more, got -1"):
            curve.suggestion(**{name: -1})
        with pytest.raises(TypeError, match=f"{name} must be an int, got float"):
            curve.suggestion(**{name: 0.1})
    with pytest.raises(ValueError, match="too short"):
        curve.suggestion(skip_end=1000)


def test_it_is_plain_data():
    curve = result(bowl, diverged_at=161, diverged_lr=2e3)
    assert LRRangeTestResult(**json.loads(json.dumps(curve.to_dict(), allow_nan=False))) == curve
    assert curve.to_dict()["lrs"] is not curve.lrs


def test_repr_says_what_happened():
    assert repr(result(bowl, 1e-5, 1e3, 9)) == (
        "LRRangeTestResult(9 of 9 steps; lr 1e-05 to 1e+03, exp; lowest smoothed loss 1 at lr 1)"
    )
    nothing = result(bowl, lrs=[], losses=[], smoothed=[], diverged_at=0, diverged_lr=1e-5)
    assert repr(nothing) == "LRRangeTestResult(0 of 161 steps; diverged at step 0, lr 1e-05)"
    assert nothing.diverged
    assert not result(bowl).diverged


class TestPlot:
    @pytest.fixture(autouse=True)
    def matplotlib(self):
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("agg")
        return matplotlib

    @pytest.mark.parametrize("name", ["curve.png", "curve.svg"])
    def test_a_file_leaves_pyplot_alone(self, tmp_path, matplotlib, name):
        from matplotlib import pyplot

        before = pyplot.get_fignums()
        curve = result(bowl, diverged_at=161, diverged_lr=2e3)
        axes = curve.plot(tmp_path / name)
        assert (tmp_path / name).read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
        assert pyplot.get_fignums() == before
        assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "learning rate (log scale)", "loss")
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        suggestions = {method: curve.suggestion(method) for method in ("valley", "steep", "minimum", "slide")}
        named = [f"{method}: {lr:.3g}" for method, lr in suggestions.items()]
        assert texts == ["loss", "loss, smoothed", "diverged at 2e+03", *named]
        marked = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() != "None"]
        assert marked == list(suggestions.values())
        legend = axes.get_legend().get_window_extent()
        assert legend.y0 >= axes.get_window_extent().y1

    def test_given_axes_are_drawn_on_and_keep_their_limits_once_they_have_data(self):
        from matplotlib.figure import Figure

        axes = Figure().add_subplot()
        linear = result(lambda lr: abs(lr - 5), 1, 10, 30, "linear")
        assert linear.plot(axes, suggestion="steep") is axes
        assert axes.get_xscale() == "linear"
        limits = axes.get_ylim()
        result(lambda lr: 100 * lr, 1, 5, 30, "linear").plot(axes, suggestion=None, title="two")
        assert axes.get_ylim() == limits
        assert axes.get_title() == "two"

    def test_without_a_target_it_is_a_new_pyplot_figure(self):
        from matplotlib import pyplot

        axes = result(bowl).plot()
        assert pyplot.gca() is axes
        pyplot.close("all")

    def test_losses_just_before_a_divergence_do_not_flatten_the_curve(self, tmp_path):
        curve = result(bowl)
        curve.losses[:] = [*curve.losses[:-1], 1e9]
        curve = result(bowl, losses=curve.losses)
        assert curve.plot(tmp_path / "curve.png").get_ylim()[1] < 20

    @pytest.mark.parametrize("steps", [0, 2])
    def test_without_a_suggestion_the_legend_says_so(self, tmp_path, steps):
        short = result(bowl)
        short = result(bowl, lrs=short.lrs[:steps], losses=short.losses[:steps], smoothed=short.smoothed[:steps])
        axes = short.plot(tmp_path / "curve.png")
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        assert texts[-4:] == [f"{method}: no suggestion" for method in ("valley", "steep", "minimum", "slide")]

    def test_bad_arguments(self):
        with pytest.raises(TypeError, match="path_or_axes must be a path, a matplotlib Axes or None, got int"):
            result(bowl).plot(3)
        with pytest.raises(ValueError, match=r"suggestion must be one of 'valley', .*, got 'best'"):
            result(bowl).plot(suggestion="best")


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch, tmp_path):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.pyplot", "matplotlib.axes"):
        monkeypatch.setitem(sys.modules, name, None)
    for target in (tmp_path / "curve.png", None, object()):
        with pytest.raises(ImportError, match=r"drawn with matplotlib: pip install 'fastsched\[plot\]'"):
            result(bowl).plot(target)


def test_importing_fastsched_imports_none_of_what_is_optional():
    code = (
        "import sys, torch; before = set(sys.modules); import fastsched; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "fastsched" in output.split()
    assert {"matplotlib", "numpy", "tqdm"}.isdisjoint(output.split())
    assert fastsched.lr_range_test
