"""Lists of phases, and the named schedules made of them."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastsched
from fastsched import (
    _C,
    REXLR,
    DecayingRestartsLR,
    InverseSqrtLR,
    NoamLR,
    Phase,
    PhasesLR,
    WarmupCosineLR,
    WarmupLinearLR,
    WarmupLR,
    WarmupPolynomialLR,
    WarmupStableDecayLR,
    with_warmup,
)
from fastsched.engine.host import TensorEngine
from fastsched.schedulers.phases import CURVES

from .conftest import sgd
from .values import bits, double, lrs


def begun(make, initial=(1.0,)):
    optimizer = sgd(initial)
    scheduler = make(optimizer)
    optimizer.step()
    return scheduler


def run(make, steps, initial=(1.0,)):
    """The first group's learning rates."""
    scheduler = begun(make, initial)
    found = [lrs(scheduler)[0]]
    for _ in range(steps):
        scheduler.step()
        found.append(lrs(scheduler)[0])
    return found


# Each curve as documented, from 1 to 0: u is the share of the phase that is over, n its number of steps.
SHAPES = {
    "linear": lambda u, n, p: 1 - u,
    "cosine": lambda u, n, p: (1 + math.cos(math.pi * u)) / 2,
    "1-sqrt": lambda u, n, p: 1 - math.sqrt(u),
    "1-square": lambda u, n, p: 1 - u * u,
    "polynomial": lambda u, n, p: (1 - u) ** p,
    "exp2": lambda u, n, p: 2 ** (1 - u) - 1,
    "log": lambda u, n, p: math.log(1 + n * (1 - u)) / math.log(1 + n),
    "rex": lambda u, n, p: (1 - u) / (1 - u / 2),
    "k_decay": lambda u, n, p: (1 + math.cos(math.pi * u**p)) / 2,
}


def tanh(u, bounds):
    low, high = bounds
    return (1 - math.tanh(low * (1 - u) + high * u)) / 2


def expected(phase, step, n):
    end = phase.start if phase.end is None else phase.end
    if phase.curve == "constant":
        return phase.start
    if phase.curve == "inverse_sqrt":
        low = 0.0 if phase.end is None else phase.end
        return low + (phase.start - low) / math.sqrt(1 + step / phase.timescale)
    high, low = max(phase.start, end), min(phase.start, end)
    u = step / n if end <= phase.start else 1 - step / n
    if phase.curve == "exponential":
        return high * (low / high) ** u
    if phase.curve == "tanh":
        return low + (high - low) * tanh(u, phase.bounds)
    return low + (high - low) * SHAPES[phase.curve](u, n, phase.power)


def reference(phases, step):
    begins = 0
    for phase in phases:
        if phase.length is None or step < begins + phase.length:
            return expected(phase, step - begins, phase.length)
        begins += phase.length
    return expected(phases[-1], phases[-1].length, phases[-1].length)


factors = st.floats(0.01, 2.0)


@st.composite
def any_phase(draw, last):
    curve = draw(st.sampled_from(list(CURVES)))
    ends = sorted([draw(factors), draw(factors)], reverse=curve == "inverse_sqrt" or draw(st.booleans()))
    open_end = last and curve in ("constant", "inverse_sqrt") and draw(st.booleans())
    return Phase(
        None if open_end else draw(st.integers(1, 8)),
        curve,
        ends[0],
        None if curve == "constant" else ends[1],
        power=draw(st.floats(0.3, 3.0)),
        timescale=draw(st.integers(1, 9)),
    )


phase_lists = st.tuples(st.lists(any_phase(False), max_size=3), any_phase(True)).map(
    lambda parts: [*parts[0], parts[1]]
)


@settings(max_examples=settings.default.max_examples // 4)
@given(phases=phase_lists, initial=st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=3))
def test_random_phases_follow_the_documented_formulas(phases, initial):
    scheduler = begun(lambda optimizer: PhasesLR(optimizer, phases), initial)
    tensors = begun(lambda optimizer: PhasesLR(optimizer, phases), [double(lr) for lr in initial])
    single = begun(lambda optimizer: PhasesLR(optimizer, phases), [torch.tensor(lr) for lr in initial])
    for step in range(28):
        factor = reference(phases, step)
        assert lrs(scheduler) == pytest.approx([lr * factor for lr in initial], rel=1e-13, abs=1e-14)
        assert lrs(tensors) == lrs(scheduler) == scheduler.lr_at(step)
        [masters] = [replica.buffer.masters for replica in single._engine._replicas]
        assert lrs(single) == masters.float().tolist()
        assert [type(each._engine) for each in (scheduler, tensors)] == [_C.HostEngine, TensorEngine]
        for each in (scheduler, tensors, single):
            each.step()


