"""What is said to step a scheduler, compared with what does step it."""

import contextlib
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as torchs

import fastsched
from fastsched import _C, lr_scheduler
from fastsched.engine.host import DETACHED, ChildByChild, TensorEngine
from fastsched.schedulers.base import _EngineScheduler

from .conftest import sgd

KINDS = {_C.HostEngine: "host", ChildByChild: "host", TensorEngine: "tensor", type(DETACHED): "torch"}
MAKE = {
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda m, o: m.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda m, o: m.StepLR(o, 2),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [2, 5], 0.5),
    "ConstantLR": lambda m, o: m.ConstantLR(o),
    "LinearLR": lambda m, o: m.LinearLR(o),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 4),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.1, 0.5, 3),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.5, total_steps=30),
    "SWALR": lambda m, o: m.SWALR(o, 0.05, 4),
    "ReduceLROnPlateau": lambda m, o: m.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": lambda m, o: m.SequentialLR(o, [m.LinearLR(o), m.ExponentialLR(o, 0.9)], [5]),
    "ChainedScheduler": lambda m, o: m.ChainedScheduler([m.LinearLR(o), m.StepLR(o, 2)]),
}


def step(scheduler, times=1):
    for _ in range(times):
        scheduler.optimizer.step()
        scheduler.step(*([1.0] if isinstance(scheduler, torchs.ReduceLROnPlateau) else []))


def new(name, lrs):
    optimizer = torch.optim.SGD(sgd(lrs).param_groups, lr=0.1, momentum=0.9)
    return MAKE[name](lr_scheduler, optimizer)


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("name", MAKE)
def test_every_class(name, tensor):
    scheduler = new(name, [torch.tensor(0.5) if tensor else 0.5])
    for _ in range(2):
        said = fastsched.explain(scheduler)
        assert said.scheduler == name
        assert said.engine == KINDS[type(scheduler._engine)] == ("tensor" if tensor else "host")
        assert said.where == ("cpu" if tensor else "")
        assert [child.engine for child in said.children] == [said.engine] * len(scheduler._children())
        calls_python = tensor and name in ("LambdaLR", "MultiplicativeLR", "CyclicLR", "OneCycleLR")
        assert len(said.reasons) == calls_python
        step(scheduler)


class OwnLR(fastsched.StepLR):
    def get_lr(self):
        return [0.25 for _ in self.base_lrs]


class OwnStep(fastsched.StepLR):
    def step(self, epoch=None):
        super().step(epoch)


def groups(**entries):
    return lambda s: [group.update(entries) for group in s.optimizer.param_groups]


