"""Cost of one step compared with other libraries, on schedules that both sides have.

Each pair is first stepped side by side and must give the same learning rates. A peer that is not installed fails its
cases: `pip install '.[bench]'` (`make bench` does it).
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

import fastsched
from fastsched.cli.bench import LIBRARIES, LONG, groups_of

from .conftest import timer

GROUPS = [1, 10, 100, 1000]
Stepper = Callable[[torch.optim.Optimizer], Callable[[], None]]  # makes a peer's scheduler and returns what steps it

# Peers warn about their use of their own dependencies.
pytestmark = pytest.mark.filterwarnings("ignore")


def peer(module: str, distribution: str) -> Any:
    """The peer's module; if it is missing the case fails and says so, because a skip would look like a win."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.fail(f"NOT MEASURED: {distribution} is not installed (pip install '.[bench]'): {error}", pytrace=False)


def timm_schedulers() -> Any:
    """timm.scheduler without timm's models: they import torchvision, which only loads with one exact build of torch."""
    if "timm" not in sys.modules:
        spec = importlib.util.find_spec("timm")
        if spec is not None:
            package = types.ModuleType("timm")
            package.__path__ = list(spec.submodule_search_locations or [])
            sys.modules["timm"] = package
    return peer("timm.scheduler", "timm")


