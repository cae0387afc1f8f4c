"""Noisy metrics: their means and averages are judged, and patience counts as in torch or as in Keras."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched
from fastsched import _C
from fastsched.engine.host import DETACHED, TensorEngine

from .configurations import configurations, metrics
from .conftest import sgd
from .values import bits, lrs


class Reference(TorchPlateau):
    """torch's plateau, given the values that should be judged."""

    def __init__(self, optimizer, *, accumulate=1, smoothing=0.0, patience_counts="torch", **configuration):
        super().__init__(optimizer, **configuration)
        self.size, self.decay, self.counts = accumulate, smoothing, patience_counts
        self.mean, self.count, self.average, self.weight, self.steps = 0.0, 0, 0.0, 0.0, 0

    def step(self, metric):
        self.steps += 1
        if self.size > 1:
            self.count += 1
            if math.isfinite(self.mean) and math.isfinite(metric):
                self.mean += (metric - self.mean) / self.count
            else:
                self.mean += metric
            if self.count < self.size:
                return
            metric, self.mean, self.count = self.mean, 0.0, 0
        if self.decay and math.isfinite(metric):
            self.weight = 1.0 + self.decay * self.weight
            self.average += (metric - self.average) / self.weight
            metric = self.average
        patience = self.patience
        if self.counts == "keras":
            self.patience = max(patience, 1) - 1
        super().step(metric)
        self.patience = patience


def agree(scheduler, reference):
    rounded = [
        torch.tensor(lr, dtype=group["lr"].dtype).item() if isinstance(group["lr"], torch.Tensor) else lr
        for lr, group in zip(lrs(reference), scheduler.optimizer.param_groups, strict=True)
    ]
    assert bits(lrs(scheduler)) == bits(rounded)
    assert bits(float(scheduler.best)) == bits(float(reference.best))
    assert scheduler.last_epoch == reference.steps
    for name in ("num_bad_epochs", "cooldown_counter"):
        assert getattr(scheduler, name) == getattr(reference, name)
    ours = (scheduler.accumulated_metric, scheduler.smoothed_metric, scheduler.smoothed_weight)
    assert bits([float(number) for number in ours]) == bits([reference.mean, reference.average, reference.weight])
    assert scheduler.accumulated_count == reference.count


noise = st.fixed_dictionaries(
    {
        "accumulate": st.integers(1, 4),
        "smoothing": st.sampled_from([0.0, 0, 0.5, 0.9, 0.999]) | st.floats(0.0, 0.99),
        "patience_counts": st.sampled_from(["torch", "keras"]),
    }
)
streams = st.lists(metrics, min_size=1, max_size=40)
few = settings(max_examples=settings.default.max_examples // 4)
ENGINES = {
    "floats": (float, 0.5, _C.HostEngine),
    "float64": (lambda lr: torch.tensor(lr, dtype=torch.float64), 0.5, TensorEngine),
    "float32": (torch.tensor, 0.5, TensorEngine),
    "torch's code": (float, np.float64(0.5), type(DETACHED)),
}
engines = pytest.mark.parametrize(("kind", "factor", "engine"), ENGINES.values(), ids=ENGINES)


@engines
@few
@given(data=st.data(), settings=noise, stream=streams)
def test_every_step_is_torchs_with_the_judged_metric(kind, factor, engine, data, settings, stream):
    initial = data.draw(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=2))
    configuration = {**data.draw(configurations(len(initial))), "factor": 0.5}
    reference = Reference(sgd(initial), **configuration, **settings)
    configuration["factor"] = factor
    scheduler = fastsched.ReduceLROnPlateau(sgd([kind(lr) for lr in initial]), **configuration, **settings)
    for metric in stream:
        reference.step(metric)
        scheduler.step(metric)
        assert type(scheduler._engine) is engine
        agree(scheduler, reference)