# name: the class, whether learning rates are tensors, what is done to it, what the reason says
CASES = {
    "numpy lr": ("StepLR", False, groups(lr=np.float64(0.5)), ["`lr`", "numpy.float64"]),
    "lr of a subclass": ("StepLR", False, groups(lr=type("MyFloat", (float,), {})(0.5)), ["`lr`", "MyFloat"]),
    "numpy setting": ("StepLR", False, lambda s: setattr(s, "gamma", np.float64(0.5)), ["`gamma`", "numpy.float64"]),
    "text": ("StepLR", False, lambda s: setattr(s, "gamma", 10**20), ["`gamma`", "2**53"]),
    "numpy setting, tensor lr": ("StepLR", True, lambda s: setattr(s, "gamma", np.float32(0.5)), ["`gamma`", "numpy"]),
    "own counter": ("StepLR", False, lambda s: setattr(s, "last_epoch", np.int64(3)), ["`last_epoch`", "numpy.int64"]),
    "plateau's": ("ReduceLROnPlateau", False, lambda s: setattr(s, "cooldown", 1.0), ["`cooldown`", "a Python int"]),
    "plateau's, tensor lr": ("ReduceLROnPlateau", True, lambda s: setattr(s, "patience", "3"), ["`patience`", "str"]),
    "mixed": ("StepLR", True, lambda s: s.optimizer.param_groups[1].update(lr=torch.tensor(0.5).half()), ["float16"]),
    "gradient": ("StepLR", True, groups(lr=torch.tensor(0.5, requires_grad=True)), ["requires a gradient"]),
    "two elements": ("StepLR", True, groups(lr=torch.ones(2)), ["2 elements"]),
    "subclass of tensor": ("StepLR", True, groups(lr=torch.nn.Parameter(torch.ones(()), False)), ["Parameter"]),
    "replaced method": ("StepLR", False, lambda s: setattr(s, "get_lr", lambda: [0.5, 0.5]), ["`get_lr`", "object's"]),
    "milestones": ("MultiStepLR", False, lambda s: s.milestones.update({2.5: 1.0}), ["`milestones`"]),
    "zero": ("StepLR", False, lambda s: setattr(s, "step_size", 0), ["a setting has a value"]),
    "mean": ("CosineAnnealingLR", True, lambda s: setattr(s, "T_max", 0), ["a setting has a value"]),
    "momentum": ("OneCycleLR", False, groups(momentum=np.float64(0.9)), ["`momentum`", "numpy.float64"]),
    "momenta": (
        "OneCycleLR",
        True,
        lambda s: s.optimizer.param_groups[1].update(momentum=torch.tensor(0.9)),
        ["momentum"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_no_engine_takes_is_named(case):
    name, tensor, change, expected = CASES[case]
    scheduler = new(name, [torch.tensor(0.5), torch.tensor(0.25)] if tensor else [0.5, 0.25])
    step(scheduler)
    change(scheduler)
    said = fastsched.explain(scheduler)
    with contextlib.suppress(
        ValueError, ZeroDivisionError, TypeError, RuntimeError
    ):  # torch's code raises, which steps
        step(scheduler)
    reasons = fastsched.explain(scheduler).reasons if said.engine != "torch" else said.reasons
    assert scheduler._fallback is not None, "an engine stepped it"
    assert scheduler._fallback[0] == reasons[-1].removeprefix("torch's code made the last step: ")
    assert all(word in reasons[-1] for word in expected), reasons
    assert said.engine == "torch" or case == "momentum"


@pytest.mark.parametrize("kind", [fastsched.MultiplicativeLR, fastsched.LambdaLR])
def test_a_step_that_only_python_could_make(kind):
    factor = [0.9]
    scheduler = kind(sgd([0.5]), lambda epoch: factor[0])
    factor[0] = np.float64(0.9)
    step(scheduler)
    assert fastsched.explain(scheduler).engine == "torch"
    assert "`lr`" in fastsched.explain(scheduler).reasons[0]
    factor[0] = 0.9
    scheduler.optimizer.param_groups[0]["lr"] = 0.5
    scheduler._last_lr = [0.5]
    assert fastsched.explain(scheduler).engine == "host"
    assert "a function of its" in fastsched.explain(scheduler).reasons[0]
    step(scheduler)
    assert fastsched.explain(scheduler).reasons == ()


@pytest.mark.parametrize("entry", ["weight_decay", "betas[0]"])
def test_other_entries(entry):
    optimizer = torch.optim.Adam(sgd([0.5]).param_groups)
    scheduler = fastsched.StepLR(optimizer, 3, param_name=entry)
    assert fastsched.explain(scheduler).engine == KINDS[type(scheduler._engine)] == "host"
    function = fastsched.LambdaLR(optimizer, lambda epoch: 0.9, param_name=entry)
    said = fastsched.explain(function)
    assert said.engine == KINDS[type(function._engine)] == ("torch" if entry == "betas[0]" else "host")
    assert len(said.reasons) == (entry == "betas[0]")


def test_int_learning_rates():
    scheduler = fastsched.StepLR(sgd([1]), 1, gamma=2)
    step(scheduler)
    assert "is an int" in fastsched.explain(scheduler).reasons[0]


def test_subclasses():
    said = fastsched.explain(OwnLR(sgd([0.5]), 3))
    assert said.engine == "torch"
    assert said.reasons == ("OwnLR overrides `get_lr`, which is Python code",)
    said = fastsched.explain(OwnStep(sgd([0.5]), 3))
    assert said.engine == "host"
    assert "step() is Python code" in said.reasons[0]
    scheduler = fastsched.CyclicLR(sgd([0.5]), 0.1, 0.5, scale_fn=lambda x: 0.9**x, cycle_momentum=False)
    assert "a function decides" in fastsched.explain(scheduler).reasons[0]


class TorchsMine(torchs.StepLR):
    pass


class Plain(torchs.LRScheduler):
    def get_lr(self):
        return self.base_lrs


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (torchs.StepLR(sgd([0.5]), 3), "fastsched.StepLR, or call fastsched.install()"),
        (torch.optim.swa_utils.SWALR(sgd([0.5]), 0.1), "fastsched.SWALR"),
        (TorchsMine(sgd([0.5]), 3), "TorchsMine is derived from torch's StepLR; derive it from fastsched.StepLR"),
        (Plain(sgd([0.5])), "Plain is not one of torch's"),
    ],
)
def test_schedulers_of_others(scheduler, expected):
    said = fastsched.explain(scheduler)
    assert said.engine == "torch"
    assert expected in said.reasons[0]


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
def test_children(tensor):
    optimizer = sgd([torch.tensor(0.5) if tensor else 0.5])
    children = [torchs.LinearLR(optimizer), OwnLR(optimizer, 3), fastsched.StepLR(optimizer, 3)]
    said = fastsched.explain(fastsched.SequentialLR(optimizer, children, [2, 4]))
    assert [child.engine for child in said.children] == ["torch", "torch", "tensor" if tensor else "host"]
    assert said.engine == "host"
    assert "LinearLR is not one of fastsched's schedulers" in said.reasons[0]
    text = str(said).splitlines()
    assert text[0] == "SequentialLR: the host engine steps it (Python numbers, compiled code)"
    assert text[2] == "  LinearLR: Python code steps it"
    assert repr(said) == str(said)


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("name", MAKE)
def test_nothing_is_changed(name, tensor):
    asked, other = (new(name, [torch.tensor(0.5) if tensor else 0.5] * 2) for _ in range(2))
    for _ in range(6):
        engine = asked._engine
        fastsched.explain(asked)
        assert asked._engine is engine
        step(asked)
        step(other)
        assert asked.state_dict().keys() == other.state_dict().keys()
        assert [group["lr"] for group in asked.optimizer.param_groups] == [
            g["lr"] for g in other.optimizer.param_groups
        ]


def test_a_change_is_seen_before_it_is_stepped_and_followed_after():
    scheduler = fastsched.StepLR(sgd([0.5]), 3)
    scheduler.gamma = np.float64(0.5)
    assert fastsched.explain(scheduler).engine == "torch"
    scheduler.gamma = 0.5
    assert fastsched.explain(scheduler).engine == "host"
    fastsched.use_tensor_lr(scheduler.optimizer)
    assert fastsched.explain(scheduler).engine == "tensor"


@pytest.mark.parametrize("scheduler", [None, 3, torch.optim.SGD])
def test_what_is_not_a_scheduler(scheduler):
    with pytest.raises(TypeError, match="must be a scheduler"):
        fastsched.explain(scheduler)


def test_the_log_says_it_once(caplog):
    with caplog.at_level(logging.INFO, "fastsched"):
        scheduler = fastsched.StepLR(sgd([0.5]), 3)
        step(scheduler, 2)
        scheduler.gamma = np.float64(0.5)
        step(scheduler)
        scheduler._last_lr = [0.5]
        scheduler.gamma = scheduler.optimizer.param_groups[0]["lr"] = 0.5
        step(scheduler, 3)
    assert [record.getMessage() for record in caplog.records] == [
        "StepLR: the host engine steps it",
        "StepLR: torch's code steps it: `gamma` is of type numpy.float64, not a Python float or int",
    ]


@pytest.mark.parametrize("value", [None, "", "0"])
def test_there_is_no_log_unless_asked_for(value):
    code = "import fastsched, logging, sys; sys.exit(len(logging.getLogger('fastsched').handlers))"
    environment = {"PATH": ""} if value is None else {"PATH": "", "FASTSCHED_LOG": value}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_the_log_on_stderr():
    code = "import torch, fastsched; fastsched.StepLR(torch.optim.SGD([torch.zeros(1, requires_grad=True)]), 3)"
    environment = {"FASTSCHED_LOG": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stderr.splitlines() == ["fastsched: StepLR: the host engine steps it"]


def test_it_asks_the_code_that_decides(monkeypatch):
    """Its conditions are not duplicated: what declines there is declined here."""
    scheduler = fastsched.StepLR(sgd([0.5]), 3)

    def refuse(self):
        _C.note_reason("a reason of tomorrow")
        return False

    monkeypatch.setattr(_EngineScheduler, "_decides_natively", refuse)
    assert fastsched.explain(scheduler).reasons == ("a reason of tomorrow",)
