"""SequentialLR and ChainedScheduler: as torch where torch is right, plateau children, nesting."""

import copy
import pickle
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr_scheduler

import fastsched
from fastsched.engine.host import DETACHED, TensorEngine

from .configurations import CONFIGURATIONS, TORCH, tabulated
from .conftest import sgd
from .optimizers import stepped_sgd
from .trees import READ_METRICS, deep, grow, tree_of, trees
from .values import bits, double, everything, lrs
from .watching import Operators

children = st.lists(
    st.sampled_from(sorted(CONFIGURATIONS)).flatmap(lambda name: st.tuples(st.just(name), CONFIGURATIONS[name])),
    min_size=1,
    max_size=4,
)
spans = st.lists(st.integers(1, 8), min_size=3, max_size=3)


def build(module, kind, optimizer, parts, lengths):
    made = [
        getattr(module, name)(optimizer, **configuration, **tabulated(module, name)) for name, configuration in parts
    ]
    if kind == "chained":
        return module.ChainedScheduler(made)
    milestones = [sum(lengths[: i + 1]) for i in range(len(made) - 1)]
    return module.SequentialLR(optimizer, made, milestones)


def observed(scheduler):
    state = {key: bits(value) for key, value in scheduler.state_dict().items() if key != "_schedulers"}
    return state, bits(scheduler.get_last_lr()), [bits(lr) for lr in lrs(scheduler)]


@pytest.mark.parametrize("kind", ["sequential", "chained"])
@given(parts=children, lengths=spans, initial=st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=3))
def test_floats_are_bit_identical_to_torch(kind, parts, lengths, initial):
    theirs = build(TORCH, kind, stepped_sgd(initial), parts, lengths)
    ours = build(fastsched, kind, stepped_sgd(initial), parts, lengths)
    assert observed(ours) == observed(theirs)
    for _ in range(30):
        theirs.step()
        ours.step()
        assert observed(ours) == observed(theirs)


@pytest.mark.parametrize("kind", ["sequential", "chained"])
@given(
    parts=children,
    lengths=spans,
    initial=st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_tensors_follow_the_float_trajectory_rounded(kind, parts, lengths, initial, dtype):
    tensors = [torch.tensor(lr, dtype=dtype) for lr in initial]
    floats = [float(lr) for lr in tensors]
    theirs = build(TORCH, kind, stepped_sgd(floats), parts, lengths)
    ours = build(fastsched, kind, stepped_sgd(tensors), parts, lengths)
    for _ in range(30):
        expected = torch.tensor(lrs(theirs), dtype=dtype).tolist()
        assert lrs(ours) == expected
        assert [lr.item() for lr in ours.get_last_lr()] == expected
        theirs.step()
        ours.step()


either_kind = pytest.mark.parametrize(
    "kind", [float, lambda lr: torch.tensor(lr, dtype=torch.float64)], ids=["float", "tensor"]
)


@either_kind
def test_warm_up_then_plateau(kind):
    optimizer = stepped_sgd([kind(1.0)])
    plateau = fastsched.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
    warm_up = fastsched.LinearLR(optimizer, start_factor=0.25, total_iters=3)
    scheduler = fastsched.SequentialLR(optimizer, [warm_up, plateau], milestones=[3])
    seen = []
    for metric in (9.0, 8.0, 5.0, 5.0, 5.0, 4.0, 6.0, 6.0):
        seen.append(lrs(scheduler)[0])
        assert [float(lr) for lr in scheduler.get_last_lr()] == lrs(scheduler)
        scheduler.step(kind(metric))
    # 3 steps of warm-up, the plateau begins with the third metric, then two bad epochs each time
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.5, 0.5])
    assert lrs(scheduler) == [0.25]
    assert plateau.best == 4.0


@either_kind
def test_a_plateau_begins_from_the_initial_lr_without_a_metric_too(kind):
    optimizer = stepped_sgd([kind(1.0)])
    warm_up = fastsched.LinearLR(optimizer, start_factor=0.25, end_factor=0.5, total_iters=3)
    plateau = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scheduler = fastsched.SequentialLR(optimizer, [warm_up, plateau], milestones=[2])
    with pytest.warns(UserWarning, match="without a metric"):
        scheduler.step()
    scheduler.step()
    assert lrs(scheduler) == [1.0]
    assert [float(lr) for lr in scheduler.get_last_lr()] == [1.0]


@either_kind
def test_a_missing_metric_is_an_error_and_changes_nothing(kind):
    optimizer = stepped_sgd([kind(1.0)])
    parts = [fastsched.ExponentialLR(optimizer, 0.5), fastsched.ReduceLROnPlateau(optimizer)]
    chain = fastsched.ChainedScheduler(parts)
    sequence = fastsched.SequentialLR(optimizer, [fastsched.ConstantLR(optimizer), chain], milestones=[1])
    with pytest.warns(UserWarning, match="without a metric"):
        sequence.step()
    before = copy.deepcopy(sequence.state_dict()), lrs(sequence)
    for composite in (chain, sequence):
        with pytest.raises(ValueError, match=rf"{type(composite).__name__}.step\(\) steps a ReduceLROnPlateau now"):
            composite.step()
    assert (sequence.state_dict(), lrs(sequence)) == before


def metric_warning():
    return pytest.warns(UserWarning, match=r"SequentialLR.step\(\) was called without a metric, and has a ReduceLROnP")


@either_kind
@pytest.mark.parametrize("nested", [False, True])
def test_the_first_step_without_a_metric_warns_if_a_plateau_is_to_come(kind, nested):
    optimizer = stepped_sgd([kind(1.0)])
    parts = [fastsched.ExponentialLR(optimizer, 0.5), fastsched.ReduceLROnPlateau(optimizer)]
    if nested:
        parts[1] = fastsched.ChainedScheduler([fastsched.ConstantLR(optimizer), parts[1]])
    scheduler = fastsched.SequentialLR(optimizer, parts, milestones=[4])
    scheduler.step(metrics=1.0)
    with metric_warning() as caught:
        scheduler.step()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    scheduler.step()
    pickle.loads(pickle.dumps(scheduler)).step()  # has warned as well
    scheduler.step(metrics=1.0)
    with pytest.raises(ValueError, match="needs its metric"):
        scheduler.step()


