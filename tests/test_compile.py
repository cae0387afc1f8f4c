"""torch.compile traces a tensor-mode step into one graph and never again."""

import pytest
import torch
import torch._dynamo.testing
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched

from .conftest import sgd
from .optimizers import stepped_sgd
from .trees import deep
from .values import lrs

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


def test_inductor_adds_no_copies_around_the_operator():
    from torch._inductor.utils import run_and_get_code

    optimizer = stepped_sgd([torch.tensor(0.5), torch.tensor(0.25, dtype=torch.float64)])
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"].item()  # tensors, which somebody may write to, are copied
    scheduler = deep(optimizer, 2)
    scheduler.step(torch.tensor(1.0))
    _, [code] = run_and_get_code(torch.compile(scheduler.step, fullgraph=True), torch.tensor(1.0))
    body = code[code.index("def call(") :]
    assert body.count("torch.ops.fastsched.step_.default(") == 2  # one per dtype
    for copying in ("copy_", "clone", "empty_strided", "auto_functionalized", "as_strided"):
        assert copying not in body


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("composed", [False, True])
def test_settings_that_are_tensors_are_followed_when_written_in_place(backend, composed):
    def run(module, backend):
        torch._dynamo.reset()
        optimizer = stepped_sgd([torch.tensor(lr, dtype=torch.float64) for lr in (0.1, 0.2, 0.3)])
        scheduler = child = module.CosineAnnealingWarmRestarts(optimizer, 5)
        if composed:
            scheduler = module.SequentialLR(optimizer, [module.LinearLR(optimizer, 0.5, total_iters=3), child], [3])
        scheduler.step()
        step = torch.compile(scheduler.step, fullgraph=True, backend=backend) if backend else scheduler.step
        seen = []
        for i in range(9):
            step()
            seen += lrs(scheduler)
            if i == 4:
                child.base_lrs[1].fill_(0.7)
            if i == 6:
                child.base_lrs[0].mul_(0.5)
        return seen

    assert run(fastsched, backend) == pytest.approx(run(torch.optim.lr_scheduler, None), rel=1e-12)


def test_everything_that_steps_write_has_a_static_address():
    """So that CUDA-graph trees take the mutation."""
    scheduler = deep(stepped_sgd([torch.tensor(0.5)]), 1)
    [replica] = scheduler._engine._replicas
    for tensor in (replica.program, replica.state, replica.buffer.masters, replica.buffer.lrs):
        assert tensor._dynamo_static_input_type == "unguarded"


def test_a_python_number_recompiles_once():
    scheduler = fastsched.ReduceLROnPlateau(sgd([torch.tensor(1.0)]), patience=0, factor=0.5)
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    step = torch.compile(lambda metric: scheduler.step(metric), fullgraph=True, backend=frames)
    for i in range(10):
        step(1.0 + i / 7)
    assert frames.frame_count == 2  # as a constant, then as a number
    assert scheduler.best == 1.0
    assert scheduler.optimizer.param_groups[0]["lr"].item() == 0.5**9


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("make", [deep, lambda optimizer, _: fastsched.CosineAnnealingLR(optimizer, T_max=7)])
def test_a_whole_training_step_does_not_recompile_after_warm_up(make):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    fastsched.use_tensor_lr(optimizer)
    scheduler = make(optimizer, 1)
    takes_metric = isinstance(scheduler, fastsched.ChainedScheduler)
    inputs, targets = torch.randn(16, 4), torch.randn(16, 1)

    @torch.compile
    def train():
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        scheduler.step(*([loss] if takes_metric else []))
        return loss

    seen = []
    with torch._dynamo.config.patch(error_on_recompile=False):
        for _ in range(3):
            train()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(20):
            train()
            seen.append(optimizer.param_groups[0]["lr"].item())
    assert len(set(seen)) > 5
