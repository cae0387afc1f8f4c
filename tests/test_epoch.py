"""Functions of the epoch: bit-identical to torch on Python numbers, its float trajectory rounded on tensors."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr_scheduler

import fastsched
from fastsched import _C
from fastsched.engine.host import DETACHED, TensorEngine

from .configurations import CONFIGURATIONS, LONG, TORCH, make, tabulated
from .conftest import sgd
from .values import bits, double

names = pytest.mark.parametrize("name", CONFIGURATIONS)
lrs = st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=3)


def pair(name, initial, configuration):
    made = []
    for module in (TORCH, fastsched):
        scheduler = make(module, name, initial, configuration)
        scheduler.optimizer.step()
        made.append(scheduler)
    return made


def snapshot(scheduler):
    state = {key: bits(value) for key, value in scheduler.state_dict().items()}
    for fraction in ("T_cur", "T_i"):  # a whole float there reads back as an int
        if fraction in state:
            state[fraction] = bits(float(getattr(scheduler, fraction)))
    state.pop("anneal_func", None)
    groups = scheduler.optimizer.param_groups
    return state, bits(scheduler.get_last_lr()), [bits((group["lr"], group["momentum"])) for group in groups]


@names
@given(data=st.data())
def test_every_step_is_bit_identical(name, data):
    configuration = data.draw(CONFIGURATIONS[name])
    reference, scheduler = pair(name, data.draw(lrs), configuration)
    assert snapshot(scheduler) == snapshot(reference)
    for _ in range(40):
        reference.step()
        scheduler.step()
        assert isinstance(scheduler._engine, _C.HostEngine)
        assert snapshot(scheduler) == snapshot(reference)


@names
@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["float", "tensor"])
def test_a_metric_by_keyword_is_not_read(name, kind):
    both = [make(fastsched, name, [kind(0.5)], LONG[name]) for _ in range(2)]
    for scheduler in both:
        scheduler.optimizer.step()
    for _ in range(5):
        both[0].step()
        both[1].step(metrics="not a number")
        both[0].step(found_inf=0.0)
        both[1].step(metrics=None, found_inf=0.0)
        assert bits([group["lr"] for group in both[1].optimizer.param_groups]) == bits(
            [group["lr"] for group in both[0].optimizer.param_groups]
        )
    assert both[1].last_epoch == both[0].last_epoch


def step(scheduler, value):
    scheduler.step()


def step_to(scheduler, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler.step(value)


def write_lr(scheduler, value):
    scheduler.optimizer.param_groups[0]["lr"] = 0.01 * (value + 1)


def write_epoch(scheduler, value):
    scheduler.last_epoch = value


def write_count(scheduler, value):
    scheduler._step_count = value + 1


def write_base(scheduler, value):
    scheduler.base_lrs = [0.01 * (value + 1)] * len(scheduler.base_lrs)


def write_hyperparameter(scheduler, value):
    for attribute in ("step_size", "T_max", "T_i", "total_iters"):
        if hasattr(scheduler, attribute):
            setattr(scheduler, attribute, value + 1)
    if hasattr(scheduler, "gamma"):
        scheduler.gamma = 0.3


def write_milestone(scheduler, value):
    if hasattr(scheduler, "milestones"):
        scheduler.milestones[value] += 1


def hand_over(scheduler, value):
    scheduler.load_state_dict(copy.deepcopy(scheduler.state_dict()))


def ask_for_lr(scheduler, value):
    """What ignite and torchtitan do."""
    scheduler.last_epoch += 1
    scheduler._get_lr_called_within_step = True
    scheduler._last_lr = scheduler.get_lr()
    scheduler._get_lr_called_within_step = False


def count_from_outside(scheduler, value):
    """What accelerate does."""
    if hasattr(scheduler, "_step_count"):
        scheduler._step_count += 1


def act_on_both(both, action, value):
    """Whether the action succeeded; if Python's arithmetic fails, it must fail for both."""

    def failure(scheduler):
        try:
            action(scheduler, value)
        except (ArithmeticError, ValueError) as error:
            return type(error)
        return None

    failures = [failure(scheduler) for scheduler in both]
    assert failures[0] == failures[1]
    return failures[0] is None


