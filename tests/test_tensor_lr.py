"""use_tensor_lr and the buffers it makes."""

import copy
import gc
import warnings
import weakref

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched
from fastsched import _C, lr_buffer
from fastsched.engine import TensorEngine

from .conftest import sgd


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
    torch.optim.LBFGS,
    torch.optim.Muon,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
    torch.optim.SGD,
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
    """Not only in ordinary steps: the LR tensors are the same objects, their storage is another."""

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