@either_kind
def test_composites_that_python_steps_warn_once(kind):
    optimizer = stepped_sgd([kind(1.0)])
    inner = fastsched.SequentialLR(
        optimizer, [fastsched.ExponentialLR(optimizer, 0.5), fastsched.ReduceLROnPlateau(optimizer)], milestones=[5]
    )
    torchs = torch_lr_scheduler.ConstantLR(optimizer, 1.0)
    scheduler = fastsched.SequentialLR(optimizer, [fastsched.ChainedScheduler([inner, torchs])], milestones=[])
    with metric_warning() as caught:
        scheduler.step()
    assert len(caught) == 1
    scheduler.step()


@either_kind
def test_no_metric_is_missed_after_the_plateaus_turn(kind):
    optimizer = stepped_sgd([kind(1.0)])
    parts = [fastsched.ReduceLROnPlateau(optimizer), fastsched.ExponentialLR(optimizer, 0.5)]
    scheduler = fastsched.SequentialLR(optimizer, parts, milestones=[2])
    scheduler.step(1.0)
    scheduler.step()
    scheduler.step()
    assert lrs(scheduler) == [0.5]


@either_kind
def test_a_metric_is_passed_once(kind):
    optimizer = stepped_sgd([kind(1.0)])
    plateau = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    chain = fastsched.ChainedScheduler([fastsched.ConstantLR(optimizer, 1.0), plateau])
    for scheduler in (plateau, chain):
        with pytest.raises(TypeError, match="metrics"):
            scheduler.step(1.0, metrics=2.0)
    assert plateau.last_epoch == 0
    chain.step(metrics=1.0)
    plateau.step(metrics=kind(2.0))
    assert (plateau.best, lrs(chain)) == (1.0, [0.5])


resumable = trees.filter(lambda tree: not any(name in str(tree) for name in READ_METRICS))


@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["float", "tensor"])
@settings(max_examples=settings.default.max_examples // 5)
@given(tree=resumable, steps=st.integers(1, 14), made_with_it=st.booleans())
def test_a_composition_begins_where_a_run_was(kind, tree, steps, made_with_it):
    """Decided by the number of steps alone, whatever the optimizer's learning rates are by then."""
    whole = grow(stepped_sgd([kind(0.5), kind(0.25)]), tree)
    for _ in range(steps):
        whole.step()
    optimizer = stepped_sgd([kind(0.5), kind(0.25)])
    parts = grow(optimizer, tree)
    for _ in range(3 * made_with_it):  # children need not be new
        parts.step()
    for group in optimizer.param_groups:  # what an optimizer's checkpoint has
        group["lr"].fill_(0.125) if kind is torch.tensor else group.update(lr=0.125)
    if isinstance(parts, fastsched.ChainedScheduler):
        resumed = fastsched.ChainedScheduler(parts._schedulers, last_epoch=steps - 1)
    else:
        resumed = fastsched.SequentialLR(optimizer, parts._schedulers, parts._milestones, last_epoch=steps - 1)
    for _ in range(6):
        ours, theirs = (
            [lrs(scheduler), [float(lr) for lr in scheduler.get_last_lr()], epochs_of(scheduler)]
            for scheduler in (resumed, whole)
        )
        assert bits(ours) == bits(theirs)
        resumed.step()
        whole.step()


def test_warm_restarts_begin_with_their_first_cycle_wherever_they_were():
    whole, optimizer = (stepped_sgd([0.5]) for _ in range(2))

    def parts_of(optimizer):
        restarts = fastsched.CosineAnnealingWarmRestarts(optimizer, 1, T_mult=2)
        return [fastsched.ExponentialLR(optimizer, 1.0), restarts]

    whole = fastsched.SequentialLR(whole, parts_of(whole), [1])
    used = fastsched.SequentialLR(optimizer, parts_of(optimizer), [1])
    for _ in range(3):
        used.step()
    whole.step()
    resumed = fastsched.SequentialLR(optimizer, used._schedulers, [1], last_epoch=0)
    for _ in range(6):
        assert lrs(resumed) == lrs(whole)
        resumed.step()
        whole.step()


def epochs_of(scheduler):
    epochs = [getattr(part, "last_epoch", None) for part in tree_of(scheduler)]
    return [None if epoch is None or epoch < 0 else epoch for epoch in epochs]  # below 0: has not begun


@either_kind
def test_beginning_in_the_middle_warns_of_nothing_and_raises_where_a_metric_is_missing(kind):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=kind(1.0))
    warm_up = fastsched.LinearLR(optimizer, 0.5, total_iters=2)
    plateau = fastsched.ReduceLROnPlateau(optimizer)
    scheduler = fastsched.SequentialLR(optimizer, [warm_up, plateau], milestones=[3], last_epoch=1)
    assert (scheduler.last_epoch, lrs(scheduler)) == (2, [1.0])
    assert plateau.last_epoch == 0
    optimizer.step()
    with metric_warning():
        scheduler.step()
    before = lrs(scheduler)
    for composite in (
        lambda: fastsched.SequentialLR(optimizer, [warm_up, plateau], [3], last_epoch=2),
        lambda: fastsched.SequentialLR(optimizer, [plateau, warm_up], [3], last_epoch=0),
        lambda: fastsched.ChainedScheduler([warm_up, plateau], last_epoch=0),
    ):
        with pytest.raises(ValueError, match=r"last_epoch=\d: a ReduceLROnPlateau has its turn by then"):
            composite()
    assert (lrs(scheduler), warm_up.last_epoch) == (before, 2)


