"""Momentum that cycles too: as in torch if it is a number, in place if it is a tensor."""

import copy

import pytest
import torch
import torch._dynamo.testing
from torch.optim import lr_scheduler as torch_lr_scheduler

import fastsched
from fastsched import _C
from fastsched.engine.host import DETACHED, TensorEngine

from .watching import Operators

CYCLES = {
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 4, "step_size_down": 3, "mode": "triangular2"},
    "OneCycleLR": {"max_lr": 0.5, "total_steps": 60, "three_phase": True},
}
names = pytest.mark.parametrize("name", CYCLES)
optimizers = pytest.mark.parametrize("adam", [False, True], ids=["momentum", "betas"])


def first(group):
    return group["betas"][0] if "betas" in group else group["momentum"]


def make(module, name, lr, momentum, adam, groups=2, **changes):
    device = lr.device if isinstance(lr, torch.Tensor) else "cpu"
    parts = [
        {
            "params": [torch.nn.Parameter(torch.zeros(1, device=device))],
            "lr": copy.copy(lr) if not isinstance(lr, torch.Tensor) else lr.clone(),
            **({"betas": (copy.deepcopy(momentum), 0.99)} if adam else {"momentum": copy.deepcopy(momentum)}),
        }
        for _ in range(groups)
    ]
    # torch looks up the kind of momentum in the defaults; with tensors, Adam's own step requires capturable.
    optimizer = torch.optim.Adam(parts, lr=0.1, foreach=False) if adam else torch.optim.SGD(parts, lr=0.1)
    optimizer._opt_called = True
    return getattr(module, name)(optimizer, **{**CYCLES[name], **changes})


def values(scheduler):
    return [(float(group["lr"]), float(first(group))) for group in scheduler.optimizer.param_groups]


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def momentum_dtype(request):
    return request.param


@names
@optimizers
def test_numbers_are_bit_identical_to_torch(name, adam):
    theirs, ours = (make(module, name, 0.1, 0.9, adam) for module in (torch_lr_scheduler, fastsched))
    for _ in range(50):
        assert values(ours) == values(theirs)
        assert isinstance(ours._engine, _C.HostEngine)
        theirs.step()
        ours.step()
    group = ours.optimizer.param_groups[0]
    assert type(first(group)) is float
    assert not adam or type(group["betas"]) is tuple


@names
@optimizers
def test_numbers_along_with_tensor_lrs(name, adam):
    oracle = make(torch_lr_scheduler, name, 0.1, 0.9, adam)
    scheduler = make(fastsched, name, torch.tensor(0.1, dtype=torch.float64), 0.9, adam)
    for _ in range(50):
        assert isinstance(scheduler._engine, TensorEngine)
        assert values(scheduler) == values(oracle)
        oracle.step()
        scheduler.step()


@names
@optimizers
@pytest.mark.parametrize(
    ("tensor_lr", "device"),
    [(False, "cpu"), (True, "cpu"), pytest.param(True, "cuda", marks=pytest.mark.gpu)],
)
def test_tensors_are_written_in_place(name, adam, tensor_lr, momentum_dtype, device):
    lr = torch.tensor(0.1, dtype=torch.float64, device=device) if tensor_lr else 0.1
    momentum = torch.tensor(0.9, dtype=momentum_dtype, device=device)
    oracle = make(torch_lr_scheduler, name, 0.1, 0.9, adam)
    scheduler = make(fastsched, name, lr, momentum, adam)
    kept = [first(group) for group in scheduler.optimizer.param_groups]
    for _ in range(50):
        for group, reference in zip(scheduler.optimizer.param_groups, oracle.optimizer.param_groups, strict=True):
            torch.testing.assert_close(
                first(group).cpu(), torch.tensor(first(reference), dtype=momentum_dtype), rtol=1e-7, atol=0
            )
            assert float(group["lr"]) == pytest.approx(reference["lr"], rel=1e-12)
        oracle.step()
        scheduler.step()
    assert all(first(group) is tensor for group, tensor in zip(scheduler.optimizer.param_groups, kept, strict=True))
    assert scheduler._engine is not DETACHED or not tensor_lr


@names
def test_tensor_momentum_does_not_call_python(name):
    scheduler = make(fastsched, name, torch.tensor(0.1), torch.tensor(0.9), adam=True)
    scheduler.step()
    with Operators() as seen:
        scheduler.step()
    assert seen.calls == [torch.ops.fastsched.step_.default] * 2


