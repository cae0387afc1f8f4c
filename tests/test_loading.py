"""Loading states: refused as a whole, before anything is changed, or continued from to the last bit."""

import copy
import io
import math
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr_scheduler
from torch.optim import swa_utils

import fastsched
from fastsched.engine.host import DETACHED

from .configurations import TORCH, Ramp


def float32(lr):
    return torch.tensor(lr)


def float64(lr):
    return torch.tensor(lr, dtype=torch.float64)


kinds = pytest.mark.parametrize("kind", [float, float32, float64])


def same(number):
    return number


def tabulated(module):
    return {"total_steps": 40} if module is fastsched else {}


# By name: one of the module's schedulers, for an optimizer, with settings of the type that ``of`` makes.
MAKERS = {
    "StepLR": lambda m, o, of: m.StepLR(o, 3, of(0.7)),
    "MultiStepLR": lambda m, o, of: m.MultiStepLR(o, [2, 5, 5, 9], of(0.7)),
    "ConstantLR": lambda m, o, of: m.ConstantLR(o, of(0.3), 4),
    "LinearLR": lambda m, o, of: m.LinearLR(o, of(0.3), of(0.9), 6),
    "ExponentialLR": lambda m, o, of: m.ExponentialLR(o, of(0.9)),
    "PolynomialLR": lambda m, o, of: m.PolynomialLR(o, 8, of(1.5)),
    "CosineAnnealingLR": lambda m, o, of: m.CosineAnnealingLR(o, 7, of(0.01)),
    "CosineAnnealingWarmRestarts": lambda m, o, of: m.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    "LambdaLR": lambda m, o, of: m.LambdaLR(o, Ramp(of(5.0)), **tabulated(m)),
    "MultiplicativeLR": lambda m, o, of: m.MultiplicativeLR(o, Ramp(of(5.0)), **tabulated(m)),
    "CyclicLR": lambda m, o, of: m.CyclicLR(
        o, of(0.01), of(0.2), 3, mode="exp_range", gamma=of(0.95), base_momentum=of(0.8), max_momentum=of(0.9)
    ),
    "OneCycleLR": lambda m, o, of: m.OneCycleLR(o, of(0.3), 40),
    "SWALR": lambda m, o, of: m.SWALR(o, of(0.05), 6),
    "ReduceLROnPlateau": lambda m, o, of: m.ReduceLROnPlateau(o, factor=of(0.3), patience=1, min_lr=of(1e-3)),
    "SequentialLR": lambda m, o, of: m.SequentialLR(
        o, [m.LinearLR(o, of(0.3), total_iters=3), m.MultiStepLR(o, [2], of(0.5)), m.StepLR(o, 2, of(0.9))], [3, 7]
    ),
    "ChainedScheduler": lambda m, o, of: m.ChainedScheduler(
        [m.MultiStepLR(o, [2, 7], of(0.5)), m.ExponentialLR(o, of(0.9))]
    ),
    "nested": lambda m, o, of: m.ChainedScheduler(
        [
            m.SequentialLR(
                o,
                [
                    m.LinearLR(o, of(0.3), total_iters=3),
                    m.SequentialLR(o, [m.MultiStepLR(o, [2], of(0.5)), m.ReduceLROnPlateau(o, patience=0)], [3]),
                ],
                [4],
            ),
            m.ExponentialLR(o, of(0.9)),
        ]
    ),
}
names = pytest.mark.parametrize("name", MAKERS)
REFERENCED = [name for name in MAKERS if name != "nested"]  # torch has no plateau in a composition


def optimizer(kind, groups=2):
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(groups)]
    of_groups = [{"params": [p], "lr": kind(0.1 * (i + 1))} for i, p in enumerate(parameters)]
    return torch.optim.SGD(of_groups, lr=0.1, momentum=0.9)


def make(name, kind=float, module=fastsched, of=same, groups=2):
    return MAKERS[name](module, optimizer(kind, groups), of)


