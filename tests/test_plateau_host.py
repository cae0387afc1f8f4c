"""Python-number learning rates: bit-identical to torch after every step, whatever happens in between."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched
from fastsched import _C

from .configurations import configurations, metrics
from .conftest import sgd
from .values import bits

lrs = st.floats(0.0, 10.0, allow_subnormal=True) | st.integers(0, 3)


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[float], dict[str, object], list[float]]:
    initial = draw(st.lists(lrs, min_size=1, max_size=4))
    stream = draw(st.lists(metrics, min_size=1, max_size=40))
    if draw(st.booleans()):  # long plateaus make reductions, cooldowns and floors likely
        stream = [value for value in stream[:6] for _ in range(7)]
    return initial, draw(configurations(len(initial))), stream


def snapshot(scheduler: TorchPlateau) -> dict[str, object]:
    state = {name: bits(value) for name, value in scheduler.state_dict().items()}
    state["best"] = bits(float(scheduler.best))  # an int written there reads back as a float
    state["get_last_lr"] = bits(scheduler.get_last_lr())
    state["in_cooldown"] = scheduler.in_cooldown
    state["lrs"] = [bits(group["lr"]) for group in scheduler.optimizer.param_groups]
    return state


def pair(initial: list[float], configuration: dict[str, object]) -> tuple[TorchPlateau, TorchPlateau]:
    return TorchPlateau(sgd(initial), **configuration), fastsched.ReduceLROnPlateau(sgd(initial), **configuration)


@given(runs())
def test_every_step_is_bit_identical(run):
    initial, configuration, stream = run
    reference, scheduler = pair(initial, configuration)
    assert isinstance(scheduler._engine, _C.HostEngine)
    assert snapshot(scheduler) == snapshot(reference)
    for metric in stream:
        reference.step(metric)
        scheduler.step(metric)
        assert isinstance(scheduler._engine, _C.HostEngine)
        assert snapshot(scheduler) == snapshot(reference)


class ByTheBook(TorchPlateau):
    """torch's, with the rule that fastsched adds."""

    def _is_better(self, a, best):
        margin = 0.0 if math.isinf(best) else self.threshold * abs(best)
        return a < best - margin if self.mode == "min" else a > best + margin


@given(
    values=st.lists(
        st.integers(-9, 9).map(lambda eighths: eighths / 8) | st.sampled_from([math.nan, math.inf, -math.inf])
    ),
    mode=st.sampled_from(["min", "max"]),
    threshold=st.sampled_from([0.1, 0, 1.5]),  # without a best so far, just enough to be another metric
)
@pytest.mark.parametrize("kind", ["floats", "numpy", "tensors"])
def test_a_threshold_relative_to_the_absolute_best(kind, values, mode, threshold):
    settings = {"mode": mode, "threshold": threshold, "patience": 1, "factor": 0.5}
    reference = ByTheBook(sgd([1.0]), **settings)
    if kind == "numpy":  # is left to torch's code
        settings["factor"] = np.float64(0.5)
    lr = torch.tensor(1.0, dtype=torch.float64) if kind == "tensors" else 1.0
    scheduler = fastsched.ReduceLROnPlateau(sgd([lr]), threshold_mode="rel_abs", **settings)
    for value in values:
        reference.step(value)
        scheduler.step(value)
        ours, theirs = (
            [one.best, one.num_bad_epochs, one.last_epoch, float(one.optimizer.param_groups[0]["lr"])]
            for one in (scheduler, reference)
        )
        assert ours == theirs


def test_a_mode_that_torch_does_not_have_is_saved_and_loaded():
    scheduler = fastsched.ReduceLROnPlateau(sgd([1.0]), threshold=0.1, threshold_mode="rel_abs")
    scheduler.step(-1.0)
    state = scheduler.state_dict()
    assert state.keys() == TorchPlateau(sgd([1.0])).state_dict().keys()
    resumed = fastsched.ReduceLROnPlateau(sgd([1.0]))
    resumed.load_state_dict(state)
    resumed.step(-1.05)
    assert (resumed.threshold_mode, resumed.best, resumed.num_bad_epochs) == ("rel_abs", -1.0, 1)
    with pytest.raises(ValueError, match="threshold mode rel_abs is unknown"):
        TorchPlateau(sgd([1.0])).load_state_dict(state)
    resumed.threshold_mode = "rel"
    resumed.step(-0.95)
    assert resumed.best == -0.95  # torch's formula: worse, but counts as better