@names
@optimizers
def test_interference_with_momentum(name, adam):
    """A checkpoint, another tensor, a number in its place: the next step writes whatever is there."""
    oracle = make(torch_lr_scheduler, name, 0.1, 0.9, adam)
    scheduler = make(fastsched, name, torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.9), adam)

    def put(value):
        for group in scheduler.optimizer.param_groups:
            if adam:
                group["betas"] = (value(), 0.99)
            else:
                group["momentum"] = value()

    def reload():
        scheduler.optimizer.load_state_dict(copy.deepcopy(scheduler.optimizer.state_dict()))
        scheduler.load_state_dict(copy.deepcopy(scheduler.state_dict()))

    acts = [
        lambda: put(lambda: torch.tensor(0.5)),
        reload,
        lambda: put(lambda: 0.5),
        reload,
        lambda: put(lambda: torch.tensor(0.25)),
    ]
    for act in acts:
        act()
        for _ in range(3):
            oracle.step()
            scheduler.step()
            assert sum(values(scheduler), ()) == pytest.approx(sum(values(oracle), ()), rel=1e-6)


@names
@pytest.mark.parametrize("tensor_momentum", [False, True])
def test_compiled_steps_make_one_graph(name, tensor_momentum):
    torch._dynamo.reset()
    oracle = make(torch_lr_scheduler, name, 0.1, 0.9, adam=True)
    momentum = torch.tensor(0.9, dtype=torch.float64) if tensor_momentum else 0.9
    scheduler = make(fastsched, name, torch.tensor(0.1, dtype=torch.float64), momentum, adam=True)
    for either in (oracle, scheduler):
        either.step()
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(scheduler.step, fullgraph=True, backend=frames)
    for _ in range(20):
        oracle.step()
        compiled()
        assert values(scheduler) == values(oracle)
    assert frames.frame_count == 1
    torch._dynamo.reset()


@names
@pytest.mark.parametrize("tensor", [False, True])
def test_stepping_past_the_end_raises_as_in_torch(name, tensor):
    lr = torch.tensor(0.1, dtype=torch.float64) if tensor else 0.1
    changes = {"total_steps": 5, "three_phase": False} if name == "OneCycleLR" else {}
    made = [make(module, name, lr, 0.9, adam=False, **changes) for module in (torch_lr_scheduler, fastsched)]
    outcomes = []
    for scheduler in made:
        outcome = []
        for _ in range(8):
            try:
                scheduler.step()
            except ValueError as error:
                outcome.append(str(error))
            outcome.append((values(scheduler), scheduler.last_epoch, scheduler._step_count))
        outcomes.append(outcome)
    assert outcomes[0] == outcomes[1]


def bound_of_the_group(scheduler):
    scheduler.optimizer.param_groups[0]["base_momentum"] = 0.2


def bounds_of_the_scheduler(scheduler):
    if hasattr(scheduler, "base_momentums"):
        scheduler.base_momentums = [0.3, 0.4]


def item_of_the_bounds(scheduler):
    if hasattr(scheduler, "base_momentums"):
        scheduler.base_momentums[1] = 0.3


def off(scheduler):
    scheduler.cycle_momentum = False


def off_and_on(scheduler):
    scheduler.cycle_momentum = False
    scheduler.step()
    scheduler.cycle_momentum = True


@names
@pytest.mark.parametrize("act", [bound_of_the_group, bounds_of_the_scheduler, item_of_the_bounds, off, off_and_on])
@pytest.mark.parametrize("tensor_momentum", [False, True])
def test_settings_of_momentum_are_followed(name, act, tensor_momentum):
    oracle = make(torch_lr_scheduler, name, 0.1, 0.9, adam=True)
    momentum = torch.tensor(0.9, dtype=torch.float64) if tensor_momentum else 0.9
    scheduler = make(fastsched, name, torch.tensor(0.1, dtype=torch.float64), momentum, adam=True)
    for either in (oracle, scheduler):
        either.step()
        either.step()
        act(either)
    for _ in range(6):
        oracle.step()
        scheduler.step()
        assert values(scheduler) == values(oracle)


