"""What users and frameworks do to a scheduler behind its back, each against torch in the same process."""

import copy
import pickle
import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr_scheduler
from torch.optim import swa_utils
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched
from fastsched.engine.host import TensorEngine

from .conftest import sgd
from .optimizers import Wrapper

FLOAT = pytest.param(float, id="float")
TENSOR = pytest.param(lambda lr: torch.tensor(lr, dtype=torch.float64), id="tensor")
either_kind = pytest.mark.parametrize("kind", [FLOAT, TENSOR])


def lrs(scheduler):
    return [float(group["lr"]) for group in scheduler.optimizer.param_groups]


def observed(scheduler):
    return lrs(scheduler), scheduler.best, scheduler.num_bad_epochs, scheduler.last_epoch, scheduler.cooldown_counter


def both(kind, initial=(0.5, 0.25), **configuration):
    configuration = {"patience": 0, "factor": 0.5, **configuration}
    return [
        base(sgd([kind(lr) for lr in initial]), **configuration) for base in (TorchPlateau, fastsched.ReduceLROnPlateau)
    ]


def groups(scheduler):
    return scheduler.optimizer.param_groups


def insert_in_front_and_drop_the_last(scheduler, kind):
    scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": kind(0.125)})
    groups(scheduler).insert(0, groups(scheduler).pop())
    groups(scheduler).pop()


def swap_lrs(scheduler, kind):
    first, second = groups(scheduler)
    first["lr"], second["lr"] = second["lr"], first["lr"]


def replace_all(scheduler, kind):
    for lr, group in zip((4.0, 2.0), groups(scheduler), strict=True):
        group["lr"] = kind(lr)


def remove_all_but_one(scheduler, kind):
    del groups(scheduler)[1:]


def remove_and_fit_the_bounds(scheduler, kind):
    del groups(scheduler)[1:]
    scheduler.min_lrs = [0.0]


def remove_every_group(scheduler, kind):
    groups(scheduler).clear()


def swap_the_optimizer(scheduler, kind):
    scheduler.optimizer = sgd([kind(8.0), kind(16.0)])


def patch_reduction(scheduler, kind):
    def only_the_first(epoch):
        groups(scheduler)[0]["lr"] *= 0.25

    scheduler._reduce_lr = only_the_first


def patch_comparison(scheduler, kind):
    scheduler._is_better = lambda metric, best: metric < best


def write_dict_then_attribute(scheduler, kind):
    scheduler.__dict__["best"] = 5.0
    scheduler.best = 7.0


def write_dict_then_what_no_engine_takes(scheduler, kind):
    scheduler.__dict__["best"] = 5.0
    scheduler.factor = np.float64(0.5)


def write_dict_with_what_no_engine_takes(scheduler, kind):
    scheduler.__dict__["best"] = np.float64(5.0)


def write_two_ways(scheduler, kind):
    scheduler.__dict__["last_epoch"] = 50
    scheduler.cooldown_counter = np.int64(0)


def update_dict(scheduler, kind):
    scheduler.__dict__.update(best=0.25, num_bad_epochs=3, factor=0.125)


def look_at_dict(scheduler, kind):
    assert vars(scheduler)["best"] == 1.0
    assert vars(scheduler)["num_bad_epochs"] == 0


def big_counter(scheduler, kind):
    scheduler.last_epoch = 2**70


def forget_a_counter(scheduler, kind):
    del scheduler.best
    assert not hasattr(scheduler, "best")
    scheduler.best = 3.0


def load_over_a_direct_write(scheduler, kind):
    saved = copy.deepcopy(scheduler.state_dict())
    scheduler.__dict__["best"] = 5.0
    scheduler.load_state_dict(saved)


@either_kind
@pytest.mark.parametrize(
    "action",
    [
        insert_in_front_and_drop_the_last,
        swap_lrs,
        replace_all,
        remove_all_but_one,
        remove_and_fit_the_bounds,
        remove_every_group,
        swap_the_optimizer,
        patch_reduction,
        patch_comparison,
        write_dict_then_attribute,
        write_dict_then_what_no_engine_takes,
        write_dict_with_what_no_engine_takes,
        write_two_ways,
        update_dict,
        look_at_dict,
        big_counter,
        forget_a_counter,
        load_over_a_direct_write,
    ],
)
def test_interference(kind, action):
    pair = both(kind)
    for scheduler in pair:
        scheduler.step(1.0)
        action(scheduler, kind)
        scheduler.step(2.0)
        scheduler.step(2.0)
    assert observed(pair[1]) == observed(pair[0])


