"""Schedules of entries other than the learning rate, of some groups, and of several optimizers."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import warnings
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched
from fastsched.engine.tensor import TensorEngine

from .configurations import CONFIGURATIONS, LONG, TORCH, make, tabulated
from .conftest import sgd
from .optimizers import stepped_sgd
from .trees import grow, plateaus, tree_of, trees
from .values import bits, everything, lrs
from .watching import Operators

ENTRIES = ("lr", "weight_decay", "momentum", "own")
KINDS = {"float": float, "float32": torch.float32, "float64": torch.float64}


def optimizer_of(kind=float, groups=3, entries=ENTRIES):
    """A different number, of this kind, for each entry of each group."""
    optimizer = stepped_sgd([0.1] * groups)
    for index, group in enumerate(optimizer.param_groups):
        for place, entry in enumerate(entries):
            number = 0.5 ** (1 + index + groups * place)  # exact in float32
            group[entry] = number if kind is float else torch.tensor(number, dtype=kind)
    return optimizer


def entries_of(optimizer):
    return {(i, entry): float(group[entry]) for i, group in enumerate(optimizer.param_groups) for entry in ENTRIES}


names = st.sampled_from(sorted({*CONFIGURATIONS, "ReduceLROnPlateau"})).flatmap(
    lambda name: st.tuples(st.just(name), plateaus if name == "ReduceLROnPlateau" else CONFIGURATIONS[name])
)


@given(
    schedule=names,
    entry=st.sampled_from(ENTRIES),
    chosen=st.none() | st.lists(st.integers(0, 2), min_size=1, unique=True),
    kind=st.sampled_from(sorted(KINDS)),
    metrics=st.lists(st.sampled_from([0.0, 1.0, 2.0, math.nan]), min_size=12, max_size=12),
)
def test_each_entry_is_scheduled_as_a_learning_rate_is(schedule, entry, chosen, kind, metrics):
    name, configuration = schedule
    if "cycle_momentum" in configuration:
        configuration = {**configuration, "cycle_momentum": False}
    optimizer, untouched = optimizer_of(KINDS[kind]), optimizer_of(KINDS[kind])
    driven = [0, 1, 2] if chosen is None else chosen
    before = [float(untouched.param_groups[index][entry]) for index in driven]
    more = tabulated(fastsched, name)
    ours = getattr(fastsched, name)(optimizer, **configuration, **more, param_name=entry, groups=chosen)
    if name == "ReduceLROnPlateau":
        theirs = TorchPlateau(stepped_sgd(before), **configuration)
    else:
        theirs = make(TORCH, name, before, configuration)
    dtype = torch.float32 if kind == "float32" else torch.float64
    theirs.optimizer._opt_called = True
    for metric in metrics:
        for scheduler in (ours, theirs):
            scheduler.step(metric) if name == "ReduceLROnPlateau" else scheduler.step()
        expected = [group["lr"] for group in theirs.optimizer.param_groups]
        now = entries_of(optimizer)
        if kind == "float":
            assert bits([optimizer.param_groups[index][entry] for index in driven]) == bits(expected)
            assert bits(ours.get_last_lr()) == bits(theirs.get_last_lr())
        else:
            rounded = torch.tensor(expected, dtype=dtype).tolist()
            assert [now[index, entry] for index in driven] == rounded
            assert [float(lr) for lr in ours.get_last_lr()] == rounded
        driving = {(index, entry) for index in driven}
        assert {key: value for key, value in now.items() if key not in driving} == {
            key: value for key, value in entries_of(untouched).items() if key not in driving
        }
    assert ours.param_name == entry
    assert isinstance(ours._engine, TensorEngine) is (kind != "float")


@settings(max_examples=40)
@given(tree=trees, data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_compositions_of_parts_step_alike_on_numbers_and_on_tensors(tree, data, dtype):
    some = st.none() | st.lists(st.integers(0, 2), min_size=1, unique=True)
    drawn = []

    def draw():
        drawn.append(data.draw(some))
        return drawn[-1]

    numbers = grow(optimizer_of(), tree, groups=draw)
    again = iter(drawn)
    tensors = grow(optimizer_of(dtype), tree, groups=lambda: next(again))
    for metric in (1.0, 0.5, 0.7, 0.7, 0.1, 0.2, 0.3):
        numbers.step(metric)
        tensors.step(metric)
        expected, found = lrs(numbers), lrs(tensors)
        assert found == torch.tensor(expected, dtype=dtype).tolist()
        if dtype is torch.float64:
            leaves = [[leaf for leaf in tree_of(one) if not hasattr(leaf, "_schedulers")] for one in (numbers, tensors)]
            assert [everything(leaf) for leaf in leaves[0]] == [everything(leaf) for leaf in leaves[1]]
    assert isinstance(tensors._engine, TensorEngine)


@pytest.mark.parametrize("composite", ["ChainedScheduler", "SequentialLR"])
def test_different_entries_in_a_composition_are_one_launch(composite):
    optimizer = optimizer_of(torch.float64)
    parts = [
        fastsched.StepLR(optimizer, 2, groups=[0]),
        fastsched.CosineAnnealingLR(optimizer, 9, param_name="weight_decay"),
        fastsched.LinearLR(optimizer, 0.5, param_name="momentum", groups=[1, 2]),
    ]
    if composite == "ChainedScheduler":
        scheduler = fastsched.ChainedScheduler(parts)
    else:
        scheduler = fastsched.SequentialLR(optimizer, parts, [2, 4])
    scheduler.step()
    with Operators() as operators:
        scheduler.step()
    assert isinstance(scheduler._engine, TensorEngine)
    launched = [call.overloadpacket for call in operators.calls if call.overloadpacket is not torch.ops.aten.slice]
    # Base values that are tensors of the user's are copied, because they may be written in place.
    assert launched == [torch.ops.aten._foreach_copy_, torch.ops.fastsched.step_]


def test_a_sequence_of_entries_does_each_in_its_turn():
    optimizer = optimizer_of()
    warm_up = fastsched.LinearLR(optimizer, 0.1, total_iters=2)
    decay = fastsched.ExponentialLR(optimizer, 0.5, param_name="own")
    scheduler = fastsched.SequentialLR(optimizer, [warm_up, decay], [2])
    seen = []
    for _ in range(4):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["own"]))
        scheduler.step()
    own = optimizer_of().param_groups[0]["own"]
    warm = [0.5 * 0.1, 0.5 * 0.55, 0.5 * 0.55, 0.5 * 0.55]  # the warm-up's last step is no longer its turn
    assert seen == [(pytest.approx(lr), own / (2 if step == 3 else 1)) for step, lr in enumerate(warm)]
    assert len(scheduler.get_last_lr()) == 6


@pytest.mark.parametrize("name", sorted({*LONG, "ReduceLROnPlateau"} - {"LambdaLR", "MultiplicativeLR"}))
def test_compiled_steps(name):
    if name == "ReduceLROnPlateau":
        configuration, metric = {"patience": 0, "factor": 0.5}, [torch.tensor(1.0)]
    else:
        configuration, metric = {**LONG[name]}, []
        if name in ("CyclicLR", "OneCycleLR"):
            configuration["cycle_momentum"] = False
    both = []
    for compiled in (False, True):
        optimizer = optimizer_of(torch.float32)
        scheduler = getattr(fastsched, name)(optimizer, **configuration, param_name="weight_decay", groups=[2, 0])
        scheduler.step(*metric)
        step = torch.compile(scheduler.step, fullgraph=True, backend="aot_eager") if compiled else scheduler.step
        for _ in range(4):
            step(*metric)
        both.append(entries_of(optimizer))
    torch._dynamo.reset()
    assert both[0] == both[1]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_several_optimizers_follow_one_schedule(kind):
    first, second = optimizer_of(KINDS[kind], 2), optimizer_of(KINDS[kind], 1)
    initial = [float(group["lr"]) for optimizer in (first, second) for group in optimizer.param_groups]
    warm_up = fastsched.LinearLR([first, second], 0.25, total_iters=3)
    plateau = fastsched.ReduceLROnPlateau([first, second], patience=0, factor=0.5)
    scheduler = fastsched.SequentialLR([first, second], [warm_up, plateau], [3])
    one = stepped_sgd(initial)
    parts = [fastsched.LinearLR(one, 0.25, total_iters=3), fastsched.ReduceLROnPlateau(one, patience=0, factor=0.5)]
    oracle = fastsched.SequentialLR(one, parts, [3])
    for metric in (1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 0.2):
        scheduler.step(metric)
        oracle.step(metric)
        found = [float(group["lr"]) for optimizer in (first, second) for group in optimizer.param_groups]
        expected = [group["lr"] for group in one.param_groups]
        assert found == (expected if kind == "float" else torch.tensor(expected, dtype=KINDS[kind]).tolist())
    assert isinstance(scheduler._engine, TensorEngine) is (kind != "float")


def test_an_item_of_a_tuple():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], betas=(0.8, 0.99))
    oracle = sgd([0.8])
    schedulers = [
        fastsched.LinearLR(optimizer, 0.5, total_iters=4, param_name="betas[0]"),
        TORCH.LinearLR(oracle, 0.5, total_iters=4),
    ]
    for _ in range(5):
        for scheduler in schedulers:
            scheduler.optimizer._opt_called = True
            scheduler.step()
        betas = optimizer.param_groups[0]["betas"]
        assert type(betas) is tuple
        assert bits(list(betas)) == bits([oracle.param_groups[0]["lr"], 0.99])


def test_an_item_of_a_tuple_that_is_a_tensor():
    betas = (torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.99, dtype=torch.float64))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], betas=betas, capturable=True, foreach=False)
    optimizer._opt_called = True
    scheduler = fastsched.ExponentialLR(optimizer, 0.5, param_name="betas[0]")
    scheduler.step()
    assert isinstance(scheduler._engine, TensorEngine)
    assert [float(beta) for beta in optimizer.param_groups[0]["betas"]] == [0.4, 0.99]
    assert optimizer.param_groups[0]["betas"][0] is betas[0]


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        ({"param_name": "weight_decai"}, ValueError, "param_name.*'weight_decai'.*weight_decay"),
        ({"param_name": "nesterov"}, TypeError, "param_name.*'nesterov'.*False"),
        ({"param_name": "params"}, TypeError, "param_name.*'params'"),
        ({"param_name": "pair"}, TypeError, r"pair\[0\]"),
        ({"param_name": "pair[2]"}, ValueError, "param_name.*no item 2"),
        ({"param_name": "lr[0]"}, ValueError, "param_name.*no item 0"),
        ({"param_name": 3}, TypeError, "param_name.*int"),
        ({"param_name": None}, TypeError, "param_name.*NoneType"),
        ({"groups": [3]}, ValueError, "groups.*0 to 2.*3"),
        ({"groups": [-1]}, ValueError, "groups.*0 to 2.*-1"),
        ({"groups": [0, 0]}, ValueError, "groups.*twice"),
        ({"groups": []}, ValueError, "groups.*none"),
        ({"groups": lambda group: False}, ValueError, "groups.*none"),
        ({"groups": 1}, TypeError, "groups"),
        ({"groups": "0"}, TypeError, "groups"),
        ({"groups": [True]}, TypeError, "groups"),
        ({"groups": [0.0]}, TypeError, "groups"),
    ],
)
def test_what_cannot_be_driven_is_refused(arguments, error, names):
    optimizer = optimizer_of()
    for group in optimizer.param_groups:
        group["pair"] = (0.1, 0.2)
    before = [dict(group) for group in optimizer.param_groups]
    for make_one in (
        lambda: fastsched.StepLR(optimizer, 2, **arguments),
        lambda: fastsched.ReduceLROnPlateau(optimizer, **arguments),
    ):
        with pytest.raises(error, match=names):
            make_one()
    assert [dict(group) for group in optimizer.param_groups] == before


@pytest.mark.parametrize(
    ("optimizers", "error", "names"),
    [
        ([], ValueError, "empty"),
        ([3], TypeError, r"optimizer\[0\].*int"),
        (3, TypeError, "int is not an Optimizer"),
    ],
    ids=str,
)
def test_what_is_not_an_optimizer_is_refused(optimizers, error, names):
    with pytest.raises(error, match=names):
        fastsched.StepLR(optimizers, 2)


def test_an_optimizer_twice_or_a_part_of_one_is_refused():
    optimizer = optimizer_of()
    with pytest.raises(ValueError, match="twice"):
        fastsched.StepLR([optimizer, optimizer], 2)
    part = fastsched.StepLR(optimizer, 2, groups=[0]).optimizer
    with pytest.raises(TypeError, match="part of one"):
        fastsched.StepLR([part], 2)


def test_a_child_of_another_optimizer_is_refused():
    optimizer, other = optimizer_of(), optimizer_of()
    parts = [fastsched.StepLR(optimizer, 2, groups=[0]), fastsched.StepLR(other, 2, groups=[0])]
    with pytest.raises(ValueError, match=r"schedulers\[1\].*another optimizer"):
        fastsched.ChainedScheduler(parts)
    with pytest.raises(ValueError, match=r"schedulers\[1\].*another optimizer"):
        fastsched.SequentialLR(optimizer, parts, [2])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_state_says_of_what_it_is(kind):
    settings = {"T_max": 9, "param_name": "weight_decay", "groups": [0, 2]}
    made = [fastsched.CosineAnnealingLR(optimizer_of(KINDS[kind]), **settings) for _ in range(2)]
    for _ in range(3):
        made[0].step()
    state = made[0].state_dict()
    assert state["param_name"] == "weight_decay"
    made[1].optimizer.optimizers[0].load_state_dict(made[0].optimizer.optimizers[0].state_dict())
    made[1].load_state_dict(state)
    for _ in range(4):
        for scheduler in made:
            scheduler.step()
        assert everything(made[0]) == everything(made[1])
    of_lrs = fastsched.CosineAnnealingLR(optimizer_of(KINDS[kind]), 9)
    before = everything(of_lrs)
    with pytest.raises(ValueError, match=r"'weight_decay'.*param_name='weight_decay'"):
        of_lrs.load_state_dict(state)
    with pytest.raises(ValueError, match="'lr'"):
        made[0].load_state_dict(of_lrs.state_dict())
    assert everything(of_lrs) == before
    assert "param_name" not in of_lrs.state_dict()


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda scheduler: pickle.loads(pickle.dumps(scheduler))])
def test_copies_go_on(kind, copied):
    optimizer = optimizer_of(KINDS[kind])
    parts = [fastsched.StepLR(optimizer, 2, groups=[1]), fastsched.ExponentialLR(optimizer, 0.9, param_name="own")]
    scheduler = fastsched.ChainedScheduler(parts)
    scheduler.step()
    twin = copied(scheduler)
    for _ in range(3):
        scheduler.step()
    after = entries_of(optimizer)
    [twins] = twin.optimizer.optimizers
    for _ in range(3):
        twin.step()
    assert entries_of(twins) == after
    assert twins is not optimizer


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_looking_ahead_shows_the_entry(kind):
    optimizer = optimizer_of(KINDS[kind])
    scheduler = fastsched.CosineAnnealingLR(optimizer, 5, param_name="own", groups=[1])
    ahead = fastsched.simulate(scheduler, 4)
    at = [scheduler.lr_at(step) for step in range(5)]
    seen = [[float(optimizer.param_groups[1]["own"])]]
    for _ in range(4):
        scheduler.step()
        seen.append([float(optimizer.param_groups[1]["own"])])
    assert ahead.tolist() == seen == at
    assert scheduler.peek()["lrs"] == seen[-1]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_loading_the_optimizer_and_groups_that_come_later_are_followed(kind):
    optimizer = optimizer_of(KINDS[kind])
    scheduler = fastsched.ExponentialLR(optimizer, 0.5, param_name="own", groups=lambda group: group["lr"] < 0.4)
    scheduler.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    parameter = torch.nn.Parameter(torch.zeros(1))
    extra = {"own": torch.tensor(0.3, dtype=KINDS[kind])} if kind != "float" else {"own": 0.3}
    lr = optimizer.param_groups[0]["lr"]
    optimizer.add_param_group(
        {"params": [parameter], "lr": lr.clone() if isinstance(lr, torch.Tensor) else lr, **extra}
    )
    scheduler.step()
    before = [float(group["own"]) for group in optimizer_of(KINDS[kind]).param_groups]
    own = [float(group["own"]) for group in optimizer.param_groups]
    assert own == [before[0], before[1] / 4, before[2] / 4, float(extra["own"])]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_loaded_composition_knows_the_values_of_all_its_entries(kind):
    made = []
    for _ in range(2):
        optimizer = optimizer_of(KINDS[kind])
        parts = [fastsched.ExponentialLR(optimizer, 0.5, groups=[0]), fastsched.StepLR(optimizer, 1, param_name="own")]
        made.append(fastsched.ChainedScheduler(parts))
    made[0].step()
    [optimizer], [other] = (scheduler.optimizer.optimizers for scheduler in made)
    other.load_state_dict(optimizer.state_dict())
    made[1].load_state_dict(made[0].state_dict())
    assert everything(made[1]) == everything(made[0])
    assert made[1].state_dict() == made[0].state_dict()


def test_a_group_that_is_gone_is_missed():
    optimizer = optimizer_of()
    scheduler = fastsched.StepLR(optimizer, 2, groups=[2])
    del optimizer.param_groups[2]
    with pytest.raises(RuntimeError, match=r"param_groups\[2\] of SGD.*make a new scheduler"):
        scheduler.step()


def test_the_optimizer_steps_as_before_and_its_order_is_checked():
    optimizer = sgd([0.1, 0.2])
    scheduler = fastsched.StepLR(optimizer, 2, groups=[0])
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()
    optimizer = sgd([0.1, 0.2])
    scheduler = fastsched.StepLR(optimizer, 2, groups=[0])
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
        scheduler.step()
    assert [group["params"][0].item() for group in optimizer.param_groups] == pytest.approx([-0.1, -0.2])


def test_neither_the_scheduler_nor_the_optimizer_is_kept_alive():
    optimizer = optimizer_of()
    scheduler = fastsched.StepLR(optimizer, 2, groups=[0])
    scheduler.step()
    optimizer.scheduler = scheduler  # as users do
    references = [weakref.ref(optimizer), weakref.ref(scheduler)]
    del optimizer, scheduler
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_the_optimizer_of_a_part_passes_for_one():
    optimizer = optimizer_of()
    part = fastsched.StepLR(optimizer, 2, param_name="own", groups=[1, 2]).optimizer
    assert isinstance(part, Optimizer)
    assert [group["lr"] for group in part.param_groups] == [group["own"] for group in optimizer.param_groups[1:]]
    assert part.param_groups[0]["params"] is optimizer.param_groups[1]["params"]
    assert set(part.param_groups[0]) == {*optimizer.param_groups[1], "initial_lr"} - {"own", "initial_own"}
    assert part.defaults is optimizer.defaults


def test_a_step_that_is_skipped():
    optimizer = optimizer_of(torch.float32)
    scheduler = fastsched.ExponentialLR(optimizer, 0.5, param_name="own")
    before = entries_of(optimizer)
    scheduler.step(found_inf=torch.tensor(1.0))
    assert entries_of(optimizer) == before
    scheduler.step(found_inf=torch.tensor(0.0))
    assert entries_of(optimizer) != before


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_learning_rates_that_become_numbers_leave_other_entries_tensors(kind):
    optimizer = optimizer_of(KINDS[kind])
    both = [fastsched.ExponentialLR(optimizer, 0.5), fastsched.ExponentialLR(optimizer, 0.5, param_name="own")]
    for scheduler in both:
        scheduler.step()
    fastsched.use_float_lr(optimizer)
    for scheduler in both:
        scheduler.step()
    assert [type(group["lr"]) for group in optimizer.param_groups] == [float] * 3
    assert all(group["own"].dtype is KINDS[kind] for group in optimizer.param_groups)
    assert isinstance(both[1]._engine, TensorEngine)
    expected = optimizer_of(KINDS[kind])
    for group, first in zip(optimizer.param_groups, expected.param_groups, strict=True):
        assert float(group["own"]) == float(first["own"]) / 4
        assert group["lr"] == float(first["lr"]) / 4
    fastsched.use_tensor_lr(optimizer, dtype=KINDS[kind])
    for scheduler in both:
        scheduler.step()
    assert [float(group["lr"]) for group in optimizer.param_groups] == [
        float(first["lr"]) / 8 for first in expected.param_groups
    ]
    assert [float(group["own"]) for group in optimizer.param_groups] == [
        float(first["own"]) / 8 for first in expected.param_groups
    ]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_histories_and_pictures_know_the_entry(kind, tmp_path):
    import matplotlib as mpl

    mpl.use("agg")
    optimizer = optimizer_of(KINDS[kind])
    optimizer.param_groups[2]["name"] = "head"
    scheduler = fastsched.ExponentialLR(optimizer, 0.5, param_name="own", groups=[2, 0])
    fastsched.ExponentialLR(optimizer, 0.5, groups=[1]).step()  # both optimizers' tensors are in one buffer
    history = fastsched.History(scheduler)
    expected = []
    for _ in range(3):
        scheduler.step()
        expected.append([float(optimizer.param_groups[group]["own"]) for group in (2, 0)])
    assert history.to_numpy()["lr"].tolist() == expected
    history.to_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text().splitlines()[0].endswith("own_head,own_0")
    assert list(history.to_pandas().columns)[-2:] == ["own_head", "own_0"]
    for drawn in (history.plot(tmp_path / "history.png"), fastsched.plot(scheduler, 5, tmp_path / "ahead.png")):
        assert drawn.get_ylabel().startswith("own")
        assert any("head" in line.get_label() for line in drawn.get_lines())


def test_a_picture_of_several_entries_tells_them_apart(tmp_path):
    optimizer = optimizer_of(groups=1)
    parts = [fastsched.ExponentialLR(optimizer, 0.5), fastsched.ExponentialLR(optimizer, 0.9, param_name="own")]
    drawn = fastsched.plot(fastsched.ChainedScheduler(parts), 5, tmp_path / "picture.png")
    assert drawn.get_ylabel().startswith("value")
    assert {line.get_label().split(", ")[1] for line in drawn.get_lines()} == {"lr", "own"}