@pytest.mark.parametrize("curve", SHAPES)
def test_a_rising_phase_is_a_falling_one_run_backwards(curve):
    up = run(lambda optimizer: PhasesLR(optimizer, [Phase(8, curve, 0.25, 1.0, power=1.5)]), 8)
    down = run(lambda optimizer: PhasesLR(optimizer, [Phase(8, curve, 1.0, 0.25, power=1.5)]), 8)
    assert up == pytest.approx(down[::-1], rel=1e-15)
    assert (up[0], up[-1], down[0], down[-1]) == (0.25, 1.0, 1.0, 0.25)
    assert up == sorted(up)


def cosine(share):
    return (1 + math.cos(math.pi * share)) / 2


# Each schedule at its boundaries, in the step before and the one after.
GOLDEN = {
    "WarmupLR": (lambda o: WarmupLR(o, 4, warmup_start=0.2), [0.2, 0.4, 0.6, 0.8, 1, 1, 1]),
    "WarmupLR, no steps": (lambda o: WarmupLR(o, 0), [1, 1]),
    "WarmupLR, exponential": (lambda o: WarmupLR(o, 2, "exponential", 0.01), [0.01, 0.1, 1, 1]),
    "WarmupLR, cosine": (lambda o: WarmupLR(o, 2, "cosine"), [0, 0.5, 1, 1]),
    "WarmupLinearLR": (lambda o: WarmupLinearLR(o, 2, 6, 0.2), [0, 0.5, 1, 0.8, 0.6, 0.4, 0.2, 0.2]),
    "WarmupLinearLR, shares": (
        lambda o: WarmupLinearLR(o, 0.25, 8),
        [0, 0.5, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0],
    ),
    "WarmupLinearLR, all of it": (lambda o: WarmupLinearLR(o, 2, 2, 0.5), [0, 0.5, 0.5, 0.5]),
    "WarmupCosineLR": (lambda o: WarmupCosineLR(o, 1, 5), [0, 1, cosine(0.25), 0.5, cosine(0.75), 0, 0]),
    "WarmupCosineLR, waves": (lambda o: WarmupCosineLR(o, 0, 4, num_cycles=1), [1, 0.5, 0, 0.5, 1, 1]),
    "WarmupCosineLR, restarts": (
        lambda o: WarmupCosineLR(o, 0, 4, 0.5, num_cycles=2, hard_restarts=True),
        [1, 0.75, 1, 0.75, 0.5, 0.5],
    ),
    "WarmupCosineLR, k-decay": (lambda o: WarmupCosineLR(o, 0, 2, k_decay=2), [1, cosine(0.25), 0, 0]),
    "WarmupPolynomialLR": (lambda o: WarmupPolynomialLR(o, 1, 3, power=2), [0, 1, 0.25, 0, 0]),
    "WarmupStableDecayLR": (lambda o: WarmupStableDecayLR(o, 1, 2, 5, 0.5), [0, 1, 1, 1, 0.75, 0.5, 0.5]),
    "WarmupStableDecayLR, 1-square": (
        lambda o: WarmupStableDecayLR(o, 1, 2, 4, decay="1-square"),
        [0, 1, 1, 0.75, 0, 0],
    ),
    "WarmupStableDecayLR, no decay": (lambda o: WarmupStableDecayLR(o, 1, 0, 3, 0.5), [0, 1, 1, 0.5, 0.5]),
    "InverseSqrtLR": (lambda o: InverseSqrtLR(o, 1), [0, 1, 2**-0.5, 3**-0.5, 0.5]),
    "InverseSqrtLR, timescale": (lambda o: InverseSqrtLR(o, 0, 3), [1, 0.75**0.5, 0.6**0.5, 0.5**0.5]),
    "NoamLR": (lambda o: NoamLR(o, 16, 4), [0.03125, 0.0625, 0.09375, 0.125, 0.25 * 5**-0.5]),
    "REXLR": (lambda o: REXLR(o, 2), [1, 0.5 / 0.75, 0, 0]),
    "DecayingRestartsLR": (
        lambda o: DecayingRestartsLR(o, 2, 0.5, 2, cycles=2, curve="linear", warmup_steps=1),
        [0, 1, 0.5, 0.5, 0.375, 0.25, 0.125, 0, 0],
    ),
    "DecayingRestartsLR, floor": (
        lambda o: DecayingRestartsLR(o, 1, 0.5, min_lr_ratio=0.2),
        [1, 0.5, 0.25, 0.2, 0.2],
    ),
    "PhasesLR, repeated": (
        lambda o: PhasesLR(
            o,
            [Phase(2, "linear", 0, 1), Phase(1), Phase(1, "linear", 1, 0)],
            cycles=2,
            first_repeated=1,
            peak_decay=0.5,
        ),
        [0, 0.5, 1, 1, 0.5, 0.5, 0, 0],
    ),
    "PhasesLR, the rest": (
        lambda o: PhasesLR(o, [Phase(0.2, "linear", 0, 1), Phase(), Phase(0.4, "linear", 1, 0)], 5),
        [0, 1, 1, 1, 0.5, 0, 0],
    ),
    "PhasesLR, an empty last phase": (
        lambda o: PhasesLR(o, [Phase(2), Phase(0, "linear", 1, 0.5)]),
        [1, 1, 0.5, 0.5],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_arrays(name):
    make, golden = GOLDEN[name]
    assert run(make, len(golden) - 1) == pytest.approx(golden, rel=1e-15, abs=1e-16)
    assert run(make, len(golden) - 1, [double(1.0)]) == run(make, len(golden) - 1)


@pytest.mark.parametrize("growth", [1, 1.1, 1.5, 2, 3])
def test_cycles_end_where_their_lengths_say(growth):
    count = 4
    scheduler = begun(lambda o: DecayingRestartsLR(o, 7, 0.9, growth, curve="linear", cycles=count))
    begins = [0.0]
    for cycle in range(count):
        begins.append(begins[-1] + 7 * growth**cycle)
    for step in range(int(begins[-1]) + 5):
        cycle = next((index for index in range(count) if step < begins[index + 1] - 1e-9), None)
        share = 1 if cycle is None else (step - begins[cycle]) / (7 * growth**cycle)
        assert scheduler.lr_at(step)[0] == pytest.approx((1 - share) * 0.9 ** (cycle or 0), rel=1e-12, abs=1e-14)
    assert scheduler.length == pytest.approx(begins[-1], abs=0.51)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("kind", [float, double])
def test_states_resume_to_the_bit(name, kind):
    make, golden = GOLDEN[name]
    through = begun(make, [kind(0.3)])
    through.step()
    for restored in (pickle.loads(pickle.dumps(through)), copy.deepcopy(through)):
        assert type(restored) is type(through)
        restored.step()
        assert lrs(restored) == [through.lr_at(2)[0]]
    saved = copy.deepcopy((through.optimizer.state_dict(), through.state_dict()))
    other = begun(lambda optimizer: PhasesLR(optimizer, [Phase(3, "linear", 1, 0.5)]), [kind(0.7)])
    other.optimizer.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    for _ in golden:
        through.step()
        other.step()
        assert bits(lrs(other)) == bits(lrs(through))


def test_a_state_is_plain_and_has_no_total_steps():
    """accelerate stops stepping at ``total_steps`` if a scheduler has that attribute."""
    scheduler = begun(lambda optimizer: WarmupCosineLR(optimizer, 3, 10))
    assert not hasattr(scheduler, "total_steps")
    assert all(isinstance(value, (int, float, bool, list, tuple)) for value in scheduler.state_dict().values())


@pytest.mark.parametrize("numbers", [(), (0.0,) * 6, (0.0,) * 18])
def test_a_state_with_half_a_phase_is_refused(numbers):
    scheduler = begun(lambda optimizer: WarmupLR(optimizer, 3))
    state = {**scheduler.state_dict(), "_phases": numbers}
    with pytest.raises(ValueError, match=r"state_dict\['_phases'\] must have 6 numbers and 11 for each phase"):
        scheduler.load_state_dict(state)
    assert scheduler.lr_at(3) == [1.0]


@pytest.mark.parametrize("kind", [float, double])
def test_a_run_is_lengthened_by_other_phases(kind):
    scheduler = begun(lambda optimizer: WarmupLinearLR(optimizer, 2, 6), [kind(1.0)])
    for _ in range(4):
        scheduler.step()
    scheduler.set_phases([Phase(4, "linear", 0, 1), Phase(4, "linear", 0.5, 0)])
    found = []
    for _ in range(5):
        scheduler.step()
        found.append(lrs(scheduler)[0])
    assert found == [0.375, 0.25, 0.125, 0, 0]
    scheduler.set_phases([Phase(None, "constant", 0.125)])
    scheduler.step()
    assert lrs(scheduler) == [0.125]


def test_a_run_resumes_with_another_length():
    optimizer = sgd([1.0])
    optimizer.param_groups[0]["initial_lr"] = 1.0
    scheduler = WarmupLinearLR(optimizer, 2, 10, last_epoch=5)
    assert scheduler.last_epoch == 6
    assert lrs(scheduler) == [0.5]


@pytest.mark.parametrize("kind", [float, double, torch.tensor])
def test_ints_and_other_numbers_are_learning_rates_too(kind):
    optimizer = sgd([1, kind(0.5)])
    scheduler = WarmupLR(optimizer, 2)
    optimizer.step()
    for _ in range(3):
        scheduler.step()
    assert lrs(scheduler) == [1.0, 0.5]


def test_get_lr_asks_the_compiled_formula():
    """ignite and torchtitan set the epoch and call ``get_lr()``."""
    scheduler = begun(lambda optimizer: WarmupLinearLR(optimizer, 2, 6), [1.0, 0.5])
    scheduler.last_epoch = 4
    scheduler._get_lr_called_within_step = True
    assert scheduler.get_lr() == [0.5, 0.25]
    scheduler._get_lr_called_within_step = False
    with pytest.warns(UserWarning, match="get_last_lr"):
        scheduler.get_lr()


def test_a_subclass_with_a_get_lr_of_its_own_is_asked():
    class Halved(WarmupLR):
        def get_lr(self):
            return [lr / 2 for lr in super().get_lr()]

    assert run(lambda optimizer: Halved(optimizer, 2), 3) == [0.0, 0.25, 0.5, 0.5]


def test_a_deprecated_epoch_goes_there():
    scheduler = begun(lambda optimizer: WarmupLinearLR(optimizer, 2, 6))
    with pytest.warns(UserWarning, match="deprecated"):
        scheduler.step(5)
    assert lrs(scheduler) == [0.25]


def test_another_entry_and_some_groups():
    optimizer = torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))], "weight_decay": 0.5} for _ in "ab"])
    scheduler = WarmupLR(optimizer, 2, param_name="weight_decay", groups=[1])
    optimizer.step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    scheduler.step()
    scheduler.step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.5]
    assert optimizer.param_groups[1]["lr"] == 1e-3