def test_torch_begins_with_another_lr():
    def build(module, **more):
        optimizer = stepped_sgd([1.0])
        parts = [module.ConstantLR(optimizer, 0.5, total_iters=9), module.ExponentialLR(optimizer, 0.5)]
        return module.SequentialLR(optimizer, parts, milestones=[2], **more)

    runs = [build(module) for module in (torch_lr_scheduler, fastsched)]
    for run in runs:
        for _ in range(4):
            run.step()
    assert lrs(runs[0]) == lrs(runs[1]) == [0.25]
    assert lrs(build(fastsched, last_epoch=3)) == [0.25]
    assert lrs(build(torch_lr_scheduler, last_epoch=3)) == [0.5]


@either_kind
def test_a_plateau_in_a_chain(kind):
    optimizer = stepped_sgd([kind(1.0)])
    decay = fastsched.ExponentialLR(optimizer, 0.5)
    plateau = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.1)
    scheduler = fastsched.ChainedScheduler([decay, plateau])
    scheduler.step(3.0)
    assert lrs(scheduler) == [0.5]
    scheduler.step(4.0)
    assert lrs(scheduler) == pytest.approx([0.025])
    assert [float(lr) for lr in scheduler.get_last_lr()] == lrs(scheduler)


@either_kind
def test_a_sequence_nested_first_does_not_run_ahead(kind):
    """torch advances a composite that is first in a sequence one step too many."""

    def flat(optimizer):
        parts = [fastsched.ConstantLR(optimizer, factor, 100) for factor in (0.5, 0.25, 0.125)]
        return fastsched.SequentialLR(optimizer, parts, milestones=[2, 4])

    def nested(optimizer):
        parts = [fastsched.ConstantLR(optimizer, factor, 100) for factor in (0.5, 0.25, 0.125)]
        inner = fastsched.SequentialLR(optimizer, parts[:2], milestones=[2])
        return fastsched.SequentialLR(optimizer, [inner, parts[2]], milestones=[4])

    schedulers = [make(stepped_sgd([kind(1.0)])) for make in (flat, nested)]
    for _ in range(6):
        assert lrs(schedulers[0]) == lrs(schedulers[1])
        for scheduler in schedulers:
            scheduler.step()
    assert lrs(schedulers[1]) == [0.125]


@either_kind
def test_composites_nested_later_begin_at_their_milestone(kind):
    """torch raises NotImplementedError there."""
    optimizer = stepped_sgd([kind(1.0)])
    inner = fastsched.SequentialLR(
        optimizer,
        [fastsched.LinearLR(optimizer, 0.5, total_iters=2), fastsched.ExponentialLR(optimizer, 0.5)],
        milestones=[2],
    )
    chain = fastsched.ChainedScheduler(
        [fastsched.ConstantLR(optimizer, 0.5, 2), fastsched.ExponentialLR(optimizer, 0.1)]
    )
    first = fastsched.ConstantLR(optimizer, 0.125, 100)
    scheduler = fastsched.SequentialLR(optimizer, [first, inner, chain], milestones=[2, 6])
    seen = []
    for _ in range(9):
        seen.append(lrs(scheduler)[0])
        scheduler.step()
    expected = [0.125, 0.125, 0.5, 0.75, 1.0, 0.5, 0.5, 0.05, 0.01]
    assert seen == pytest.approx(expected)


@either_kind
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_checkpoints_and_copies(kind, duplicate):
    def make():
        optimizer = stepped_sgd([kind(1.0)])
        parts = [fastsched.LinearLR(optimizer, total_iters=4), fastsched.ReduceLROnPlateau(optimizer, patience=0)]
        return fastsched.SequentialLR(optimizer, parts, milestones=[4])

    through = make()
    for _ in range(6):
        through.step(1.0)
    resumed = make()
    resumed.optimizer.load_state_dict(copy.deepcopy(through.optimizer.state_dict()))
    resumed.load_state_dict(copy.deepcopy(through.state_dict()))
    twin = duplicate(through)
    for scheduler in (through, resumed, twin):
        for _ in range(3):
            scheduler.step(2.0)
    assert lrs(resumed) == lrs(twin) == lrs(through)
    assert resumed.state_dict() == twin.state_dict() == through.state_dict()


def test_state_dicts_load_into_torchs_and_back():
    parts = [("LinearLR", {"total_iters": 4}), ("ExponentialLR", {"gamma": 0.5})]
    theirs = build(TORCH, "sequential", stepped_sgd([1.0]), parts, [4])
    ours = build(fastsched, "sequential", stepped_sgd([1.0]), parts, [4])
    for _ in range(3):
        theirs.step()
    ours.optimizer.load_state_dict(theirs.optimizer.state_dict())
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    fresh = build(TORCH, "sequential", stepped_sgd([1.0]), parts, [4])
    fresh.optimizer.load_state_dict(ours.optimizer.state_dict())
    fresh.load_state_dict(copy.deepcopy(ours.state_dict()))
    for _ in range(5):
        for scheduler in (theirs, ours, fresh):
            scheduler.step()
        assert lrs(ours) == lrs(theirs) == lrs(fresh)


def test_torchs_own_schedulers_may_be_children():
    optimizer = stepped_sgd([1.0])
    parts = [
        torch_lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch),
        torch_lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5),
    ]
    scheduler = fastsched.SequentialLR(optimizer, parts, milestones=[2])
    for _ in range(4):
        scheduler.step(1.0)
    assert lrs(scheduler) == [0.25]


@pytest.mark.parametrize("kind", [fastsched.ChainedScheduler, fastsched.SequentialLR])
def test_what_cannot_be_composed_is_refused(kind):
    optimizer, other = sgd([1.0]), sgd([1.0])

    def make(schedulers, milestones=()):
        if kind is fastsched.ChainedScheduler:
            return kind(schedulers)
        return kind(optimizer, schedulers, list(milestones))

    with pytest.raises(ValueError, match="expects at least one scheduler"):
        make([])
    with pytest.raises(TypeError, match=r"schedulers\[1\] has no attribute `optimizer`"):
        make([fastsched.StepLR(optimizer, 1), object()], [1])
    with pytest.raises(ValueError, match=r"schedulers\[1\], a StepLR, belongs to another optimizer"):
        make([fastsched.StepLR(optimizer, 1), fastsched.StepLR(other, 1)], [1])


