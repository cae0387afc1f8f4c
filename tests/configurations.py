"""Settings for every scheduler: random ones, and some for long runs."""

from __future__ import annotations

import math
from types import SimpleNamespace

from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr_scheduler
from torch.optim import swa_utils

import fastsched

from .conftest import sgd

# torch's names, SWALR among them as it is among fastsched's.
TORCH = SimpleNamespace(**vars(torch_lr_scheduler), SWALR=swa_utils.SWALR)


def geometric(epoch):
    return 0.9**epoch


def stepwise(epoch):
    return 1 if epoch % 3 else 0.5  # sometimes an int, as users' functions may return


class Ramp:
    """A callable object, whose attributes are saved."""

    def __init__(self, width):
        self.width = width

    def __call__(self, epoch):
        return min(1.0, (epoch + 1) / self.width)


def tabulated(module, name):
    """What fastsched must be given to step on the device."""
    return {"total_steps": 3100} if module is fastsched and name in FUNCTIONS else {}


FUNCTIONS = ("LambdaLR", "MultiplicativeLR")

gamma = st.floats(0.05, 1.2)

small = st.integers(1, 12)

functions = st.fixed_dictionaries({"lr_lambda": st.sampled_from([geometric, stepwise, Ramp(5)])})

momenta = {"cycle_momentum": st.booleans(), "base_momentum": st.floats(0, 0.8), "max_momentum": st.floats(0.85, 0.99)}

CONFIGURATIONS = {
    "StepLR": st.fixed_dictionaries({"step_size": small, "gamma": gamma}),
    "MultiStepLR": st.fixed_dictionaries({"milestones": st.lists(st.integers(0, 20), max_size=6), "gamma": gamma}),
    "ConstantLR": st.fixed_dictionaries({"factor": st.floats(0.01, 1.0), "total_iters": st.integers(0, 12)}),
    "LinearLR": st.fixed_dictionaries(
        {"start_factor": st.floats(0.01, 1.0), "end_factor": st.floats(0.0, 1.0), "total_iters": small}
    ),
    "ExponentialLR": st.fixed_dictionaries({"gamma": gamma}),
    "PolynomialLR": st.fixed_dictionaries({"total_iters": small, "power": st.floats(0.1, 3.0) | st.integers(1, 3)}),
    "CosineAnnealingLR": st.fixed_dictionaries({"T_max": small, "eta_min": st.floats(0.0, 0.05)}),
    "CosineAnnealingWarmRestarts": st.fixed_dictionaries(
        {"T_0": small, "T_mult": st.integers(1, 3), "eta_min": st.floats(0.0, 0.05)}
    ),
    "LambdaLR": functions,
    "MultiplicativeLR": functions,
    "CyclicLR": st.fixed_dictionaries(
        {
            "base_lr": st.floats(0.0, 0.1) | st.just(0),
            "max_lr": st.floats(0.1, 1.0) | st.just(1),
            "step_size_up": small,
            "step_size_down": small | st.none(),
            "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
            "gamma": st.floats(0.9, 1.0),
            **momenta,
        }
    ),
    "OneCycleLR": st.fixed_dictionaries(
        {
            "max_lr": st.floats(0.1, 1.0) | st.just(1),
            "total_steps": st.integers(45, 90),
            "pct_start": st.floats(0.1, 0.4),
            "anneal_strategy": st.sampled_from(["cos", "linear"]),
            "three_phase": st.booleans(),
            **momenta,
        }
    ),
    "SWALR": st.fixed_dictionaries(
        {
            "swa_lr": st.floats(0.001, 1.0),
            "anneal_epochs": st.integers(0, 12),
            "anneal_strategy": st.sampled_from(["cos", "linear"]),
        }
    ),
}


