"""``GreedyLR``: transformers' numbers on floats, those rounded on tensors; its states; refusals that change nothing."""

import copy
import io
import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastsched
from fastsched import _C
from fastsched.engine.host import TensorEngine

from .conftest import sgd
from .values import bits, double
from .watching import Operators

transformers = pytest.importorskip("transformers.optimization")

COUNTERS = ("best", "num_bad_epochs", "num_good_epochs", "cooldown_counter", "warmup_counter", "reset_start")
FEW = settings(max_examples=settings.default.max_examples // 3)

initial_lrs = st.lists(
    st.sampled_from([0.1, 0.3, 0.01, 1.0, 1, 2.0, 1e-3]) | st.floats(1e-5, 2.0), min_size=1, max_size=3
)
metrics = st.lists(
    st.sampled_from([3.0, 2.0, 1.0, 0.5, -1.0, float("nan"), float("inf"), float("-inf"), 1]) | st.floats(-10.0, 10.0),
    max_size=60,
)
# Long falls, rises and plateaus: increases, reductions and restarts.
slopes = st.tuples(st.sampled_from([-0.5, 0.0, 0.5]), st.integers(1, 12))
phases = st.lists(slopes, max_size=8).map(
    lambda parts: list(itertools.accumulate((slope for slope, steps in parts for _ in range(steps)), initial=10.0))
)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.sampled_from([0.5, 0.1, 0.95]) | st.floats(0.05, 0.99),
        "patience": st.integers(0, 3),
        "threshold": st.sampled_from([0, 1e-6, 0.1]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
        "warmup": st.integers(0, 3),
        "min_lr": st.sampled_from([0, 1e-3, 0.05]),
        "max_lr": st.sampled_from([1, 1.0, 0.2, 5.0]),
        "eps": st.sampled_from([0, 1e-8, 1e-2]),
        "smooth": st.booleans(),
        "window_size": st.integers(1, 5),
        "reset_start": st.integers(0, 4),
    },
)


def both(lrs, kwargs, ours=None):
    return (transformers.GreedyLR(sgd(lrs), **kwargs), fastsched.GreedyLR(sgd(lrs if ours is None else ours), **kwargs))


def group_lrs(scheduler):
    return [group["lr"] for group in scheduler.optimizer.param_groups]


def look(scheduler):
    return bits(
        [group_lrs(scheduler), scheduler.get_last_lr(), *(float(getattr(scheduler, name)) for name in COUNTERS)]
    )


@given(lrs=initial_lrs, kwargs=arguments, losses=metrics | phases)
def test_floats_are_bit_identical_to_transformers(lrs, kwargs, losses):
    theirs, ours = both(lrs, kwargs)
    assert look(ours) == look(theirs)
    for loss in losses:
        theirs.step(loss)
        ours.step(metrics=loss)
        assert look(ours) == look(theirs)
        assert ours.last_epoch == theirs.last_epoch


@FEW
@given(
    lrs=initial_lrs, kwargs=arguments, losses=metrics | phases, dtype=st.sampled_from([torch.float32, torch.float64])
)
def test_tensors_follow_that_trajectory_rounded_in_place(lrs, kwargs, losses, dtype):
    tensors = [torch.tensor(lr, dtype=dtype) for lr in lrs]
    theirs, ours = both([tensor.item() for tensor in tensors], kwargs, tensors)
    for loss in losses:
        theirs.step(loss)
        ours.step(torch.tensor(loss, dtype=torch.float64))
        assert torch.stack(group_lrs(ours)).tolist() == torch.tensor(group_lrs(theirs), dtype=dtype).tolist()
        assert torch.stack(ours.get_last_lr()).tolist() == torch.stack(group_lrs(ours)).tolist()
    assert all(lr is tensor for lr, tensor in zip(group_lrs(ours), tensors, strict=True))
    assert bits(ours.state_dict()["_last_lr"]) == bits([float(lr) for lr in group_lrs(theirs)])  # not rounded


@FEW
@given(lrs=initial_lrs, kwargs=arguments, losses=metrics | phases, turn=st.integers(0, 30))
def test_states_go_from_either_to_either(lrs, kwargs, losses, turn):
    theirs, ours = both(lrs, kwargs)
    for loss in losses[:turn]:
        theirs.step(loss)
        ours.step(loss)
    assert {name: bits(value) for name, value in ours.state_dict().items() if name != "_streaming_avg"} == {
        name: bits(value) for name, value in theirs.state_dict().items() if name != "_streaming_avg"
    }
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    saved = io.BytesIO()
    torch.save(theirs.state_dict(), saved)
    saved.seek(0)
    resumed, given_back = fastsched.GreedyLR(sgd([0.7] * len(lrs))), transformers.GreedyLR(sgd([0.7] * len(lrs)))
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    given_back.load_state_dict(ours.state_dict())
    for loss in losses[turn:]:
        for scheduler in (theirs, resumed, given_back):
            scheduler.step(loss)
        assert look(resumed) == look(theirs) == look(given_back)