@either_kind
def test_reordered_groups_keep_their_learning_rates(kind):
    """Not against torch, whose list of min_lrs does not grow either: the bounds are equal here."""
    pair = both(kind)
    for scheduler in pair:
        scheduler.step(1.0)
        groups(scheduler).reverse()
        scheduler.step(0.1)
    assert lrs(pair[1]) == lrs(pair[0]) == [0.25, 0.5]


def test_moved_tensors_keep_object_storage_and_full_precision():
    optimizer = sgd([torch.tensor(0.1), torch.tensor(0.7)])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.9, eps=0.0)
    for _ in range(5):
        scheduler.step(1.0)
    masters = scheduler.state_dict()["_last_lr"]
    [replica] = scheduler._engine._replicas
    first, second = optimizer.param_groups
    objects = [first["lr"], second["lr"]]
    first["lr"], second["lr"] = second["lr"], first["lr"]
    scheduler.step(0.0)
    assert scheduler.state_dict()["_last_lr"] == masters[::-1]
    assert [first["lr"], second["lr"]] == objects[::-1]
    assert scheduler._engine._replicas[0] is replica
    objects[0].fill_(1.0)
    assert replica.buffer.lrs[1].item() == 1.0


@either_kind
def test_two_optimizers_that_share_one_lr_object(kind):
    def run(base):
        lr = kind(0.5)
        first, second = (base(sgd([lr]), patience=0, factor=0.5) for _ in range(2))
        first.step(1.0)
        second.step(1.0)
        first.step(1.0)
        return lrs(first) + lrs(second)

    assert run(fastsched.ReduceLROnPlateau) == run(TorchPlateau)


@either_kind
@pytest.mark.parametrize("wrap", [Wrapper, copy.copy])
def test_wrapped_optimizers_go_on_together(kind, wrap):
    def run(base):
        inner = sgd([kind(0.5), kind(0.25)])
        settings = {"patience": 0, "factor": 0.5}
        schedulers = [base(inner, **settings), base(wrap(inner), **settings)]
        for metric in (1.0, 1.0, 1.0):
            for scheduler in schedulers:
                scheduler.step(metric)
        return lrs(schedulers[0]) + lrs(schedulers[1])

    assert run(fastsched.ReduceLROnPlateau) == run(TorchPlateau)


def test_some_of_anothers_lr_tensors_are_left_to_torch():
    shared = torch.tensor(0.5, dtype=torch.float64)
    first = fastsched.ReduceLROnPlateau(sgd([shared, torch.tensor(1.0, dtype=torch.float64)]), patience=0, factor=0.5)
    second = fastsched.ReduceLROnPlateau(sgd([shared]), patience=0, factor=0.5)
    for _ in range(2):
        second.step(1.0)
    assert shared.item() == 0.25
    for _ in range(2):
        first.step(1.0)
    assert lrs(first) == [0.125, 0.5]
    assert lrs(second) == [0.125]


def test_optimizers_are_told_apart_by_identity():
    class Equal(torch.optim.SGD):
        def __eq__(self, other):
            return True

        __hash__ = None

    schedulers = []
    for lr in (0.5, 0.25):
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = Equal([weight], lr=torch.tensor(lr))
        schedulers.append(fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5))
    for scheduler in schedulers * 2:
        scheduler.step(1.0)
    assert [lrs(scheduler) for scheduler in schedulers] == [[0.25], [0.125]]


@either_kind
def test_a_patched_class_is_asked(kind):
    with mock.patch.object(fastsched.ReduceLROnPlateau, "_reduce_lr") as reduce:
        scheduler = fastsched.ReduceLROnPlateau(sgd([kind(0.5)]), patience=0)
        for _ in range(2):
            scheduler.step(1.0)
    reduce.assert_called_once_with(2)
    assert lrs(scheduler) == [0.5]


def handwritten_state(base):
    class Handwritten(base):
        def state_dict(self):
            return {name: value for name, value in self.__dict__.items() if name != "optimizer"}

        def load_state_dict(self, state_dict):
            self.__dict__.update(state_dict)

    return Handwritten