def step(scheduler, metric=1.0):
    scheduler.optimizer.step()
    takes = isinstance(scheduler, torch_lr_scheduler.ReduceLROnPlateau) or getattr(scheduler, "_takes_metrics", False)
    scheduler.step(metric) if takes else scheduler.step()


def stepped(name, kind=float, steps=5, **more):
    scheduler = make(name, kind, **more)
    for _ in range(steps):
        step(scheduler)
    return scheduler


def seen(scheduler):
    """Types and values of what a step writes."""
    groups = scheduler.optimizer.param_groups
    return repr([(group["lr"], type(group["lr"]), group["momentum"]) for group in groups])


def steps_of(scheduler, count=6):
    trajectory = []
    for _ in range(count):
        try:
            step(scheduler)
        except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, RuntimeError) as error:
            trajectory.append(type(error).__name__)
        trajectory.append(seen(scheduler))
    return trajectory


# Ways in which a value may be damaged.
junk = st.sampled_from(
    [
        None,
        "x",
        "0.5",
        [],
        [0.5],
        ["0.5"],
        [[0.5]],
        {},
        {"a": 1},
        {3: 1},
        math.nan,
        math.inf,
        -1,
        0,
        0.5,
        3,
        1j,
        b"3",
        np.float32(0.5),
        np.int64(3),
        10**400,
        np.array([0.5, 0.5]),
        torch.tensor(0.5),
        torch.tensor([0.5, 0.5]),
        object(),
    ]
)
MISSING = object()


