"""Tensor learning rates: torch's float trajectory rounded to the LR's dtype, decided by one operator call."""

import copy
import math
import pickle
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau
from torch.utils._python_dispatch import TorchDispatchMode

import fastsched
from fastsched.engine.host import TensorEngine
from fastsched.engine.metric import as_plain

from .configurations import configurations, metrics
from .conftest import sgd
from .values import bits

COUNTERS = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


def tensor_sgd(lrs, dtype, device="cpu"):
    return sgd([torch.tensor(lr, dtype=dtype, device=device) for lr in lrs], device)


def float_oracle(optimizer, **configuration):
    """torch on Python floats that start from the tensors' values."""
    return TorchPlateau(sgd([float(group["lr"]) for group in optimizer.param_groups]), **configuration)


def assert_follows(scheduler, oracle):
    assert isinstance(scheduler._engine, TensorEngine)
    for group, reference in zip(scheduler.optimizer.param_groups, oracle.optimizer.param_groups, strict=True):
        expected = torch.tensor(reference["lr"], dtype=group["lr"].dtype)
        assert bits(group["lr"].item()) == bits(expected.item())
    for name in COUNTERS:
        assert bits(getattr(scheduler, name)) == bits(getattr(oracle, name))
    lasts = zip(scheduler.get_last_lr(), oracle.get_last_lr(), strict=True)
    assert all(last.item() == torch.tensor(expected, dtype=last.dtype).item() for last, expected in lasts)


@st.composite
def tensor_runs(draw):
    initial = draw(st.lists(st.floats(1e-30, 10.0), min_size=1, max_size=4))
    stream = draw(st.lists(metrics, min_size=1, max_size=40))
    if draw(st.booleans()):
        stream = [value for value in stream[:6] for _ in range(7)]
    return initial, draw(configurations(len(initial))), stream


@given(run=tensor_runs(), dtype=st.sampled_from([torch.float32, torch.float64]), as_tensor=st.booleans())
def test_every_step_is_the_float_trajectory_rounded(run, dtype, as_tensor):
    initial, configuration, stream = run
    optimizer = tensor_sgd(initial, dtype)
    oracle = float_oracle(optimizer, **configuration)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, **configuration)
    for metric in stream:
        oracle.step(metric)
        scheduler.step(torch.tensor(metric, dtype=torch.float64) if as_tensor else metric)
        assert_follows(scheduler, oracle)


def test_ten_thousand_steps_do_not_drift(device, lr_dtype):
    optimizer = tensor_sgd([0.1, 3.0], lr_dtype, device)
    configuration = {"patience": 0, "factor": 0.999, "threshold": 0.0, "eps": 0.0}
    oracle = float_oracle(optimizer, **configuration)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, **configuration)
    metric = torch.tensor(1.0, device=device)
    for _ in range(10_000):
        oracle.step(1.0)
        scheduler.step(metric)
    assert_follows(scheduler, oracle)
    assert float(optimizer.param_groups[0]["lr"]) < 1e-5


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.uint16,
        torch.float8_e5m2,
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_metrics_of_any_dtype_and_shape(device, dtype, shape):
    optimizer = tensor_sgd([0.1], torch.float32, device)
    oracle = float_oracle(optimizer, patience=0)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0)
    for value in (3.0, 0.3, 0.0, 1.7):
        metric = torch.full(shape, value).to(dtype).to(device)
        oracle.step(float(metric))
        scheduler.step(metric)
        assert_follows(scheduler, oracle)