def transformers(name: str, warmup: int = 0, steps: int = LONG, **settings: Any) -> Stepper:
    def make(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        get_scheduler = peer("transformers", "transformers").get_scheduler
        return get_scheduler(name, optimizer, warmup, steps, scheduler_specific_kwargs=settings or None).step

    return make


def timm(name: str, **settings: Any) -> Stepper:
    """timm's schedulers are passed the number of the update, which the training loop has to count."""

    def make(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        scheduler = getattr(timm_schedulers(), name)(optimizer, t_in_epochs=False, **settings)
        updates = itertools.count(1)
        return lambda: scheduler.step_update(next(updates))

    return make


def timm_plateau(**settings: Any) -> Stepper:
    def make(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        scheduler = timm_schedulers().PlateauLRScheduler(optimizer, mode="min", **settings)
        epochs = itertools.count(1)
        return lambda: scheduler.step(next(epochs), 1.0)

    return make


def ignite(name: str, **settings: Any) -> Stepper:
    """ignite's write an iteration's value before it begins: the first call does what a constructor does elsewhere."""

    def make(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        scheduler = getattr(peer("ignite.handlers.param_scheduler", "pytorch-ignite"), name)(
            optimizer, "lr", **settings
        )
        scheduler(None)
        return lambda: scheduler(None)

    return make


def ignite_wrapped(gamma: float) -> Stepper:
    """Each call writes the wrapped scheduler's value of the previous call."""

    def make(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        module = peer("ignite.handlers.param_scheduler", "pytorch-ignite")
        scheduler = module.LRScheduler(torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=gamma))
        return lambda: scheduler(None)

    return make


def of(name: str, **settings: Any) -> Callable[[Any, torch.optim.Optimizer], Any]:
    return lambda library, optimizer: getattr(library, name)(optimizer, **settings)


def warmed_up(steps: int) -> Callable[[Any, torch.optim.Optimizer], Any]:
    def make(library: Any, optimizer: torch.optim.Optimizer) -> Any:
        parts = [
            library.LinearLR(optimizer, start_factor=1e-12, total_iters=5),
            library.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps - 5),
        ]
        return library.SequentialLR(optimizer, parts, milestones=[5])

    return make


def cosine(steps: int) -> Any:
    return of("CosineAnnealingLR", T_max=steps)


def linear(steps: int) -> Any:
    return of("LinearLR", start_factor=1.0, end_factor=0.0, total_iters=steps)


def polynomial(steps: int) -> Any:
    return of("PolynomialLR", total_iters=steps, power=0.9)


def by_name(name: str, warmup: int, steps: int, **settings: Any) -> tuple[Stepper, Any]:
    """transformers' scheduler of a name, and fastsched's; torch has none, so fastsched's is stepped in its place."""
    return transformers(name, warmup, steps, **settings), lambda _, optimizer: fastsched.get_scheduler(
        name, optimizer, warmup, steps, settings or None
    )


# A peer's schedule and fastsched's equivalent, over a number of steps.
PAIRS: dict[str, Callable[[int], tuple[Stepper, Any]]] = {
    "transformers: constant": lambda _: (transformers("constant"), of("ConstantLR", factor=1.0)),
    "transformers: linear": lambda n: (transformers("linear", steps=n), linear(n)),
    "transformers: linear after warm-up": lambda n: (transformers("linear", warmup=5, steps=n), warmed_up(n)),
    "transformers: cosine": lambda n: (transformers("cosine", steps=n), cosine(n)),
    "transformers: cosine_with_restarts": lambda n: (
        transformers("cosine_with_restarts", steps=n, num_cycles=5),
        of("CosineAnnealingWarmRestarts", T_0=n // 5),
    ),
    "transformers: polynomial": lambda n: (
        transformers("polynomial", steps=n, lr_end=0.0, power=0.9),
        polynomial(n),
    ),
    "transformers: cosine after warm-up": lambda n: by_name("cosine", 5, n),
    "transformers: constant_with_warmup": lambda n: by_name("constant_with_warmup", n, n),
    "transformers: inverse_sqrt": lambda n: by_name("inverse_sqrt", 5, n),
    "transformers: warmup_stable_decay": lambda n: by_name("warmup_stable_decay", 5, n, num_decay_steps=n - 5),
    "timm: CosineLRScheduler": lambda n: (timm("CosineLRScheduler", t_initial=n), cosine(n)),
    "timm: PolyLRScheduler": lambda n: (timm("PolyLRScheduler", t_initial=n, power=0.9), polynomial(n)),
    "timm: StepLRScheduler": lambda n: (
        timm("StepLRScheduler", decay_t=n // 10, decay_rate=0.5),
        of("StepLR", step_size=n // 10, gamma=0.5),
    ),
    "timm: MultiStepLRScheduler": lambda n: (
        timm("MultiStepLRScheduler", decay_t=[n // 10], decay_rate=0.5),
        of("MultiStepLR", milestones=[n // 10 - 1], gamma=0.5),  # timm's come one step early
    ),
    "timm: PlateauLRScheduler": lambda n: (
        timm_plateau(patience_t=n // 25, decay_rate=0.5),
        of("ReduceLROnPlateau", patience=n // 25, factor=0.5),
    ),
    "ignite: CosineAnnealingScheduler": lambda n: (
        # One of its cycles jumps back to the start: it is a single annealing.
        ignite("CosineAnnealingScheduler", start_value=0.1, end_value=0.0, cycle_size=n),
        cosine(n),
    ),
    "ignite: PiecewiseLinear": lambda n: (
        ignite("PiecewiseLinear", milestones_values=[(0, 0.1), (n, 0.0)]),
        linear(n),
    ),
    "ignite: LRScheduler of ExponentialLR": lambda n: (
        ignite_wrapped(gamma=1 - 0.1 / n),
        of("ExponentialLR", gamma=1 - 0.1 / n),
    ),
}


def steps_of(scheduler: Any) -> Callable[[], None]:
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return lambda: scheduler.step(1.0)
    return scheduler.step


def made(pair: str, steps: int, groups: int) -> tuple[str, dict[str, Callable[[], None]], dict[str, Any]]:
    """The peer's name, what steps each contestant, and their optimizers."""
    name = pair.split(": ")[0]
    make_peer, make_ours = PAIRS[pair](steps)
    optimizers = {kind: groups_of(groups, "host") for kind in (name, *LIBRARIES)}
    contestants = {name: make_peer(optimizers[name])}
    contestants |= {kind: steps_of(make_ours(library, optimizers[kind])) for kind, library in LIBRARIES.items()}
    for optimizer in optimizers.values():
        optimizer.step()
    return name, contestants, optimizers


def must_agree(pair: str) -> None:
    """The same schedule on both sides: 40 steps out of 50, equal at each."""
    name, contestants, optimizers = made(pair, steps=50, groups=2)
    for _ in range(40):
        for step in contestants.values():
            step()
        lrs = {kind: [group["lr"] for group in optimizer.param_groups] for kind, optimizer in optimizers.items()}
        assert lrs[name] == pytest.approx(lrs["fastsched"], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("pair", PAIRS)
def test_peer(compare, benchmark, pair, groups):
    must_agree(pair)
    name, contestants, _ = made(pair, steps=LONG, groups=groups)
    benchmark.extra_info.update(peer=name, schedule=pair.split(": ")[1], mode="host")
    for step in contestants.values():
        for _ in range(10):
            step()
    ratios = compare({kind: timer(step) for kind, step in contestants.items()})
    assert ratios[name] >= 1, f"{pair} is faster: its time is {ratios[name]:.2f} of fastsched's"


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("work", ["idle", "changing"])
def test_jitted_plateau(compare, benchmark, work, groups):
    """optax's reduce_on_plateau under jax.jit: like the tensor engine it decides on the metric's device.

    It scales the updates instead of learning rates. They are one array with an element per group, the cheapest input
    for jit; a tree of arrays costs more with every leaf.
    """
    benchmark.extra_info.update(peer="optax", schedule=f"reduce_on_plateau, {work}", mode="tensor")
    jax = peer("jax", "jax")
    optax = peer("optax", "optax")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # so that a call's work is done when it returns
    settings = {"factor": 1 - 1e-6, "patience": 1 if work == "changing" else 10**6}
    transform = optax.contrib.reduce_on_plateau(**settings, rtol=1e-9)
    lrs = jax.numpy.full((groups,), 0.1)
    state = transform.init(lrs)
    update = jax.jit(lambda lrs, state, value: transform.update(lrs, state, value=value))
    value = jax.numpy.asarray(1.0)

    def step_peer() -> None:
        nonlocal state
        _, state = update(lrs, state, value)

    plateau = {"factor": 1 - 1e-6, "patience": 0 if work == "changing" else 10**6, "threshold": 0.0, "eps": 0.0}
    optimizer = groups_of(groups, "tensor")
    scheduler = fastsched.ReduceLROnPlateau(optimizer, **plateau)
    metric = torch.tensor(1.0)
    for _ in range(20):
        step_peer()
        scheduler.step(metric)
    ratios = compare({"optax": timer(step_peer), "fastsched": timer(scheduler.step, metric)})
    assert ratios["optax"] >= 1, f"optax is faster: its time is {ratios['optax']:.2f} of fastsched's"