def paths(value, path=()):
    """For every entry of a state, including those in dicts and lists."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from paths(item, (*path, key))


def corrupted(state, path, value):
    state = copy.deepcopy(state)
    place = state
    for key in path[:-1]:
        place = place[key]
    if value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = copy.deepcopy(value)
    return state


@names
@kinds
@settings(max_examples=settings.default.max_examples // 4)
@given(data=st.data())
def test_a_corrupted_state_is_refused_as_a_whole_or_goes_on_as_torch_does(name, kind, data):
    scheduler, twin = stepped(name, kind), stepped(name, kind)
    state = stepped(name, kind, 3).state_dict()
    path = data.draw(st.sampled_from(list(paths(state))))
    state = corrupted(state, path, data.draw(junk | st.just(MISSING)))
    try:
        scheduler.load_state_dict(state)
    except (TypeError, ValueError, KeyError):
        assert repr(scheduler.state_dict()) == repr(twin.state_dict())
        assert steps_of(scheduler) == steps_of(twin)
        return
    if name not in REFERENCED:
        return
    theirs = stepped(name, kind, module=TORCH)
    theirs.load_state_dict(copy.deepcopy(state))
    for _ in range(6):
        try:
            step(theirs)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError):
            break
        step(scheduler)


REFUSED = [
    ("StepLR", ("last_epoch",), [3], TypeError, "state_dict['last_epoch'] must be a number, got [3]"),
    ("StepLR", ("last_epoch",), math.nan, ValueError, "state_dict['last_epoch'] must be a finite number, got nan"),
    ("StepLR", ("_step_count",), 1.5, ValueError, "state_dict['_step_count'] must be a whole number, got 1.5"),
    ("StepLR", ("last_epoch",), MISSING, KeyError, "state_dict has no 'last_epoch'; it is not the state of a StepLR"),
    ("StepLR", ("step_size",), 0, ValueError, "state_dict['step_size'] must not be 0 or NaN"),
    ("StepLR", ("gamma",), 10**400, ValueError, "state_dict['gamma'] must be a number that a float can hold"),
    ("StepLR", ("gamma",), "x", TypeError, "state_dict['gamma'] must be a number, got 'x'"),
    ("StepLR", ("_last_lr",), "0.5", TypeError, "state_dict['_last_lr'] must be a list, got str"),
    ("StepLR", ("_last_lr", 1), "0.5", TypeError, "state_dict['_last_lr'][1] must be a number, got '0.5'"),
    ("StepLR", ("base_lrs",), 0.1, TypeError, "state_dict['base_lrs'] must be a list, got float"),
    ("StepLR", ("_is_initial",), torch.ones(2), TypeError, "state_dict['_is_initial'] must be True or False"),
    ("StepLR", ("get_lr",), 3, TypeError, "state_dict['get_lr'] would take the place of the method get_lr()"),
    ("MultiStepLR", ("milestones",), [3, 9], TypeError, "state_dict['milestones'] must be a Counter, got list"),
    ("MultiStepLR", ("milestones", 2), "x", TypeError, "state_dict['milestones'][2] must be a number, got 'x'"),
    ("MultiStepLR", ("milestones",), {"x": 1}, TypeError, "the key 'x' of state_dict['milestones'] must be a number"),
    ("CosineAnnealingWarmRestarts", ("T_i",), 0, ValueError, "state_dict['T_i'] must not be 0"),
    ("LambdaLR", ("lr_lambdas",), 3, TypeError, "state_dict['lr_lambdas'] must be a list, got int"),
    ("LambdaLR", ("lr_lambdas", 0), 3, TypeError, "state_dict['lr_lambdas'][0] must be the attributes of an object"),
    ("CyclicLR", ("mode",), "square", ValueError, "state_dict['mode'] must be one of ('triangular', "),
    ("CyclicLR", ("use_beta1",), True, ValueError, "state_dict['use_beta1'] must be False: the optimizer has no betas"),
    ("CyclicLR", ("_scale_fn_custom",), {"a": 1}, ValueError, "state_dict['_scale_fn_custom'] must be None"),
    ("OneCycleLR", ("_anneal_func_type",), "line", ValueError, "state_dict['_anneal_func_type'] must be one of"),
    ("OneCycleLR", ("_schedule_phases",), [], TypeError, "state_dict['_schedule_phases'] must be a list of phases"),
    ("OneCycleLR", ("_schedule_phases", 0), 3, TypeError, "state_dict['_schedule_phases'][0] must be a dict, got int"),
    ("OneCycleLR", ("_schedule_phases", 1, "end_step"), MISSING, KeyError, "['_schedule_phases'][1] has no 'end_step'"),
    ("OneCycleLR", ("_schedule_phases", 0, "end_lr"), "lr", ValueError, "['end_lr'] must be one of ('initial_lr', "),
    ("SWALR", ("_anneal_strategy",), [], ValueError, "state_dict['_anneal_strategy'] must be one of ('linear', 'cos')"),
    ("ReduceLROnPlateau", ("min_lrs", 0), None, TypeError, "state_dict['min_lrs'][0] must be a number, got None"),
    ("SequentialLR", ("_milestones",), ["3"], TypeError, "state_dict['_milestones'][0] must be a number, got '3'"),
    ("SequentialLR", ("_schedulers",), 3, TypeError, "state_dict['_schedulers'] must be a list, got int"),
    (
        "SequentialLR",
        ("_schedulers", 0),
        MISSING,
        ValueError,
        "state_dict['_schedulers'] has 2 states for 3 schedulers",
    ),
    ("SequentialLR", ("_schedulers", 2), None, TypeError, "state_dict['_schedulers'][2] must be a dict, got NoneType"),
    (
        "nested",
        ("_schedulers", 0, "_schedulers", 1, "_schedulers", 1, "best"),
        [],
        TypeError,
        "state_dict['_schedulers'][0]['_schedulers'][1]['_schedulers'][1]['best'] must be a number, got []",
    ),
]


@kinds
@pytest.mark.parametrize(
    ("name", "path", "value", "error", "message"),
    REFUSED,
    ids=[
        f"{name} {'.'.join(map(str, path))} {'missing' if value is MISSING else value}"
        for name, path, value, *_ in REFUSED
    ],
)
def test_errors_name_the_key_and_what_is_expected(name, kind, path, value, error, message):
    scheduler, twin = stepped(name, kind), stepped(name, kind)
    with pytest.raises(error) as caught:
        scheduler.load_state_dict(corrupted(stepped(name, kind, 3).state_dict(), path, value))
    assert message in str(caught.value)
    assert repr(scheduler.state_dict()) == repr(twin.state_dict())
    assert steps_of(scheduler) == steps_of(twin)


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("ReduceLROnPlateau", "StepLR"),
        ("StepLR", "ReduceLROnPlateau"),
        ("CosineAnnealingLR", "StepLR"),
        ("StepLR", "CosineAnnealingWarmRestarts"),
        ("OneCycleLR", "CyclicLR"),
        ("SWALR", "ExponentialLR"),
        ("LambdaLR", "StepLR"),
        ("StepLR", "SequentialLR"),
        ("SequentialLR", "ChainedScheduler"),
        ("ChainedScheduler", "ExponentialLR"),
    ],
)
@kinds
def test_the_state_of_another_class_is_refused(name, of, kind):
    scheduler, twin = stepped(name, kind), stepped(name, kind)
    with pytest.raises(KeyError, match=r"state_dict has no '\w+'.*; it is not the state of a"):
        scheduler.load_state_dict(stepped(of, kind).state_dict())
    assert steps_of(scheduler) == steps_of(twin)


@kinds
@pytest.mark.parametrize("name", ["LambdaLR", "MultiplicativeLR"])
def test_functions_that_fail_with_their_loaded_attributes(name, kind):
    """With a table they are called while loading; without, at the next step, as in torch."""
    scheduler, twin = stepped(name, kind), stepped(name, kind)
    state = {**scheduler.state_dict(), "lr_lambdas": [{"width": None}] * 2}
    if kind is float:
        scheduler.load_state_dict(state)
        with pytest.raises(TypeError, match="NoneType"):
            scheduler.step()
        return
    with pytest.raises(ValueError, match=r"state_dict\['lr_lambdas'\] makes a function fail"):
        scheduler.load_state_dict(state)
    assert steps_of(scheduler) == steps_of(twin)


@kinds
@names
def test_what_torch_goes_on_from_is_accepted(name, kind):
    """Extra keys, missing settings, other kinds of dict and number."""
    saved = stepped(name, kind)
    state = saved.state_dict()
    variants = [{**state, "note": "mine", "verbose": False, 7: None}, OrderedDict(state)]
    counters = {
        key: state[key] for key in ("last_epoch", "_step_count", "T_cur", "T_i", "num_bad_epochs") if key in state
    }
    variants += [
        {**state, **{key: of(value) for key, value in counters.items()}}
        for of in (np.int64, np.array, float, torch.tensor, lambda value: torch.tensor([value]))
    ]
    variants += [{**state, "_last_lr": of(state["_last_lr"])} for of in (tuple, np.array, torch.tensor)]
    engine, expected = type(saved._engine), steps_of(stepped(name, kind))
    for variant in variants:
        resumed = make(name, kind)
        resumed.optimizer.load_state_dict(copy.deepcopy(saved.optimizer.state_dict()))
        given = copy.deepcopy(variant)
        resumed.load_state_dict(variant)
        assert repr(variant) == repr(given)
        assert steps_of(resumed) == expected
        assert type(resumed._engine) is engine
        assert getattr(resumed, "note", "mine") == "mine"


@kinds
def test_missing_settings_stay_as_they_are(kind):
    scheduler = make("StepLR", kind)
    scheduler.load_state_dict({"last_epoch": 2})
    assert (scheduler.last_epoch, scheduler.step_size, scheduler.gamma) == (2, 3, 0.7)
    step(scheduler)
    assert [float(group["lr"]) for group in scheduler.optimizer.param_groups] == pytest.approx([0.07, 0.14])


@pytest.mark.parametrize("kind", [float32, float64])
@pytest.mark.parametrize("module", [TORCH, fastsched])
def test_settings_that_are_tensors_stay_the_tensors_that_they_were(kind, module):
    """Where they have that value: captured graphs read them."""
    scheduler = make("CyclicLR", kind, of=kind)
    before = [*scheduler.base_lrs, *scheduler.max_lrs]
    state = stepped("CyclicLR", kind, module=module, of=kind).state_dict()
    scheduler.load_state_dict(state)
    assert all(now is then for now, then in zip([*scheduler.base_lrs, *scheduler.max_lrs], before, strict=True))
    scheduler.load_state_dict({**state, "max_lrs": [0.5, 0.1]})
    assert scheduler.max_lrs == [0.5, 0.1]
    assert isinstance(scheduler.max_lrs[0], torch.Tensor)
    assert isinstance(scheduler.max_lrs[1], float if kind is float32 else torch.Tensor)  # which float32 does not hold


@kinds
@pytest.mark.parametrize(
    ("milestones", "expected"),
    [
        ({2: 1, "2": 1, 5: 2, "5": 2}, Counter({2: 1, 5: 2})),
        ({"2": 1, "5": 2}, Counter({2: 1, 5: 2})),
        ({"2": 1, 5: 2, "2.5": 1}, Counter({2: 1, 5: 2, 2.5: 1})),
        ({np.int64(2): np.int64(1), 5.0: 2}, Counter({2: 1, 5: 2})),
    ],
)
def test_milestones_are_numbers(kind, milestones, expected):
    scheduler = stepped("MultiStepLR", kind, 1)
    scheduler.load_state_dict({**scheduler.state_dict(), "milestones": milestones})
    assert scheduler.milestones == expected
    assert all(type(key) in (int, float) for key in scheduler.milestones)
    step(scheduler)
    assert scheduler._engine is not DETACHED
    assert [float(group["lr"]) for group in scheduler.optimizer.param_groups] == pytest.approx([0.07, 0.14])


@kinds
def test_states_of_older_versions(kind):
    """SWALR's with its annealing function, OneCycleLR's without the function's name; the current one counts."""
    for name, newer, function in (
        ("SWALR", "_anneal_strategy", swa_utils.SWALR._linear_anneal),
        ("OneCycleLR", "_anneal_func_type", torch_lr_scheduler.OneCycleLR._annealing_linear),
    ):
        state = stepped(name, kind).state_dict()
        del state[newer]
        state["anneal_func"] = function
        resumed = []
        for module in (TORCH, fastsched):
            scheduler = stepped(name, kind if module is fastsched else float, 2, module=module)
            scheduler.load_state_dict(copy.deepcopy(state))
            step(scheduler)
            resumed.append([float(group["lr"]) for group in scheduler.optimizer.param_groups])
        assert resumed[1] == pytest.approx(resumed[0], rel=0 if kind is float else 1e-6)
        assert scheduler._engine is not DETACHED