def test_it_goes_up_down_and_begins_anew():
    ours = fastsched.GreedyLR(sgd([0.1]), factor=0.5, patience=0, min_lr=0.1, max_lr=0.3, reset_start=2)
    seen = []
    for loss in (3.0, 2.0, 2.0, 2.0, 2.0):
        ours.step(loss)
        seen += group_lrs(ours)
    assert seen == [0.2, 0.3, 0.15, 0.1, 0.1]
    assert ours.best == float("inf")  # it has restarted


@pytest.mark.parametrize("scheduler_first", [False, True])
def test_a_checkpoint_of_tensors_goes_on_unrounded(scheduler_first):
    def make():
        return fastsched.GreedyLR(sgd([torch.tensor(0.1)]), patience=0, factor=0.9, min_lr=0.0)

    whole, other = make(), make()
    for loss in (1.0, 2.0, 3.0):
        whole.step(loss)
    state, optimizer_state = copy.deepcopy((whole.state_dict(), whole.optimizer.state_dict()))
    mine = other.optimizer.param_groups[0]["lr"]
    loads = [lambda: other.load_state_dict(state), lambda: other.optimizer.load_state_dict(optimizer_state)]
    for load in loads if scheduler_first else reversed(loads):
        load()
    for loss in (4.0, 5.0):
        whole.step(loss)
        other.step(loss)
    assert other.state_dict()["_last_lr"] == whole.state_dict()["_last_lr"]
    if not scheduler_first:
        assert mine.item() == other.optimizer.param_groups[0]["lr"].item()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))])
def test_a_copy_goes_on_unrounded(duplicate):
    whole = fastsched.GreedyLR(sgd([torch.tensor(0.1)]), patience=0, factor=0.9, min_lr=0.0)
    for loss in (1.0, 2.0, 3.0):
        whole.step(loss)
    twin = duplicate(whole)
    for scheduler in (whole, twin):
        scheduler.step(4.0)
    assert twin.state_dict() == whole.state_dict()
    assert twin.optimizer is not whole.optimizer
    whole.step(5.0)
    assert group_lrs(twin) != group_lrs(whole)


def test_engines_step_it():
    for kind, engine in ((float, _C.HostEngine), (double, TensorEngine), (torch.tensor, TensorEngine)):
        ours = fastsched.GreedyLR(sgd([kind(0.5)]), patience=0, smooth=True, window_size=2)
        for loss in (1.0, 2.0, 3.0):
            ours.step(loss)
            assert type(ours._engine) is engine
    loss = double(1.0)
    with Operators() as operators:
        ours.step(loss)
    assert operators.calls == [torch.ops.fastsched.step_.default]


@pytest.mark.parametrize(
    ("lrs", "arguments", "reason"),
    [
        ([0.5], {"verbose": True}, "verbose=True prints each change"),
        ([torch.tensor(0.5), double(0.5)], {}, "of several dtypes, or on several devices"),
        ([torch.tensor(0.5), 0.5], {}, ""),
        ([torch.tensor(0.5, dtype=torch.bfloat16)], {}, "bfloat16"),
    ],
)
def test_python_steps_what_engines_do_not_by_the_same_formula(lrs, arguments, reason):
    steps = {"patience": 0, "factor": 0.5, "min_lr": 0.25, "max_lr": 1.0, "reset_start": 2, "cooldown": 1}
    theirs, ours = both([float(lr) for lr in lrs], steps, lrs)
    for name, value in arguments.items():
        setattr(ours, name, value)
    for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0):
        explained = fastsched.explain(ours)
        assert explained.engine == "torch"
        assert reason in str(explained)
        theirs.step(loss)
        ours.step(loss)
        assert [float(lr) for lr in group_lrs(ours)] == group_lrs(theirs)
        assert [getattr(ours, name) for name in COUNTERS] == [getattr(theirs, name) for name in COUNTERS]


def test_settings_that_are_written_count_from_the_next_step():
    for kind in (float, double):
        ours = fastsched.GreedyLR(sgd([kind(0.5)]), patience=9, factor=0.5)
        ours.step(2.0)
        ours.patience = 0
        ours.step(1.0)
        assert float(group_lrs(ours)[0]) == 1.0
        ours.max_lrs = [4.0]
        ours.factor = 0.25
        ours.step(0.5)
        assert float(group_lrs(ours)[0]) == 4.0
        ours.factor = 0.0
        with pytest.raises(ValueError, match="factor must be above 0"):
            ours.step(0.25)