# What torch has no class for; all of them are lists of phases.
OWN = {
    "WarmupLR": st.fixed_dictionaries(
        {"warmup_steps": st.integers(0, 12), "warmup": st.sampled_from(["linear", "cosine", "1-sqrt", "log"])}
    ),
    "WarmupStableDecayLR": st.fixed_dictionaries(
        {
            "warmup_steps": st.integers(0, 5),
            "decay_steps": st.integers(0, 10),
            "total_steps": st.integers(15, 30),
            "min_lr_ratio": st.floats(0.01, 1.0),
            "decay": st.sampled_from(["linear", "cosine", "1-sqrt", "1-square", "exponential", "exp2", "log", "rex"]),
        }
    ),
    "WarmupCosineLR": st.fixed_dictionaries(
        {
            "warmup_steps": st.integers(0, 5),
            "total_steps": st.integers(5, 30),
            "min_lr_ratio": st.floats(0.0, 1.0),
            "k_decay": st.floats(0.5, 2.0),
        }
    ),
    "InverseSqrtLR": st.fixed_dictionaries({"warmup_steps": st.integers(0, 12)}),
    "DecayingRestartsLR": st.fixed_dictionaries(
        {
            "cycle_steps": st.integers(1, 5),
            "peak_decay": st.floats(0.2, 1.0),
            "growth": st.sampled_from([1, 1.5, 2]),
            "cycles": st.none() | st.integers(1, 4),
            "warmup_steps": st.integers(0, 3),
        }
    ),
}


def make(module, name, initial, configuration, **more):
    optimizer = sgd(initial)
    optimizer.step()
    return getattr(module, name)(optimizer, **configuration, **tabulated(module, name), **more)


LONG = {
    "StepLR": {"step_size": 30, "gamma": 0.97},
    "MultiStepLR": {"milestones": [10, 500, 500, 2000], "gamma": 0.3},
    "ConstantLR": {"total_iters": 700},
    "LinearLR": {"total_iters": 2500},
    "ExponentialLR": {"gamma": 0.999},
    "PolynomialLR": {"total_iters": 3000, "power": 0.9},
    "CosineAnnealingLR": {"T_max": 100, "eta_min": 1e-4},
    "CosineAnnealingWarmRestarts": {"T_0": 10, "T_mult": 2},
    "LambdaLR": {"lr_lambda": Ramp(1000)},
    "MultiplicativeLR": {"lr_lambda": stepwise},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 70, "mode": "exp_range", "gamma": 0.999},
    "OneCycleLR": {"max_lr": 0.5, "total_steps": 3100},
    "SWALR": {"swa_lr": 0.01, "anneal_epochs": 500},
}

LONG_OWN = {
    "WarmupLR": {"warmup_steps": 900, "warmup": "cosine"},
    "WarmupStableDecayLR": {"warmup_steps": 300, "decay_steps": 700, "total_steps": 3000, "min_lr_ratio": 0.1},
    "WarmupCosineLR": {"warmup_steps": 500, "total_steps": 2500, "min_lr_ratio": 0.1, "k_decay": 1.5},
    "InverseSqrtLR": {"warmup_steps": 400},
    "DecayingRestartsLR": {"cycle_steps": 30, "peak_decay": 0.8, "growth": 1.5, "cycles": None},
}

metrics = (
    st.floats(-2.0, 2.0)
    | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0])
    | st.floats(allow_nan=True, allow_infinity=True)
)


@st.composite
def configurations(draw: st.DrawFn, groups: int) -> dict[str, object]:
    minimum = st.floats(0.0, 0.5) | st.integers(0, 2)
    return {
        "mode": draw(st.sampled_from(["min", "max"])),
        "factor": draw(st.floats(0.0, 0.999) | st.just(0)),
        "patience": draw(st.integers(0, 4)),
        "threshold": draw(st.floats(0.0, 0.5) | st.just(1e-4) | st.just(0)),
        "threshold_mode": draw(st.sampled_from(["rel", "abs"])),
        "cooldown": draw(st.integers(0, 3)),
        "min_lr": draw(minimum | st.lists(minimum, min_size=groups, max_size=groups)),
        "eps": draw(st.sampled_from([1e-8, 0.0, 0, 1e-2])),
    }