@names
def test_groups_that_shared_one_momentum_tensor_get_one_each(name):
    shared = torch.tensor(0.9, dtype=torch.float64)
    parts = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": torch.tensor(0.1)} for _ in range(2)]
    optimizer = torch.optim.SGD(parts, lr=0.1)
    for group in optimizer.param_groups:
        group["momentum"] = shared
    optimizer._opt_called = True
    scheduler = getattr(fastsched, name)(optimizer, **CYCLES[name], max_momentum=[0.9, 0.95])
    oracle = make(torch_lr_scheduler, name, 0.1, 0.9, adam=False, max_momentum=[0.9, 0.95])
    for _ in range(3):
        scheduler.step()
        oracle.step()
    assert [momentum for _, momentum in values(scheduler)] == [momentum for _, momentum in values(oracle)]
    assert first(optimizer.param_groups[0]) is shared


@pytest.mark.parametrize("betas", [(), 3, "ab", torch.tensor([0.5, 0.9])], ids=repr)
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1, dtype=torch.float64)], ids=["number", "tensor"])
@pytest.mark.parametrize("cycles", [True, False])
def test_betas_of_another_kind_are_left_to_torch(betas, lr, cycles):
    def run(module, lr):
        scheduler = make(module, "CyclicLR", lr, 0.9, adam=True, cycle_momentum=cycles)
        for group in scheduler.optimizer.param_groups:
            group["betas"] = betas
        try:
            scheduler.step()
        except TypeError as error:
            return str(error)
        return repr([group["betas"] for group in scheduler.optimizer.param_groups])

    assert run(fastsched, lr) == run(torch_lr_scheduler, 0.1)


@names
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1, dtype=torch.float64)], ids=["number", "tensor"])
@pytest.mark.filterwarnings("ignore:Seems like")
def test_betas_in_a_list_are_written_as_in_torch(name, lr):
    """As a tuple, also where the momentum is what it was, and whatever became of the list meanwhile."""

    def run(module, lr):
        scheduler = make(module, name, lr, 0.9, adam=True, base_momentum=0.9, max_momentum=0.9)
        seen = []
        for _ in range(3):
            for group in scheduler.optimizer.param_groups:
                group["betas"] = [*group["betas"]]
            copied = copy.deepcopy(scheduler)
            copied.optimizer.param_groups[0]["betas"][:] = [0.5, 0.25, 0.125]
            for either in (scheduler, copied):
                either.step()
                seen.append([group["betas"] for group in either.optimizer.param_groups])
        return seen

    assert run(fastsched, lr) == run(torch_lr_scheduler, 0.1)


BOUNDS = {
    "float32": lambda value: torch.tensor(value),
    "float64": lambda value: torch.tensor(value, dtype=torch.float64),
    "float16": lambda value: torch.tensor(value, dtype=torch.float16),
    "of one element": lambda value: torch.tensor([value]),
    "one per group": lambda value: [torch.tensor(value), torch.tensor(value - 0.05)],
    "beside a number": lambda value: [torch.tensor(value), value - 0.05],
}
LRS = {"number": 0.1, "float32": torch.tensor(0.1), "of one element": torch.tensor([0.1])}


def bounds_of(scheduler):
    groups = scheduler.optimizer.param_groups
    return [float(group[name]) for group in groups for name in ("max_momentum", "base_momentum")]


@names
@optimizers
@pytest.mark.parametrize("lr", LRS.values(), ids=LRS)
@pytest.mark.parametrize("momentum", [0.9, torch.tensor(0.9)], ids=["number", "tensor"])
@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize("which", ["max_momentum", "base_momentum", "both"])
def test_bounds_that_are_tensors_stay_what_they_are(name, adam, lr, momentum, bound, which):
    limits = {"max_momentum": 0.95, "base_momentum": 0.8}
    trajectories = []
    for module in (torch_lr_scheduler, fastsched):
        chosen = {key: bound(value) if which in (key, "both") else value for key, value in limits.items()}
        scheduler = make(module, name, lr, momentum, adam, **chosen)
        trajectory = []
        for _ in range(8):
            trajectory.append([momentum for _, momentum in values(scheduler)] + bounds_of(scheduler))
            scheduler.step()
        trajectories.append(trajectory)
        for group in scheduler.optimizer.param_groups:
            assert first(group) is not group["max_momentum"]
            assert first(group) is not group["base_momentum"]
    # torch continues in the bound's dtype; fastsched's momentum tensor already has one
    rel = 2e-3 if bound is BOUNDS["float16"] else 1e-6
    for ours, theirs in zip(trajectories[1], trajectories[0], strict=True):
        assert ours == pytest.approx(theirs, rel=rel)