@pytest.mark.parametrize("how", [setattr, lambda scheduler, name, value: scheduler.__dict__.update({name: value})])
@pytest.mark.parametrize("kind", [float, double])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_window_that_is_resized_keeps_the_newest(kind, size, how):
    ours = fastsched.GreedyLR(sgd([kind(0.5)]), patience=90, smooth=True, window_size=3)
    for loss in (1.0, 8.0, 4.0, 2.0):
        ours.step(loss)
    how(ours, "window_size", size)
    ours.step(1.0)
    kept = [1.0, 8.0, 4.0, 2.0][1:][-size:]
    assert ours.state_dict()["_streaming_avg"] == {
        "window_size": size,
        "values": [*kept, 1.0][-size:],
        "sum": sum([*kept, 1.0][-size:]),
    }
    ours.smooth = False
    ours.step(1.0)
    assert "_streaming_avg" not in ours.state_dict()


def test_a_learning_rate_written_in_place_is_gone_on_from():
    ours = fastsched.GreedyLR(sgd([torch.tensor(0.1, dtype=torch.float32)]), patience=0, factor=0.5, min_lr=0)
    ours.step(1.0)
    ours.optimizer.param_groups[0]["lr"].fill_(0.75)
    ours.step(1.0)
    assert group_lrs(ours)[0].item() == 0.375


def test_tensors_of_a_dtype_without_masters_are_written_in_place_too():
    lr = torch.tensor(0.5, dtype=torch.bfloat16)
    ours = fastsched.GreedyLR(sgd([lr]), patience=0, factor=0.5)
    ours.step(float("nan"))
    assert group_lrs(ours)[0] is lr
    assert lr.item() == 0.25


@pytest.mark.parametrize("kind", [float, double])
def test_by_name(kind):
    specific = {"patience": 0, "factor": 0.5, "max_lr": [0.5, 4.0]}
    theirs = transformers.get_scheduler("greedy", sgd([0.5, 1.0]), scheduler_specific_kwargs=specific)
    ours = fastsched.get_scheduler("greedy", sgd([kind(0.5), kind(1.0)]), scheduler_specific_kwargs=specific)
    assert type(ours) is fastsched.GreedyLR
    assert isinstance(ours, torch.optim.lr_scheduler.ReduceLROnPlateau)  # so frameworks pass it the metric
    for loss in (3.0, 2.0, 2.0, 1.0, 4.0):
        theirs.step(loss)
        ours.step(loss)
        assert [float(lr) for lr in group_lrs(ours)] == group_lrs(theirs)
    for module in (transformers, fastsched):
        with pytest.raises(TypeError, match="power"):
            module.get_scheduler("greedy", sgd([0.5]), scheduler_specific_kwargs={"power": 2})


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"factor": 1.0}, ValueError),
        ({"mode": "low"}, ValueError),
        ({"threshold_mode": "rel_abs"}, ValueError),
        ({"min_lr": [0.1, 0.2]}, ValueError),
        ({"max_lr": [0.1, 0.2]}, ValueError),
        ({"factor": "half"}, TypeError),
    ],
)
def test_what_transformers_refuses_is_refused(kwargs, error):
    for module in (transformers, fastsched):
        with pytest.raises(error):
            module.GreedyLR(sgd([0.5]), **kwargs)
        with pytest.raises(TypeError, match="is not an Optimizer"):
            module.GreedyLR(object())


def test_what_transformers_would_divide_by_is_checked():
    with pytest.raises(ValueError, match="factor must be above 0 and below 1, got 0"):
        fastsched.GreedyLR(sgd([0.5]), factor=0)
    with pytest.raises(ValueError, match="window_size must be 1 or more, got 0"):
        fastsched.GreedyLR(sgd([0.5]), smooth=True, window_size=0)
    with pytest.raises(TypeError, match="patience must be a number, got '3'"):
        fastsched.GreedyLR(sgd([0.5]), patience="3")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"best": "low"}, r"state_dict\['best'\] must be a number"),
        ({"_last_lr": [0.1, 0.2]}, r"state_dict\['_last_lr'\] has 2 values for 1 param groups"),
        ({"min_lrs": []}, r"state_dict\['min_lrs'\] has 0 values"),
        ({"factor": 2.0}, "factor must be above 0"),
        ({"_streaming_avg": {"values": 3}}, r"state_dict\['_streaming_avg'\]\['values'\] must be a list"),
        ({"mode": "low"}, r"state_dict\['mode'\] must be one of"),
    ],
)
def test_a_broken_state_changes_nothing(broken, message):
    ours = fastsched.GreedyLR(sgd([0.5]), patience=0, smooth=True)
    ours.step(1.0)
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises((TypeError, ValueError), match=message):
        ours.load_state_dict({**before, "patience": 7, **broken})
    assert ours.state_dict() == before
    with pytest.raises(TypeError, match="state_dict must be a dict"):
        ours.load_state_dict([])