@either_kind
def test_subclasses_that_save_their_dict(kind):
    results = []
    for base in (TorchPlateau, fastsched.ReduceLROnPlateau):
        saved, resumed = (handwritten_state(base)(sgd([kind(0.5)]), patience=1, factor=0.5) for _ in range(2))
        saved.step(1.0)
        saved.step(2.0)
        resumed.load_state_dict(copy.deepcopy(saved.state_dict()))
        assert observed(resumed)[1:] == observed(saved)[1:]
        resumed.step(2.0)
        results.append(observed(resumed))
    assert results[0] == results[1]


@either_kind
def test_a_dict_that_was_looked_at_does_not_bring_old_state_back(kind):
    """Steps only the engine, as a graph replay does, after vars(scheduler) was read."""
    scheduler = both(kind)[1]
    scheduler.step(1.0)
    before = dict(vars(scheduler))
    assert before["last_epoch"] == 1
    if isinstance(scheduler._engine, TensorEngine):
        [replica] = scheduler._engine._replicas
        replica.state[0] += 10  # last_epoch
    else:
        scheduler.step(1.0)
        scheduler.last_epoch = 11
    assert scheduler.last_epoch == 11
    vars(scheduler)
    scheduler.step(0.5)
    assert scheduler.last_epoch == 12


class Slotted(fastsched.ReduceLROnPlateau):
    __slots__ = ("extra",)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_slots_of_a_subclass_survive_copies(duplicate):
    scheduler = Slotted(sgd([0.1]))
    scheduler.extra = 5
    scheduler.step(1.0)
    twin = duplicate(scheduler)
    assert twin.extra == 5
    assert twin.best == 1.0


class Metric:
    """A number that changes each time it is read."""

    def __init__(self, *values):
        self.values = list(values)

    def __float__(self):
        return self.values.pop(0)


@pytest.mark.parametrize(
    "initial",
    [
        [0.5],
        [np.float64(0.5)],
        [torch.tensor(0.5)],
        [torch.tensor(0.5), torch.tensor(0.5, dtype=torch.float64)],
        [0.5, torch.tensor(0.5)],
    ],
    ids=["float", "numpy", "tensor", "two dtypes", "mixed"],
)
def test_a_metric_is_read_once(initial):
    scheduler = fastsched.ReduceLROnPlateau(sgd(initial), patience=0, factor=0.5)
    scheduler.step(Metric(1.0))
    scheduler.step(Metric(2.0))
    assert scheduler.best == 1.0
    assert lrs(scheduler) == [0.25] * len(initial)


@either_kind
def test_a_metric_whose_reading_changes_the_scheduler(kind):
    results = []
    for scheduler in both(kind, patience=1):

        class Meddler:
            def __init__(self, scheduler):
                self.scheduler = scheduler

            def __float__(self):
                self.scheduler.best = 9.0
                self.scheduler.optimizer.param_groups[0]["lr"] = kind(2.0)
                self.scheduler.factor = 0.25
                return 20.0

        scheduler.step(10.0)
        scheduler.step(Meddler(scheduler))
        scheduler.step(20.0)
        results.append(observed(scheduler))
    assert results[0] == results[1]


def test_inference_mode_leaves_ordinary_tensors_behind():
    optimizer = sgd([torch.tensor(0.5), torch.tensor(0.5)])
    with torch.inference_mode():
        scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        scheduler.step(torch.tensor(1.0))
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0})
        scheduler.step(torch.tensor(2.0))
    assert isinstance(scheduler._engine, TensorEngine)
    assert lrs(scheduler) == [0.25, 0.25, 0.5]
    scheduler.best = 3.0
    scheduler.factor = 0.5
    scheduler.load_state_dict(scheduler.state_dict())
    optimizer.param_groups[0]["lr"].fill_(1.0)
    scheduler.step(torch.tensor(9.0))
    assert lrs(scheduler)[0] == 0.5


def test_a_default_device_does_not_matter():
    with torch.device("meta"):
        scheduler = fastsched.ReduceLROnPlateau(sgd([torch.tensor(0.5, device="cpu")]), patience=0, factor=0.5)
        fastsched.use_tensor_lr(scheduler.optimizer, device="cpu")
        scheduler.step(1.0)
        scheduler.step(1.0)
        scheduler.best = 3.0
        scheduler.load_state_dict(scheduler.state_dict())
    assert lrs(scheduler) == [0.25]