def test_a_wrong_number_of_milestones_is_refused():
    optimizer = sgd([1.0])
    with pytest.raises(ValueError, match="one milestone fewer than schedulers, but got 2 milestones for 1 schedulers"):
        fastsched.SequentialLR(optimizer, [fastsched.StepLR(optimizer, 1)], [1, 2])


def test_they_are_torchs_classes():
    optimizer = sgd([1.0])
    for scheduler in (
        fastsched.SequentialLR(optimizer, [fastsched.StepLR(optimizer, 1)], []),
        fastsched.ChainedScheduler([fastsched.StepLR(optimizer, 1)]),
    ):
        assert isinstance(scheduler, getattr(torch_lr_scheduler, type(scheduler).__name__))
        for name in ("__call__", "__len__", "__bool__", "total_steps"):
            assert not hasattr(scheduler, name)


class PlainSequentialLR(fastsched.SequentialLR):
    """Steps its children in Python, whatever the learning rates are."""

    def _decides_natively(self):
        return False


class PlainChainedScheduler(fastsched.ChainedScheduler):
    def _decides_natively(self):
        return False


PLAIN = SimpleNamespace(SequentialLR=PlainSequentialLR, ChainedScheduler=PlainChainedScheduler)


def message_of(scheduler, metric):
    """What a step raises if it needs a metric and has none."""
    try:
        scheduler.step(metric)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore:.*without a metric")
@given(
    tree=trees,
    initial=st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=3),
    metrics=st.lists(st.none() | st.sampled_from([1.0, 2.0, 3.0, float("nan")]), min_size=12, max_size=12),
)
def test_one_program_does_what_python_does_child_by_child(tree, initial, metrics):
    """They share next to nothing but the schedules."""
    by_python = grow(stepped_sgd(initial), tree, PLAIN)
    by_host = grow(stepped_sgd(initial), tree)
    by_program = grow(stepped_sgd([torch.tensor(lr, dtype=torch.float64) for lr in initial]), tree)
    for metric in metrics:
        assert isinstance(by_program._engine, TensorEngine)
        assert by_python._engine is DETACHED
        assert by_host._engine.kind == "host"
        assert bits(everything(by_program)) == bits(everything(by_python))
        assert bits(everything(by_host)) == bits(everything(by_python))
        failures = [message_of(scheduler, metric) for scheduler in (by_host, by_program, by_python)]
        assert failures[0] == failures[1] == (failures[2] and failures[2].replace("Plain", ""))


def leaf(scheduler, number):
    """One of the schedulers in it that are not compositions."""
    leaves = [each for each in schedulers_in(scheduler) if not hasattr(each, "_schedulers")]
    return leaves[number % len(leaves)]


def schedulers_in(scheduler):
    yield scheduler
    for child in getattr(scheduler, "_schedulers", ()):
        yield from schedulers_in(child)


def set_a_setting(scheduler, number, value):
    one = leaf(scheduler, number)
    for name in ("gamma", "factor", "end_factor", "eta_min", "power"):
        if hasattr(one, name):
            setattr(one, name, value)
            return


def step_alone(scheduler, number, value):
    one = leaf(scheduler, number)
    one.step(*([value] if hasattr(one, "best") else []))


def write_an_lr(scheduler, number, value):
    groups = scheduler.optimizer.param_groups
    groups[number % len(groups)]["lr"] = value


def write_an_epoch(scheduler, number, _):
    leaf(scheduler, number).last_epoch = number


def write_a_base(scheduler, number, value):
    one = leaf(scheduler, number)
    if hasattr(one, "base_lrs"):
        one.base_lrs[number % len(one.base_lrs)] = value


def have_a_step_of_its_own(scheduler, number, _):
    one = leaf(scheduler, number)
    if "step" in one.__dict__:
        del one.step
    else:
        one.step = type(one).step.__get__(one)


def attach_a_history(scheduler, number, _):
    one = leaf(scheduler, number)
    if one._history is None:
        one.kept_alive = fastsched.History(one)


def load_its_own_state(scheduler, *_):
    scheduler.load_state_dict(scheduler.state_dict())


def put_another_list_there(scheduler, *_):
    scheduler._schedulers = list(scheduler._schedulers)


def swap_children(scheduler, *_):
    scheduler._schedulers[:] = scheduler._schedulers[::-1]


def add_a_group(scheduler, number, value):
    parameter = torch.nn.Parameter(torch.zeros(1))
    scheduler.optimizer.add_param_group({"params": [parameter], "lr": value})
    scheduler.add_groups()


DISTURBANCES = (
    set_a_setting,
    step_alone,
    write_an_lr,
    write_an_epoch,
    write_a_base,
    have_a_step_of_its_own,
    attach_a_history,
    load_its_own_state,
    put_another_list_there,
    swap_children,
    add_a_group,
    lambda scheduler, *_: scheduler.__dict__,
)


def outcome_of(function, *arguments):
    """The type of the exception."""
    try:
        function(*arguments)
    except Exception as error:
        return type(error)
    return None