@pytest.mark.parametrize("metric", [None, "low", torch.zeros(2)])
def test_what_is_no_metric_changes_nothing(metric):
    ours = fastsched.GreedyLR(sgd([0.5]), patience=0, smooth=True)
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        ours.step(metric)
    assert ours.state_dict() == before


def test_a_group_that_is_added_has_the_bounds_of_all_or_none():
    for bounds, refused in (({}, False), ({"min_lr": [0.1]}, True), ({"max_lr": [0.9]}, True)):
        ours = fastsched.GreedyLR(sgd([0.5]), patience=0, factor=0.5, **bounds)
        ours.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.2})
        if refused:
            with pytest.raises(RuntimeError, match=r"set scheduler\.m.._lrs to one bound per group"):
                ours.step(1.0)
            assert ours.last_epoch == 0
            ours.min_lrs, ours.max_lrs = [0.1, 0.1], [0.9, 0.9]
        ours.step(1.0)
        assert group_lrs(ours) == [0.9 if refused else 1.0, 0.4]


@pytest.mark.parametrize("kind", [float, double])
def test_in_a_composition(kind):
    optimizer = sgd([kind(1.0)])
    parts = [
        fastsched.ConstantLR(optimizer, 0.5, 10),
        fastsched.GreedyLR(optimizer, patience=0, factor=0.5, max_lr=3.0),
    ]
    scheduler = fastsched.SequentialLR(optimizer, parts, milestones=[2])
    seen = []
    for loss in (9.0, 8.0, 7.0, 7.0, 7.0):
        optimizer.step()
        scheduler.step(loss)
        seen.append(float(optimizer.param_groups[0]["lr"]))
    assert seen == [0.5, 2.0, 3.0, 1.5, 0.75]  # from the initial learning rate on, with the milestone's metric
    with pytest.raises(ValueError, match=r"call step\(metrics\)"):
        scheduler.step()


def test_chained_it_takes_turns_with_another():
    optimizer = sgd([double(1.0)])
    chained = fastsched.ChainedScheduler(
        [
            fastsched.ExponentialLR(optimizer, 0.5),
            fastsched.GreedyLR(optimizer, patience=0, factor=0.5, max_lr=9.0),
        ]
    )
    seen = []
    for loss in (3.0, 3.0, 2.0):
        optimizer.step()
        chained.step(loss)
        seen.append(optimizer.param_groups[0]["lr"].item())
    assert seen == [1.0, 0.25, 0.25]


def test_looking_ahead_leaves_it_as_it_is():
    ours = fastsched.GreedyLR(sgd([0.5]), patience=0, factor=0.5)
    before = copy.deepcopy(ours.state_dict())
    ahead = fastsched.simulate(ours, 3, metrics=[3.0, 3.0, 3.0])
    assert ahead[:, 0].tolist() == [0.5, 1.0, 0.5, 0.25]
    assert ours.state_dict() == before


def test_verbose_says_what_changes(capsys):
    ours = fastsched.GreedyLR(sgd([0.5, 1.0]), patience=0, factor=0.5, verbose=True)
    ours.step(1.0)
    assert capsys.readouterr().out == "step 1: learning rate of param_groups[0] from 5.0000e-01 to 1.0000e+00\n"


def test_a_child_that_begins_anew_sees_what_the_chain_did_before():
    for kind in (float, double):
        optimizer = sgd([kind(1.0), kind(0.5)])
        decay = fastsched.ExponentialLR(optimizer, 0.5)
        greedy = fastsched.GreedyLR(optimizer, patience=0, factor=0.5, min_lr=0.25, max_lr=9.0, reset_start=1)
        chained = fastsched.ChainedScheduler([decay, greedy, fastsched.ExponentialLR(optimizer, 0.5)])
        seen = []
        for loss in (3.0, 3.0, 3.0):
            optimizer.step()
            chained.step(loss)
            seen.append([float(lr) for lr in group_lrs(chained)])
        # up by the first metric; the second leaves both at the bound only because of the decay, so it restarts
        assert seen[0] == [0.5, 0.25]
        assert seen[1] == [0.5, 0.25]
        assert greedy.best == 3.0
        assert seen[2] == [0.25, 0.125]