def test_an_optimizer_may_be_taken_away():
    for scheduler in both(lambda lr: torch.tensor(lr, dtype=torch.float64)):
        scheduler.step(1.0)
        scheduler.optimizer = None
        scheduler.note = "done"
        assert scheduler.best == 1.0


def test_a_sparse_metric_and_a_tensor_subclass_are_read_with_float():
    class Logged(torch.Tensor):
        pass

    for metric in (torch.tensor(0.25).as_subclass(Logged), torch.nn.Parameter(torch.tensor(0.25))):
        scheduler = fastsched.ReduceLROnPlateau(sgd([torch.tensor(0.5)]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about float() of what requires grad
            scheduler.step(metric)
        assert scheduler.best == 0.25


@either_kind
@pytest.mark.parametrize("epoch", [5, 0, True, "3", 0.1])
def test_a_deprecated_epoch_is_noted_as_given(kind, epoch):
    for scheduler in both(kind):
        with pytest.warns(UserWarning, match="epoch parameter"):
            scheduler.step(1.0, epoch)
        assert scheduler.last_epoch == epoch
        assert type(scheduler.last_epoch) is type(epoch)


@pytest.mark.parametrize(("lr", "min_lr", "factor"), [(0, 0, 0.5), (2, 2.0, 0.5), (0.0, 0, -0.5)])
def test_a_negative_eps_writes_equal_values(lr, min_lr, factor):
    pair = [
        base(sgd([lr]), patience=0, factor=factor, min_lr=min_lr, eps=-1)
        for base in (TorchPlateau, fastsched.ReduceLROnPlateau)
    ]
    for scheduler in pair:
        scheduler.step(1.0)
        scheduler.step(1.0)
    theirs, ours = (groups(scheduler)[0]["lr"] for scheduler in pair)
    assert repr(ours) == repr(theirs)


def test_copied_schedulers_of_one_optimizer_stay_exact():
    optimizer = sgd([torch.tensor(0.1)])
    oracle = sgd([float(torch.tensor(0.1))])
    settings = [{"factor": 0.9, "patience": 0}, {"factor": 0.97, "patience": 1}]
    ours = [fastsched.ReduceLROnPlateau(optimizer, eps=0.0, **setting) for setting in settings]
    theirs = [TorchPlateau(oracle, eps=0.0, **setting) for setting in settings]
    for _ in range(60):
        for scheduler in (*ours, *theirs):
            scheduler.step(1.0)
        ours = copy.deepcopy(ours[::-1])[::-1]
        optimizer = ours[0].optimizer
        expected = torch.tensor(oracle.param_groups[0]["lr"]).item()
        assert optimizer.param_groups[0]["lr"].item() == expected


def test_loading_an_old_state_keeps_an_exact_external_lr():
    optimizer = sgd([torch.tensor(0.5)])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.9, eps=0.0)
    scheduler.step(1.0)
    old = scheduler.state_dict()
    optimizer.param_groups[0]["lr"] = 0.101
    scheduler.step(0.5)
    scheduler.load_state_dict(old)
    scheduler.step(1.0)
    assert scheduler.state_dict()["_last_lr"] == [0.101 * 0.9]


def classes(ours):
    """The class of that name, torch's or fastsched's; in torch, SWALR is elsewhere."""
    return lambda name: getattr(fastsched if ours else swa_utils if name == "SWALR" else torch_lr_scheduler, name)


# What a step reads of each group. `bound` makes a number or a tensor of a number.
WITH_SETTINGS = {
    "CosineAnnealingLR": lambda of, optimizer, bound: of("CosineAnnealingLR")(optimizer, 9, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda of, optimizer, bound: of("CosineAnnealingWarmRestarts")(optimizer, 4, 2),
    "LambdaLR": lambda of, optimizer, bound: of("LambdaLR")(optimizer, lambda epoch: 0.9**epoch),
    "LinearLR": lambda of, optimizer, bound: of("LinearLR")(optimizer, 0.2, total_iters=6),
    "StepLR": lambda of, optimizer, bound: of("StepLR")(optimizer, 3, 0.5),
    "SWALR": lambda of, optimizer, bound: of("SWALR")(optimizer, bound(0.03), anneal_epochs=7),
    "CyclicLR": lambda of, optimizer, bound: of("CyclicLR")(
        optimizer, bound(0.01), bound(0.5), step_size_up=3, cycle_momentum=False
    ),
    "OneCycleLR": lambda of, optimizer, bound: of("OneCycleLR")(
        optimizer, bound(0.5), total_steps=60, cycle_momentum=False
    ),
    "ReduceLROnPlateau": lambda of, optimizer, bound: of("ReduceLROnPlateau")(
        optimizer, patience=0, factor=0.7, min_lr=[bound(0.02) for _ in optimizer.param_groups]
    ),
}
IN_ANY_COMPOSITION = ("CosineAnnealingLR", "CosineAnnealingWarmRestarts", "LinearLR", "StepLR", "SWALR")


def tensor_settings(scheduler):
    """In the same order for torch's and fastsched's."""
    lists = ("base_lrs", "max_lrs", "min_lrs")
    of_groups = ("initial_lr", "max_lr", "min_lr", "swa_lr")
    everyone = [scheduler, *getattr(scheduler, "_schedulers", [])]
    found = [value for one in everyone for name in lists for value in getattr(one, name, [])]
    found += [group.get(name) for group in groups(scheduler) for name in of_groups]
    return [value for value in found if isinstance(value, torch.Tensor)]


@given(data=st.data())
def test_settings_that_are_tensors_are_followed_when_written_in_place(data):
    count = data.draw(st.integers(1, 3), "groups")
    # If an LR is a number and its bound a tensor, torch may make the bound itself the LR, but not here.
    names = data.draw(
        st.lists(st.sampled_from(IN_ANY_COMPOSITION), min_size=2, max_size=2)
        | st.sampled_from(list(WITH_SETTINGS)).map(lambda name: [name]),
        "classes",
    )
    composite = data.draw(st.sampled_from(["SequentialLR", "ChainedScheduler"]), "composite")
    tensor_lrs = names[0] in ("CyclicLR", "ReduceLROnPlateau") or data.draw(st.booleans(), "tensor LRs")
    tensor_bounds = names[0] == "CyclicLR" or data.draw(st.booleans(), "tensor bounds")
    writes = data.draw(
        st.lists(st.tuples(st.integers(0, 99), st.sampled_from([0.5, 0.25, 0.04]), st.booleans()), max_size=8), "writes"
    )
    results = []
    for ours in (False, True):
        of = classes(ours)

        def tensor(value):
            return torch.tensor(value, dtype=torch.float64)

        optimizer = sgd([tensor(0.1 * (i + 1)) if tensor_lrs else 0.1 * (i + 1) for i in range(count)])
        optimizer._opt_called = True
        made = [WITH_SETTINGS[name](of, optimizer, tensor if tensor_bounds else float) for name in names]
        scheduler = made[0]
        if len(made) == 2 and composite == "SequentialLR":
            scheduler = of(composite)(optimizer, made, [3])
        elif len(made) == 2:
            scheduler = of(composite)(made)
        seen = []
        for step in range(16):
            settings = tensor_settings(scheduler)
            if step % 2 and step // 2 < len(writes) and settings:
                place, value, scales = writes[step // 2]
                setting = settings[place % len(settings)]
                setting.mul_(value) if scales else setting.fill_(value)
            scheduler.step(1.0) if names == ["ReduceLROnPlateau"] else scheduler.step()
            seen += lrs(scheduler)
        results.append(seen + [float(setting) for setting in tensor_settings(scheduler)])
    assert results[1] == pytest.approx(results[0], rel=1e-9)


def cosine(optimizer):
    return fastsched.CosineAnnealingWarmRestarts(optimizer, 9)


def test_in_place_writes_are_seen_by_all_that_look_ahead_and_back():
    optimizer = sgd([torch.tensor(0.1, dtype=torch.float64) for _ in range(2)])
    optimizer._opt_called = True
    scheduler = cosine(optimizer)
    history = fastsched.History(scheduler)
    scheduler.step()
    scheduler.base_lrs[1].fill_(0.5)
    ahead = fastsched.simulate(scheduler, 3)
    at = [scheduler.lr_at(step) for step in (2, 3, 4)]
    stepped = []
    for _ in range(3):
        scheduler.step()
        stepped.append(lrs(scheduler))
    assert ahead[1:].tolist() == at == stepped == history.to_numpy()["lr"][-3:].tolist()
    assert stepped[0][1] > 0.4


@pytest.mark.parametrize("act", ["share_memory_", "data", "another tensor", "a number", "by its child"])
@pytest.mark.parametrize("count", [1, 3])
def test_settings_that_move_are_followed(act, count):
    def run(of):
        optimizer = sgd([torch.tensor(0.1, dtype=torch.float64) for _ in range(count)])
        optimizer._opt_called = True
        child = of("CosineAnnealingWarmRestarts")(optimizer, 9)
        scheduler = of("ChainedScheduler")([child])
        seen = []
        for step in range(8):
            scheduler.step()
            seen += lrs(scheduler)
            base = child.base_lrs[0]
            if step == 3 and act == "share_memory_":
                base.share_memory_()
            elif step == 3 and act == "data":
                base.data = torch.tensor(0.3, dtype=torch.float64)
            elif step == 3 and act == "a number":
                child.base_lrs[0] = 0.3
            elif step == 3:
                child.base_lrs[0] = torch.tensor(0.3, dtype=torch.float64)
                if act == "by its child":
                    child.step()
            elif step == 5 and act != "a number":
                child.base_lrs[0].fill_(0.7)
                base.mul_(0.5) if act in ("share_memory_", "data") else None
        return seen

    assert run(classes(True)) == pytest.approx(run(classes(False)), rel=1e-12)


def test_settings_that_cannot_lie_side_by_side_are_read_where_they_are():
    """One tensor for all groups, one that is a view, one that is in two lists: each is read in place."""
    whole = torch.tensor([0.02, 0.01], dtype=torch.float64)
    shared = torch.tensor(0.02, dtype=torch.float64)
    optimizer = sgd([torch.tensor(0.1, dtype=torch.float64) for _ in range(2)])
    one = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.01, min_lr=[whole[0], whole[1]])
    other = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.01, min_lr=shared)
    third = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.01, min_lr=[shared, whole[1]])
    for scheduler in (one, other, third):
        scheduler.step(1.0)
    whole.fill_(0.05)
    one.step(1.0)
    assert lrs(one) == [0.05, 0.05]
    shared.fill_(0.04)
    other.step(1.0)
    assert lrs(one) == [0.04, 0.04]
    shared.fill_(0.03)
    whole[1] = 0.02
    third.step(1.0)
    assert lrs(one) == [0.03, 0.02]
    assert whole.tolist() == [0.05, 0.02]