@given(stream=st.lists(st.floats(-100, 100), min_size=1, max_size=30), decay=st.floats(0.0, 0.99))
def test_the_average_is_what_it_says(stream, decay):
    scheduler = fastsched.ReduceLROnPlateau(sgd([1.0]), smoothing=decay, accumulate=2)
    for metric in stream:
        scheduler.step(metric)
    pairs = [sum(stream[at : at + 2]) / 2 for at in range(0, len(stream) - 1, 2)]
    weights = [decay**age for age in range(len(pairs))][::-1]
    if pairs and decay:
        average = sum(weight * pair for weight, pair in zip(weights, pairs, strict=True)) / sum(weights)
        assert scheduler.smoothed_metric == pytest.approx(average, rel=1e-9, abs=1e-9)
    assert scheduler.accumulated_metric == (stream[-1] if len(stream) % 2 else 0.0)


@given(metric=st.floats(allow_nan=False, allow_infinity=False), settings=noise)
def test_of_equal_metrics_the_judged_one_is_that(metric, settings):
    """To the last bit: a threshold of 0 must not see an improvement in rounding."""
    scheduler = fastsched.ReduceLROnPlateau(sgd([1.0]), threshold=0, patience=100, **settings)
    for _ in range(20):
        scheduler.step(metric)
    assert scheduler.best == metric
    assert scheduler.num_bad_epochs == 20 // settings["accumulate"] - 1


class KerasPlateau:
    """keras.callbacks.ReduceLROnPlateau without a cooldown, on a learning rate of its own."""

    def __init__(self, lr, patience, factor, min_delta):
        self.lr, self.patience, self.factor, self.min_delta = lr, patience, factor, min_delta
        self.best, self.wait = math.inf, 0

    def on_epoch_end(self, current):
        if current < self.best - self.min_delta:
            self.best, self.wait = current, 0
            return
        self.wait += 1
        if self.wait >= self.patience:
            self.lr, self.wait = self.lr * self.factor, 0


@engines
@few
@given(
    stream=st.lists(st.integers(0, 8), min_size=1, max_size=30), patience=st.sampled_from([0, 1, 2, 5, math.inf, 2.5])
)
def test_patience_as_keras_counts_it(kind, factor, engine, stream, patience):
    keras = KerasPlateau(1.0, patience, 0.5, 0.5)
    stopper = fastsched.EarlyStopping(patience=patience, threshold=0.5, threshold_mode="abs", patience_counts="keras")
    scheduler = fastsched.ReduceLROnPlateau(
        sgd([kind(1.0)]), "min", factor, patience, 0.5, "abs", eps=0, patience_counts="keras"
    )
    stopped = False
    for metric in stream:
        keras.on_epoch_end(float(metric))
        scheduler.step(float(metric))
        stopper.step(float(metric))
        stopped = stopped or keras.lr < 1.0
        assert (lrs(scheduler), scheduler.num_bad_epochs) == ([keras.lr], keras.wait)
        assert stopper.should_stop == stopped
    assert type(scheduler._engine) is engine


def noisy(kind, factor=0.5, **more):
    settings = {"patience": 1, "accumulate": 3, "smoothing": 0.5, "patience_counts": "keras", **more}
    return fastsched.ReduceLROnPlateau(sgd([kind(1.0)]), factor=factor, **settings)


def series(count):
    return [1.0 + 0.3 * ((7 * step) % 5) for step in range(count)]


def everything(scheduler):
    return bits({**scheduler.state_dict(), "lrs": lrs(scheduler)})