@pytest.mark.parametrize("kind", [float, double])
def test_some_groups_and_another_entry(kind):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "weight_decay": kind(0.5)} for _ in "ab"]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    ours = fastsched.GreedyLR(
        optimizer, patience=0, factor=0.5, min_lr=0.25, reset_start=1, param_name="weight_decay", groups=[1]
    )
    history = fastsched.History(ours)
    for loss in (1.0, 1.0, 1.0):
        ours.step(loss)
    rows = history.to_numpy()
    assert rows["lr"][:, 0].tolist() == [1.0, 0.5, 0.5]
    assert rows["best"].tolist() == [1.0, 1.0, float("inf")]
    assert rows["reductions"].tolist() == [0, 1, 1]  # it decides to reduce, and restarts instead
    assert [float(group["weight_decay"]) for group in optimizer.param_groups] == [0.5, 0.5]
    assert ours.state_dict()["param_name"] == "weight_decay"


@pytest.mark.parametrize("kind", [float, double])
def test_groups_that_are_taken_in_begin_anew_from_their_own(kind):
    ours = fastsched.GreedyLR(sgd([kind(0.5)]), patience=0, factor=0.5, min_lr=[0.25], max_lr=[1.0], reset_start=1)
    ours.step(1.0)
    ours.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": kind(0.3)})
    ours.add_groups()
    for loss in (1.0, 1.0):
        ours.step(loss)
    assert [float(lr) for lr in group_lrs(ours)] == [0.5, 0.3]


@pytest.mark.parametrize("kind", [float, double])
def test_a_step_is_skipped_where_the_optimizers_was(kind):
    ours = fastsched.GreedyLR(sgd([kind(0.5)]), patience=0, factor=0.5)
    ours.step(1.0, found_inf=torch.tensor(1.0))
    assert ours.last_epoch == 0
    ours.step(1.0, found_inf=torch.tensor(0.0))
    assert ours.last_epoch == 1
    ours.step(0.5, 7)
    assert ours.last_epoch == 7


def test_compiled_steps_are_the_same():
    torch._dynamo.reset()
    lr = double(0.5)
    arguments = {"patience": 0, "factor": 0.5, "min_lr": 0.25, "max_lr": 2.0, "reset_start": 2, "smooth": True}
    eager, ours = (fastsched.GreedyLR(sgd([one]), **arguments, window_size=2) for one in (double(0.5), lr))
    ours.step(double(4.0))
    eager.step(4.0)

    def work(loss):
        doubled = loss * 2
        ours.step(doubled)
        return doubled + 1

    compiled = torch.compile(work, backend="eager", fullgraph=True)
    for loss in (1.0, 2.0, 3.0, 3.0, 4.0, 4.0, 4.0, 4.0, 1.0):
        compiled(double(loss))
        eager.step(2 * loss)
        assert ours.state_dict() == eager.state_dict()
    assert group_lrs(ours)[0] is lr
    torch._dynamo.reset()


def test_in_capture_nothing_is_changed(monkeypatch):
    ours = fastsched.GreedyLR(sgd([torch.tensor(0.5)]), patience=0)
    before = ours.state_dict()
    monkeypatch.setattr("fastsched.engine.capture.in_capture", lambda: True)
    with pytest.raises(RuntimeError, match="load it before the capture"):
        ours.load_state_dict({**before, "patience": 3})
    assert ours.state_dict() == before


@settings(max_examples=settings.default.max_examples // 5)
@given(lrs=initial_lrs, kwargs=arguments, losses=metrics | phases)
def test_a_part_of_a_chain_is_transformers_too(lrs, kwargs, losses):
    theirs = transformers.GreedyLR(sgd(lrs), **kwargs)
    for kind in (float, double):
        optimizer = sgd([kind(lr) for lr in lrs])
        ours = fastsched.GreedyLR(optimizer, **kwargs)
        chained = fastsched.ChainedScheduler([ours, fastsched.ConstantLR(optimizer, 1.0)])
        reference = copy.deepcopy(theirs)
        optimizer.step()
        for loss in losses:
            reference.step(loss)
            chained.step(loss)
            assert [float(lr) for lr in group_lrs(ours)] == [float(lr) for lr in group_lrs(reference)]
            assert [float(getattr(ours, name)) for name in COUNTERS] == pytest.approx(
                [float(getattr(reference, name)) for name in COUNTERS], rel=0, abs=0, nan_ok=True
            )