@pytest.mark.filterwarnings("ignore:.*without a metric", "ignore:Detected call of", "ignore:Seems like")
@given(
    tree=trees,
    initial=st.lists(st.floats(1e-3, 10.0) | st.integers(1, 2), min_size=1, max_size=3),
    disturbances=st.lists(
        st.tuples(st.sampled_from(DISTURBANCES), st.integers(0, 7), st.sampled_from([0.5, 0.25, 2, 0.125])),
        max_size=8,
    ),
    steps=st.lists(st.integers(1, 4), min_size=8, max_size=8),
)
def test_one_engine_follows_what_happens_to_the_schedulers_in_it(tree, initial, disturbances, steps):
    """As in Python, which calls each child at each step."""
    by_python = grow(stepped_sgd(initial), tree, PLAIN)
    by_host = grow(stepped_sgd(initial), tree)
    for (disturb, number, value), count in zip([*disturbances, (lambda *_: None, 0, 0.0)], steps, strict=False):
        for metric in (1.0, 2.0, 1.5, 2.0)[:count]:
            assert outcome_of(by_host.step, metric) == outcome_of(by_python.step, metric)
            assert bits(everything(by_host)) == bits(everything(by_python))
        disturbed = [outcome_of(disturb, scheduler, number, value) for scheduler in (by_host, by_python)]
        assert disturbed[0] == disturbed[1]
        assert bits(everything(by_host)) == bits(everything(by_python))


@pytest.mark.parametrize("groups", [1, 70])
@pytest.mark.parametrize("depth", [0, 1, 5])
def test_a_composition_is_one_operator_call(device, depth, groups):
    optimizer = stepped_sgd([torch.tensor(0.5, device=device) for _ in range(groups)])
    scheduler = deep(optimizer, depth)
    metric = torch.tensor(1.0, device=device)
    scheduler.step(metric)
    for _ in range(6):
        with Operators() as seen:
            scheduler.step(metric)
        # Initial and base learning rates are tensors here, which may be written to: one copy for all of them.
        calls = [call for call in seen.calls if call is not torch.ops.aten.slice.Tensor]
        assert calls == [torch.ops.aten._foreach_copy_.default, torch.ops.fastsched.step_.default]


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_a_compiled_composition_is_one_graph(depth):
    torch._dynamo.reset()
    oracle = deep(stepped_sgd([0.5]), depth)
    scheduler = deep(stepped_sgd([torch.tensor(0.5)]), depth)
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda metric: scheduler.step(metric), fullgraph=True, backend=frames)
    for i in range(12):
        oracle.step(5.0 - i % 3)
        compiled(torch.tensor(5.0 - i % 3))
        assert lrs(scheduler) == torch.tensor(lrs(oracle)).tolist()
        assert [lr.item() for lr in scheduler.get_last_lr()] == lrs(scheduler)
    assert frames.frame_count == 1
    torch._dynamo.reset()


def test_a_compiled_composition_with_a_plateau_wants_a_metric():
    scheduler = deep(stepped_sgd([torch.tensor(0.5)]), 0)
    scheduler.step(1.0)
    with pytest.raises(Exception, match=r"SequentialLR.step\(\) has a ReduceLROnPlateau in it: call step\(metrics\)"):
        torch.compile(lambda: scheduler.step(), fullgraph=True, backend="eager")()
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "write",
    [
        lambda scheduler: setattr(scheduler._schedulers[0], "total_iters", 6),
        lambda scheduler: setattr(scheduler._schedulers[1], "factor", 0.75),
        lambda scheduler: setattr(scheduler, "last_epoch", 1),
        lambda scheduler: setattr(scheduler._schedulers[0], "last_epoch", 0),
        lambda scheduler: scheduler._milestones.__setitem__(0, 5),
        lambda scheduler: scheduler._schedulers[0].base_lrs.__setitem__(0, 0.25),
        lambda scheduler: scheduler._schedulers[0].step(),
        lambda scheduler: scheduler._schedulers[0]._detach(),
        lambda scheduler: scheduler._schedulers.__setitem__(1, fastsched.ExponentialLR(scheduler.optimizer, 0.9)),
        lambda scheduler: scheduler.load_state_dict(copy.deepcopy(scheduler.state_dict())),
        lambda scheduler: scheduler.__dict__.update(last_epoch=0),
        lambda scheduler: scheduler.optimizer.add_param_group(
            {
                "params": [torch.nn.Parameter(torch.zeros(1))],
                "lr": scheduler.optimizer.param_groups[0]["lr"] * 1,
                "initial_lr": 0.125,
            }
        ),
        lambda scheduler: scheduler.optimizer.param_groups[0].update(lr=scheduler.optimizer.param_groups[0]["lr"] / 2),
        lambda scheduler: scheduler.optimizer.param_groups[0].update(initial_lr=0.75),
        lambda scheduler: fastsched.ChainedScheduler([scheduler]).step(1.0),
        lambda scheduler: copy.deepcopy(scheduler).step(1.0),
    ],
)
@pytest.mark.parametrize("at", [1, 3, 5])
def test_interference_with_a_composition(write, at):
    def run(kind):
        scheduler = deep(stepped_sgd([kind(0.5)]), 0)
        seen = []
        for i in range(10):
            if i == at:
                write(scheduler)
            scheduler.step(1.0)
            seen.append((lrs(scheduler), [float(lr) for lr in scheduler.get_last_lr()]))
        return seen, scheduler

    floats, _ = run(float)
    doubles, scheduler = run(lambda lr: torch.tensor(lr, dtype=torch.float64))
    assert isinstance(scheduler._engine, TensorEngine)
    assert bits(doubles) == bits(floats)


def test_a_scheduler_that_is_in_it_twice_is_stepped_twice():
    for kind in (float, torch.tensor):
        decay = fastsched.ExponentialLR(stepped_sgd([kind(1.0)]), 0.5)
        chain = fastsched.ChainedScheduler([decay, fastsched.ChainedScheduler([decay])])
        chain.step()
        assert lrs(chain) == [0.25]
        assert decay.last_epoch == 2


@pytest.mark.parametrize("name", ["StepLR", "ExponentialLR"])
def test_a_child_with_code_of_its_own_is_asked(name):
    asked = []

    class Own(getattr(fastsched, name)):
        def step(self, epoch=None):
            asked.append(epoch)
            super().step(epoch)

    optimizer = stepped_sgd([torch.tensor(1.0)])
    arguments = {"step_size": 1} if name == "StepLR" else {"gamma": 0.1}
    chain = fastsched.ChainedScheduler([Own(optimizer, **arguments)])
    asked.clear()
    chain.step()
    assert asked == [None]
    assert lrs(chain) == pytest.approx([0.1])