@engines
@pytest.mark.parametrize("at", [0, 1, 3, 4, 8])
@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle", "other engine"])
def test_it_resumes_to_the_bit(kind, factor, engine, at, how):
    scheduler = noisy(kind, factor)
    for metric in series(at):
        scheduler.step(metric)
    if how in ("deepcopy", "pickle"):
        twin = copy.deepcopy(scheduler) if how == "deepcopy" else pickle.loads(pickle.dumps(scheduler))
    else:
        twin = noisy(kind if how == "state_dict" else float, factor, accumulate=1, smoothing=0.0)
        twin.step(0.0)
        twin.step(0.1)
        for group, lr in zip(twin.optimizer.param_groups, lrs(scheduler), strict=True):
            group["lr"].fill_(lr) if isinstance(group["lr"], torch.Tensor) else group.update(lr=lr)
        twin.load_state_dict(scheduler.state_dict())
    for metric in series(30)[at:]:
        assert everything(twin) == everything(scheduler)
        scheduler.step(metric)
        twin.step(metric)
    assert everything(twin) == everything(scheduler)
    assert lrs(scheduler)[0] < 0.3


@engines
def test_states_without_it_are_torchs_and_load(kind, factor, engine):
    plain = fastsched.ReduceLROnPlateau(sgd([kind(1.0)]), factor=factor)
    reference = TorchPlateau(sgd([1.0]), factor=0.5)
    for scheduler in (plain, reference):
        scheduler.step(1.0)
    assert plain.state_dict() == reference.state_dict()
    assert vars(plain).keys() == vars(reference).keys()
    scheduler = noisy(kind, factor)
    for metric in series(4):
        scheduler.step(metric)
    assert scheduler.accumulated_count == 1
    scheduler.load_state_dict(reference.state_dict())
    assert (scheduler.accumulate, scheduler.smoothing, scheduler.patience_counts) == (3, 0.5, "keras")
    assert (scheduler.accumulated_count, scheduler.accumulated_metric) == (0, 0.0)
    assert (scheduler.smoothed_weight, scheduler.best) == (0.0, 1.0)
    scheduler.accumulate, scheduler.smoothing, scheduler.patience_counts = 1, 0.0, "torch"
    assert scheduler.state_dict() == {**reference.state_dict(), "patience": 10}


@engines
def test_torch_takes_a_state_with_it(kind, factor, engine):
    scheduler = noisy(kind, factor)
    for metric in series(7):
        scheduler.step(metric)
    state = scheduler.state_dict()
    assert state["accumulated_count"] == 1
    reference = TorchPlateau(sgd([1.0]))
    reference.load_state_dict(state)
    reference.step(0.0)
    assert reference.best == 0.0


@engines
def test_settings_may_be_written_and_deleted(kind, factor, engine):
    scheduler = noisy(kind, factor, accumulate=1, smoothing=0.0)
    scheduler.accumulate = 2
    scheduler.step(1.0)
    assert (scheduler.best, scheduler.accumulated_metric) == (math.inf, 1.0)
    scheduler.step(3.0)
    assert (scheduler.best, scheduler.accumulated_count) == (2.0, 0)
    del scheduler.accumulate
    scheduler.smoothing = 0.5
    scheduler.step(1.0)
    assert scheduler.best == 1.0
    scheduler.accumulated_count, scheduler.accumulated_metric, scheduler.accumulate = 3, 0.5, 4
    scheduler.step(0.5)
    assert scheduler.smoothed_metric == pytest.approx(2 / 3)
    assert type(scheduler._engine) is engine


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_in_a_composition_and_with_a_history(kind):
    plateau = noisy(kind)
    alone = noisy(kind)
    chain = fastsched.ChainedScheduler([plateau])
    history = fastsched.History(chain)
    for metric in series(12):
        chain.step(metric)
        alone.step(metric)
    assert everything(plateau) == everything(alone)
    rows = history.to_numpy()
    assert rows["metric"].tolist() == series(12)
    assert rows["best"][2] != rows["best"][1] == math.inf
    peeked = chain._schedulers[0].peek()
    assert peeked["smoothed_weight"] == plateau.smoothed_weight > 1.0


