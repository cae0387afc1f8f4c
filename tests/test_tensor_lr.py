"""use_tensor_lr and the buffers that it makes."""

import copy
import gc
import sys
import threading
import types
import warnings
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched
from fastsched import _C
from fastsched.engine import lr_buffer, tensor_lr
from fastsched.engine.host import TensorEngine

from .configurations import CONFIGURATIONS, tabulated
from .conftest import sgd
from .interruption import interrupted

names = pytest.mark.parametrize("name", CONFIGURATIONS)
initial_lrs = st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=3)


def test_floats_become_0_dim_tensors_on_the_parameters_device(device, lr_dtype):
    optimizer = sgd([0.1, 1], device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # plain SGD on a GPU reads its LR back, and is told so
        assert fastsched.use_tensor_lr(optimizer, dtype=lr_dtype) is optimizer
    lrs = [group["lr"] for group in optimizer.param_groups]
    assert [lr.shape for lr in lrs] == [(), ()]
    assert {lr.dtype for lr in lrs} == {lr_dtype}
    assert {lr.device for lr in lrs} == {device}
    assert [lr.item() for lr in lrs] == [torch.tensor(0.1, dtype=lr_dtype).item(), 1.0]


def test_an_existing_scheduler_goes_on_where_it_was():
    optimizer = sgd([0.1])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert isinstance(scheduler._engine, _C.HostEngine)
    fastsched.use_tensor_lr(optimizer)
    scheduler.step(1.0)
    assert isinstance(scheduler._engine, TensorEngine)
    assert scheduler.last_epoch == 3
    assert scheduler.state_dict()["_last_lr"] == [0.05]  # from the exact 0.1, not from its float32
    assert optimizer.param_groups[0]["lr"].item() == torch.tensor(0.05).item()


def test_calling_it_again_moves_dtype_and_keeps_the_schedule():
    optimizer = sgd([0.1, 0.2])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    fastsched.use_tensor_lr(optimizer)
    scheduler.step(1.0)
    scheduler.step(1.0)
    fastsched.use_tensor_lr(optimizer, dtype=torch.float64)
    scheduler.step(1.0)
    assert [group["lr"].item() for group in optimizer.param_groups] == [0.1 * 0.25, 0.2 * 0.25]
    assert scheduler.last_epoch == 3


def test_calling_it_again_with_nothing_to_move_keeps_schedulers_connected():
    optimizer = sgd([0.5])
    fastsched.use_tensor_lr(optimizer)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scheduler.step(1.0)
    fastsched.use_tensor_lr(optimizer)
    scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"].item() == 0.25


def test_a_tensor_of_the_right_kind_keeps_its_object():
    lr = torch.tensor(0.5)
    optimizer = sgd([lr, lr])
    fastsched.use_tensor_lr(optimizer)
    assert optimizer.param_groups[0]["lr"] is lr
    assert optimizer.param_groups[1]["lr"] is not lr


ALL_OPTIMIZERS = [
    torch.optim.ASGD,
    torch.optim.Adadelta,
    torch.optim.Adafactor,
    torch.optim.Adagrad,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.Muon,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
    torch.optim.SGD,
    torch.optim.SparseAdam,
]


@pytest.mark.parametrize("kind", ALL_OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_every_optimizer_of_torch_trains_on_with_tensor_lrs(kind):
    def train(plateau, use_tensor_lr):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(3, 3))
        optimizer = kind([weight], lr=0.01)
        use_tensor_lr(optimizer)
        scheduler = plateau(optimizer, patience=0, factor=0.5)

        def closure():
            optimizer.zero_grad()
            loss = ((weight - 1) ** 2).sum()
            loss.backward()
            if kind is torch.optim.SparseAdam:
                weight.grad = weight.grad.to_sparse()
            return loss

        for _ in range(4):
            optimizer.step(closure)
            scheduler.step(1.0)
        return weight.detach()

    def by_hand(optimizer):
        optimizer.param_groups[0]["lr"] = torch.tensor(0.01, dtype=torch.float64)

    def with_fastsched(optimizer):
        fastsched.use_tensor_lr(optimizer, dtype=torch.float64)

    ours = train(fastsched.ReduceLROnPlateau, with_fastsched)
    assert torch.equal(ours, train(TorchPlateau, by_hand))
    torch.testing.assert_close(ours, train(TorchPlateau, lambda optimizer: None))


def test_every_optimizer_of_torch_was_tried():
    known = {*ALL_OPTIMIZERS, torch.optim.LBFGS, torch.optim.Optimizer}
    found = [value for value in vars(torch.optim).values() if isinstance(value, type)]
    assert {kind for kind in found if issubclass(kind, torch.optim.Optimizer)} <= known


@pytest.mark.parametrize(
    "wrap", [lambda inner: inner, lambda inner: Wrapper(inner), lambda inner: Wrapper(Wrapper(inner))]
)
def test_what_cannot_take_one_is_refused_through_wrappers_too(wrap):
    weight = torch.nn.Parameter(torch.zeros(1))
    for inner, message in (
        (torch.optim.LBFGS([weight], lr=0.1), "LBFGS cannot take .* it keeps the tensor as its last step size"),
        (torch.optim.AdamW([weight], lr=0.1, foreach=True), "AdamW cannot take a tensor .* foreach=True"),
    ):
        with pytest.raises(ValueError, match=message):
            fastsched.use_tensor_lr(wrap(inner))
        assert inner.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_an_optimizer_that_cannot_take_one_says_what_to_set(kind):
    optimizer = kind([torch.nn.Parameter(torch.zeros(1))], lr=0.1, foreach=True)
    with pytest.raises(ValueError, match=r"cannot take a tensor .* foreach=True \(param_groups\[0\]\).*fused=True"):
        fastsched.use_tensor_lr(optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"optimizer": "SGD"}, TypeError, "str is not an Optimizer"),
        ({"dtype": torch.float16}, ValueError, "dtype must be torch.float32 or torch.float64"),
        ({"device": "meta"}, ValueError, "device must be a CPU or CUDA device, got meta"),
        ({"lr": torch.ones(2)}, ValueError, r"param_groups\[1\]\['lr'\] must have one element, got shape \(2,\)"),
        ({"lr": "0.1"}, TypeError, r"param_groups\[1\]\['lr'\] must be a number or a tensor, got str"),
        ({"lr": torch.ones((), requires_grad=True)}, ValueError, r"param_groups\[1\]\['lr'\] requires grad"),
    ],
)
def test_bad_input_names_the_argument_and_changes_nothing(arguments, error, message):
    optimizer = sgd([0.1, 0.1])
    if "lr" in arguments:
        optimizer.param_groups[1]["lr"] = arguments.pop("lr")
    with pytest.raises(error, match=message):
        fastsched.use_tensor_lr(**{"optimizer": optimizer, **arguments})
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.gpu
def test_an_optimizer_that_reads_its_lr_back_is_named():
    optimizer = sgd([0.1], "cuda")
    with pytest.warns(UserWarning, match="SGD reads its learning rate back.*fused=True") as record:
        fastsched.use_tensor_lr(optimizer)
    assert record[0].filename == __file__


