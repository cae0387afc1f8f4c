"""Steps that are skipped because GradScaler skipped the optimizer's."""

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given
from hypothesis import strategies as st

import fastsched

from .configurations import LONG, make
from .optimizers import stepped_sgd
from .trees import grow, trees
from .values import bits, double, everything
from .watching import Operators

kinds = pytest.mark.parametrize("kind", [float, double], ids=["float", "tensor"])
skips = st.lists(st.booleans(), min_size=10, max_size=10)
forms = pytest.mark.parametrize(
    "form", [bool, torch.tensor, lambda skip: torch.tensor([float(skip)])], ids=["bool", "0-dim", "1-dim"]
)


@kinds
@forms
@given(tree=trees, skipped=skips)
def test_a_skipped_step_changes_nothing(kind, form, tree, skipped):
    scheduler = grow(stepped_sgd([kind(0.5)]), tree)
    oracle = grow(stepped_sgd([0.5]), tree)
    for skip in skipped:
        scheduler.step(1.0, found_inf=form(skip))
        if not skip:
            oracle.step(1.0)
        assert bits(everything(scheduler)) == bits(everything(oracle))


@kinds
@pytest.mark.parametrize("name", LONG)
def test_every_scheduler_takes_it(name, kind):
    scheduler = make(fastsched, name, [kind(0.5)], LONG[name])
    scheduler.optimizer.step()
    scheduler.step()
    lr, momentum = (scheduler.optimizer.param_groups[0][key] for key in ("lr", "momentum"))
    lr = float(lr)
    for found_inf in (True, 1.0, torch.tensor(1.0), torch.tensor([float("nan")])):
        scheduler.step(found_inf=found_inf)
        assert scheduler.last_epoch == 1
        assert (float(scheduler.optimizer.param_groups[0]["lr"]), momentum) == (
            lr,
            scheduler.optimizer.param_groups[0]["momentum"],
        )
    for found_inf in (False, 0.0, torch.tensor(0.0), torch.tensor([False]), None):
        scheduler.step(found_inf=found_inf)
    assert scheduler.last_epoch == 6


def test_it_is_an_operand_of_the_one_operator(device):
    optimizer = stepped_sgd([torch.tensor(0.5, device=device)])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    metric, found_inf = (torch.tensor(1.0, device=device) for _ in range(2))
    scheduler.step(metric)
    if device.type == "cuda":
        with Operators() as seen:
            scheduler.step(metric, found_inf=found_inf)
        assert seen.calls == [torch.ops.fastsched.step_.default]
    scheduler.step(metric, found_inf=found_inf)
    assert scheduler.last_epoch == 1
    scheduler.step(metric, found_inf=torch.zeros_like(found_inf))
    assert scheduler.last_epoch == 2


def test_one_graph_serves_both_outcomes():
    torch._dynamo.reset()
    scheduler = fastsched.ExponentialLR(stepped_sgd([double(1.0)]), 0.5)
    scheduler.step()
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda skip: scheduler.step(found_inf=skip), fullgraph=True, backend=frames)
    for skip in (0.0, 1.0, 1.0, 0.0):
        compiled(torch.tensor(skip))
    assert scheduler.optimizer.param_groups[0]["lr"].item() == 0.125
    assert frames.frame_count == 1
    torch._dynamo.reset()


@kinds
def test_several_elements_are_refused(kind):
    scheduler = fastsched.ExponentialLR(stepped_sgd([kind(1.0)]), 0.5)
    with pytest.raises(ValueError, match="found_inf must hold exactly one element, got 2"):
        scheduler.step(found_inf=torch.zeros(2))
    assert scheduler.last_epoch == 0


def test_with_a_grad_scaler():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=torch.tensor(1.0))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scheduler = fastsched.ExponentialLR(optimizer, 0.5)
    for factor, epoch in ((1.0, 1), (float("inf"), 1), (1.0, 2)):
        optimizer.zero_grad()
        scaler.scale(weight.sum() * factor).backward()
        scaler.unscale_(optimizer)
        [found_inf] = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values()
        scaler.step(optimizer)
        scheduler.step(found_inf=found_inf)
        scaler.update()
        assert scheduler.last_epoch == epoch


@kinds
@forms
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_an_epoch_is_skipped_as_well(kind, form):
    for name in ("CosineAnnealingWarmRestarts", "StepLR"):
        scheduler = make(fastsched, name, [kind(0.5)], LONG[name])
        scheduler.optimizer.step()
        scheduler.step(7, found_inf=form(True))
        assert scheduler.last_epoch == 0
        scheduler.step(7, found_inf=form(False))
        assert scheduler.last_epoch == 7
    scheduler = fastsched.ReduceLROnPlateau(stepped_sgd([kind(0.5)]))
    scheduler.step(1.0, 7, found_inf=form(True))
    assert scheduler.last_epoch == 0
    scheduler.step(1.0, 7, found_inf=form(False))
    assert scheduler.last_epoch == 7


def test_on_host_tensors_it_costs_no_new_engine_parts():
    scheduler = make(fastsched, "StepLR", [torch.tensor(0.5)], LONG["StepLR"])
    scheduler.optimizer.step()
    scheduler.step()
    direct = scheduler._engine._direct
    for _ in range(3):
        scheduler.step(found_inf=torch.tensor(0.0))
    assert direct is not None
    assert scheduler._engine._direct is direct
    assert scheduler.last_epoch == 4