@pytest.mark.parametrize(
    "value", [0.0, -0.0, math.inf, -math.inf, math.nan, 6e-8, 6.1e-5, 65504.0, 2.0**-14, 1.0 + 2**-10]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_narrow_floats_are_decoded_exactly(device, dtype, value):
    metric = torch.tensor([value], dtype=dtype, device=device)
    scheduler = fastsched.ReduceLROnPlateau(tensor_sgd([0.1], torch.float32, device), mode="max")
    scheduler.best = -math.inf
    scheduler.step(metric)
    expected = float(metric)
    if math.isnan(expected) or expected == -math.inf:
        assert scheduler.num_bad_epochs == 1
    else:
        assert bits(scheduler.best) == bits(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_16_bit_pattern_is_decoded(dtype):
    scheduler = fastsched.ReduceLROnPlateau(tensor_sgd([0.1], torch.float32), mode="max", threshold=0.0)
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    for pattern in patterns[::7]:
        scheduler.best = -math.inf
        scheduler.step(pattern)
        expected = float(pattern)
        assert bits(scheduler.best) == bits(-math.inf if math.isnan(expected) else expected)


@pytest.mark.parametrize("metric", [1, True, "0.5", np.float64(0.25), np.float32(0.1), torch.tensor(0.5)])
def test_metrics_on_the_host(device, metric):
    optimizer = tensor_sgd([0.1], torch.float32, device)
    oracle = float_oracle(optimizer, patience=0)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(3):
        oracle.step(metric)
        scheduler.step(metric)
        assert_follows(scheduler, oracle)


def test_a_loss_that_requires_grad_needs_no_detach():
    scheduler = fastsched.ReduceLROnPlateau(tensor_sgd([0.1], torch.float32))
    weight = torch.tensor(2.0, requires_grad=True)
    loss = weight * weight
    scheduler.step(loss)
    loss.backward()
    assert weight.grad.item() == 4.0
    assert scheduler.best == 4.0


@pytest.mark.parametrize("metric", [torch.tensor([1.0, 2.0]), None, "loss", 1j, torch.tensor(1j), torch.ones(0)])
def test_what_is_no_number_raises_as_in_torch_and_changes_nothing(metric):
    with pytest.raises(Exception) as expected:  # noqa: PT011  whatever torch raises
        TorchPlateau(sgd([0.1])).step(metric)
    scheduler = fastsched.ReduceLROnPlateau(tensor_sgd([0.1], torch.float32), patience=0)
    scheduler.step(1.0)
    before = (scheduler.state_dict(), float(scheduler.optimizer.param_groups[0]["lr"]))
    with pytest.raises(expected.type) as raised:
        scheduler.step(metric)
    assert str(raised.value) == str(expected.value)
    assert (scheduler.state_dict(), float(scheduler.optimizer.param_groups[0]["lr"])) == before


class CarriesSomething(torch.Tensor):
    """Like MONAI's MetaTensor and fastai's TensorBase: it intercepts each function that is called with it."""

    seen: ClassVar[list] = []

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.seen.append(function)
        return super().__torch_function__(function, types, args, kwargs or {})


class CarriesNothing(torch.Tensor):
    pass


class Counted(torch.Tensor):
    """One that defines its own number."""

    def __float__(self):
        return 7.0


class Dispatched(torch.Tensor):
    """One whose memory is not its value, like a DTensor."""

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            return 7.0
        return super().__torch_dispatch__(function, types, args, kwargs or {})


@pytest.mark.parametrize("kind", [CarriesSomething, CarriesNothing])
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize(("shape", "backend"), [((), "eager"), ((1, 1), "inductor")])
def test_a_subclass_that_computes_nothing_is_a_metric_where_it_lies(kind, shape, backend, device):
    value = torch.full(shape, 0.5, device=device)
    metric = value.as_subclass(kind)
    CarriesSomething.seen.clear()
    plain = as_plain(metric)
    assert CarriesSomething.seen == []
    assert type(plain) is torch.Tensor
    assert plain.data_ptr() == value.data_ptr()
    scheduler = fastsched.ReduceLROnPlateau(tensor_sgd([0.1], torch.float32, device), patience=0)
    stopper = fastsched.EarlyStopping(patience=2)
    # Not "aot_eager", with which torch itself compiles nothing that takes such a tensor.
    steps = scheduler.step, torch.compile(scheduler.step, fullgraph=True, backend=backend)
    stops = stopper.step, torch.compile(stopper.step, fullgraph=True, backend=backend)
    for step in (*steps, *stops, *stops):
        step(metric)
    assert scheduler.best == stopper.best == 0.5
    assert scheduler.get_last_lr() == [torch.tensor(0.1 * 0.1, device=device)]
    assert stopper.stopped_epoch == 4


@pytest.mark.parametrize("kind", [Counted, Dispatched])
def test_a_subclass_that_computes_its_value_is_asked_for_it(kind):
    metric = torch.tensor(0.5).as_subclass(kind)
    assert float(metric) == as_plain(metric) == 7.0
    for scheduler in (TorchPlateau(sgd([0.1])), fastsched.ReduceLROnPlateau(tensor_sgd([0.1], torch.float32))):
        scheduler.step(metric)
        assert scheduler.best == 7.0


class CountCalls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("groups", [1, 10, 1000])
@pytest.mark.parametrize("patience", [0, 10**9], ids=["reducing", "idle"])
def test_a_step_is_one_operator_call_at_any_group_count(device, groups, patience):
    scheduler = fastsched.ReduceLROnPlateau(tensor_sgd([0.1] * groups, torch.float32, device), patience=patience)
    metric = torch.tensor(1.0, device=device)
    scheduler.step(metric)
    with CountCalls() as mode:
        for _ in range(3):
            scheduler.step(metric)
    assert mode.calls == ["fastsched.step_.default"] * 3


def test_the_users_tensor_object_keeps_its_place_shape_and_dtype(device, lr_dtype):
    lr = torch.full((1, 1), 0.5, dtype=lr_dtype, device=device)
    optimizer = sgd([lr], device)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    for _ in range(2):
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.shape == (1, 1)
    assert lr.item() == 0.25
    assert scheduler.get_last_lr()[0].shape == (1, 1)


def test_get_last_lr_never_aliases_the_optimizers_lr(device):
    optimizer = tensor_sgd([0.5], torch.float32, device)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    before = scheduler.get_last_lr()
    optimizer.param_groups[0]["lr"].fill_(7.0)
    assert [lr.item() for lr in before] == [0.5]
    assert [lr.item() for lr in scheduler.get_last_lr()] == [0.5]
    scheduler.step(1.0)
    assert [lr.item() for lr in scheduler.get_last_lr()] == [7.0]
    assert [lr.item() for lr in before] == [0.5]


@pytest.mark.parametrize("where", ["in place", "new tensor", "other dtype", "float", "shared"])
def test_external_writes_to_an_lr_are_honoured(device, where):
    optimizer = tensor_sgd([0.5, 0.5], torch.float32, device)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scheduler.step(1.0)
    group = optimizer.param_groups[0]
    mine = group["lr"]
    if where == "in place":
        group["lr"].fill_(2.0)
    elif where == "new tensor":
        mine = group["lr"] = torch.tensor(2.0, device=device)
    elif where == "other dtype":
        group["lr"] = torch.tensor(2.0, dtype=torch.float64, device=device)
    elif where == "float":
        group["lr"] = 2.0
    else:
        optimizer.param_groups[1]["lr"].fill_(2.0)
        group["lr"] = optimizer.param_groups[1]["lr"]
    scheduler.step(1.0)
    assert group["lr"].item() == 1.0
    assert group["lr"] is mine
    assert isinstance(scheduler._engine, TensorEngine)
    mine.fill_(8.0)  # still the tensor that counts
    scheduler.step(1.0)
    assert [g["lr"].item() for g in optimizer.param_groups] == [4.0, 0.5 if where == "shared" else 0.125]


def test_a_float_written_into_a_tensor_group_counts_exactly():
    optimizer = tensor_sgd([0.5], torch.float32)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scheduler.step(1.0)
    optimizer.param_groups[0]["lr"] = 0.1
    scheduler.step(0.0)
    assert scheduler.state_dict()["_last_lr"] == [0.1]


def test_groups_that_share_one_tensor_are_reduced_once_each(device):
    lr = torch.tensor(0.1, device=device)
    optimizer = sgd([lr, lr, lr], device)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert [group["lr"].item() for group in optimizer.param_groups] == [torch.tensor(0.05).item()] * 3
    assert optimizer.param_groups[0]["lr"] is lr


def test_a_group_added_later_joins_in(device):
    optimizer = tensor_sgd([0.5], torch.float32, device)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
    scheduler.step(1.0)
    weight = torch.nn.Parameter(torch.zeros(1, device=device))
    optimizer.add_param_group({"params": [weight], "lr": torch.tensor(8.0, device=device)})
    weight = torch.nn.Parameter(torch.zeros(1, device=device))
    optimizer.add_param_group({"params": [weight]})  # torch puts the optimizer's default there, a float
    scheduler.step(1.0)
    assert scheduler.num_bad_epochs == 1
    scheduler.step(1.0)
    lrs = [group["lr"].item() for group in optimizer.param_groups]
    assert lrs == [0.25, 4.0, torch.tensor(0.05).item()]
    assert scheduler.min_lrs == [0, 0, 0]
    assert isinstance(scheduler._engine, TensorEngine)


def test_a_list_of_min_lrs_must_follow_added_groups():
    optimizer = tensor_sgd([0.5], torch.float32)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, min_lr=[0.125])
    scheduler.step(1.0)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer.add_param_group({"params": [weight], "lr": torch.tensor(0.5)})
    with pytest.raises(
        RuntimeError, match=r"min_lrs has 1 values for 2 param groups.*set scheduler.min_lrs to one minimum per group"
    ):
        scheduler.step(1.0)
    scheduler.min_lrs.append(0.25)
    for _ in range(4):
        scheduler.step(1.0)
    assert [group["lr"].item() for group in optimizer.param_groups] == [0.125, 0.25]


@pytest.mark.parametrize("how", ["attribute", "__dict__", "list item"])
def test_hyperparameters_written_after_construction_count(device, how):
    optimizer = tensor_sgd([1.0], torch.float32, device)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scheduler.step(1.0)
    if how == "attribute":
        scheduler.factor = 0.25
    elif how == "__dict__":
        scheduler.__dict__["factor"] = 0.25
    else:
        scheduler.min_lrs[0] = 0.75
    scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"].item() == (0.75 if how == "list item" else 0.25)


def test_a_hyperparameter_reaches_the_device_without_another_eager_step(device):
    """Compiled code and captured graphs run the operator alone."""
    scheduler = fastsched.ReduceLROnPlateau(tensor_sgd([1.0], torch.float32, device), factor=0.5)
    program = scheduler._engine._replicas[0].program
    before = program.clone()
    scheduler.factor = 0.25
    assert int((program != before).sum()) == 1


@pytest.mark.parametrize("name", COUNTERS)
def test_counters_can_be_written(device, name):
    optimizer = tensor_sgd([1.0], torch.float32, device)
    oracle = float_oracle(optimizer, patience=3, factor=0.5)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=3, factor=0.5)
    number = float if name == "best" else int
    for either in (scheduler, oracle):
        either.step(1.0)
        setattr(either, name, number(5))
        either.step(4.0)
        either.__dict__[name] = number(2)
        either.step(4.0)
    assert_follows(scheduler, oracle)


