"""End to end: scikit-learn's digits on the CPU, a network with 465 parameter tensors and a param group for each.

Layer-wise learning rates give that many groups. The scheduler steps at every iteration. Its share is its own time
within the iteration, measured there, with caches as training leaves them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional as F

from fastsched.cli.bench import LIBRARIES, groups_of

from .conftest import quartiles

BLOCKS = 115
ROUNDS = 10
ITERATIONS = 4  # per contestant and round
ITERATIONS_PER_EPOCH = 15  # 1797 images in batches of 128
COMPILED_STEPS = 12
T_MAX = 1000

# torch.compile warns about its own use of torch.
pytestmark = pytest.mark.filterwarnings("ignore")


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * F.gelu(self.linear(self.norm(x)))


class Network(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first = nn.Linear(64, width, bias=False)
        self.blocks = nn.ModuleList(Block(width) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Training:
    """One contestant: its network, optimizer and scheduler, and the seconds that iterations and steps took."""

    def __init__(self, library: Any, mode: str, compiled: bool) -> None:
        torch.manual_seed(0)
        self.network = Network()
        if compiled:
            for block in self.network.blocks:
                block.compile()  # blocks share one graph; compiling the whole would take minutes for the same kernels
        parameters = list(self.network.parameters())
        assert len(parameters) == 465
        groups = [
            {"params": [parameter], "lr": torch.tensor(0.01) if mode == "tensor" else 0.01} for parameter in parameters
        ]
        self.optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
        self.scheduler = library.CosineAnnealingLR(self.optimizer, T_max=T_MAX) if library is not None else None
        images, labels = load_digits(return_X_y=True)
        self.batches = list(
            zip(
                torch.tensor(images, dtype=torch.float32).div(16).split(128),
                torch.tensor(labels).split(128),
                strict=True,
            )
        )
        self.done = 0

    def iterate(self) -> tuple[float, float]:
        """Seconds of one iteration, and of the scheduler's step in it."""
        x, y = self.batches[self.done % (len(self.batches) - 1)]  # the last batch is smaller
        self.done += 1
        begin = perf_counter()
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(x), y).backward()
        self.optimizer.step()
        before = perf_counter()
        if self.scheduler is not None:
            self.scheduler.step()
        end = perf_counter()
        return end - begin, end - before


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["host", "tensor"])
@pytest.mark.parametrize("execution", ["eager", "compiled"])
def test_share_of_iteration(benchmark, execution, mode):
    libraries = {"none": None, **LIBRARIES}
    contestants = {name: Training(library, mode, execution == "compiled") for name, library in libraries.items()}
    for training in contestants.values():
        for _ in range(3):
            training.iterate()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    steps: dict[str, list[float]] = {name: [] for name in contestants}

    def one_round() -> None:
        for name, training in contestants.items():
            for _ in range(ITERATIONS):
                iteration, step = training.iterate()
                seconds[name].append(iteration)
                steps[name].append(step)

    benchmark.pedantic(one_round, rounds=ROUNDS, iterations=1)
    shares = {
        name: quartiles([step / iteration for step, iteration in zip(steps[name], seconds[name], strict=True)])
        for name in LIBRARIES
    }
    benchmark.extra_info.update(
        groups=465,
        iteration_ms={name: [value * 1e3 for value in quartiles(samples)] for name, samples in seconds.items()},
        step_us={name: [value * 1e6 for value in quartiles(steps[name])] for name in LIBRARIES},
        share=shares,
        iterations_per_epoch=ITERATIONS_PER_EPOCH,
    )
    trained = [[float(group["lr"]) for group in contestants[name].optimizer.param_groups] for name in LIBRARIES]
    assert trained[0] == pytest.approx(trained[1], rel=1e-5)
    assert statistics.median(steps["fastsched"]) < statistics.median(steps["torch"])


def compiled_iteration(optimizer: Any, scheduler: Any, whole: bool) -> Callable[[], None]:
    """``optimizer.step()`` compiled, with the scheduler's step in it ("whole") or after it."""
    if whole:

        def both() -> None:
            optimizer.step()
            scheduler.step()

        return torch.compile(both, backend="eager")
    update = torch.compile(optimizer.step, backend="eager")

    def apart() -> None:
        update()
        scheduler.step()

    return apart


@pytest.mark.parametrize("mode", ["host", "tensor"])
@pytest.mark.parametrize("kind", list(LIBRARIES))
@pytest.mark.parametrize("whole", [False, True], ids=["after", "inside"])
def test_recompiles(benchmark, whole, kind, mode):
    """How often torch.compile compiles again because of the learning rates, in 12 steps of 8 groups.

    Counted by torch._dynamo, whose guards fail in the same way for every backend, so the cheapest is used.
    """
    torch._dynamo.reset()
    counters.clear()
    optimizer = groups_of(8, mode)
    for group in optimizer.param_groups:
        group["params"] = [nn.Parameter(torch.zeros(1))]
        group["params"][0].grad = torch.ones(1)
    scheduler = LIBRARIES[kind].CosineAnnealingLR(optimizer, T_max=T_MAX)
    optimizer.step()
    scheduler.step()
    step = compiled_iteration(optimizer, scheduler, whole)

    def steps() -> None:
        for _ in range(COMPILED_STEPS):
            step()

    step()
    first = counters["frames"]["total"]
    benchmark.pedantic(steps, rounds=1, iterations=1)
    recompiles = counters["frames"]["total"] - first
    benchmark.extra_info.update(
        groups=8,
        steps=COMPILED_STEPS,
        first_frames=first,
        recompiles=recompiles,
        graphs=counters["stats"]["unique_graphs"],
        graph_breaks=counters["graph_break"].total(),
    )
    if kind == "fastsched" and mode == "tensor":
        assert recompiles == 0, f"{recompiles} frames compiled again"
    torch._dynamo.reset()