def numpy_factor(of):
    return fastsched.ReduceLROnPlateau(sgd([of]), factor=np.float32(0.5), patience=0)


WITHOUT_A_METRIC = {
    "floats": lambda: fastsched.ReduceLROnPlateau(sgd([1.0]), patience=0),
    "numpy": lambda: numpy_factor(1.0),
    "numpy and tensors": lambda: numpy_factor(torch.tensor(1.0)),
    "float16": lambda: fastsched.ReduceLROnPlateau(sgd([torch.tensor(1.0, dtype=torch.float16)]), patience=0),
    "float32": lambda: fastsched.ReduceLROnPlateau(sgd([torch.tensor(1.0)]), patience=0),
    "child": lambda: fastsched.ReduceLROnPlateau(sgd([torch.tensor(1.0)]), patience=0),
    "own rule": lambda: type("Own", (fastsched.ReduceLROnPlateau,), {"_is_better": lambda *_: True})(sgd([1.0])),
}


@pytest.mark.parametrize("name", WITHOUT_A_METRIC)
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("arguments", [{}, {"epoch": 3}, {"found_inf": 0.0}, {"found_inf": torch.tensor(0.0)}])
def test_a_step_without_a_metric_is_an_error_and_no_step(name, steps, arguments):
    scheduler = WITHOUT_A_METRIC[name]()
    if name == "child":  # its state is within the composition's
        composition = fastsched.ChainedScheduler([scheduler])
    history = fastsched.History(scheduler)
    for _ in range(steps):
        scheduler.step(1.0)
    recorded = len(history)
    before = snapshot(scheduler)
    with pytest.raises(TypeError, match="'NoneType'"):
        scheduler.step(None, **arguments)
    assert snapshot(scheduler) == before
    assert len(history) == recorded == steps
    if name == "child":
        with pytest.raises(ValueError, match="needs its metric"):
            composition.step()
        assert snapshot(scheduler) == before
    scheduler.step(1.0)
    assert scheduler.last_epoch == steps + 1


def write_lr(scheduler, value):
    scheduler.optimizer.param_groups[0]["lr"] = value


def write_min_lr(scheduler, value):
    scheduler.min_lrs[0] = value


def add_group(scheduler, value):
    scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": value})


def append_min_lr(scheduler, value):
    add_group(scheduler, value)
    scheduler.min_lrs.append(value)


def write(name):
    def action(scheduler, value):
        setattr(scheduler, name, value)

    action.__name__ = f"write_{name}"
    return action


def write_dict(name):
    def action(scheduler, value):
        scheduler.__dict__[name] = value

    action.__name__ = f"write_dict_{name}"
    return action


def write_last_lr(scheduler, value):
    scheduler._last_lr = [value]


def reset(scheduler, value):
    scheduler._reset()


def swap_groups(scheduler, value):
    scheduler.optimizer.param_groups.reverse()


def reload_own_state(scheduler, value):
    scheduler.load_state_dict(scheduler.state_dict())


numbers = st.floats(0.0, 1.0) | st.integers(0, 2)
actions = st.one_of(
    st.tuples(
        st.sampled_from(
            [
                write_lr,
                write_min_lr,
                add_group,
                append_min_lr,
                write("factor"),
                write("best"),
                write("eps"),
                write_dict("best"),
                write_dict("factor"),
                write_last_lr,
                reset,
                swap_groups,
                reload_own_state,
            ]
        ),
        numbers,
    ),
    st.tuples(
        st.sampled_from(
            [
                write("patience"),
                write("cooldown"),
                write("cooldown_counter"),
                write("num_bad_epochs"),
                write("last_epoch"),
                write_dict("num_bad_epochs"),
            ]
        ),
        st.integers(0, 5),
    ),
    st.tuples(st.just(write("mode")), st.sampled_from(["min", "max"])),
    st.tuples(st.just(write("threshold_mode")), st.sampled_from(["rel", "abs"])),
)