def test_a_minimum_that_is_a_tensor_is_not_made_the_learning_rate():
    for base in (TorchPlateau, fastsched.ReduceLROnPlateau):
        bound = torch.tensor(0.06)
        scheduler = base(sgd([0.1, 0.1]), patience=0, factor=0.5, min_lr=bound)
        for _ in range(4):
            scheduler.step(1.0)
        groups(scheduler)[0]["lr"] = 0.8
        scheduler.step(1.0)
        assert lrs(scheduler) == pytest.approx([0.4, 0.06])
        assert bound == torch.tensor(0.06)


SCALARS = {
    "eta_min": lambda of, optimizer, value: of("CosineAnnealingLR")(optimizer, 9, eta_min=value),
    "gamma": lambda of, optimizer, value: of("StepLR")(optimizer, 2, gamma=value),
    "start_factor": lambda of, optimizer, value: of("LinearLR")(optimizer, start_factor=value, total_iters=9),
    "power": lambda of, optimizer, value: of("PolynomialLR")(optimizer, 9, power=value),
    "factor": lambda of, optimizer, value: of("ReduceLROnPlateau")(optimizer, factor=value, patience=0),
}


@either_kind
@pytest.mark.parametrize("name", SCALARS)
def test_scalar_settings_that_are_tensors_are_followed(kind, name):
    results = []
    for ours in (False, True):
        optimizer = sgd([kind(0.1), kind(0.2)])
        optimizer._opt_called = True
        scheduler = SCALARS[name](classes(ours), optimizer, torch.tensor(0.5, dtype=torch.float64))
        seen = []
        for step in range(8):
            scheduler.step(1.0) if name == "factor" else scheduler.step()
            seen += lrs(scheduler)
            if step == 3:
                getattr(scheduler, name).mul_(0.5)
        results.append(seen)
    assert results[1] == pytest.approx(results[0], rel=1e-12)