def test_a_refused_state_leaves_every_child_as_it_was():
    scheduler = deep(stepped_sgd([0.5]), 0)
    scheduler.step(1.0)
    before = copy.deepcopy(scheduler.state_dict())
    other = copy.deepcopy(before)
    other["_schedulers"][0]["last_epoch"] = 7
    del other["_schedulers"][1]["best"]
    with pytest.raises(KeyError, match=r"state_dict\['_schedulers'\]\[1\] has no 'best'"):
        scheduler.load_state_dict(other)
    with pytest.raises(ValueError, match="1 states for 2 schedulers"):
        scheduler.load_state_dict({**before, "_schedulers": before["_schedulers"][:1]})
    assert scheduler.state_dict() == before


def replace_the_next(scheduler):
    scheduler._schedulers[1] = fastsched.ExponentialLR(scheduler.optimizer, 0.1)


def clear(scheduler):
    scheduler._schedulers.clear()


def append(scheduler):
    scheduler._schedulers.append(type(scheduler._schedulers[1])(scheduler.optimizer, 0.1))


@pytest.mark.parametrize("act", [replace_the_next, clear, append])
def test_children_may_be_exchanged_while_they_are_stepped(act):
    def run(module):
        made = []

        def function(epoch):
            if made and epoch == 2:
                act(made[0])
            return 0.5

        optimizer = stepped_sgd([0.1])
        made.append(
            module.ChainedScheduler([module.LambdaLR(optimizer, function), module.ExponentialLR(optimizer, 0.9)])
        )
        return [(outcome_of(made[0].step), lrs(made[0])) for _ in range(3)]

    assert run(fastsched) == run(TORCH)


@either_kind
@pytest.mark.parametrize("take_out", ["all", "the last"])
@pytest.mark.parametrize("composition", ["sequential", "chained"])
def test_a_step_without_the_child_whose_turn_it_is_raises_as_torchs(composition, take_out, kind):
    def run(module, of):
        optimizer = stepped_sgd([of(0.5)])
        parts = [module.LinearLR(optimizer, total_iters=3), module.ExponentialLR(optimizer, 0.5)]
        in_a_sequence = composition == "sequential"
        inner = module.SequentialLR(optimizer, parts, [2]) if in_a_sequence else module.ChainedScheduler(parts)
        scheduler = module.ChainedScheduler([inner])
        seen = []
        for step in range(6):
            if step == 4:
                del parts[0 if take_out == "all" else -1 :]
            raised = outcome_of(scheduler.step)
            seen.append(
                (raised, lrs(scheduler), [[float(lr) for lr in each.get_last_lr()] for each in (inner, scheduler)])
            )
        return seen

    assert run(fastsched, kind) == run(TORCH, float)


@either_kind
@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("place", ["sequential", "chained", "in a chain", "last in a chain"])
def test_a_compositions_own_optimizer_may_be_exchanged(place, groups, kind):
    """Nothing comes of it, as in torch, unless a chain ends with it: that reads its learning rates from there."""

    def run(module, of):
        optimizer, other = stepped_sgd([of(0.5), of(0.25)]), stepped_sgd([of(8.0)] * groups)
        parts = [module.LinearLR(optimizer, total_iters=3), module.ExponentialLR(optimizer, 0.5)]
        inner = module.SequentialLR(optimizer, parts, [3]) if place == "sequential" else module.ChainedScheduler(parts)
        order = [inner, module.StepLR(optimizer, 2)][:: -1 if place == "last in a chain" else 1]
        scheduler = module.ChainedScheduler(order) if "in a chain" in place else inner
        watched = [*parts, inner, scheduler]
        if place == "last in a chain" and kind is not float:
            del watched[-1]  # what lies in tensors is what the last child says
        seen = []
        for step in range(6):
            if step == 1:
                inner.optimizer = other
            scheduler.step()
            lasts = [[float(lr) for lr in each.get_last_lr()] for each in watched]
            seen.append((lasts, [float(group["lr"]) for each in (optimizer, other) for group in each.param_groups]))
        return seen

    assert run(fastsched, kind) == run(TORCH, float)


@either_kind
@pytest.mark.parametrize("milestones", [[1, 2, 3, 4], [4, 5, 6, 100]])
def test_more_milestones_than_children_are_torchs_error(kind, milestones):
    def run(module, of):
        optimizer = stepped_sgd([of(0.5)])
        parts = [module.ConstantLR(optimizer, 0.5), module.ExponentialLR(optimizer, 0.5)]
        scheduler = module.SequentialLR(optimizer, parts, milestones=[2])
        state = scheduler.state_dict()
        scheduler.load_state_dict({**state, "_milestones": milestones})
        seen = []
        for _ in range(8):
            try:
                scheduler.step()
            except IndexError:
                seen.append("IndexError")
            seen.append((lrs(scheduler), scheduler.last_epoch))
        return seen

    assert run(fastsched, kind) == run(TORCH, float)


@either_kind
def test_a_patched_step_of_a_child_is_called(kind):
    optimizer = stepped_sgd([kind(1.0)])
    first = fastsched.ExponentialLR(optimizer, 0.5)
    scheduler = fastsched.ChainedScheduler([first, fastsched.ConstantLR(optimizer)])
    scheduler.step()
    called = []
    first.step = lambda: called.append(1)
    scheduler.step()
    scheduler.step()
    assert called == [1, 1]
    assert lrs(scheduler) == pytest.approx([0.5 / 3])


