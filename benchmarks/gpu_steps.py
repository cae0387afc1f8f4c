"""What a scheduler costs on a GPU: eager, in a captured graph, in a whole training iteration. Prints one JSON object.

python benchmarks/gpu_steps.py [--device cuda] [--quick]

Times are in microseconds: median and quartiles over rounds. --device cpu runs what needs no GPU, to try the script.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler as torch_lr_scheduler

import fastsched

GROUPS = (1, 10, 100, 1000, 10000)
STEPS_IN_GRAPH = 50


def spread(samples: list[float]) -> dict[str, float]:
    ordered = sorted(samples)
    quarter = len(ordered) // 4
    return {"us": statistics.median(ordered), "from": ordered[quarter], "to": ordered[-1 - quarter]}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def host_time(function: Callable[[], Any], device: torch.device, rounds: int, calls: int) -> dict[str, float]:
    """Per call, the host's time until it may continue, while the device still works."""
    samples = []
    for _ in range(rounds):
        wait(device)
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        samples.append((time.perf_counter() - begin) / calls * 1e6)
    wait(device)
    return spread(samples)


def device_time(function: Callable[[], Any], rounds: int, calls: int) -> dict[str, float]:
    """Per call, from event to event on the device."""
    samples = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            function()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) / calls * 1e3)
    return spread(samples)


def capture(function: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph


def optimizer_of(groups: int, device: torch.device) -> torch.optim.Optimizer:
    parts = [
        {"params": [torch.nn.Parameter(torch.zeros(1, device=device))], "lr": torch.tensor(0.1, device=device)}
        for _ in range(groups)
    ]
    optimizer = torch.optim.SGD(parts, lr=0.1, fused=device.type == "cuda")
    optimizer._opt_called = True  # type: ignore[attr-defined]  # the order of the first calls is not measured
    return optimizer


def plateau(module: Any, groups: int, device: torch.device) -> Any:
    return module.ReduceLROnPlateau(optimizer_of(groups, device), factor=1 - 1e-6, patience=0, threshold=0.0, eps=0.0)


def cosine(module: Any, groups: int, device: torch.device) -> Any:
    return module.CosineAnnealingLR(optimizer_of(groups, device), T_max=1000)


def warm_up_then_cosine(module: Any, groups: int, device: torch.device) -> Any:
    optimizer = optimizer_of(groups, device)
    parts = [module.LinearLR(optimizer, total_iters=10), module.CosineAnnealingLR(optimizer, T_max=1000)]
    return module.SequentialLR(optimizer, parts, milestones=[10])


def step_of(scheduler: Any, metric: torch.Tensor) -> Callable[[], Any]:
    if isinstance(scheduler, torch_lr_scheduler.ReduceLROnPlateau):
        return lambda: scheduler.step(metric)
    return lambda: scheduler.step()


def steps(device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """One step at each number of groups: torch and fastsched eagerly, fastsched in a graph of many steps."""
    metric = torch.tensor(1.0, device=device)
    cases = []
    for make in (plateau, cosine, warm_up_then_cosine):
        for groups in GROUPS:
            case: dict[str, Any] = {"work": make.__name__, "groups": groups}
            own = step_of(make(fastsched, groups, device), metric)
            own()
            case["fastsched, host"] = host_time(own, device, rounds, 100)
            if groups <= 1000:
                theirs = step_of(make(torch_lr_scheduler, groups, device), metric)
                theirs()
                case["torch, host"] = host_time(theirs, device, max(3, rounds // 5), 3)
                case["ratio, host"] = case["torch, host"]["us"] / case["fastsched, host"]["us"]
            if device.type == "cuda":
                graph = capture(lambda own=own: [own() for _ in range(STEPS_IN_GRAPH)])
                in_graph = device_time(graph.replay, rounds, 5)
                case["fastsched, in a graph"] = {name: value / STEPS_IN_GRAPH for name, value in in_graph.items()}
            cases.append(case)
    return cases


class Training:
    """A small network with one param group per parameter, and a step of it."""

    def __init__(self, module: Any, device: torch.device, depth: int, width: int = 256):
        torch.manual_seed(0)
        layers: list[torch.nn.Module] = []
        for _ in range(depth):
            layers += [torch.nn.Linear(width, width), torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*layers).to(device)
        self.inputs = torch.randn(128, width, device=device)
        parts = [
            {"params": [parameter], "lr": torch.tensor(1e-3, device=device)} for parameter in self.model.parameters()
        ]
        self.optimizer = torch.optim.Adam(parts, fused=True, capturable=device.type == "cuda")
        self.scheduler = module.ReduceLROnPlateau(self.optimizer, patience=3) if module is not None else None
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def iteration(self) -> None:
        self.optimizer.zero_grad(set_to_none=False)
        loss = self.model(self.inputs).square().mean()
        loss.backward()
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step(loss.detach())


def iterations(device: torch.device, rounds: int) -> dict[str, Any]:
    """A whole training iteration without a scheduler, with torch's and with fastsched's, eager and captured."""
    result: dict[str, Any] = {}
    modules = {"no scheduler": None, "torch": torch_lr_scheduler, "fastsched": fastsched}
    for depth in (8, 64):
        for name, module in modules.items():
            training = Training(module, device, depth)
            training.iteration()
            row = result.setdefault(f"{depth * 2} groups", {}).setdefault(name, {})
            row["eager"] = host_time(training.iteration, device, rounds, 5)
            if device.type == "cuda":
                row["eager, on the device"] = device_time(training.iteration, rounds, 5)
            if device.type == "cuda" and name != "torch":  # torch's waits for the device, which capture forbids
                row["captured"] = device_time(capture(training.iteration).replay, rounds, 20)
        own, none = result[f"{depth * 2} groups"]["fastsched"], result[f"{depth * 2} groups"]["no scheduler"]
        if "captured" in own:
            own["added to the captured iteration, us"] = own["captured"]["us"] - none["captured"]["us"]
    return result


def with_float_lrs(device: torch.device, **keywords: Any) -> Any:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, device=device))], lr=0.1)
    return fastsched.ReduceLROnPlateau(optimizer, factor=1 - 1e-6, patience=0, threshold=0.0, eps=0.0, **keywords)