@pytest.mark.parametrize("name", REFERENCED)
@kinds
def test_torchs_states_load_and_ours_into_torchs(name, kind):
    for giver, taker in ((TORCH, fastsched), (fastsched, TORCH)):
        saved = stepped(name, kind, module=giver)
        resumed = make(name, kind, module=taker)
        resumed.optimizer.load_state_dict(copy.deepcopy(saved.optimizer.state_dict()))
        resumed.load_state_dict(copy.deepcopy(saved.state_dict()))
        for _ in range(5):
            step(saved)
            step(resumed)
        ours, theirs = ([float(group["lr"]) for group in s.optimizer.param_groups] for s in (resumed, saved))
        assert ours == (theirs if kind is float else pytest.approx(theirs, rel=1e-5))


def through_objects(saved, resumed, path):
    dcp.save({"scheduler": saved, "optimizer": saved.optimizer}, checkpoint_id=path)
    dcp.load({"scheduler": resumed, "optimizer": resumed.optimizer}, checkpoint_id=path)


def through_nested_states(saved, resumed, path):
    dcp.save({"app": {"scheduler": saved.state_dict(), "optimizer": saved.optimizer.state_dict()}}, checkpoint_id=path)
    states = {"scheduler": resumed.state_dict(), "optimizer": saved.optimizer.state_dict()}
    dcp.load({"app": states}, checkpoint_id=path)
    resumed.load_state_dict(states["scheduler"])
    resumed.optimizer.load_state_dict(copy.deepcopy(states["optimizer"]))


