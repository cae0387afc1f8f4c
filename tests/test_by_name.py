"""``get_scheduler``: transformers' names, arguments and errors; bit-identical on floats, rounded on tensors."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastsched
from fastsched.engine.host import TensorEngine

from .conftest import sgd
from .values import bits

transformers = pytest.importorskip("transformers.optimization")

share = st.floats(0.0, 1.0)
cycles = st.floats(0.1, 4.0)
minimum = st.one_of(
    st.fixed_dictionaries({"min_lr": st.floats(0.0, 1e-4)}), st.fixed_dictionaries({"min_lr_rate": share})
)


def with_minimum(**more):
    return st.builds(lambda low, others: {**low, **others}, minimum, st.fixed_dictionaries({}, optional=more))


SPECIFIC = {
    "linear": st.none() | st.just({}),
    "cosine": st.fixed_dictionaries({}, optional={"num_cycles": cycles}),
    "cosine_with_restarts": st.fixed_dictionaries({}, optional={"num_cycles": st.integers(1, 5)}),
    "polynomial": st.fixed_dictionaries(
        {}, optional={"power": st.floats(0.1, 3.0) | st.integers(1, 3), "lr_end": st.floats(0.0, 1e-4)}
    ),
    "constant": st.none(),
    "constant_with_warmup": st.none(),
    "inverse_sqrt": st.fixed_dictionaries({}, optional={"timescale": st.integers(1, 1000)}),
    "cosine_with_min_lr": with_minimum(num_cycles=cycles),
    "cosine_warmup_with_min_lr": with_minimum(num_cycles=cycles, warmup_lr_rate=share),
    "warmup_stable_decay": st.fixed_dictionaries(
        {"num_decay_steps": st.integers(0, 20)},
        optional={
            "num_stable_steps": st.integers(0, 20),
            "warmup_type": st.sampled_from(["linear", "cosine", "1-sqrt"]),
            "decay_type": st.sampled_from(["linear", "cosine", "1-sqrt"]),
            "min_lr_ratio": share,
            "num_cycles": cycles,
        },
    ),
}
names = pytest.mark.parametrize("name", SPECIFIC)
lrs = st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=3)
lengths = st.tuples(st.integers(0, 25), st.integers(1, 45)).filter(lambda pair: pair[0] != pair[1])


def make(module, name, initial, warmup, total, specific):
    optimizer = sgd(initial)
    optimizer.defaults["lr"] = float(initial[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*num_stable_steps.*")
        scheduler = module.get_scheduler(name, optimizer, warmup, total, specific)
    optimizer.step()
    return scheduler


@names
@settings(max_examples=settings.default.max_examples // 5)
@given(data=st.data())
def test_floats_are_bit_identical_to_transformers(name, data):
    initial, (warmup, total), specific = data.draw(lrs), data.draw(lengths), data.draw(SPECIFIC[name])
    theirs, ours = (make(module, name, initial, warmup, total, specific) for module in (transformers, fastsched))
    for _ in range(60):
        assert bits(ours.get_last_lr()) == bits(theirs.get_last_lr())
        ours.step()
        theirs.step()


@names
@settings(max_examples=settings.default.max_examples // 5)
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_tensors_follow_that_trajectory_rounded(name, data, dtype):
    initial = [torch.tensor(lr, dtype=dtype) for lr in data.draw(lrs)]
    (warmup, total), specific = data.draw(lengths), data.draw(SPECIFIC[name])
    theirs = make(transformers, name, [float(lr) for lr in initial], warmup, total, specific)
    ours = make(fastsched, name, initial, warmup, total, specific)
    for _ in range(60):
        assert isinstance(ours._engine, TensorEngine)
        rounded = torch.tensor(theirs.get_last_lr(), dtype=dtype).tolist()
        assert [group["lr"].item() for group in ours.optimizer.param_groups] == rounded
        ours.step()
        theirs.step()


LONG = {
    "linear": {},
    "cosine": {"num_cycles": 1.5},
    "cosine_with_restarts": {"num_cycles": 3},
    "polynomial": {"power": 2.5},
    "inverse_sqrt": {"timescale": 777},
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-5, "warmup_lr_rate": 0.01},
    "warmup_stable_decay": {"num_decay_steps": 1000, "decay_type": "1-sqrt", "min_lr_ratio": 0.01},
}


@pytest.mark.parametrize("name", LONG)
def test_thousands_of_steps(name):
    theirs, ours = (make(module, name, [0.1, 3e-4], 300, 4000, LONG[name]) for module in (transformers, fastsched))
    tensors = make(fastsched, name, [torch.tensor(0.1, dtype=torch.float64)], 300, 4000, LONG[name])
    for _ in range(4100):
        assert ours.get_last_lr() == theirs.get_last_lr()
        for scheduler in (theirs, ours, tensors):
            scheduler.step()
    assert tensors.get_last_lr()[0].item() == theirs.get_last_lr()[0]


def test_the_names_are_transformers():
    names = [member.value for member in transformers.SchedulerType]
    assert fastsched.available_schedulers() == sorted(names)


def test_a_member_of_the_enum_is_a_name_too():
    for member in transformers.SchedulerType:
        specific = {"num_decay_steps": 3} if "decay" in member.value else {}
        specific = {"min_lr_rate": 0.1} if "min_lr" in member.value else specific
        scheduler = make(fastsched, member, [0.1], 2, 10, specific)
        assert scheduler.optimizer.param_groups[0]["lr"] <= 0.1


def test_a_plateau_is_the_class_of_that_name():
    scheduler = fastsched.get_scheduler(
        "reduce_lr_on_plateau", sgd([0.5]), scheduler_specific_kwargs={"patience": 0, "factor": 0.5}
    )
    assert type(scheduler) is fastsched.ReduceLROnPlateau
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert scheduler.get_last_lr() == [0.25]


WITH_TOTAL = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
)


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("sine", (1, 2), ValueError),
        *((name, (None, 10), ValueError) for name in SPECIFIC if name != "constant"),
        *((name, (1, None), ValueError) for name in WITH_TOTAL),
        ("warmup_stable_decay", (1, None, {"num_decay_steps": 3}), ValueError),
        ("warmup_stable_decay", (1, 10, {"num_decay_steps": 3, "warmup_type": "sine"}), ValueError),
        ("warmup_stable_decay", (1, 10, {"num_decay_steps": 3, "decay_type": "sine"}), ValueError),
        ("warmup_stable_decay", (1, 10), TypeError),
        ("polynomial", (1, 10, {"lr_end": 7.0}), ValueError),
        ("cosine_with_min_lr", (1, 10), ValueError),
        ("cosine_with_min_lr", (1, 10, {"min_lr": 0.1, "min_lr_rate": 0.1}), ValueError),
        ("cosine_warmup_with_min_lr", (1, 10), ValueError),
        ("cosine", (1, 10, {"power": 2}), TypeError),
        ("reduce_lr_on_plateau", (None, None, {"power": 2}), TypeError),
    ],
)
def test_what_transformers_refuses_is_refused(name, arguments, error):
    for module in (transformers, fastsched):
        optimizer = sgd([0.5])
        with pytest.raises(error):
            module.get_scheduler(name, optimizer, *arguments)
        assert optimizer.param_groups[0]["lr"] == 0.5
        assert "initial_lr" not in optimizer.param_groups[0]


def test_errors_name_what_is_missing():
    with pytest.raises(ValueError, match=r"name must be one of constant, .*; got 'sine'"):
        fastsched.get_scheduler("sine", sgd([0.5]))
    with pytest.raises(ValueError, match="cosine requires `num_warmup_steps`"):
        fastsched.get_scheduler("cosine", sgd([0.5]), None, 10)
    with pytest.raises(ValueError, match="cosine requires `num_training_steps`"):
        fastsched.get_scheduler("cosine", sgd([0.5]), 10)
    with pytest.raises(ValueError, match="give one of min_lr and min_lr_rate"):
        fastsched.get_scheduler("cosine_with_min_lr", sgd([0.5]), 1, 10)
    with pytest.raises(ValueError, match=r"lr_end must be less than the optimizer's lr, 0.1; got 1"):
        fastsched.get_scheduler("polynomial", sgd([0.5]), 1, 10, {"lr_end": 1})
    with pytest.raises(ValueError, match="give num_training_steps or num_stable_steps"):
        fastsched.get_scheduler("warmup_stable_decay", sgd([0.5]), 1, None, {"num_decay_steps": 3})
    with pytest.raises(ValueError, match="timescale must be more than 0, got -1"):
        fastsched.get_scheduler("inverse_sqrt", sgd([0.5]), 1, None, {"timescale": -1})
    for kind in ("warmup_type", "decay_type"):
        with pytest.raises(ValueError, match=f"{kind} must be one of 'linear', 'cosine', '1-sqrt'; got 'sine'"):
            fastsched.get_scheduler("warmup_stable_decay", sgd([0.5]), 1, 9, {"num_decay_steps": 3, kind: "sine"})


def test_a_stable_phase_that_is_given_twice_warns():
    with pytest.warns(UserWarning, match="num_stable_steps counts"):
        fastsched.get_scheduler("warmup_stable_decay", sgd([0.5]), 1, 9, {"num_decay_steps": 3, "num_stable_steps": 3})


def test_where_transformers_divides_by_zero_the_end_is_reached():
    scheduler = make(fastsched, "polynomial", [0.5], 3, 3, {"lr_end": 0.1})
    assert [scheduler.lr_at(step)[0] for step in (2, 3, 4)] == [0.5 * 2 / 3, 0.1, 0.1]
    assert math.isfinite(scheduler.lr_at(100)[0])