@either_kind
def test_warm_restarts_keep_their_place_when_a_sequence_comes_to_them(kind):
    def run(module, of):
        optimizer = stepped_sgd([of(0.5)])
        restarts = module.CosineAnnealingWarmRestarts(optimizer, 5)
        restarts.step()
        restarts.step()
        scheduler = module.SequentialLR(optimizer, [module.ExponentialLR(optimizer, 0.9), restarts], milestones=[2])
        seen = []
        for _ in range(5):
            scheduler.step()
            seen.append(lrs(scheduler))
        return seen

    assert run(fastsched, kind) == run(TORCH, float)


@either_kind
def test_a_metric_that_is_none_of_a_number_changes_nothing(kind):
    optimizer = stepped_sgd([kind(1.0)])
    parts = [fastsched.ExponentialLR(optimizer, 0.5), fastsched.ReduceLROnPlateau(optimizer)]
    scheduler = fastsched.ChainedScheduler(parts)
    with pytest.raises(ValueError, match="could not convert"):
        scheduler.step("loss")
    assert lrs(scheduler) == [1.0]
    assert parts[0].last_epoch == 0


@either_kind
def test_a_metric_is_read_once_for_all_children(kind):
    class Metric:
        reads = 0

        def __float__(self):
            self.reads += 1
            return float(self.reads)

    optimizer = stepped_sgd([kind(1.0)])
    parts = [fastsched.ReduceLROnPlateau(optimizer) for _ in range(2)]
    metric = Metric()
    fastsched.ChainedScheduler(parts).step(metric)
    assert metric.reads == parts[0].best == parts[1].best == 1.0


@either_kind
def test_a_plateau_put_in_later_wants_its_metric_too(kind):
    optimizer = stepped_sgd([kind(1.0)])
    scheduler = fastsched.ChainedScheduler([fastsched.ExponentialLR(optimizer, 0.5), fastsched.ConstantLR(optimizer)])
    scheduler.step()
    before = lrs(scheduler)
    scheduler._schedulers[1] = fastsched.ReduceLROnPlateau(optimizer)
    with pytest.raises(ValueError, match="needs its metric"):
        scheduler.step()
    assert lrs(scheduler) == before


@either_kind
def test_a_child_with_torchs_signature_is_not_given_a_metric(kind):
    class Own(fastsched.ChainedScheduler):
        def step(self):
            super().step()

    optimizer = stepped_sgd([kind(1.0)])
    scheduler = fastsched.ChainedScheduler([Own([fastsched.ExponentialLR(optimizer, 0.5)])])
    scheduler.step()
    scheduler.step(3.0)
    assert lrs(scheduler) == [0.25]


def test_lrs_that_a_users_child_writes_are_the_chains_last():
    class Own(torch_lr_scheduler.LRScheduler):
        def step(self, epoch=None):
            self._last_lr = [None]
            for group in self.optimizer.param_groups:
                group["lr"] = 0.125

    scheduler = fastsched.ChainedScheduler([Own(stepped_sgd([1.0]))])
    scheduler.step()
    assert scheduler.get_last_lr() == [0.125]


def test_a_storage_that_moved_is_followed():
    """Sending a learning rate to another process moves its storage."""
    scheduler = fastsched.ExponentialLR(stepped_sgd([double(1.0), double(2.0)]), 0.5)
    scheduler.step()
    scheduler.optimizer.param_groups[0]["lr"].share_memory_()
    scheduler.step()
    assert lrs(scheduler) == [0.25, 0.5]
    scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": double(8.0)})
    scheduler.step()
    assert lrs(scheduler) == [0.125, 0.25, 4.0]


def test_warm_restarts_begin_in_float64_beside_a_child_that_python_steps():
    def run(module, lr):
        optimizer = stepped_sgd([lr])
        parts = [
            module.ConstantLR(optimizer, 0.6191966157521307, 12),
            module.CosineAnnealingWarmRestarts(optimizer, 10, eta_min=0.03125),
            module.CyclicLR(optimizer, 0.0, 1.0, step_size_up=7),  # cycles momentum, which is a number
        ]
        scheduler = module.SequentialLR(optimizer, parts, milestones=[3, 9])
        seen = []
        for _ in range(14):
            scheduler.step()
            seen += lrs(scheduler)
        return seen

    expected = torch.tensor(run(TORCH, torch.tensor(0.001).item())).tolist()
    assert run(fastsched, torch.tensor(0.001)) == expected


def outcomes(scheduler, steps):
    """What each step raises, and the state after it."""
    seen = []
    for _ in range(steps):
        raised = outcome_of(scheduler.step)
        seen.append((raised, observed(scheduler), [part.last_epoch for part in scheduler._schedulers]))
    return seen


@pytest.mark.parametrize("kind", ["sequential", "chained"])
@pytest.mark.parametrize("cycles", [True, False])
def test_what_steps_past_the_end_of_a_cycle_raises_in_a_composition_too(kind, cycles):
    def run(module):
        parts = [
            ("OneCycleLR", {"max_lr": 1.0, "total_steps": 4, "cycle_momentum": cycles}),
            ("ExponentialLR", {"gamma": 0.5}),
        ]
        return outcomes(build(module, kind, stepped_sgd([0.5]), parts, [20]), 7)

    ours = run(fastsched)
    assert ours == run(TORCH)
    assert [raised for raised, *_ in ours] == [None] * 4 + [ValueError] * 3


