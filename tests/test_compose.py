"""SequentialLR and ChainedScheduler: torch's where torch's are right, plateau children, nesting."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr_scheduler

import fastsched

from .conftest import sgd
from .test_epoch import CONFIGURATIONS
from .test_plateau_host import bits


def lrs(scheduler):
    return [float(group["lr"]) for group in scheduler.optimizer.param_groups]


def stepped_sgd(initial):
    """An optimizer that torch's check of the order of calls takes for one that has stepped."""
    optimizer = sgd(initial)
    optimizer._opt_called = True
    return optimizer


children = st.lists(
    st.sampled_from(sorted(CONFIGURATIONS)).flatmap(lambda name: st.tuples(st.just(name), CONFIGURATIONS[name])),
    min_size=1,
    max_size=4,
)
spans = st.lists(st.integers(1, 8), min_size=3, max_size=3)


def build(module, kind, optimizer, parts, lengths):
    made = [getattr(module, name)(optimizer, **configuration) for name, configuration in parts]
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
    theirs = build(torch_lr_scheduler, kind, stepped_sgd(initial), parts, lengths)
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
    theirs = build(torch_lr_scheduler, kind, stepped_sgd(floats), parts, lengths)
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
    sequence.step()
    before = copy.deepcopy(sequence.state_dict()), lrs(sequence)
    for composite in (chain, sequence):
        with pytest.raises(ValueError, match=rf"{type(composite).__name__}.step\(\) steps a ReduceLROnPlateau now"):
            composite.step()
    assert (sequence.state_dict(), lrs(sequence)) == before


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
    theirs = build(torch_lr_scheduler, "sequential", stepped_sgd([1.0]), parts, [4])
    ours = build(fastsched, "sequential", stepped_sgd([1.0]), parts, [4])
    for _ in range(3):
        theirs.step()
    ours.optimizer.load_state_dict(theirs.optimizer.state_dict())
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    fresh = build(torch_lr_scheduler, "sequential", stepped_sgd([1.0]), parts, [4])
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