@pytest.mark.parametrize("value", [0.5, torch.tensor(1)])
def test_what_a_counter_cannot_hold_is_left_to_torchs_code(value):
    scheduler = fastsched.ReduceLROnPlateau(tensor_sgd([1.0], torch.float32), patience=3)
    scheduler.cooldown_counter = value
    assert scheduler.cooldown_counter is value
    assert not isinstance(scheduler._engine, TensorEngine)


def checkpoint(scheduler):
    return copy.deepcopy((scheduler.optimizer.state_dict(), scheduler.state_dict()))


def test_loading_a_checkpoint_keeps_storage_and_restores_everything(device, lr_dtype):
    def make():
        return fastsched.ReduceLROnPlateau(
            tensor_sgd([0.1, 0.7], lr_dtype, device), patience=0, factor=0.9, threshold=0.0
        )

    saved_run, resumed = make(), make()
    for _ in range(5):
        saved_run.step(1.0)
    saved = checkpoint(saved_run)
    pointers = [replica.state.data_ptr() for replica in resumed._engine._replicas]
    pointers += [group["lr"].data_ptr() for group in resumed.optimizer.param_groups]
    resumed.step(0.5)
    resumed.optimizer.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    now = [replica.state.data_ptr() for replica in resumed._engine._replicas]
    now += [group["lr"].data_ptr() for group in resumed.optimizer.param_groups]
    assert now == pointers
    assert resumed.state_dict() == saved[1]
    for _ in range(50):
        saved_run.step(1.0)
        resumed.step(1.0)
    assert [float(g["lr"]) for g in resumed.optimizer.param_groups] == [
        float(g["lr"]) for g in saved_run.optimizer.param_groups
    ]
    assert resumed.state_dict() == saved_run.state_dict()