actions = st.tuples(
    st.sampled_from(
        [
            step,
            step,
            step,
            step_to,
            write_lr,
            write_epoch,
            write_count,
            write_base,
            write_hyperparameter,
            write_milestone,
            hand_over,
            ask_for_lr,
            count_from_outside,
        ]
    ),
    st.integers(0, 15),
)


@names
@given(data=st.data())
def test_interference_takes_effect_as_in_torch(name, data):
    both = pair(name, data.draw(lrs), data.draw(CONFIGURATIONS[name]))
    for action, value in data.draw(st.lists(actions, max_size=25)):
        if not act_on_both(both, action, value):
            return
        assert snapshot(both[1]) == snapshot(both[0])


def observed(scheduler):
    lrs = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
    counts = [getattr(scheduler, name, None) for name in ("last_epoch", "_step_count", "T_cur", "T_i")]
    return lrs + [float(lr) for lr in scheduler.get_last_lr()], counts


@names
@given(data=st.data())
def test_interference_takes_effect_on_tensors_too(name, data):
    """Against torch on floats. Where torch's own code steps the tensors, the last place may differ."""
    initial, configuration = data.draw(lrs), data.draw(CONFIGURATIONS[name])
    both = [
        make(TORCH, name, initial, configuration),
        make(fastsched, name, [torch.tensor(lr, dtype=torch.float64) for lr in initial], configuration),
    ]
    for scheduler in both:
        scheduler.optimizer.step()
    for action, value in data.draw(st.lists(actions, max_size=25)):
        if not act_on_both(both, action, value):
            return
        theirs, ours = map(observed, both)
        assert ours[0] == pytest.approx(theirs[0], rel=1e-12, abs=1e-300, nan_ok=True)
        assert ours[1] == theirs[1]


def test_a_compiled_first_step_and_an_eager_one_keep_the_same_storage():
    torch._dynamo.reset()
    scheduler = fastsched.StepLR(sgd([torch.tensor(0.5)]), 2, gamma=0.5)
    scheduler.optimizer.step()
    [replica] = scheduler._engine._replicas
    compiled = torch.compile(scheduler.step, fullgraph=True, backend="aot_eager")
    compiled()
    compiled()
    scheduler.step()
    scheduler.step()
    assert scheduler._engine._replicas[0] is replica
    assert scheduler.optimizer.param_groups[0]["lr"].item() == 0.125
    torch._dynamo.reset()


@names
@given(data=st.data(), at=st.integers(0, 20), from_torch=st.booleans())
def test_checkpoints_change_hands_at_any_step(name, data, at, from_torch):
    initial, configuration = data.draw(lrs), data.draw(CONFIGURATIONS[name])
    oracle, _ = pair(name, initial, configuration)
    reference, scheduler = pair(name, initial, configuration)
    first, then = (reference, scheduler) if from_torch else (scheduler, reference)
    for _ in range(at):
        first.step()
        oracle.step()
    then.optimizer.load_state_dict(first.optimizer.state_dict())
    then.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(15):
        then.step()
        oracle.step()
        assert snapshot(then)[1:] == snapshot(oracle)[1:]


@names
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_tensor_lrs_follow_the_float_trajectory_rounded(name, data, dtype):
    initial = [torch.tensor(lr, dtype=dtype) for lr in data.draw(lrs)]
    configuration = data.draw(CONFIGURATIONS[name])
    oracle = make(TORCH, name, [float(lr) for lr in initial], configuration)
    scheduler = make(fastsched, name, initial, configuration)
    scheduler.optimizer.step()
    oracle.optimizer.step()
    for _ in range(40):
        assert isinstance(scheduler._engine, TensorEngine)
        for group, reference in zip(scheduler.optimizer.param_groups, oracle.optimizer.param_groups, strict=True):
            assert group["lr"].item() == torch.tensor(reference["lr"], dtype=dtype).item()
        assert scheduler.last_epoch == oracle.last_epoch
        assert [lr.item() for lr in scheduler.get_last_lr()] == torch.tensor(oracle.get_last_lr(), dtype=dtype).tolist()
        scheduler.step()
        oracle.step()


