"""torch.compile traces a tensor-mode step into one graph and never again."""

import pytest
import torch
import torch._dynamo.testing
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched

from .conftest import sgd

# Inductor itself uses what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BACKENDS = ["eager", "aot_eager", "inductor"]


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled_step(scheduler, backend):
    frames = torch._dynamo.testing.CompileCounterWithBackend(backend)
    return torch.compile(scheduler.step, fullgraph=True, backend=frames), frames


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtypes", [[torch.float32] * 3, [torch.float32, torch.float64]], ids=["one", "two"])
def test_one_graph_no_recompile_and_the_eager_trajectory(device, backend, dtypes):
    optimizer = sgd([torch.tensor(0.5, dtype=dtype, device=device) for dtype in dtypes], device)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=1, factor=0.9, cooldown=1, eps=0.0)
    oracle = TorchPlateau(sgd([0.5] * len(dtypes)), patience=1, factor=0.9, cooldown=1, eps=0.0)
    step, frames = compiled_step(scheduler, backend)
    for i in range(60):
        metric = 1.0 / (1 + i // 8)
        step(torch.tensor(metric, device=device))
        oracle.step(float(torch.tensor(metric)))
    assert frames.frame_count == 1
    assert [group["lr"].item() for group in optimizer.param_groups] == [
        torch.tensor(group["lr"], dtype=dtype).item()
        for group, dtype in zip(oracle.optimizer.param_groups, dtypes, strict=True)
    ]
    assert scheduler.last_epoch == oracle.last_epoch == 60
    assert scheduler.best == oracle.best


def test_a_compiled_step_follows_attributes_and_writes_in_place():
    lr = torch.tensor(1.0)
    scheduler = fastsched.ReduceLROnPlateau(sgd([lr]), patience=0, factor=0.5)
    step, frames = compiled_step(scheduler, "aot_eager")
    metric = torch.tensor(1.0)
    step(metric)
    step(metric)
    assert lr.item() == 0.5
    scheduler.factor = 0.25
    step(metric)
    assert lr.item() == 0.125
    lr.fill_(8.0)
    step(metric)
    assert lr.item() == 2.0
    scheduler.best = 3.0
    step(metric)
    assert lr.item() == 2.0
    assert frames.frame_count == 1


def test_a_loaded_checkpoint_reaches_the_compiled_step():
    def make():
        return fastsched.ReduceLROnPlateau(sgd([torch.tensor(1.0)]), patience=0, factor=0.5)

    saved, resumed = make(), make()
    for _ in range(3):
        saved.step(1.0)
    step, frames = compiled_step(resumed, "aot_eager")
    step(torch.tensor(1.0))
    resumed.optimizer.load_state_dict(saved.optimizer.state_dict())
    resumed.load_state_dict(saved.state_dict())
    step(torch.tensor(1.0))
    saved.step(1.0)
    assert resumed.state_dict() == saved.state_dict()
    assert resumed.optimizer.param_groups[0]["lr"].item() == 0.125
    assert frames.frame_count == 1


def test_a_loss_that_requires_grad_may_be_the_metric():
    scheduler = fastsched.ReduceLROnPlateau(sgd([torch.tensor(1.0)]))
    weight = torch.tensor(2.0, requires_grad=True)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def train():
        loss = weight * weight
        scheduler.step(loss)
        return loss

    train().backward()
    assert weight.grad.item() == 4.0
    assert scheduler.best == 4.0
