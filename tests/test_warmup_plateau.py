"""A warm-up before a plateau, in one class that frameworks recognize as a plateau."""

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
from .optimizers import stepped_sgd
from .values import bits, lrs

ENGINES = {
    "floats": (float, 0.5, _C.HostEngine),
    "float64": (lambda lr: torch.tensor(lr, dtype=torch.float64), 0.5, TensorEngine),
    "float32": (torch.tensor, 0.5, TensorEngine),
    "torch's code": (float, np.float64(0.5), type(DETACHED)),
}
engines = pytest.mark.parametrize(("kind", "factor", "engine"), ENGINES.values(), ids=ENGINES)
either_kind = pytest.mark.parametrize("kind", [float, torch.tensor], ids=["float", "tensor"])


class ByTheBook:
    """torch's plateau, which knows nothing of the warm-up."""

    def __init__(self, initial, configuration, steps, start):
        self.plateau = TorchPlateau(sgd(initial), **configuration)
        self.initial, self.steps, self.start, self.epoch = initial, steps, start, 0
        self.warm_up()

    def warm_up(self):
        for group, base in zip(self.plateau.optimizer.param_groups, self.initial, strict=True):
            if self.steps:
                part = self.start + (1.0 - self.start) * self.epoch / self.steps
                group["lr"] = base * (part if self.epoch < self.steps else 1.0)

    def step(self, metric):
        self.epoch += 1
        self.warm_up() if self.epoch <= self.steps else self.plateau.step(metric)


@engines
@settings(max_examples=settings.default.max_examples // 3)
@given(
    data=st.data(),
    stream=st.lists(metrics, min_size=1, max_size=30),
    steps=st.integers(0, 9),
    start=st.floats(0.0, 1.0) | st.just(0),
)
def test_a_line_up_then_torchs_plateau(kind, factor, engine, data, stream, steps, start):
    initial = data.draw(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=2))
    if kind is torch.tensor:
        initial = torch.tensor(initial).tolist()
    configuration = {**data.draw(configurations(len(initial))), "factor": 0.5}
    reference = ByTheBook(initial, configuration, steps, start)
    configuration["factor"] = factor
    scheduler = fastsched.WarmupReduceLROnPlateau(
        sgd([kind(lr) for lr in initial]), **configuration, warmup_steps=steps, warmup_start_factor=start
    )
    for metric in [None, *stream]:
        if metric is not None:
            reference.step(metric)
            scheduler.step(metric)
            assert type(scheduler._engine) is engine
        expected = lrs(reference.plateau)
        if kind is torch.tensor:
            expected = torch.tensor(expected).tolist()
        assert bits([float(lr) for lr in lrs(scheduler)]) == bits(expected)
        assert bits([float(lr) for lr in scheduler.get_last_lr()]) == bits(expected)
        assert bits(float(scheduler.best)) == bits(float(reference.plateau.best))
        assert scheduler.last_epoch == reference.epoch
        for name in ("num_bad_epochs", "cooldown_counter"):
            assert getattr(scheduler, name) == getattr(reference.plateau, name)


def make(kind, factor=0.5, **more):
    arguments = {"patience": 1, "warmup_steps": 4, "warmup_start_factor": 0.25, **more}
    return fastsched.WarmupReduceLROnPlateau(sgd([kind(1.0), kind(0.5)]), factor=factor, **arguments)


def series(count):
    return [1.0 + 0.3 * ((7 * step) % 5) for step in range(count)]


def everything(scheduler):
    return bits({**scheduler.state_dict(), "lrs": lrs(scheduler)})


@engines
def test_frameworks_take_it_for_a_plateau(kind, factor, engine):
    scheduler = make(kind, factor)
    assert isinstance(scheduler, TorchPlateau)
    assert isinstance(scheduler, fastsched.ReduceLROnPlateau)
    assert lrs(scheduler) == [0.25, 0.125]
    with pytest.raises(TypeError):
        scheduler.step()
    with pytest.raises(TypeError, match="'NoneType'"):
        scheduler.step(None)
    assert scheduler.last_epoch == 0
    with pytest.raises(NotImplementedError, match="a metric decides"):
        scheduler.lr_at(1)


@engines
@pytest.mark.parametrize("at", [0, 1, 4, 5, 9])
@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_it_resumes_to_the_bit(kind, factor, engine, at, how):
    scheduler = make(kind, factor, accumulate=2)
    for metric in series(at):
        scheduler.step(metric)
    if how == "state_dict":
        twin = make(kind, factor, warmup_steps=7)
        twin.step(0.1)
        twin.optimizer.load_state_dict(scheduler.optimizer.state_dict())
        twin.load_state_dict(scheduler.state_dict())
    else:
        twin = copy.deepcopy(scheduler) if how == "deepcopy" else pickle.loads(pickle.dumps(scheduler))
    for metric in series(24)[at:]:
        assert everything(twin) == everything(scheduler)
        scheduler.step(metric)
        twin.step(metric)
    assert everything(twin) == everything(scheduler)
    assert lrs(scheduler)[0] < 0.5