@pytest.mark.skipif(torch.version.cuda is not None, reason="is about a torch without CUDA")
def test_cuda_without_cuda_operators_is_refused_before_anything_changes():
    optimizer = sgd([0.1])
    with pytest.raises(RuntimeError, match=r"fastsched has no CUDA operators: torch .* is a build without CUDA"):
        fastsched.use_tensor_lr(optimizer, device="cuda")
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_loaded_optimizer_state_lands_in_the_same_storage():
    optimizer = fastsched.use_tensor_lr(sgd([0.1, 0.2]))
    [buffer] = lr_buffer.bind(optimizer)
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.param_groups[0]["lr"].fill_(9.0)
    optimizer.load_state_dict(state)
    assert buffer.lrs.tolist() == torch.tensor([0.1, 0.2]).tolist()
    views = [group["lr"].data_ptr() for group in optimizer.param_groups]
    assert views == [buffer.lrs[0].data_ptr(), buffer.lrs[1].data_ptr()]


def test_a_state_with_float_lrs_loads_into_tensor_lrs_and_stays_a_tensor():
    optimizer = fastsched.use_tensor_lr(sgd([0.1]))
    optimizer.load_state_dict(sgd([0.7]).state_dict())
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)
    assert optimizer.param_groups[0]["lr"].item() == torch.tensor(0.7).item()


def test_buffers_die_with_their_optimizer():
    optimizer = fastsched.use_tensor_lr(sgd([0.1]))
    before = len(lr_buffer._buffers)
    del optimizer
    assert len(lr_buffer._buffers) == before - 1