@given(run=tensor_runs(), at=st.integers(0, 40), scheduler_first=st.booleans())
def test_resuming_is_bit_exact_in_either_loading_order(run, at, scheduler_first):
    initial, configuration, stream = run
    through = fastsched.ReduceLROnPlateau(tensor_sgd(initial, torch.float32), **configuration)
    resumed = fastsched.ReduceLROnPlateau(tensor_sgd(initial, torch.float32), **configuration)
    for metric in stream[:at]:
        through.step(metric)
    optimizer_state, scheduler_state = checkpoint(through)
    if scheduler_first:
        resumed.load_state_dict(scheduler_state)
    resumed.optimizer.load_state_dict(optimizer_state)
    if not scheduler_first:
        resumed.load_state_dict(scheduler_state)
    for metric in stream[at:]:
        through.step(metric)
        resumed.step(metric)
        assert {k: bits(v) for k, v in resumed.state_dict().items()} == {
            k: bits(v) for k, v in through.state_dict().items()
        }


@pytest.mark.parametrize("to_torch", [True, False])
@pytest.mark.parametrize("tensor", [True, False])
def test_state_dicts_load_into_torch_and_back(tensor, to_torch):
    def optimizer():
        return tensor_sgd([0.5, 0.25], torch.float32) if tensor else sgd([0.5, 0.25])

    ours = fastsched.ReduceLROnPlateau(optimizer(), patience=1, factor=0.5)
    theirs = TorchPlateau(optimizer(), patience=1, factor=0.5)
    first, then = (ours, theirs) if to_torch else (theirs, ours)
    for metric in (1.0, 2.0, 2.0, 2.0):
        first.step(metric)
    then.optimizer.load_state_dict(first.optimizer.state_dict())
    then.load_state_dict(first.state_dict())
    for metric in (2.0, 2.0, 0.1, 0.1, 0.2, 0.2):
        first.step(metric)
        then.step(metric)
    assert ours.best == theirs.best
    assert ours.num_bad_epochs == theirs.num_bad_epochs
    assert [float(g["lr"]) for g in ours.optimizer.param_groups] == [
        float(g["lr"]) for g in theirs.optimizer.param_groups
    ]
    assert set(ours.state_dict()) == set(theirs.state_dict())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_are_independent_and_continue_exactly(device, duplicate):
    optimizer = tensor_sgd([0.1, 0.2], torch.float32, device)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.9)
    for _ in range(4):
        scheduler.step(1.0)
    twin = duplicate(scheduler)
    assert isinstance(twin._engine, TensorEngine)
    assert twin.optimizer is not optimizer
    assert twin.state_dict() == scheduler.state_dict()
    twin.step(1.0)
    assert twin.state_dict() != scheduler.state_dict()
    scheduler.step(1.0)
    assert twin.state_dict() == scheduler.state_dict()
    assert [g["lr"].item() for g in twin.optimizer.param_groups] == [g["lr"].item() for g in optimizer.param_groups]