@names
@optimizers
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1, dtype=torch.float64)], ids=["number", "tensor"])
@pytest.mark.parametrize("momentum", [0.9, torch.tensor(0.9, dtype=torch.float64)], ids=["number", "tensor"])
def test_bounds_that_are_written_in_place_are_followed(name, adam, lr, momentum):
    trajectories = []
    for module in (torch_lr_scheduler, fastsched):
        scheduler = make(module, name, lr, momentum, adam, max_momentum=torch.tensor(0.95, dtype=torch.float64))
        trajectory = []
        for step in range(12):
            scheduler.step()
            trajectory += [momentum for _, momentum in values(scheduler)]
            if step == 3:
                scheduler.optimizer.param_groups[1]["max_momentum"].fill_(0.6)
            if step == 5:
                scheduler = copy.deepcopy(scheduler)
            if step == 7:
                scheduler.optimizer.param_groups[0]["max_momentum"].mul_(0.5)
        trajectories.append(trajectory)
    assert trajectories[1] == pytest.approx(trajectories[0], rel=1e-12)


@names
def test_a_bound_put_in_place_of_momentum_is_not_written(name):
    scheduler = make(fastsched, name, torch.tensor(0.1), torch.tensor(0.9), False, max_momentum=torch.tensor(0.95))
    scheduler.step()
    group = scheduler.optimizer.param_groups[0]
    group["momentum"] = group["max_momentum"]
    for _ in range(3):
        scheduler.step()
    assert group["max_momentum"].item() == torch.tensor(0.95).item()
    assert group["momentum"].item() != group["max_momentum"].item()


def test_a_base_lr_that_is_a_tensor_is_not_made_the_learning_rate():
    """torch then writes to it, and its cycle never comes down again."""
    oracle = make(torch_lr_scheduler, "CyclicLR", 0.1, 0.9, False)
    scheduler = make(fastsched, "CyclicLR", 0.1, 0.9, False, base_lr=torch.tensor(0.01, dtype=torch.float64))
    for _ in range(20):
        oracle.step()
        scheduler.step()
        assert values(scheduler) == [pytest.approx(value, rel=1e-12) for value in values(oracle)]
        assert [base.item() for base in scheduler.base_lrs] == [0.01, 0.01]


@optimizers
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1, dtype=torch.float64)], ids=["number", "tensor"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_child_that_begins_to_cycle_momentum(adam, lr, alone):
    """What its composition knows of child and groups was read before, also where the child is stepped alone then."""

    def run(schedulers, lr):
        parameters = [torch.nn.Parameter(torch.zeros(1))]
        kind = torch.optim.Adam if adam else torch.optim.SGD
        optimizer = kind(parameters, lr, foreach=False, **({} if adam else {"momentum": 0.9}))
        child = schedulers.CyclicLR(optimizer, 0.1, 0.5, step_size_up=4, base_momentum=0.8, max_momentum=0.95)
        child.cycle_momentum = False
        chain = schedulers.ChainedScheduler([child, schedulers.ExponentialLR(optimizer, 0.9)])
        optimizer.step()
        seen = []
        for step in range(8):
            if step in (3, 5):
                child.cycle_momentum = step == 3
                if alone:
                    child.step()
            chain.step()
            group = optimizer.param_groups[0]
            seen.append((float(group["lr"]), group["betas"] if adam else group["momentum"]))
        return seen

    assert run(fastsched, lr) == run(torch_lr_scheduler, 0.1)


@pytest.mark.parametrize("momentum", [0.9, torch.tensor(0.9)], ids=["number", "tensor"])
def test_an_attribute_of_that_name_does_not_cycle_momentum(momentum):
    optimizer = make(fastsched, "CyclicLR", torch.tensor(0.1), momentum, True, cycle_momentum=False).optimizer
    for scheduler in (fastsched.ExponentialLR(optimizer, 0.5), fastsched.LambdaLR(optimizer, lambda epoch: 0.5)):
        for cycles in (True, False, True):
            scheduler.cycle_momentum = cycles
            vars(scheduler)["last_epoch"] = 0  # so that its engine looks at everything
            scheduler.step()
            assert float(first(optimizer.param_groups[0])) == pytest.approx(0.9)