class Wrapper(torch.optim.Optimizer):
    """As accelerate wraps an optimizer: without calling ``Optimizer.__init__``."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state)


@pytest.mark.parametrize("wrapped_first", [True, False])
def test_a_wrapper_that_is_no_whole_optimizer(device, wrapped_first):
    inner = sgd([torch.tensor(0.5, device=device)], device)
    inner._opt_called = True
    saved = inner.state_dict()
    optimizer = Wrapper(inner)
    if wrapped_first:
        fastsched.use_tensor_lr(inner)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    for _ in range(3):
        scheduler.step(torch.tensor(1.0, device=device))
    [replica] = scheduler._engine._replicas
    storage = replica.buffer.lrs
    assert storage.item() == 0.125
    saved["param_groups"][0]["lr"] = torch.tensor(0.75, device=device)
    optimizer.load_state_dict(saved)
    assert storage.item() == 0.75  # at once, where a captured graph reads it
    scheduler.step(torch.tensor(1.0, device=device))
    assert inner.param_groups[0]["lr"].item() == 0.375


def test_a_wrapper_does_not_outlive_its_use():
    inner = sgd([torch.tensor(0.5)])
    optimizer = Wrapper(inner)
    fastsched.use_tensor_lr(optimizer)
    reference = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert reference() is None
    inner.load_state_dict(inner.state_dict())


def test_engines_notice_that_the_learning_rates_moved():
    """Not only in ordinary steps: the LR tensors are the same objects, but with new storage."""

    def moved(make):
        optimizer = sgd([torch.tensor(1.0)])
        optimizer._opt_called = True
        scheduler = make(optimizer)
        scheduler.step()
        fastsched.use_tensor_lr(optimizer)
        return scheduler, optimizer.param_groups[0]

    scheduler, group = moved(lambda optimizer: fastsched.ExponentialLR(optimizer, 0.5))
    with pytest.warns(UserWarning, match="epoch parameter"):
        scheduler.step(5)
    assert group["lr"].item() == 1 / 32
    scheduler, group = moved(lambda optimizer: fastsched.CosineAnnealingWarmRestarts(optimizer, 5))
    scheduler.step(2.5)
    assert group["lr"].item() == pytest.approx(0.5)
    scheduler, group = moved(
        lambda optimizer: fastsched.SequentialLR(
            optimizer,
            [torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5, 100), fastsched.ExponentialLR(optimizer, 0.25)],
            [2],
        )
    )
    scheduler.step()
    assert group["lr"].item() == 1.0
    scheduler, group = moved(lambda optimizer: fastsched.ExponentialLR(optimizer, 0.5))
    group["lr"].fill_(0.3)
    assert scheduler.peek()["lrs"] == [group["lr"].item()]


def test_a_state_loaded_after_the_learning_rates_moved_is_exact():
    def steps(scheduler, count):
        for _ in range(count):
            scheduler.step()
        return scheduler.optimizer.param_groups[0]["lr"].item()

    whole = fastsched.ExponentialLR(sgd([torch.tensor(0.1)]), 0.97)
    whole.optimizer._opt_called = True
    steps(whole, 50)
    saved = copy.deepcopy((whole.optimizer.state_dict(), whole.state_dict()))
    resumed = fastsched.ExponentialLR(sgd([torch.tensor(0.1)]), 0.97)
    resumed.optimizer._opt_called = True
    resumed.optimizer.load_state_dict(saved[0])
    fastsched.use_tensor_lr(resumed.optimizer)
    resumed.load_state_dict(saved[1])
    assert [steps(resumed, 1) for _ in range(200)] == [steps(whole, 1) for _ in range(200)]


@pytest.mark.parametrize("swaps", [lambda groups: groups.reverse(), None], ids=["groups", "tensors"])
def test_slots_that_changed_hands_and_back(swaps):
    lrs = [torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64)]
    optimizer = sgd(lrs)
    optimizer._opt_called = True
    scheduler = fastsched.LambdaLR(optimizer, lambda epoch: 0.5**epoch, total_steps=20)
    scheduler.step()
    scheduler.step()
    groups = optimizer.param_groups

    def swap():
        if swaps:
            swaps(groups)
        else:
            groups[0]["lr"], groups[1]["lr"] = groups[1]["lr"], groups[0]["lr"]

    swap()
    fastsched.ReduceLROnPlateau(optimizer)
    swap()
    scheduler.step()
    assert [group["lr"].item() for group in groups] == [0.125, 0.03125]


def test_a_composition_whose_children_have_moved_out():
    def composed(kind, *initial):
        optimizer = sgd(initial)
        optimizer._opt_called = True
        parts = [fastsched.ExponentialLR(optimizer, 0.5), fastsched.StepLR(optimizer, 3)]
        scheduler = kind(parts) if kind is fastsched.ChainedScheduler else kind(optimizer, parts, [4])
        scheduler.step()
        return scheduler, parts, optimizer

    two_dtypes = torch.tensor(1.0), torch.tensor(1.0, dtype=torch.float64)
    scheduler, parts, optimizer = composed(fastsched.SequentialLR, *two_dtypes)
    fastsched.use_tensor_lr(optimizer)
    step = parts[1].step
    parts[1].step = lambda *arguments: step(*arguments)
    scheduler.step()
    assert [lr.item() for lr in scheduler.get_last_lr()] == [0.25, 0.25]
    scheduler, parts, optimizer = composed(fastsched.ChainedScheduler, *two_dtypes)
    fastsched.use_tensor_lr(optimizer)
    parts[1].step()
    assert scheduler.state_dict()["_schedulers"][0]["last_epoch"] == 1
    scheduler, parts, optimizer = composed(fastsched.SequentialLR, torch.tensor(1.0), torch.tensor(1.0))
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": torch.tensor(1.0), "initial_lr": 1.0}
    optimizer.add_param_group(group)
    parts[1].step()
    assert [lr.item() for lr in scheduler.get_last_lr()] == [0.5, 0.5]


def test_a_composition_within_one_whose_children_have_moved_out():
    optimizer = sgd([torch.tensor(0.5)])
    optimizer._opt_called = True
    parts = [fastsched.StepLR(optimizer, 3), fastsched.ExponentialLR(optimizer, 0.5)]
    scheduler = fastsched.ChainedScheduler([fastsched.SequentialLR(optimizer, parts, [5])])
    scheduler.step()
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": torch.tensor(0.25), "initial_lr": 0.25}
    optimizer.add_param_group(group)
    for part in parts:
        part.base_lrs.append(0.25)
    parts[0].step()
    assert [lr.item() for lr in scheduler.get_last_lr()] == [0.5, 0.25]
    assert scheduler.state_dict()["_schedulers"][0]["last_epoch"] == 1


def test_a_state_loads_into_a_composition_that_has_to_be_left():
    dtypes = (torch.float32, torch.float64, torch.float32)
    optimizer = sgd([torch.tensor(0.5, dtype=dtype) for dtype in dtypes])
    optimizer._opt_called = True
    parts = [fastsched.StepLR(optimizer, 3), fastsched.ExponentialLR(optimizer, 0.5)]
    scheduler = fastsched.SequentialLR(optimizer, parts, [5])
    scheduler.step()
    state = scheduler.state_dict()
    fastsched.use_tensor_lr(optimizer, dtype=torch.float64)
    step = parts[1].step
    parts[1].step = lambda: step()
    scheduler.step()
    scheduler.load_state_dict(state)
    assert scheduler.last_epoch == parts[0].last_epoch == 1


FLOATS = [0.3, 0.07]
KINDS = {
    "float": lambda lr: lr,
    "float32": torch.tensor,
    "float64": lambda lr: torch.tensor(lr, dtype=torch.float64),
    "shape 1": lambda lr: torch.tensor([lr]),
    "shape 1, 1": lambda lr: torch.tensor([[lr]]),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def stepped(lrs):
    optimizer = sgd(lrs)
    optimizer._opt_called = True
    return optimizer


def values(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def rounded(lrs, dtype=torch.float32):
    return torch.tensor(lrs, dtype=torch.float64).to(dtype).tolist()


def trajectory(scheduler, count):
    """The learning rates before and after each of these steps."""
    seen = [values(scheduler.optimizer)]
    for _ in range(count):
        scheduler.step()
        seen.append(values(scheduler.optimizer))
    return seen


@kinds
@pytest.mark.parametrize("finish", ["step", "call"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_an_interrupted_call_leaves_every_learning_rate_and_is_finished(kind, finish, dtype):
    """Wherever the exception comes, the LRs are what they were, and continue as they would have."""
    line = 0
    while True:
        optimizer = stepped([kind(lr) for lr in FLOATS])
        scheduler = fastsched.ExponentialLR(optimizer, 0.9)
        reference = fastsched.ExponentialLR(stepped(FLOATS if kind is KINDS["float"] else values(optimizer)), 0.9)
        trajectory(scheduler, 2)
        trajectory(reference, 2)
        stopped = interrupted(
            lambda optimizer=optimizer: fastsched.use_tensor_lr(optimizer, dtype=dtype), line, lr_buffer, tensor_lr
        )
        assert rounded(values(optimizer)) == rounded(values(reference.optimizer))
        if finish == "call":
            fastsched.use_tensor_lr(optimizer, dtype=dtype)
            assert {group["lr"].dtype for group in optimizer.param_groups} == {dtype}
            assert {group["lr"].shape for group in optimizer.param_groups} == {()}
        for _ in range(3):
            scheduler.step()
            reference.step()
            assert rounded(values(optimizer)) == rounded(values(reference.optimizer))
            assert rounded([float(lr) for lr in scheduler.get_last_lr()]) == rounded(values(optimizer))
        fastsched.use_float_lr(optimizer)
        assert values(optimizer) == values(reference.optimizer)
        if not stopped:
            break
        line += 1
    assert line > 30


def swap(groups):
    groups[0]["lr"], groups[1]["lr"] = groups[1]["lr"], groups[0]["lr"]


def replace_by_numbers(groups):
    for group, lr in zip(groups, (0.4, 0.6), strict=True):
        group["lr"] = lr


def replace_by_tensors(groups):
    groups[0]["lr"] = torch.tensor(0.4, dtype=torch.float64)
    groups[1]["lr"] = torch.tensor([0.6])


def add_a_group(groups):
    groups.append({**groups[0], "params": [], "lr": 0.05})


@pytest.mark.parametrize("change", [swap, replace_by_numbers, replace_by_tensors, add_a_group])
@pytest.mark.parametrize("again", [False, True], ids=["", "changed back"])
def test_a_step_that_is_interrupted_while_it_follows_the_groups(change, again):
    line = 0
    while True:
        optimizer = stepped([torch.tensor(lr) for lr in FLOATS])
        scheduler = fastsched.ExponentialLR(optimizer, 0.9)
        scheduler.step()
        change(optimizer.param_groups)
        before = values(optimizer)
        stopped = interrupted(lambda optimizer=optimizer: lr_buffer.bind(optimizer), line, lr_buffer)
        assert rounded(values(optimizer)) == rounded(before)
        if again and change is swap:
            swap(optimizer.param_groups)
            before.reverse()
        expected = before
        for _ in range(3):
            scheduler.step()
            expected = [0.9 * lr for lr in expected]
            assert values(optimizer) == pytest.approx(expected, rel=1e-6)
        if not stopped:
            break
        line += 1
    assert line > 20


def test_masters_that_changed_hands_stay_exact_through_an_interrupt():
    line = 0
    while True:
        optimizer = fastsched.use_tensor_lr(stepped([0.3, 0.07]))
        swap(optimizer.param_groups)
        stopped = interrupted(lambda optimizer=optimizer: lr_buffer.bind(optimizer), line, lr_buffer)
        fastsched.use_float_lr(optimizer)
        assert values(optimizer) == [0.07, 0.3]
        if not stopped:
            break
        line += 1


def test_an_interrupted_use_float_lr_is_finished_or_taken_back():
    line = 0
    while True:
        optimizer = fastsched.use_tensor_lr(stepped(FLOATS))
        scheduler = fastsched.ExponentialLR(optimizer, 0.9)
        reference = fastsched.ExponentialLR(stepped(FLOATS), 0.9)
        stopped = interrupted(lambda optimizer=optimizer: fastsched.use_float_lr(optimizer), line, lr_buffer, tensor_lr)
        assert rounded(values(optimizer)) == rounded(FLOATS)
        for _ in range(2):
            scheduler.step()
            reference.step()
            assert rounded(values(optimizer)) == rounded(values(reference.optimizer))
        fastsched.use_float_lr(optimizer)
        assert values(optimizer) == values(reference.optimizer)
        if not stopped:
            break
        line += 1
    assert line > 15


def test_an_interrupt_does_not_keep_another_thread_waiting():
    for act in (fastsched.use_tensor_lr, lr_buffer.bind, fastsched.use_float_lr):
        line = 0
        optimizer = fastsched.use_tensor_lr(stepped(FLOATS))
        while interrupted(lambda act=act, optimizer=optimizer: act(optimizer), line, lr_buffer, tensor_lr):
            thread = threading.Thread(target=lr_buffer.bind, args=(optimizer,), daemon=True)
            thread.start()
            thread.join(timeout=30)
            assert not thread.is_alive()
            line += 1
        assert line > 2


def test_two_threads():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            optimizer = stepped([0.1 * (k + 1) for k in range(8)])
            scheduler = fastsched.StepLR(optimizer, 10**6)
            start = threading.Barrier(3)

            def call(dtype, optimizer=optimizer, start=start):
                start.wait()
                for _ in range(3):
                    fastsched.use_tensor_lr(optimizer, dtype=dtype)

            threads = [threading.Thread(target=call, args=(dtype,)) for dtype in lr_buffer.LR_DTYPES]
            for thread in threads:
                thread.start()
            start.wait()
            for thread in threads:
                thread.join()
            fastsched.use_tensor_lr(optimizer, dtype=torch.float64)
            assert values(optimizer) == [0.1 * (k + 1) for k in range(8)]
            scheduler.gamma, scheduler.step_size = 0.5, 1
            scheduler.step()
            last = [lr.item() for lr in scheduler.get_last_lr()]
            assert values(optimizer) == last != [0.1 * (k + 1) for k in range(8)]
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_tensors_of_one_element_become_0_dim_and_stay_the_same_object(shape):
    lr = torch.full(shape, 0.5)
    optimizer = sgd([lr])
    fastsched.use_tensor_lr(optimizer)
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.shape == ()
    assert lr.item() == 0.5


@names
@given(data=st.data(), shape=st.sampled_from([(1,), (1, 1)]), tabulate=st.booleans())
def test_schedulers_step_them_in_the_shape_that_they_have(name, data, shape, tabulate):
    configuration = data.draw(CONFIGURATIONS[name])
    flat = made(stepped([torch.tensor(0.5), torch.tensor(0.25)]), name, configuration, tabulate)
    shaped = made(stepped([torch.full(shape, 0.5), torch.full(shape, 0.25)]), name, configuration, tabulate)
    for _ in range(5):
        flat.step()
        shaped.step()
        assert values(shaped.optimizer) == values(flat.optimizer)
        assert [float(lr) for lr in shaped.get_last_lr()] == [float(lr) for lr in flat.get_last_lr()]
    assert [group["lr"].shape for group in shaped.optimizer.param_groups] == [shape] * 2
    assert [lr.shape for lr in shaped.get_last_lr()] == [shape] * 2


def parts(optimizer):
    return [fastsched.LinearLR(optimizer, 0.1, total_iters=2), fastsched.ExponentialLR(optimizer, 0.5)]


def composition(number, optimizer):
    if number == 0:
        return fastsched.SequentialLR(optimizer, parts(optimizer), [2])
    if number == 1:
        return fastsched.ChainedScheduler(parts(optimizer))
    if number == 2:
        plateau = fastsched.ReduceLROnPlateau(optimizer, patience=0)
        return fastsched.SequentialLR(optimizer, [*parts(optimizer)[:1], plateau], [2])
    if number == 3:
        nested = fastsched.SequentialLR(optimizer, parts(optimizer), [1])
        return fastsched.SequentialLR(optimizer, [nested, *parts(optimizer)[1:]], [3])
    if number == 4:
        return fastsched.SequentialLR(optimizer, [fastsched.ReduceLROnPlateau(optimizer, patience=0)], [])
    if number == 5:
        functions = [fastsched.LambdaLR(optimizer, lambda epoch: 0.9**epoch), fastsched.StepLR(optimizer, 2)]
        return fastsched.SequentialLR(optimizer, functions, [2])
    torchs = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    return fastsched.SequentialLR(optimizer, [torchs, *parts(optimizer)[1:]], [2])


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
@pytest.mark.parametrize("number", range(7))
def test_compositions_step_them_in_the_shape_that_they_have(number, shape):
    def run(lr):
        optimizer = stepped([lr])
        scheduler = composition(number, optimizer)
        seen = []
        for _ in range(6):
            scheduler.step(1.0)
            seen.append(values(optimizer))
        return seen, optimizer.param_groups[0]["lr"].shape, scheduler.get_last_lr()[0].shape

    flat, shaped = run(torch.tensor(0.5)), run(torch.full(shape, 0.5))
    assert flat == (shaped[0], (), ())
    assert shaped[1:] == (shape, shape)


def test_compiled_steps_of_a_shaped_learning_rate():
    optimizer = stepped([torch.ones(1)])
    scheduler = fastsched.SequentialLR(
        optimizer, [fastsched.LinearLR(optimizer, 0.5, total_iters=3), fastsched.ExponentialLR(optimizer, 0.5)], [3]
    )
    scheduler.step()
    compiled = torch.compile(scheduler.step, backend="eager", fullgraph=True)
    for _ in range(4):
        compiled()
    assert values(optimizer) == [0.25]
    assert optimizer.param_groups[0]["lr"].shape == (1,)


def made(optimizer, name, configuration, tabulate=True):
    more = tabulated(fastsched, name) if tabulate else {}
    return getattr(fastsched, name)(optimizer, **configuration, **more)


@names
@given(data=st.data(), when=st.sampled_from(["before", 0, 1, 3, 5]), tabulate=st.booleans())
def test_it_does_not_matter_when_it_is_called(name, data, when, tabulate):
    """The learning rates are the float trajectory rounded; back to floats, they are the float trajectory."""
    initial, configuration = data.draw(initial_lrs), data.draw(CONFIGURATIONS[name])
    reference = made(stepped(initial), name, configuration, tabulate)
    optimizer = stepped(initial)
    if when == "before":
        fastsched.use_tensor_lr(optimizer)
    scheduler = made(optimizer, name, configuration, tabulate)
    for step in range(8):
        if step == when:
            fastsched.use_tensor_lr(optimizer)
        assert values(optimizer) == (
            rounded(values(reference.optimizer)) if when == "before" or step >= when else values(reference.optimizer)
        )
        scheduler.step()
        reference.step()
    assert isinstance(scheduler._engine, TensorEngine)
    fastsched.use_float_lr(optimizer)
    for _ in range(4):
        assert values(optimizer) == values(reference.optimizer)
        assert {type(group["lr"]) for group in optimizer.param_groups} == {float}
        scheduler.step()
        reference.step()
    assert not isinstance(scheduler._engine, TensorEngine)
    assert scheduler.state_dict() == reference.state_dict()


@names
@given(
    data=st.data(),
    at=st.integers(0, 12),
    scheduler_first=st.booleans(),
    when=st.sampled_from(["before", "after"]),
    tabulate=st.booleans(),
)
def test_it_resumes_exactly_in_either_loading_order(name, data, at, scheduler_first, when, tabulate):
    initial, configuration = data.draw(initial_lrs), data.draw(CONFIGURATIONS[name])

    def fresh():
        optimizer = stepped(initial)
        if when == "before":
            fastsched.use_tensor_lr(optimizer)
        scheduler = made(optimizer, name, configuration, tabulate)
        if when == "after":
            fastsched.use_tensor_lr(optimizer)
        return scheduler

    through, resumed = fresh(), fresh()
    trajectory(through, at)
    saved = copy.deepcopy((through.optimizer.state_dict(), through.state_dict()))
    if scheduler_first:
        resumed.load_state_dict(saved[1])
    resumed.optimizer.load_state_dict(saved[0])
    if not scheduler_first:
        resumed.load_state_dict(saved[1])
    for _ in range(8):
        through.step()
        resumed.step()
        assert values(resumed.optimizer) == values(through.optimizer)
        assert resumed.state_dict() == through.state_dict()


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("scheduler_first", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(5))
def test_compositions_resume_exactly_in_either_loading_order(number, scheduler_first, when, at):
    def fresh():
        optimizer = stepped([0.1, 0.07])
        if when == "before":
            fastsched.use_tensor_lr(optimizer)
        scheduler = composition(number, optimizer)
        if when == "after":
            fastsched.use_tensor_lr(optimizer)
        return scheduler

    through, resumed = fresh(), fresh()
    for _ in range(at):
        through.step(1.0)
    saved = copy.deepcopy((through.optimizer.state_dict(), through.state_dict()))
    if scheduler_first:
        resumed.load_state_dict(saved[1])
    resumed.optimizer.load_state_dict(saved[0])
    if not scheduler_first:
        resumed.load_state_dict(saved[1])
    for _ in range(6):
        through.step(1.0)
        resumed.step(1.0)
        assert values(resumed.optimizer) == values(through.optimizer)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("when", ["before", 0, 1, 2, 3, 4])
def test_compositions_do_not_care_when_it_is_called(number, when):
    reference = composition(number, stepped([0.1, 0.07]))
    optimizer = stepped([0.1, 0.07])
    if when == "before":
        fastsched.use_tensor_lr(optimizer)
    scheduler = composition(number, optimizer)
    for step in range(6):
        if step == when:
            fastsched.use_tensor_lr(optimizer)
        assert rounded(values(optimizer)) == rounded(values(reference.optimizer))
        scheduler.step(1.0)
        reference.step(1.0)
    fastsched.use_float_lr(optimizer)
    for _ in range(3):
        assert values(optimizer) == values(reference.optimizer)
        scheduler.step(1.0)
        reference.step(1.0)


def test_last_learning_rates_stay_the_schedulers_own():
    optimizer = stepped([0.5, 0.25])
    fastsched.use_tensor_lr(optimizer)
    scheduler = fastsched.ExponentialLR(optimizer, 0.5)
    scheduler.step()
    for group in optimizer.param_groups:
        group["lr"].fill_(9.0)
    fastsched.use_tensor_lr(optimizer, dtype=torch.float64)
    scheduler.peek()  # looks at the new buffers
    assert [lr.item() for lr in scheduler.get_last_lr()] == [0.25, 0.125]
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.75})
    assert [lr.item() for lr in scheduler.get_last_lr()] == [0.25, 0.125]
    scheduler.peek()
    assert [lr.item() for lr in scheduler.get_last_lr()][:2] == [0.25, 0.125]
    scheduler.step()
    assert [lr.item() for lr in scheduler.get_last_lr()] == values(optimizer) == [4.5, 4.5, 0.375]


@kinds
def test_use_float_lr_gives_floats_to_schedulers_of_any_learning_rate(kind):
    optimizer = stepped([kind(0.5), kind(0.25)])
    scheduler = composition(0, optimizer)
    scheduler.step()
    assert fastsched.use_float_lr(optimizer) is optimizer
    assert scheduler.peek()["lrs"] == values(optimizer)
    for _ in range(4):
        scheduler.step()
        assert {type(group["lr"]) for group in optimizer.param_groups} == {float}
    assert values(optimizer) == [0.5 * 0.125, 0.25 * 0.125]
    fastsched.use_tensor_lr(optimizer)
    scheduler.step()
    assert values(optimizer) == [0.5 * 0.0625, 0.25 * 0.0625]


def test_use_float_lr_through_a_wrapper():
    inner = stepped([0.1])
    wrapper = Wrapper(inner)
    wrapper._opt_called = True
    fastsched.use_tensor_lr(wrapper)
    scheduler = fastsched.ExponentialLR(inner, 0.5)
    scheduler.step()
    fastsched.use_float_lr(wrapper)
    scheduler.step()
    assert inner.param_groups[0]["lr"] == 0.1 * 0.5 * 0.5


@pytest.mark.parametrize("lr", [torch.ones(2), "0.1"])
def test_use_float_lr_refuses_what_is_no_learning_rate(lr):
    optimizer = sgd([torch.tensor(0.5), 0.1])
    optimizer.param_groups[1]["lr"] = lr
    with pytest.raises((TypeError, ValueError), match=r"param_groups\[1\]\['lr'\] must"):
        fastsched.use_float_lr(optimizer)
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)
    with pytest.raises(TypeError, match="str is not an Optimizer"):
        fastsched.use_float_lr("SGD")


def test_a_float32_tensor_of_the_users_is_the_number_that_it_holds():
    optimizer = stepped([torch.tensor(0.02)])
    scheduler = fastsched.StepLR(optimizer, 10)
    assert scheduler.base_lrs[0].item() == optimizer.param_groups[0]["initial_lr"].item() == torch.tensor(0.02).item()
    fastsched.use_float_lr(optimizer)
    assert values(optimizer) == [torch.tensor(0.02).item()]


def test_learning_rates_apart_from_their_parameters_are_warned_of_once(monkeypatch):
    optimizer = stepped([torch.tensor(0.5), torch.tensor(0.5)])
    for group in optimizer.param_groups:
        group["params"] = [types.SimpleNamespace(device=torch.device("cuda", 0))]
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_initialized", lambda: True)  # or nothing could be there
        with pytest.warns(UserWarning, match=r"param_groups\[0\]\['lr'\] is on cpu .* on cuda:0") as record:
            scheduler = fastsched.ExponentialLR(optimizer, 0.5)
    assert len(record) == 1
    assert record[0].filename == __file__
    fastsched.StepLR(optimizer, 3)
    scheduler.step()


def test_memory_that_a_buffer_has_left_is_not_its_own():
    moved = sgd([torch.tensor(0.5) for _ in range(3)])
    scheduler = fastsched.StepLR(moved, 3)
    [buffer] = lr_buffer.bind(moved)
    left = buffer.lrs.untyped_storage().data_ptr()
    moved.param_groups[0]["lr"].share_memory_()
    assert buffer.lrs.untyped_storage().data_ptr() != left
    optimizer = sgd([torch.tensor(0.5) for _ in range(2)])
    here = optimizer.param_groups[0]["lr"].untyped_storage().data_ptr()
    lr_buffer._owners[here] = buffer  # as if it had been at this address
    assert fastsched.StepLR(optimizer, 3)._engine.kind == "tensor"
    moved.step()
    scheduler.step()
    assert scheduler._engine.kind == "tensor"
