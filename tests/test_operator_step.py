"""The path of eager steps for learning rates on a device, used on host tensors: equal to the direct step."""

import pytest
import torch

import fastsched
from fastsched import _C
from fastsched.engine import tensor

from .launch_modes import METRIC, SCHEDULERS
from .optimizers import stepped_sgd
from .trees import tree_of
from .watching import Operators

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated")


@pytest.fixture
def by_operator(monkeypatch):
    """Makes schedulers that step afterwards call the operator."""

    def use(scheduler, do=True):
        monkeypatch.setattr(tensor, "_on_host", lambda settings: not do)
        for part in tree_of(scheduler):
            part._engine._direct = None

    return use


def nothing(scheduler):
    pass


def replace_an_lr(scheduler):
    group = scheduler.optimizer.param_groups[1]
    group["lr"] = torch.tensor(0.125, dtype=group["lr"].dtype)


def write_an_lr(scheduler):
    scheduler.optimizer.param_groups[0]["lr"].fill_(0.25)


def write_what_it_began_with(scheduler):
    began = [group.get("initial_lr") for group in scheduler.optimizer.param_groups]
    for part in tree_of(scheduler):
        began += getattr(part, "base_lrs", ())
    for value in began:
        if isinstance(value, torch.Tensor):
            value.mul_(0.5)


def set_counters(scheduler):
    for part in tree_of(scheduler):
        part.last_epoch = 3


def change_a_setting(scheduler):
    for part in tree_of(scheduler):
        for name in ("gamma", "factor", "eta_min", "patience"):
            if hasattr(part, name):
                setattr(part, name, getattr(part, name) * (0.5 if name == "factor" else 2))


def move_the_memory(scheduler):
    scheduler.optimizer.param_groups[0]["lr"].share_memory_()


def step_to(scheduler):
    if hasattr(scheduler, "base_lrs"):
        scheduler.step(2)


def states(scheduler):
    return [
        [group["lr"].item() for group in scheduler.optimizer.param_groups],
        [part.state_dict() for part in tree_of(scheduler)],
    ]


CHANGES = [
    nothing,
    replace_an_lr,
    write_an_lr,
    write_what_it_began_with,
    set_counters,
    change_a_setting,
    move_the_memory,
    step_to,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_it_does_what_the_direct_step_does(name, change, by_operator):
    seen = []
    for operator in (False, True):
        optimizer = stepped_sgd([torch.tensor(0.5 / (1 + i), dtype=torch.float32) for i in range(3)])
        scheduler = SCHEDULERS[name](fastsched, optimizer)
        by_operator(scheduler, operator)
        kinds = set()
        for step in range(9):
            if step == 5:
                change(scheduler)
            scheduler.step(*([torch.tensor(1.0)] if name in METRIC else []))
            kinds.add(type(getattr(scheduler._engine, "_direct", None)))
        seen.append(states(scheduler))
        assert (_C.OperatorStep in kinds, _C.DirectStep in kinds) == (operator, not operator)
    assert seen[0] == seen[1]


METRICS = [
    0.5,
    1,
    torch.tensor(0.5),
    torch.tensor(0.5, dtype=torch.float64, requires_grad=True),
    torch.tensor([0.5]).half(),
    torch.tensor(1),
    torch.tensor(True),
    torch.tensor(3, dtype=torch.uint16),
    torch.nn.Parameter(torch.tensor(0.5)),
    torch.tensor(float("nan")),
]


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_metrics_of_every_kind(metric, by_operator):
    seen = []
    for operator in (False, True):
        scheduler = fastsched.ReduceLROnPlateau(stepped_sgd([torch.tensor(0.5)]), patience=1)
        by_operator(scheduler, operator)
        for value in (2.0, metric, metric, metric, metric):
            scheduler.step(value)
        seen.append(states(scheduler))
    assert str(seen[0]) == str(seen[1])  # NaN included


@pytest.mark.parametrize("metric", [torch.zeros(2), torch.tensor(1j), None, "good"], ids=repr)
def test_what_is_not_a_metric_is_refused_as_ever(metric, by_operator):
    errors = []
    for operator in (False, True):
        scheduler = fastsched.ReduceLROnPlateau(stepped_sgd([torch.tensor(0.5)]), patience=1)
        by_operator(scheduler, operator)
        scheduler.step(1.0)
        scheduler.step(1.0)
        before = states(scheduler)
        with pytest.raises((TypeError, ValueError, RuntimeError)) as error:
            scheduler.step(metric)
        errors.append((type(error.value), str(error.value)))
        assert states(scheduler) == before
    assert errors[0] == errors[1]


def test_a_learning_rate_may_be_the_metric(by_operator):
    scheduler = fastsched.ReduceLROnPlateau(stepped_sgd([torch.tensor(0.5)]), patience=0, factor=0.5)
    by_operator(scheduler)
    lr = scheduler.optimizer.param_groups[0]["lr"]
    seen = []
    for _ in range(4):
        scheduler.step(lr)
        seen.append((lr.item(), scheduler.best))
    assert seen == [(0.5, 0.5), (0.25, 0.5), (0.25, 0.25), (0.125, 0.25)]


def test_there_are_no_steps_beyond_the_last(by_operator):
    scheduler = fastsched.OneCycleLR(stepped_sgd([torch.tensor(0.5)]), 0.5, total_steps=5, cycle_momentum=False)
    by_operator(scheduler)
    for _ in range(5):
        scheduler.step()
    assert type(scheduler._engine._direct) is _C.OperatorStep
    before = states(scheduler)
    with pytest.raises(ValueError, match="Tried to step 6 times"):
        scheduler.step()
    assert states(scheduler)[0] == before[0]


@pytest.mark.parametrize("groups", [1, 40])
def test_it_is_one_operator_and_one_copy_of_settings(groups, by_operator):
    scheduler = fastsched.CyclicLR(
        stepped_sgd([torch.tensor(0.5) for _ in range(groups)]),
        torch.tensor(0.1),
        torch.tensor(0.5),
        cycle_momentum=False,
    )
    by_operator(scheduler)
    scheduler.step()
    with Operators() as operators:
        scheduler.step()
    names = [str(call.overloadpacket) for call in operators.calls]
    assert names.count("fastsched.step_") == 1
    assert set(names) <= {"fastsched.step_", "aten._foreach_copy_"}