@given(runs(), st.data())
def test_interference_from_outside_takes_effect_as_in_torch(run, data):
    initial, configuration, stream = run
    both = pair(initial, configuration)
    for metric in stream[:15]:
        action, value = data.draw(actions)
        results = []
        for scheduler in both:
            action(scheduler, value)
            try:
                scheduler.step(metric)
            except RuntimeError as error:  # min_lr is a list and a group was added
                results.append(str(error))
                scheduler.min_lrs = [0.0] * len(scheduler.optimizer.param_groups)
            else:
                results.append(None)
        assert results[0] == results[1]
        assert snapshot(both[1]) == snapshot(both[0])


@given(runs(), st.integers(0, 40), st.booleans())
def test_checkpoints_change_hands_at_any_step(run, at, from_torch):
    initial, configuration, stream = run
    reference, scheduler = pair(initial, configuration)
    first, then = (reference, scheduler) if from_torch else (scheduler, reference)
    oracle = TorchPlateau(sgd(initial), **configuration)
    for metric in stream[:at]:
        first.step(metric)
        oracle.step(metric)
    then.optimizer.load_state_dict(first.optimizer.state_dict())
    then.load_state_dict(first.state_dict())
    for metric in stream[at:]:
        then.step(metric)
        oracle.step(metric)
        assert snapshot(then) == snapshot(oracle)


@pytest.mark.parametrize(
    "metric",
    [
        1,
        True,
        "0.5",
        np.float64(0.25),
        np.float32(0.1),
        np.int64(3),
        torch.tensor(0.5),
        torch.tensor([[0.5]]),
        torch.tensor(0.1, dtype=torch.bfloat16),
        torch.tensor(0.1, dtype=torch.float16),
        torch.tensor(7),
        torch.tensor(0.3, requires_grad=True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_single_number_is_a_metric(metric):
    reference, scheduler = pair([0.1], {"patience": 0})
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns, once per process, about float() of what requires grad
            reference.step(metric)
            scheduler.step(metric)
        assert snapshot(scheduler) == snapshot(reference)


@pytest.mark.parametrize("metric", [torch.tensor([1.0, 2.0]), None, "loss", 1j, torch.tensor(1j), [1.0]])
def test_what_is_no_number_raises_as_in_torch_and_changes_nothing(metric):
    reference, scheduler = pair([0.1], {"patience": 0})
    with pytest.raises(Exception) as expected:  # noqa: PT011  whatever torch raises
        reference.step(metric)
    before = snapshot(scheduler)
    with pytest.raises(expected.type) as raised:
        scheduler.step(metric)
    assert str(raised.value) == str(expected.value)
    assert snapshot(scheduler) == before


def test_deprecated_epoch_is_noted_and_warned_about_at_the_callers_line():
    reference, scheduler = pair([0.1], {"patience": 0})
    for either in (reference, scheduler):
        with pytest.warns(UserWarning, match="epoch parameter") as record:
            either.step(1.0, epoch=5)
        assert record[0].filename == __file__
        assert either.last_epoch == 5
    assert snapshot(scheduler) == snapshot(reference)


def test_deprecated_epoch_with_a_bad_metric_changes_nothing():
    _, scheduler = pair([0.1], {})
    before = snapshot(scheduler)
    with pytest.raises(TypeError):
        scheduler.step(None, epoch=5)
    assert snapshot(scheduler) == before


def test_an_lr_at_the_bound_takes_the_users_own_bound():
    reference, scheduler = pair([4.0], {"patience": 0, "factor": 0.1, "min_lr": 1})
    for either in (reference, scheduler):
        either.step(1.0)
        either.step(1.0)
    assert bits(scheduler.optimizer.param_groups[0]["lr"]) == bits(1)
    assert snapshot(scheduler) == snapshot(reference)


def test_a_list_bound_is_missed_only_when_a_reduction_fires():
    for either in pair([0.1], {"patience": 1, "min_lr": [0.0]}):
        add_group(either, 0.1)
        either.step(1.0)
        either.step(1.0)
        with pytest.raises(RuntimeError, match="min_lrs"):
            either.step(1.0)
        either.min_lrs.append(0.0)
        either.step(1.0)
        assert [group["lr"] for group in either.optimizer.param_groups] == pytest.approx([0.01, 0.01])