@engines
def test_a_group_that_is_added_warms_up_along(kind, factor, engine):
    scheduler = make(kind, factor)
    scheduler.step(1.0)
    scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": kind(2.0)})
    for metric in (1.0, 1.0, 1.0):
        scheduler.step(metric)
    assert lrs(scheduler) == [1.0, 0.5, 2.0]
    for _ in range(3):
        scheduler.step(1.0)
    assert lrs(scheduler) == [0.5, 0.25, 1.0]
    assert type(scheduler._engine) is engine


def test_compiled_steps_warm_up():
    torch._dynamo.reset()
    scheduler, eager = make(torch.tensor), make(torch.tensor)
    scheduler.step(1.0)
    eager.step(1.0)
    compiled = torch.compile(lambda metric: scheduler.step(metric), fullgraph=True, backend="aot_eager")
    for metric in series(14):
        compiled(torch.tensor(metric, dtype=torch.float64))
        eager.step(metric)
        assert everything(scheduler) == everything(eager)
    torch._dynamo.reset()


def compositions(kind, torchs=False):
    """The same one inside a sequence and a chain."""
    optimizer = stepped_sgd([kind(1.0)])
    warm = fastsched.WarmupReduceLROnPlateau(
        optimizer, factor=0.5, patience=1, warmup_steps=4, warmup_start_factor=0.25
    )
    one = torch.optim.lr_scheduler.ConstantLR if torchs else fastsched.ConstantLR
    parts = [one(optimizer, 0.5, total_iters=9), warm]
    return fastsched.ChainedScheduler([fastsched.SequentialLR(optimizer, parts, milestones=[3])]), warm


@either_kind
@pytest.mark.parametrize("torchs", [False, True], ids=["native", "child by child"])
def test_a_sequence_begins_it_with_its_warm_up(kind, torchs):
    scheduler, warm = compositions(kind, torchs)
    history = fastsched.History(warm)
    seen = [lrs(scheduler)[0]]
    for _ in range(10):
        scheduler.step(1.0)
        seen.append(lrs(scheduler)[0])
        assert [float(lr) for lr in scheduler.get_last_lr()] == lrs(scheduler)
    ramp = [0.25, 0.4375, 0.625, 0.8125, 1.0]
    assert seen == [0.5, 0.5, 0.5, *ramp, 1.0, 1.0, 0.5]
    assert (warm.last_epoch, warm.best) == (7, 1.0)
    if not torchs:
        rows = history.to_numpy()
        assert rows["lr"].ravel().tolist() == [*ramp[1:], 1.0, 1.0, 0.5]
        assert rows["reductions"].tolist() == [0] * 6 + [1]


@either_kind
def test_it_may_be_the_first_of_a_sequence(kind):
    optimizer = stepped_sgd([kind(1.0)])
    warm = fastsched.WarmupReduceLROnPlateau(optimizer, warmup_steps=2, warmup_start_factor=0.5)
    scheduler = fastsched.SequentialLR(optimizer, [warm, fastsched.ConstantLR(optimizer, 0.25)], milestones=[3])
    seen = [lrs(scheduler)[0]]
    for _ in range(3):
        scheduler.step(1.0)
        seen.append(lrs(scheduler)[0])
    assert seen == [0.5, 0.75, 1.0, 0.25]


@engines
def test_settings_and_bases_may_be_written(kind, factor, engine):
    scheduler = make(kind, factor)
    scheduler.step(1.0)
    scheduler.warmup_steps = 2
    scheduler.base_lrs[1] = 4.0
    scheduler.step(1.0)
    assert lrs(scheduler) == [1.0, 4.0]
    assert fastsched.simulate(scheduler, 3, 1.0)[-1].tolist() == [0.5, 2.0]


def test_an_int_for_a_learning_rate_warms_up():
    scheduler = fastsched.WarmupReduceLROnPlateau(sgd([1]), warmup_steps=2, warmup_start_factor=0.5)
    seen = []
    for _ in range(3):
        seen += lrs(scheduler)
        scheduler.step(1.0)
    assert bits(seen) == bits([0.5, 0.75, 1.0])


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("warmup_steps", -1, ValueError),
        ("warmup_steps", 2.5, TypeError),
        ("warmup_steps", True, ValueError),
        ("warmup_start_factor", 1.5, ValueError),
        ("warmup_start_factor", -0.5, ValueError),
        ("warmup_start_factor", math.nan, ValueError),
        ("warmup_start_factor", "low", TypeError),
        ("accumulate", 0, ValueError),
    ],
)
def test_bad_settings_are_refused_and_change_nothing(name, value, error):
    optimizer = sgd([1.0])
    with pytest.raises(error, match=f"^{name} must be"):
        fastsched.WarmupReduceLROnPlateau(optimizer, **{"warmup_steps": 3, name: value})
    assert optimizer.param_groups[0]["lr"] == 1.0
    scheduler = make(float)
    before = everything(scheduler)
    with pytest.raises(error, match=f"{name}'?.* must be"):
        scheduler.load_state_dict({**scheduler.state_dict(), name: value})
    assert everything(scheduler) == before