@pytest.mark.parametrize("kind", [float, double])
def test_warm_up_goes_before_a_plateau(kind):
    optimizer = sgd([kind(1.0)])
    scheduler = with_warmup(fastsched.ReduceLROnPlateau(optimizer, factor=0.5, patience=0), 2)
    optimizer.step()
    found = [lrs(scheduler)[0]]
    for metric in (0.1, 1.0, 1.0, 0.5, 0.5):
        scheduler.step(metric)
        found.append(lrs(scheduler)[0])
    assert found == [0.0, 0.5, 1.0, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("kind", [float, double])
@pytest.mark.parametrize(
    ("make", "then"),
    [
        (lambda o: fastsched.StepLR(o, 1, 0.5), [1, 0.5, 0.25]),
        (lambda o: fastsched.CosineAnnealingLR(o, 2), [1, 0.5, 0]),
        (lambda o: fastsched.LinearLR(o, 0.5, 1, 2), [0.5, 0.75, 1]),
        (lambda o: fastsched.LambdaLR(o, lambda epoch: 1 / (epoch + 1)), [1, 1 / 2, 1 / 3]),
        (lambda o: fastsched.REXLR(o, 2), [1, 0.5 / 0.75, 0]),
        (lambda o: fastsched.ChainedScheduler([fastsched.StepLR(o, 1, 0.5)]), [1, 0.5, 0.25]),
        (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5), [1, 0.5, 0.25]),
    ],
)
def test_warm_up_goes_before_anything(kind, make, then):
    found = run(lambda o: with_warmup(make(o), 2), 4, [kind(1.0)])
    assert found == pytest.approx([0, 0.5, *then], rel=1e-15, abs=1e-16)