def through_a_flat_state(saved, resumed, path):
    dcp.save(saved.state_dict(), checkpoint_id=path)
    state = resumed.state_dict()
    dcp.load(state, checkpoint_id=path)
    resumed.optimizer.load_state_dict(copy.deepcopy(saved.optimizer.state_dict()))
    resumed.load_state_dict(state)


@names
@kinds
@pytest.mark.parametrize("through", [through_objects, through_nested_states, through_a_flat_state])
@pytest.mark.filterwarnings("ignore:torch.distributed")
def test_distributed_checkpoints_resume_exactly_and_on_the_engine(name, kind, through, tmp_path):
    saved, resumed = stepped(name, kind), make(name, kind)
    through(saved, resumed, tmp_path)
    assert steps_of(resumed) == steps_of(saved)
    assert type(resumed._engine) is type(saved._engine) is not type(DETACHED)


@pytest.mark.filterwarnings("ignore:torch.distributed")
def test_early_stopping_resumes_from_distributed_checkpoints(tmp_path):
    def stopper():
        return fastsched.EarlyStopping(patience=3, model=torch.nn.Sequential(torch.nn.Linear(2, 1)))

    saved, resumed = stopper(), stopper()
    for metric in (3.0, 2.0, 2.5, 2.5):
        saved.step(metric)
    dcp.save({"stopper": saved}, checkpoint_id=tmp_path)
    dcp.load({"stopper": resumed}, checkpoint_id=tmp_path)
    for metric in (2.5, 2.5, 2.5):
        assert repr(resumed.state_dict()) == repr(saved.state_dict())
        assert resumed.should_stop == saved.should_stop
        saved.step(metric)
        resumed.step(metric)
    assert resumed.should_stop


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mode", []),
        ("mode", torch.ones(2)),
        ("patience", "x"),
        ("last_epoch", [3]),
        ("last_epoch", math.nan),
        ("best", "0.5"),
        ("num_bad_epochs", 1.5),
        ("best_weights", None),
        ("best_weights", {"weight": torch.ones(1, 2), "bias": torch.ones(1, device="meta")}),
    ],
)
def test_early_stopping_refuses_a_state_as_a_whole(key, value):
    stopper = fastsched.EarlyStopping(patience=3, model=torch.nn.Linear(2, 1))
    stopper.step(1.0)
    before = copy.deepcopy(stopper.state_dict())
    with pytest.raises((TypeError, ValueError), match=key):
        stopper.load_state_dict({**copy.deepcopy(before), "patience": 7, key: value})
    assert repr(stopper.state_dict()) == repr(before)


