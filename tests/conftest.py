import os
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("default", max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("slow", parent=settings.get_profile("default"), max_examples=3000)
settings.load_profile(os.environ.get("FASTSCHED_HYPOTHESIS", "default"))

REQUIRE_CUDA = os.environ.get("FASTSCHED_REQUIRE_CUDA") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a GPU, GPU tests are skipped; if one was promised they run, and fail."""
    if torch.cuda.is_available() or REQUIRE_CUDA:
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device (FASTSCHED_REQUIRE_CUDA=1 forbids this skip)"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if REQUIRE_CUDA and report.skipped and "gpu" in item.keywords:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although FASTSCHED_REQUIRE_CUDA=1"
    return report


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param, 0) if request.param == "cuda" else torch.device("cpu")


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def lr_dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def capture(function: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """As torch.cuda.graphs requires: a warm-up on a side stream, then the capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph


def sgd(lrs: Sequence[object], device: torch.device | str = "cpu") -> torch.optim.SGD:
    """An optimizer with one group per learning rate."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1, device=device))], "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups, lr=0.1)