@names
@given(data=st.data(), at=st.integers(0, 20), scheduler_first=st.booleans())
def test_resuming_tensors_is_bit_exact_in_either_loading_order(name, data, at, scheduler_first):
    initial, configuration = data.draw(lrs), data.draw(CONFIGURATIONS[name])

    def fresh():
        scheduler = make(fastsched, name, [torch.tensor(lr) for lr in initial], configuration)
        scheduler.optimizer.step()
        return scheduler

    through, resumed = fresh(), fresh()
    for _ in range(at):
        through.step()
    saved = copy.deepcopy((through.optimizer.state_dict(), through.state_dict()))
    assert all(type(lr) in (int, float) for lr in (*saved[1]["base_lrs"], *saved[1]["_last_lr"]))
    storage = resumed._engine._replicas[0].state
    if scheduler_first:
        resumed.load_state_dict(saved[1])
    resumed.optimizer.load_state_dict(saved[0])
    if not scheduler_first:
        resumed.load_state_dict(saved[1])
    assert resumed.state_dict() == saved[1]
    for _ in range(15):
        through.step()
        resumed.step()
        assert resumed.state_dict() == through.state_dict()
    assert resumed._engine._replicas[0].state is storage


@names
def test_thousands_of_steps_do_not_drift(device, lr_dtype, name):
    optimizer = sgd([torch.tensor(0.1, dtype=lr_dtype, device=device)], device)
    oracle = make(TORCH, name, [float(optimizer.param_groups[0]["lr"])], LONG[name])
    optimizer.step()
    oracle.optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = getattr(fastsched, name)(optimizer, **LONG[name], **tabulated(fastsched, name))
        for i in range(3000):
            scheduler.step()
            oracle.step()
            if i % 100 == 0:
                expected = torch.tensor(oracle.optimizer.param_groups[0]["lr"], dtype=lr_dtype)
                # CUDA's pow and cos may differ from the host's in the last place of a double.
                tolerance = {"rtol": 0 if device.type == "cpu" else 2e-7 if lr_dtype is torch.float32 else 1e-11}
                torch.testing.assert_close(optimizer.param_groups[0]["lr"].cpu(), expected, atol=0, **tolerance)


@names
@pytest.mark.parametrize("epoch", [0, 3, 7])
def test_the_deprecated_epoch_uses_the_closed_form_on_tensors(name, epoch):
    reference = make(TORCH, name, [0.5], LONG[name])
    scheduler = make(fastsched, name, [torch.tensor(0.5, dtype=torch.float64)], LONG[name])
    for either in (reference, scheduler):
        either.optimizer.step()
        either.step()
        step_to(either, epoch)
        either.step()
    assert isinstance(scheduler._engine, TensorEngine)
    assert scheduler.optimizer.param_groups[0]["lr"].item() == reference.optimizer.param_groups[0]["lr"]
    assert scheduler.last_epoch == reference.last_epoch


@pytest.mark.parametrize("epoch", [0.5, 3.25, 10.0, 31.7, 100.0])
@pytest.mark.parametrize("t_mult", [1, 2, 3])
@pytest.mark.parametrize("tensor", [False, True])
def test_warm_restarts_at_a_fraction_of_an_epoch(epoch, t_mult, tensor):
    configuration = {"T_0": 10, "T_mult": t_mult}
    lr = torch.tensor(0.5, dtype=torch.float64) if tensor else 0.5
    reference = make(TORCH, "CosineAnnealingWarmRestarts", [0.5], configuration)
    scheduler = make(fastsched, "CosineAnnealingWarmRestarts", [lr], configuration)
    for either in (reference, scheduler):
        either.step(epoch)
    assert float(scheduler.optimizer.param_groups[0]["lr"]) == reference.optimizer.param_groups[0]["lr"]
    for _ in range(30):
        for either in (reference, scheduler):
            either.step()
        assert float(scheduler.optimizer.param_groups[0]["lr"]) == reference.optimizer.param_groups[0]["lr"]
    assert (scheduler.T_cur, scheduler.T_i, scheduler.last_epoch) == (
        reference.T_cur,
        reference.T_i,
        reference.last_epoch,
    )
    for either in (reference, scheduler):
        with pytest.raises(ValueError, match="non-negative epoch"):
            either.step(-1)