def test_early_stopping_takes_other_kinds_of_number():
    stopper = fastsched.EarlyStopping()
    stopper.step(1.0)
    stopper.step(2.0)
    resumed = fastsched.EarlyStopping()
    state = stopper.state_dict()
    resumed.load_state_dict({**state, "last_epoch": np.int64(2), "best": torch.tensor(1.0), "num_bad_epochs": 1.0})
    assert resumed.state_dict() == state


def numpy_int(value):
    """Whole numbers; other settings stay floats."""
    return np.int64(value) if value == int(value) else value


@names
@kinds
@pytest.mark.parametrize("of", [np.float32, np.float64, numpy_int])
@pytest.mark.parametrize("first", ["optimizer", "scheduler"])
def test_resuming_with_numpy_settings_is_exact(name, kind, of, first):
    """In the types that the learning rates have, too."""
    saved = stepped(name, kind, of=of)
    file = io.BytesIO()
    torch.save((saved.optimizer.state_dict(), saved.state_dict()), file)
    file.seek(0)
    optimizer_state, state = torch.load(file, weights_only=False)
    resumed = make(name, kind, of=of)
    if first == "optimizer":
        resumed.optimizer.load_state_dict(optimizer_state)
    resumed.load_state_dict(state)
    if first == "scheduler":
        resumed.optimizer.load_state_dict(optimizer_state)
    assert steps_of(resumed) == steps_of(saved)


