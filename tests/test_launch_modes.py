"""Every scheduler and composition, launched in every way, against the same oracle: torch on Python floats."""

import pytest
import torch
import torch._dynamo.testing

import fastsched

from .configurations import TORCH
from .conftest import capture
from .launch_modes import METRIC, SCHEDULERS
from .optimizers import stepped_sgd
from .values import lrs

STEPS = 30
METRICS = [5.0 - i % 4 - i / 20 for i in range(STEPS)]


def eager(scheduler, takes_metric, device):
    def step(metric):
        scheduler.step(*([torch.tensor(metric, dtype=torch.float64, device=device)] if takes_metric else []))

    return step


def compiled(scheduler, takes_metric, device):
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    function = torch.compile(lambda *metric: scheduler.step(*metric), fullgraph=True, backend=frames)

    first = []

    def step(metric):
        function(*([torch.tensor(metric, dtype=torch.float64, device=device)] if takes_metric else []))
        # For a float64 number in a CPU tensor dynamo starts its analysis twice, and calls the backend each time.
        first.append(frames.frame_count)
        assert frames.frame_count == first[0] <= 2

    return step


def captured(scheduler, takes_metric, device):
    static = torch.tensor(METRICS[0], dtype=torch.float64, device=device)
    before = scheduler.state_dict(), [group["lr"].clone() for group in scheduler.optimizer.param_groups]
    graph = capture(lambda: scheduler.step(*([static] if takes_metric else [])))
    # Warming up for the capture has stepped.
    scheduler.load_state_dict(before[0])
    for group, lr in zip(scheduler.optimizer.param_groups, before[1], strict=True):
        group["lr"].copy_(lr)

    def step(metric):
        static.fill_(metric)
        graph.replay()

    return step


@pytest.fixture(
    params=[
        pytest.param((eager, "cpu"), id="eager-cpu"),
        pytest.param((compiled, "cpu"), id="compiled-cpu"),
        pytest.param((eager, "cuda"), id="eager-cuda", marks=pytest.mark.gpu),
        pytest.param((compiled, "cuda"), id="compiled-cuda", marks=pytest.mark.gpu),
        pytest.param((captured, "cuda"), id="captured-cuda", marks=pytest.mark.gpu),
    ]
)
def launch(request):
    torch._dynamo.reset()
    yield request.param
    torch._dynamo.reset()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_oracle_is_followed(name, launch, lr_dtype):
    how, device = launch
    initial = [torch.tensor(lr, dtype=lr_dtype).item() for lr in (0.5, 0.1, 0.7)]
    oracle = SCHEDULERS[name](TORCH, stepped_sgd(initial))
    optimizer = stepped_sgd([torch.tensor(lr, dtype=lr_dtype, device=device) for lr in initial])
    scheduler = SCHEDULERS[name](fastsched, optimizer)
    takes_metric = name in METRIC
    for either in (oracle, scheduler):
        either.step(*([METRICS[0]] if takes_metric else []))  # the order of the first calls is checked by Python
    step = how(scheduler, takes_metric, device)
    # CUDA's pow and cos may differ from the host's in the last place of a double.
    tolerance = 0 if device == "cpu" else 2e-7 if lr_dtype is torch.float32 else 1e-12
    for metric in METRICS:
        oracle.step(*([metric] if takes_metric else []))
        step(metric)
        expected = torch.tensor(lrs(oracle), dtype=lr_dtype).tolist()
        assert lrs(scheduler) == pytest.approx(expected, rel=tolerance, abs=0)
        assert [lr.item() for lr in scheduler.get_last_lr()] == lrs(scheduler)
    assert getattr(scheduler, "last_epoch", None) == getattr(oracle, "last_epoch", None)