def warned(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [(warning.category, warning.filename, str(warning.message)) for warning in caught]


@names
@pytest.mark.parametrize("tensor", [False, True])
def test_warnings_come_when_torchs_do_and_point_at_the_caller(name, tensor):
    def run(module):
        lr = torch.tensor(0.5) if tensor else 0.5
        optimizer = sgd([lr])
        scheduler = getattr(module, name)(optimizer, **LONG[name])
        early = warned(lambda: scheduler.step())
        again = warned(lambda: scheduler.step())
        with_epoch = warned(lambda: scheduler.step(3))
        scheduler = getattr(module, name)(sgd([lr]), **LONG[name])
        scheduler.optimizer.step()
        in_order = warned(lambda: scheduler.step())
        scheduler = getattr(module, name)(sgd([lr]), **LONG[name])
        scheduler.optimizer.step = lambda: None
        overridden = warned(lambda: scheduler.step())
        return early, again, with_epoch, in_order, overridden

    assert run(fastsched) == run(TORCH)


@names
def test_asking_for_lr_outside_a_step_warns(name):
    scheduler = make(fastsched, name, [0.5], LONG[name])
    with pytest.warns(UserWarning, match="get_last_lr"):
        scheduler.get_lr()


@names
@pytest.mark.parametrize("tensor", [False, True])
def test_groups_added_later(name, tensor):
    results = []
    for module in (TORCH, fastsched):
        lr = torch.tensor(0.5, dtype=torch.float64) if tensor else 0.5
        scheduler = make(module, name, [lr], LONG[name])
        scheduler.optimizer.step()
        scheduler.step()
        weight = torch.nn.Parameter(torch.zeros(1))
        scheduler.optimizer.add_param_group({"params": [weight], "lr": lr * 1 if not tensor else lr.clone()})
        try:
            for _ in range(3):
                scheduler.step()
        except (ValueError, KeyError) as error:
            results.append(str(error))
        else:
            results.append([float(group["lr"]) for group in scheduler.optimizer.param_groups])
    assert (
        results[1] == pytest.approx(results[0], rel=1e-15) if isinstance(results[0], list) else results[1] == results[0]
    )


@names
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_carry_the_whole_state(name, tensor, duplicate):
    lr = torch.tensor(0.5) if tensor else 0.5
    scheduler = make(fastsched, name, [lr], LONG[name])
    scheduler.optimizer.step()
    scheduler.step()
    twin = duplicate(scheduler)
    assert twin.state_dict() == scheduler.state_dict()
    twin.step()
    assert twin.last_epoch == 2


@names
def test_resuming_by_last_epoch(name):
    def run(module):
        optimizer = sgd([0.1])
        # What an optimizer checkpoint contains.
        optimizer.param_groups[0].update(initial_lr=0.5, max_lr=0.7, min_lr=1e-4, max_momentum=0.9, base_momentum=0.8)
        configuration = {"T_0": 10} if name == "CosineAnnealingWarmRestarts" else LONG[name]
        scheduler = getattr(module, name)(optimizer, **configuration, last_epoch=6)
        optimizer.step()
        lrs = [optimizer.param_groups[0]["lr"]]
        for _ in range(5):
            scheduler.step()
            lrs.append(optimizer.param_groups[0]["lr"])
        return lrs, scheduler.last_epoch

    assert run(fastsched) == run(TORCH)
    with pytest.raises(KeyError, match="initial_lr"):
        getattr(fastsched, name)(sgd([0.1]), **LONG[name], last_epoch=6)


@names
@pytest.mark.parametrize("tensor", [False, True])
def test_torchs_composites_take_them_as_children(name, tensor):
    def run(module):
        lr = torch.tensor(0.5, dtype=torch.float64) if tensor else 0.5
        optimizer = sgd([lr])
        warm_up = module.LinearLR(optimizer, total_iters=4)
        child = getattr(module, name)(optimizer, **LONG[name])
        sequence = torch_lr_scheduler.SequentialLR(optimizer, [warm_up, child], milestones=[4])
        chain = torch_lr_scheduler.ChainedScheduler([sequence, module.ExponentialLR(optimizer, 0.9)])
        optimizer.step()
        lrs = []
        for _ in range(12):
            chain.step()
            lrs.append(float(optimizer.param_groups[0]["lr"]))
        return lrs

    # The last place is torch's float64 tensor arithmetic (0-dim tensors take another path than Python floats).
    assert run(fastsched) == pytest.approx(run(TORCH), rel=1e-14 if tensor else 0)


def test_torchs_errors():
    for arguments in ({"factor": 1.5}, {"factor": -0.1}):
        with pytest.raises(ValueError, match="between 0 and 1"):
            fastsched.ConstantLR(sgd([0.1]), **arguments)
    with pytest.raises(ValueError, match="Starting multiplicative factor"):
        fastsched.LinearLR(sgd([0.1]), start_factor=0.0)
    with pytest.raises(ValueError, match="positive integer T_0"):
        fastsched.CosineAnnealingWarmRestarts(sgd([0.1]), T_0=0)
    with pytest.raises(TypeError, match="is not an Optimizer"):
        fastsched.StepLR("SGD", step_size=1)


@pytest.mark.parametrize("tensor", [False, True])
def test_a_division_by_zero_is_torchs(tensor):
    lr = torch.tensor(0.5) if tensor else 0.5
    scheduler = make(fastsched, "StepLR", [lr], {"step_size": 3})
    scheduler.optimizer.step()
    scheduler.step_size = 0
    with pytest.raises(ZeroDivisionError):
        scheduler.step()


@names
def test_a_users_get_lr_is_asked(name):
    def run(module):
        class Halved(getattr(module, name)):
            def get_lr(self):
                return [lr / 2 for lr in super().get_lr()]

        scheduler = Halved(sgd([0.5]), **LONG[name])
        scheduler.optimizer.step()
        for _ in range(5):
            scheduler.step()
        return scheduler.optimizer.param_groups[0]["lr"], scheduler.last_epoch, scheduler

    ours, theirs = run(fastsched), run(TORCH)
    assert ours[:2] == theirs[:2]
    assert ours[2]._engine is DETACHED


@names
def test_compiled_steps_make_one_graph(name):
    torch._dynamo.reset()
    optimizer = sgd([torch.tensor(0.5)])
    oracle = make(TORCH, name, [0.5], LONG[name])
    scheduler = make(fastsched, name, [torch.tensor(0.5)], LONG[name])
    optimizer = scheduler.optimizer
    for either in (oracle, scheduler):
        either.optimizer.step()
        either.step()
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(scheduler.step, fullgraph=True, backend=frames)
    for _ in range(25):
        compiled()
        oracle.step()
    assert frames.frame_count == 1
    assert optimizer.param_groups[0]["lr"].item() == torch.tensor(oracle.optimizer.param_groups[0]["lr"]).item()
    torch._dynamo.reset()


def scheduler_pair(name, configuration, kind=float, lr=0.5):
    """torch on Python floats and fastsched on the given kind, both past the first step."""
    made = [make(TORCH, name, [lr], configuration), make(fastsched, name, [kind(lr)], configuration)]
    for scheduler in made:
        scheduler.optimizer.step()
        scheduler.step()
    return made


def raised_by(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function()
        except Exception as error:
            return type(error)
    return None


def same_steps(pair, count):
    for _ in range(count):
        errors = [raised_by(scheduler.step) for scheduler in pair]
        assert errors[0] == errors[1]
        if errors[0] is not None:
            return
        theirs, ours = (float(scheduler.optimizer.param_groups[0]["lr"]) for scheduler in pair)
        assert bits(ours) == bits(theirs)
        assert float(pair[1].get_last_lr()[0]) == pair[0].get_last_lr()[0]


@pytest.mark.parametrize("kind", [float, double])
@pytest.mark.parametrize(
    ("name", "configuration", "writes"),
    [
        *[("CosineAnnealingLR", {"T_max": t_max}, {}) for t_max in (0.2, 1 / 3, 0.6, 1.2, 3.6, -3, 1)],
        ("LinearLR", {"total_iters": 5}, {"start_factor": 0.0}),
        ("CosineAnnealingWarmRestarts", {"T_0": 5}, {"T_i": 0}),
        ("CosineAnnealingWarmRestarts", {"T_0": 5}, {"T_i": -3}),
        ("CosineAnnealingWarmRestarts", {"T_0": 2}, {"T_mult": 0}),
        ("CosineAnnealingWarmRestarts", {"T_0": 2}, {"T_mult": -1}),
        ("ConstantLR", {"total_iters": 3}, {"factor": 0.0}),
        ("PolynomialLR", {"total_iters": 3}, {"power": -1.0}),
        ("StepLR", {"step_size": 2.5}, {}),
        ("StepLR", {"step_size": -2}, {}),
        ("ExponentialLR", {"gamma": 2}, {}),
        ("ExponentialLR", {"gamma": float("inf")}, {}),
    ],
    ids=str,
)
def test_odd_settings_do_what_torch_does(kind, name, configuration, writes):
    pair = scheduler_pair(name, configuration, kind)
    for scheduler in pair:
        for attribute, value in writes.items():
            setattr(scheduler, attribute, value)
    same_steps(pair, 30)


def test_powers_of_an_int_are_pythons():
    same_steps(scheduler_pair("MultiStepLR", {"milestones": [4] * 23, "gamma": 10}), 5)


# (class, configuration, the epoch to go to or None for a step) -> what tensors get where floats raise OverflowError.
OVERFLOWS = {
    "MultiStepLR": ("MultiStepLR", {"milestones": [2] * 400, "gamma": 10.0}, None, math.inf),
    "MultiStepLR in closed form": ("MultiStepLR", {"milestones": [2] * 400, "gamma": 10.0}, 5, math.inf),
    "StepLR in closed form": ("StepLR", {"step_size": 1, "gamma": 1e200}, 5, math.inf),
    "ExponentialLR in closed form": ("ExponentialLR", {"gamma": 1e200}, 5, math.inf),
    "PolynomialLR in closed form": ("PolynomialLR", {"total_iters": 3, "power": 400.0}, -500, math.inf),
    "CyclicLR, exp_range": (
        "CyclicLR",
        {
            "base_lr": 0.1,
            "max_lr": 0.5,
            "step_size_up": 3,
            "mode": "exp_range",
            "gamma": 1e200,
            "cycle_momentum": False,
        },
        None,
        math.inf,
    ),
    "CyclicLR, exp_range, at a bound": (
        "CyclicLR",
        {
            "base_lr": 0.1,
            "max_lr": 0.5,
            "step_size_up": 3,
            "mode": "exp_range",
            "gamma": 1e200,
            "cycle_momentum": False,
        },
        12,
        math.nan,
    ),
    "CyclicLR, triangular2": (
        "CyclicLR",
        {"base_lr": 0.125, "max_lr": 0.5, "step_size_up": 1, "mode": "triangular2", "cycle_momentum": False},
        5001,
        0.125,
    ),
}


@pytest.mark.parametrize("case", OVERFLOWS)
def test_a_power_that_overflows_raises_on_floats_and_is_as_documented_on_tensors(case):
    name, configuration, epoch, expected = OVERFLOWS[case]
    arguments = [] if epoch is None else [epoch]
    theirs, ours = scheduler_pair(name, configuration)
    _, scheduler = scheduler_pair(name, configuration, double)
    for made in (theirs, ours):
        assert raised_by(lambda made=made: made.step(*arguments)) is OverflowError
    assert raised_by(lambda: scheduler.step(*arguments)) is None
    assert scheduler.optimizer.param_groups[0]["lr"].item() == pytest.approx(expected, rel=0, nan_ok=True)


@pytest.mark.parametrize("kind", [float, double])
@pytest.mark.parametrize("step_size", [0.1, 0.3, 0.7, 1.5, 3, -3, -0.1, float("inf")])
def test_the_closed_form_of_step_lr_divides_as_python_does(step_size, kind):
    made = scheduler_pair("StepLR", {"step_size": step_size, "gamma": 0.999}, kind)
    for epoch in (3, 6, 7, 9, 1, 0, -4, 12345):
        errors = [raised_by(lambda scheduler=scheduler: scheduler.step(epoch)) for scheduler in made]  # noqa: B023
        assert errors[0] == errors[1]
        theirs, ours = (float(scheduler.optimizer.param_groups[0]["lr"]) for scheduler in made)
        assert bits(ours) == bits(theirs)


LARGE = 2**53 + 1  # the first int that no double holds


@pytest.mark.parametrize("kind", [float, double])
@pytest.mark.parametrize(
    ("name", "configuration", "epochs"),
    [
        ("StepLR", {"step_size": LARGE, "gamma": 0.5}, [LARGE, None]),
        ("MultiStepLR", {"milestones": [LARGE, 2**53], "gamma": 0.5}, [2**53, None, LARGE, None]),
        ("StepLR", {"step_size": 2, "gamma": 0.5}, [2**53 - 2, None, None, None, None]),
        ("LinearLR", {"start_factor": 0.5, "total_iters": 10**40}, [10**39, None]),
        ("CosineAnnealingLR", {"T_max": LARGE}, [2**52, LARGE, None]),
        ("PolynomialLR", {"total_iters": LARGE}, [2**52, LARGE, None]),
        ("OneCycleLR", {"max_lr": 0.5, "total_steps": 2**60, "cycle_momentum": False}, [2**55, 2**55 + 1, None]),
    ],
)
def test_ints_that_a_double_does_not_hold_are_not_rounded(name, configuration, epochs, kind):
    made = scheduler_pair(name, configuration, kind)
    tensors = kind is double
    for epoch in epochs:
        for scheduler in made:
            scheduler.step() if epoch is None else step_to(scheduler, epoch)
        if not (tensors and name == "StepLR" and configuration["step_size"] == 2):  # docs/differences.md
            assert made[1].last_epoch == made[0].last_epoch
        theirs, ours = (float(scheduler.optimizer.param_groups[0]["lr"]) for scheduler in made)
        assert ours == pytest.approx(theirs, rel=1e-12 if tensors else 0, abs=0)


@pytest.mark.parametrize("kind", [float, double])
@given(
    milestones=st.lists(st.just(float("nan")) | st.integers(-2, 9), max_size=12),
    epochs=st.lists(st.none() | st.integers(-2, 12), min_size=1, max_size=12),
)
def test_milestones_that_are_nan(milestones, epochs, kind):
    made = scheduler_pair("MultiStepLR", {"milestones": milestones, "gamma": 0.5}, kind)
    for epoch in epochs:
        for scheduler in made:
            scheduler.step() if epoch is None else step_to(scheduler, epoch)
        theirs, ours = (float(scheduler.optimizer.param_groups[0]["lr"]) for scheduler in made)
        assert bits(ours) == bits(theirs)


@pytest.mark.parametrize("kind", [float, double])
def test_a_group_added_later_keeps_the_engine(kind):
    results = []
    for module, of in ((TORCH, float), (fastsched, kind)):
        scheduler = make(module, "ExponentialLR", [of(0.5)], {"gamma": 0.999})
        scheduler.optimizer.step()
        scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": of(0.25)})
        for _ in range(300):
            scheduler.step()
        results.append([float(group["lr"]) for group in scheduler.optimizer.param_groups])
    assert results[0] == results[1]
    assert scheduler._engine is not DETACHED
    with pytest.raises(ValueError, match="zip"):
        step_to(scheduler, 3)  # the closed form needs a base learning rate for every group


@names
@pytest.mark.parametrize("kind", [float, double])
@pytest.mark.parametrize("detour", ["_update_lr", "step(True)", "numpy"])
def test_last_lr_is_right_after_torchs_code_stepped(name, kind, detour):
    pair = scheduler_pair(name, LONG[name], kind)
    for scheduler in pair:
        if detour == "_update_lr":
            scheduler._update_lr()
        elif detour == "step(True)":
            step_to(scheduler, True)
        else:
            step_to(scheduler, np.int64(3))
        step_to(scheduler, 5)
    assert float(pair[1].get_last_lr()[0]) == pair[0].get_last_lr()[0]
    assert pair[1].state_dict()["_last_lr"] == pair[0].state_dict()["_last_lr"]
    same_steps(pair, 5)


@pytest.mark.parametrize("how", ["subclass", "instance"])
@pytest.mark.parametrize("kind", [float, double])
def test_a_users_update_lr_is_called(how, kind):
    def run(module, of):
        log = []

        class Logged(module.ExponentialLR):
            def _update_lr(self, epoch=None):
                log.append(epoch)
                super()._update_lr(epoch)

        base = Logged if how == "subclass" else module.ExponentialLR
        scheduler = base(sgd([of(0.5)]), 0.5)
        scheduler.optimizer.step()
        if how == "instance":
            original = scheduler._update_lr

            def patched(epoch=None):
                log.append(epoch)
                original(epoch)

            scheduler._update_lr = patched
        scheduler.step()
        scheduler.step()
        step_to(scheduler, 4)
        return log, float(scheduler.optimizer.param_groups[0]["lr"])

    assert run(fastsched, kind) == run(TORCH, float)


@pytest.mark.parametrize("epoch", [3.7, 3.0, float("inf"), float("nan"), 2**60, -2])
@pytest.mark.parametrize("kind", [float, double])
def test_odd_epochs_are_noted_as_given(epoch, kind):
    pair = scheduler_pair("CosineAnnealingLR", {"T_max": 10}, kind)
    errors = [raised_by(lambda scheduler=scheduler: scheduler.step(epoch)) for scheduler in pair]
    assert errors[0] == errors[1]
    assert bits(float(pair[1].last_epoch)) == bits(float(pair[0].last_epoch))
    assert bits(float(pair[1].state_dict()["last_epoch"])) == bits(float(pair[0].state_dict()["last_epoch"]))


def test_an_infinite_counter_can_be_read():
    for scheduler in scheduler_pair("CosineAnnealingWarmRestarts", {"T_0": 5}):
        scheduler.T_cur = float("inf")
        assert scheduler.T_cur == float("inf")


@pytest.mark.parametrize("kind", [float, double])
def test_the_order_is_checked_where_a_sequence_begins_a_child(kind):
    def run(module, of):
        optimizer = sgd([of(0.5)])
        children = [module.ConstantLR(optimizer, 0.5, 4), module.StepLR(optimizer, 2)]
        sequence = torch_lr_scheduler.SequentialLR(optimizer, children, [1])
        return [text for _, _, text in warned(lambda: [sequence.step() for _ in range(3)])]

    assert run(fastsched, kind) == run(TORCH, float)


def test_the_order_is_checked_again_when_the_count_says_so():
    def run(module):
        scheduler = module.StepLR(sgd([0.5]), 2)
        scheduler._update_lr()
        scheduler._step_count = 0
        return [[text for _, _, text in warned(scheduler.step)] for _ in range(3)]

    assert run(fastsched) == run(TORCH)


@pytest.mark.parametrize("kind", [float, double])
def test_a_warning_that_is_an_error_leaves_the_count_as_torch_does(kind):
    for scheduler in (pair := scheduler_pair("StepLR", {"step_size": 2}, kind)):
        with pytest.raises(UserWarning, match="epoch parameter"):  # warnings are errors in these tests
            scheduler.step(3)
    assert pair[1]._step_count == pair[0]._step_count
    assert pair[1].last_epoch == pair[0].last_epoch


def test_a_missing_attribute_is_named_as_python_names_it():
    for scheduler in (pair := scheduler_pair("StepLR", {"step_size": 2})):
        del scheduler.last_epoch
    messages = []
    for scheduler in pair:
        with pytest.raises(AttributeError) as raised:
            scheduler.step()
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_swalr_goes_on_with_the_function_it_chose():
    def run(module):
        scheduler = make(module, "SWALR", [0.1], {"swa_lr": 0.5, "anneal_epochs": 5})
        scheduler.optimizer.step()
        scheduler.step()
        scheduler._anneal_strategy = "linear"
        scheduler.step()
        return scheduler.optimizer.param_groups[0]["lr"]

    assert run(fastsched) == run(TORCH)


@names
def test_state_dicts_have_torchs_keys(name):
    for kind in (float, double):
        theirs, ours = scheduler_pair(name, LONG[name], kind)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