@names
@pytest.mark.parametrize("kind", [float, float64])
@pytest.mark.parametrize("groups", [(1, 2), (3, 2)])
def test_a_state_of_another_number_of_groups_does_what_it_does_in_torch(name, kind, groups):
    """The next step then raises in some classes, and continues in others."""
    saved, present = groups
    state = stepped(name, kind, 3, groups=saved).state_dict()
    scheduler, twin = (stepped(name, kind, groups=present) for _ in range(2))
    if len(state.get("lr_lambdas", [])) > present:
        with pytest.raises(ValueError, match="3 entries for 2 functions"):
            scheduler.load_state_dict(state)
        assert steps_of(scheduler) == steps_of(twin)
        return
    scheduler.load_state_dict(state)
    trajectory = steps_of(scheduler)
    if name in REFERENCED:
        reference = stepped(name, kind, groups=present, module=TORCH)
        reference.load_state_dict(stepped(name, kind, 3, groups=saved, module=TORCH).state_dict())
        assert trajectory == steps_of(reference)
    assert all(math.isfinite(group["lr"]) for group in scheduler.optimizer.param_groups)


class Stubborn(torch_lr_scheduler.ExponentialLR):
    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        if self.gamma == 0.25:
            raise RuntimeError("no")


@kinds
@pytest.mark.parametrize("place", [0, 1])
def test_a_child_that_refuses_leaves_the_others_as_they_were(kind, place):
    def composed():
        of = optimizer(kind)
        children = [fastsched.StepLR(of, 2, 0.5), fastsched.MultiStepLR(of, [2], 0.5)]
        inner = [fastsched.LinearLR(of), fastsched.ConstantLR(of)]
        inner.insert(place, Stubborn(of, 0.9))
        scheduler = fastsched.ChainedScheduler([*children, fastsched.ChainedScheduler(inner)])
        for _ in range(3):
            step(scheduler)
        return scheduler

    scheduler, twin = composed(), composed()
    state = copy.deepcopy(composed().state_dict())
    state["_schedulers"][0]["gamma"] = state["_schedulers"][2]["_schedulers"][place]["gamma"] = 0.25
    with pytest.raises(RuntimeError, match="no"):
        scheduler.load_state_dict(state)
    assert scheduler.state_dict() == twin.state_dict()
    assert steps_of(scheduler) == steps_of(twin)


@pytest.mark.parametrize("of", [float32, float64])
def test_settings_that_were_moved_elsewhere_are_found_when_a_state_is_loaded(of):
    """That tensors are adjacent in memory is no longer assumed once one of them has moved."""
    seen = []
    for module in (TORCH, fastsched):
        parts = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": of(0.5 / (1 + i))} for i in range(4)]
        optimizer = torch.optim.SGD(parts)
        scheduler = module.CosineAnnealingLR(optimizer, T_max=10)
        optimizer.step()
        scheduler.step()
        state = scheduler.state_dict()
        scheduler.base_lrs[2].data = of(3.0)
        del state["base_lrs"]
        scheduler.load_state_dict(state)
        with pytest.warns(UserWarning, match="deprecated"):
            scheduler.step(7)
        seen.append([group["lr"].item() for group in optimizer.param_groups])
    assert seen[1] == pytest.approx(seen[0], rel=1e-6)
    assert seen[1][2] > seen[1][0]


def test_a_number_beyond_floats_is_named_among_others():
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.1} for _ in range(5)])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, min_lr=0)
    state = scheduler.state_dict()
    state["min_lrs"][3] = 10**400
    with pytest.raises(ValueError, match=r"state_dict\['min_lrs'\]\[3\] must be a number that a float can hold"):
        scheduler.load_state_dict(state)