def deferred(device: torch.device, rounds: int) -> dict[str, Any]:
    """The host's time of an iteration on Python-float learning rates whose plateau reads the loss, or defers it."""
    import warnings

    width = 2048 if device.type == "cuda" else 64
    weights, result = torch.randn(width, width, device=device), {}
    for name, keywords in {"reads the metric": {}, "deferred": {"deferred": True}}.items():
        scheduler = with_float_lrs(device, **keywords)

        def iteration(scheduler: Any = scheduler) -> None:
            scheduler.step((weights @ weights).square().mean())

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it waits
            iteration()
            result[name] = host_time(iteration, device, rounds, 20)
        before = scheduler.last_epoch
        scheduler.flush()
        result[name]["decided by the end"] = before / scheduler.last_epoch
    return result


def syncs(device: torch.device, scheduler: Any) -> int | None:
    """How often a thousand eager steps with device metrics wait for the device; None without a GPU."""
    if device.type != "cuda":
        return None
    import warnings

    metric = torch.tensor(1.0, device=device)
    scheduler.step(metric)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(1000):
            scheduler.step(metric)
    torch.cuda.set_sync_debug_mode("default")
    return len(caught)


def recompiles(device: torch.device) -> int:
    """How often a compiled step is compiled again over a hundred learning-rate changes."""
    import torch._dynamo.testing

    torch._dynamo.reset()
    frames = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    scheduler = plateau(fastsched, 10, device)
    metric = torch.tensor(1.0, device=device)
    scheduler.step(metric)
    compiled = torch.compile(lambda value: scheduler.step(value), fullgraph=True, backend=frames)
    for _ in range(100):
        compiled(metric)
    torch._dynamo.reset()
    return int(frames.frame_count) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="few rounds, to try the script")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    rounds = 3 if arguments.quick else 25
    result = {
        "steps": steps(device, rounds),
        "iterations": iterations(device, rounds),
        "waits in 1000 eager steps": syncs(device, plateau(fastsched, 100, device)),
        "waits in 1000 deferred steps on float learning rates": syncs(device, with_float_lrs(device, deferred=True)),
        "an iteration on float learning rates": deferred(device, rounds),
        "recompiles in 100 compiled steps": recompiles(device),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