def order_warnings(function, *arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome_of(function, *arguments)
    return sum("before `optimizer.step()`" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("initial", [[0.5], [1]], ids=["float", "int"])
@pytest.mark.parametrize("kind", ["sequential", "chained"])
def test_each_schedulers_first_step_is_warned_of_once(kind, initial):
    def run(module):
        optimizer = sgd(initial)
        parts = [("ExponentialLR", {"gamma": 0.5}), ("StepLR", {"step_size": 2}), ("PolynomialLR", {})]
        scheduler = build(module, kind, optimizer, parts, [2, 2, 2])
        return [order_warnings(scheduler.step) for _ in range(8)]

    assert run(fastsched) == run(TORCH)


def test_a_child_of_another_library_that_came_later_looks_at_the_order_itself():
    optimizer = sgd([0.5])
    scheduler = fastsched.ChainedScheduler([fastsched.StepLR(optimizer, 2), fastsched.ExponentialLR(optimizer, 0.5)])
    scheduler._schedulers[1] = torch_lr_scheduler.ExponentialLR(optimizer, 0.5)
    assert order_warnings(scheduler.step) == 2
    assert order_warnings(scheduler.step) == 0


def test_a_child_that_begins_anew_makes_a_first_step_once_more():
    optimizer = sgd([0.5])
    decay = fastsched.ExponentialLR(optimizer, 0.5)
    chain = fastsched.ChainedScheduler([decay])
    scheduler = fastsched.SequentialLR(optimizer, [fastsched.ConstantLR(optimizer), chain], milestones=[2])
    assert [order_warnings(step) for step in (chain.step, *[scheduler.step] * 4)] == [1, 1, 0, 1, 0]


def test_an_int_that_a_bound_gave_stays_one_though_another_follows():
    def run(composites):
        optimizer = stepped_sgd([1])
        plateau = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.1, min_lr=1)
        cycle = fastsched.CyclicLR(optimizer, 0.5, 4.0, step_size_up=2, cycle_momentum=False)
        chain = composites.ChainedScheduler([plateau, cycle])
        seen = []
        for metric in (1.0, 2.0, 3.0, 4.0, 5.0):
            chain.step(metric)
            seen.append(bits([plateau.get_last_lr(), chain.get_last_lr(), optimizer.param_groups[0]["lr"]]))
        return seen

    assert run(fastsched) == run(PLAIN)
    assert bits([1]) in [seen[0] for seen in run(fastsched)]


def raise_an_error(*_):
    raise ArithmeticError


def look_at_dicts(scheduler, _):
    for part in schedulers_in(scheduler):
        assert part.__dict__


def load_the_state(scheduler, _):
    scheduler.load_state_dict(scheduler.state_dict())


def step_once_more(scheduler, _):
    scheduler.step()


def move_the_milestones(scheduler, _):
    for part in schedulers_in(scheduler):
        if hasattr(part, "_milestones"):
            part._milestones = [9 for _ in part._milestones]


def go_back(scheduler, _):
    for part in schedulers_in(scheduler):
        if hasattr(part, "_milestones"):
            part.last_epoch = 1


def take_children_out(scheduler, _):
    scheduler._schedulers.clear()


def another_of_functions(scheduler, optimizer):
    kind = next(type(part) for part in schedulers_in(scheduler) if hasattr(part, "lr_lambdas"))
    return kind(optimizer, lambda epoch: 0.75)


def put_a_child_in(scheduler, optimizer):
    scheduler._schedulers.append(another_of_functions(scheduler, optimizer))


def put_a_child_of_another_optimizer_in(scheduler, _):
    scheduler._schedulers = [another_of_functions(scheduler, stepped_sgd([3.0]))]


def have_another_list(scheduler, _):
    scheduler._schedulers = scheduler._schedulers[::-1]


def take_a_group_out(_, optimizer):
    del optimizer.param_groups[-1]


def put_a_group_in(_, optimizer):
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.25})


FUNCTIONS_THAT = (
    raise_an_error,
    look_at_dicts,
    load_the_state,
    step_once_more,
    move_the_milestones,
    go_back,
    have_another_list,
    take_children_out,
    put_a_child_in,
    put_a_child_of_another_optimizer_in,
    take_a_group_out,
    put_a_group_in,
)


@pytest.mark.parametrize("act", FUNCTIONS_THAT)
@pytest.mark.parametrize("name", ["LambdaLR", "MultiplicativeLR"])
@pytest.mark.parametrize("place", ["first", "second", "in a chain", "alone in a chain", "in a chain of two"])
def test_functions_may_do_anything_while_a_composition_steps_them(place, name, act):
    """Everything after is as in torch: a sequence uses the child that has stepped, a chain what is then in its list."""

    def run(module):
        optimizer = stepped_sgd([0.5, 0.25])
        made = []

        def function(epoch):
            if epoch == 3 and len(made) == 1:
                made.append(True)
                act(made[0], optimizer)
            return 0.9**epoch

        parts = [getattr(module, name)(optimizer, function), module.ExponentialLR(optimizer, 0.5)]
        if place == "second":
            parts.reverse()
        if place in ("alone in a chain", "in a chain of two"):
            scheduler = module.ChainedScheduler(parts[:1] if place == "alone in a chain" else parts)
        else:
            scheduler = module.SequentialLR(optimizer, parts, [2 if place == "second" else 5])
        if place == "in a chain":
            scheduler = module.ChainedScheduler([scheduler])
        made.append(scheduler)
        everything = list(schedulers_in(scheduler))
        seen = []
        for _ in range(8):
            raised = outcome_of(scheduler.step)
            seen.append((raised, bits([group["lr"] for group in optimizer.param_groups])))
            seen.append([bits(part.get_last_lr()) for part in everything])
        return seen

    assert run(fastsched) == run(TORCH)


@pytest.mark.parametrize("kind", ["sequential", "chained"])
def test_a_step_that_raises_leaves_a_compositions_last_lrs_as_they_were(kind):
    """As in torch, which notes them after the step."""

    def run(module):
        optimizer = stepped_sgd([0.5])
        functions = [lambda epoch: 0.9**epoch if epoch < 3 else 1 / 0]
        made = [module.ExponentialLR(optimizer, 0.5), module.LambdaLR(optimizer, functions)]
        scheduler = (
            module.ChainedScheduler(made) if kind == "chained" else module.SequentialLR(optimizer, made[::-1], [9])
        )
        return outcomes(scheduler, 5)

    ours = run(fastsched)
    assert ours == run(TORCH)
    assert ours[-1][0] is ZeroDivisionError