def test_warm_up_comes_first():
    optimizer = sgd([1.0])
    scheduler = fastsched.StepLR(optimizer, 1)
    optimizer.step()
    scheduler.step()
    with pytest.raises(ValueError, match="the StepLR has made 1 steps"):
        with_warmup(scheduler, 3)
    with pytest.raises(TypeError, match="scheduler must be a scheduler, got SGD"):
        with_warmup(optimizer, 3)
    assert lrs(scheduler) == [0.1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: PhasesLR(o, []), ValueError, "phases must not be empty"),
        (lambda o: PhasesLR(o, Phase(3)), TypeError, "phases must be a list of Phase"),
        (
            lambda o: PhasesLR(o, [Phase(3, "tanh", 1, 0, bounds=3)]),
            TypeError,
            r"phases\[0\].bounds must be two numbers",
        ),
        (lambda o: PhasesLR(o, [Phase(3, "tanh", 1, 0, bounds=(3, 1))]), ValueError, r"phases\[0\].bounds must rise"),
        (lambda o: PhasesLR(o, [3]), TypeError, r"phases\[0\] must be a Phase, got 3"),
        (
            lambda o: PhasesLR(o, [Phase(3, "sine")]),
            ValueError,
            r"phases\[0\].curve must be one of 'constant', .*'sine'",
        ),
        (
            lambda o: PhasesLR(o, [Phase(3, "linear", "a", 1)]),
            TypeError,
            r"phases\[0\].start must be a number, got 'a'",
        ),
        (lambda o: PhasesLR(o, [Phase(3, "linear", 1, -1)]), ValueError, r"phases\[0\].end must be at least 0, got -1"),
        (lambda o: PhasesLR(o, [Phase(3, "linear", math.nan, 1)]), ValueError, r"phases\[0\].start must be at least 0"),
        (lambda o: PhasesLR(o, [Phase(3, "constant", 1, 0)]), ValueError, "give it a curve"),
        (lambda o: PhasesLR(o, [Phase(3, "exponential", 1, 0)]), ValueError, "use 'exp2'"),
        (lambda o: PhasesLR(o, [Phase(3, "polynomial", 1, 0, power=0)]), ValueError, "power must be more than 0"),
        (lambda o: PhasesLR(o, [Phase(3, "inverse_sqrt")]), TypeError, "timescale must be a number, got None"),
        (lambda o: PhasesLR(o, [Phase(3, "inverse_sqrt", 0, 1, timescale=3)]), ValueError, "an inverse_sqrt falls"),
        (lambda o: PhasesLR(o, [Phase(None, "linear", 1, 0)]), ValueError, r"phases\[0\].length must be given"),
        (
            lambda o: PhasesLR(o, [Phase(), Phase(3)]),
            ValueError,
            "total_steps must be given: only the last can be open",
        ),
        (lambda o: PhasesLR(o, [Phase(), Phase()], 9), ValueError, "only one phase can have length None"),
        (lambda o: PhasesLR(o, [Phase(), Phase(10)], 9), ValueError, r"nothing is left for phases\[0\]"),
        (lambda o: PhasesLR(o, [Phase(0.5)]), ValueError, "is a share of total_steps, so total_steps must be given"),
        (
            lambda o: PhasesLR(o, [Phase(1.5)]),
            ValueError,
            r"phases\[0\].length must be a whole number of steps, or a share",
        ),
        (lambda o: PhasesLR(o, [Phase(-1)]), ValueError, r"phases\[0\].length must be at least 0, got -1"),
        (lambda o: PhasesLR(o, [Phase(3)], 2.5), ValueError, "total_steps must be a whole number, got 2.5"),
        (lambda o: PhasesLR(o, [Phase(3)], cycles=0), ValueError, "cycles must be at least 1, got 0"),
        (lambda o: PhasesLR(o, [Phase(3)], cycles=2, growth=0.5), ValueError, "growth must be at least 1, got 0.5"),
        (
            lambda o: PhasesLR(o, [Phase(3)], cycles=2, peak_decay=0),
            ValueError,
            "peak_decay must be more than 0, got 0",
        ),
        (lambda o: PhasesLR(o, [Phase(3)], cycles=2, first_repeated=1), ValueError, "first_repeated must be the index"),
        (lambda o: PhasesLR(o, [Phase()], cycles=2), ValueError, "must be given for the phases to be repeated"),
        (lambda o: PhasesLR(o, [Phase(0)], cycles=2), ValueError, "the phases to be repeated have no steps"),
        (lambda o: WarmupLR(o, -1), ValueError, "warmup_steps must be at least 0, got -1"),
        (lambda o: WarmupLR(o, 0.5), ValueError, "warmup_steps must be a whole number, got 0.5"),
        (lambda o: WarmupLR(o, 3, "exponential"), ValueError, "warmup_start must be more than 0 for an exponential"),
        (lambda o: WarmupLR(o, 3, "rex"), ValueError, "warmup must be one of 'linear', .*; got 'rex'"),
        (lambda o: WarmupLR(o, 3, warmup_start=2), ValueError, "warmup_start must be at most 1, .*; got 2"),
        (lambda o: WarmupLR(o, True), TypeError, "warmup_steps must be a number, got True"),
        (lambda o: WarmupLinearLR(o, 11, 10), ValueError, "warmup_steps must be at most total_steps=10, got 11"),
        (lambda o: WarmupLinearLR(o, 1, 10, 1.5), ValueError, "min_lr_ratio must be at most 1, got 1.5"),
        (lambda o: WarmupCosineLR(o, 1, 10, num_cycles=0), ValueError, "num_cycles must be more than 0, got 0"),
        (lambda o: WarmupCosineLR(o, 1, 10, num_cycles=2, k_decay=2), ValueError, "k_decay is for one descent"),
        (
            lambda o: WarmupCosineLR(o, 1, 10, num_cycles=0.5, hard_restarts=True),
            ValueError,
            "num_cycles must be at least 1",
        ),
        (lambda o: WarmupPolynomialLR(o, 1, 10, power=-1), ValueError, "power must be more than 0, got -1"),
        (
            lambda o: WarmupStableDecayLR(o, 6, 6, 10),
            ValueError,
            "must be at most total_steps=10 together, got 6 and 6",
        ),
        (lambda o: WarmupStableDecayLR(o, 1, 2, 9, decay="exponential"), ValueError, "set min_lr_ratio, or use 'exp2'"),
        (lambda o: WarmupStableDecayLR(o, 1, 2, 9, decay="k"), ValueError, "decay must be one of 'linear'"),
        (lambda o: InverseSqrtLR(o, 1, 0), ValueError, "timescale must be more than 0, got 0"),
        (lambda o: NoamLR(o, 0, 3), ValueError, "model_size must be more than 0, got 0"),
        (lambda o: REXLR(o, 0), ValueError, "total_steps must be at least 1, got 0"),
        (lambda o: DecayingRestartsLR(o, 0), ValueError, "cycle_steps must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named_and_change_nothing(make, error, message):
    optimizer = sgd([0.5])
    with pytest.raises(error, match=message):
        make(optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert "initial_lr" not in optimizer.param_groups[0]


@settings(max_examples=settings.default.max_examples // 5)
@given(phases=phase_lists, at=st.integers(0, 12))
def test_phases_are_replaced_at_any_step(phases, at):
    made = [begun(lambda o: WarmupLR(o, 3), [kind(0.5)]) for kind in (float, double)]
    for scheduler in made:
        for _ in range(at):
            scheduler.step()
        scheduler.set_phases(phases)
    for step in range(at + 1, at + 8):
        for scheduler in made:
            scheduler.step()
        assert lrs(made[0]) == lrs(made[1]) == made[0].lr_at(step)