def test_two_schedulers_on_one_optimizer_share_full_precision():
    optimizer = tensor_sgd([0.1], torch.float32)
    floats = sgd([float(optimizer.param_groups[0]["lr"])])
    settings = [{"factor": 0.9, "patience": 0}, {"factor": 0.97, "patience": 1}]
    ours = [fastsched.ReduceLROnPlateau(optimizer, eps=0.0, **setting) for setting in settings]
    theirs = [TorchPlateau(floats, eps=0.0, **setting) for setting in settings]
    for _ in range(300):
        for scheduler in (*ours, *theirs):
            scheduler.step(1.0)
        assert optimizer.param_groups[0]["lr"].item() == torch.tensor(floats.param_groups[0]["lr"]).item()


def test_groups_of_several_dtypes_decide_alike():
    optimizer = sgd([torch.tensor(0.5), torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.25)])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.1, min_lr=[0.0, 0.1, 0.2])
    assert len(scheduler._engine._replicas) == 2
    scheduler.step(1.0)
    scheduler.step(torch.tensor(1.0))
    assert [lr.dtype for lr in scheduler.get_last_lr()] == [torch.float32, torch.float64, torch.float32]
    assert [group["lr"].item() for group in optimizer.param_groups] == [
        torch.tensor(0.05).item(),
        0.1,
        torch.tensor(0.2).item(),
    ]