def test_compiled_steps_accumulate():
    torch._dynamo.reset()
    scheduler, eager = noisy(torch.tensor), noisy(torch.tensor)
    scheduler.step(1.0)
    eager.step(1.0)
    compiled = torch.compile(lambda metric: scheduler.step(metric), fullgraph=True, backend="aot_eager")
    for metric in series(12):
        compiled(torch.tensor(metric, dtype=torch.float64))
        eager.step(metric)
    assert everything(scheduler) == everything(eager)
    torch._dynamo.reset()


BAD = {
    "accumulate": [
        (0, ValueError),
        (-1, ValueError),
        (1.5, TypeError),
        ("3", TypeError),
        (True, ValueError),
        (2**60, ValueError),
    ],
    "smoothing": [
        (1.0, ValueError),
        (-0.1, ValueError),
        (math.nan, ValueError),
        ("high", TypeError),
        (False, TypeError),
    ],
    "patience_counts": [("pytorch", ValueError), (None, ValueError)],
}


@pytest.mark.parametrize(("name", "value", "error"), [(name, *bad) for name, list_ in BAD.items() for bad in list_])
def test_bad_settings_are_refused_and_change_nothing(name, value, error):
    for make in (lambda **settings: fastsched.ReduceLROnPlateau(sgd([1.0]), **settings), fastsched.EarlyStopping):
        with pytest.raises(error, match=f"^{name} must be"):
            make(**{name: value})
        made = make()
        with pytest.raises(error, match=f"^{name} must be"):
            setattr(made, name, value)
        with pytest.raises((error, ValueError), match=rf"{name}.* must be"):
            made.load_state_dict({**made.state_dict(), name: value})
        made.step(2.0)
        assert (getattr(made, name), made.best) == (getattr(make(), name), 2.0)
    optimizer = sgd([1.0])
    with pytest.raises(error):
        fastsched.ReduceLROnPlateau(optimizer, **{name: value})


class StoppingReference:
    """Judges as :class:`Reference`, and stops when that would reduce."""

    def __init__(self, **settings):
        self.plateau = Reference(sgd([1.0]), factor=0.5, threshold=0, **settings)
        self.stopped = None

    def step(self, metric):
        before = lrs(self.plateau)
        self.plateau.step(metric)
        if self.stopped is None and (lrs(self.plateau) != before or math.isnan(metric)):
            self.stopped = self.plateau.steps


@pytest.mark.parametrize("as_metric", [float, lambda value: torch.tensor(value, dtype=torch.float64)])
@few
@given(settings=noise, patience=st.integers(0, 3), stream=streams.filter(len))
def test_early_stopping_judges_alike(as_metric, settings, patience, stream):
    stopper = fastsched.EarlyStopping(patience=patience, threshold=0, **settings)
    reference = StoppingReference(patience=patience, **settings)
    for metric in stream:
        stopper.step(as_metric(metric))
        reference.step(metric)
        stopped = stopper.stopped_epoch
        if stopped is None:
            assert bits(stopper.best) == bits(float(reference.plateau.best))
        if reference.stopped is not None or stopped is not None:
            break
        stopper = pickle.loads(pickle.dumps(stopper))
        loaded = fastsched.EarlyStopping()
        loaded.load_state_dict(stopper.state_dict())
        assert bits(loaded.state_dict()) == bits(stopper.state_dict())
        stopper = loaded
    assert stopped == reference.stopped


def test_states_of_early_stopping_from_before_load():
    stopper = fastsched.EarlyStopping(patience=3, accumulate=2)
    stopper.step(1.0)
    state = fastsched.EarlyStopping(patience=5).state_dict()
    for name in ("accumulate", "smoothing", "patience_counts"):
        del state[name]
    stopper.load_state_dict(state)
    assert (stopper.patience, stopper.accumulate) == (5, 2)
    stopper.step(1.0)
    assert stopper.best == math.inf  # what had been accumulated belonged to another run
    stopper.step(2.0)
    assert stopper.best == 1.5
