"""fastsched in place of torch's schedulers: who gets what, and that nothing else changes."""

import abc
import copy
import dataclasses
import functools
import inspect
import io
import pickle
import subprocess
import sys
import threading
import types
import typing

import pytest
import torch
from torch.optim import lr_scheduler as torchs
from torch.optim.swa_utils import SWALR

import fastsched
from fastsched import lr_scheduler as ours
from fastsched.schedulers.base import _EngineScheduler

from .conftest import sgd

ARGUMENTS = {
    "LambdaLR": {"lr_lambda": lambda epoch: 0.9**epoch},
    "MultiplicativeLR": {"lr_lambda": lambda epoch: 0.9},
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [2, 4]},
    "ConstantLR": {},
    "LinearLR": {},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {},
    "CosineAnnealingLR": {"T_max": 5},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2},
    "OneCycleLR": {"max_lr": 0.5, "total_steps": 20},
    "ReduceLROnPlateau": {"patience": 0},
    "SWALR": {"swa_lr": 0.05},
}
TORCHS = {name: getattr(torchs, name, SWALR) for name in (*ARGUMENTS, "SequentialLR", "ChainedScheduler")}


@pytest.fixture(autouse=True)
def torch_is_back():
    yield
    fastsched.uninstall()
    assert type(torchs.StepLR(sgd([0.1]), 3)) is torchs.StepLR


def make(name, lr=0.5):
    optimizer = sgd([lr])
    if name in ARGUMENTS:
        return TORCHS[name](optimizer, **ARGUMENTS[name])
    children = [torchs.ConstantLR(optimizer, 0.5, 3), torchs.ExponentialLR(optimizer, 0.9)]
    return torchs.SequentialLR(optimizer, children, [3]) if name == "SequentialLR" else TORCHS[name](children)


def trajectory(scheduler):
    seen = []
    for _ in range(8):
        scheduler.optimizer.step()
        scheduler.step(*([1.0] if isinstance(scheduler, torchs.ReduceLROnPlateau) else []))
        seen.append(float(scheduler.optimizer.param_groups[0]["lr"]))
    return seen


@pytest.mark.parametrize("lr", [0.5, torch.tensor(0.5, dtype=torch.float64)], ids=["float", "tensor"])
@pytest.mark.parametrize("name", TORCHS)
def test_torchs_names_make_fastscheds(name, lr):
    lr = lr.clone() if torch.is_tensor(lr) else lr
    expected = trajectory(make(name))
    with fastsched.installed():
        scheduler = make(name, lr)
    assert type(scheduler) is getattr(ours, name)
    assert trajectory(scheduler) == pytest.approx(expected, rel=0 if type(lr) is float else 1e-12, abs=0)
    assert type(make(name)) is TORCHS[name]


def test_every_class_of_torchs_is_replaced():
    """By whoever adds one here or there."""
    concrete = {name for name in torchs.__all__ if name != "LRScheduler"}
    assert concrete | {"SWALR"} == set(TORCHS)
    assert all(issubclass(getattr(ours, name), _EngineScheduler) for name in TORCHS)


class Registry:
    """Ways to hold a class, all set up with torch's before anything is installed."""

    made_by = torchs.StepLR
    table: typing.ClassVar = {"step": torchs.StepLR}

    def __init__(self, kind=torchs.StepLR):
        self.kind = kind


@dataclasses.dataclass
class Config:
    scheduler: type = torchs.StepLR
    partial: object = dataclasses.field(default_factory=lambda: functools.partial(torchs.StepLR, step_size=2))


def enclosed(kind):
    return lambda optimizer: kind(optimizer, 2)


HOLDERS = {
    "class attribute": lambda o: Registry.made_by(o, 2),
    "dict": lambda o: Registry.table["step"](o, 2),
    "default argument": lambda o: Registry().kind(o, 2),
    "dataclass default": lambda o: Config().scheduler(o, 2),
    "partial": lambda o: Config().partial(o),
    "closure": enclosed(torchs.StepLR),
    "keywords": lambda o: torchs.StepLR(optimizer=o, step_size=2),
    "getattr": lambda o: getattr(torch.optim.lr_scheduler, "StepLR")(o, 2),  # noqa: B009
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_it_reaches_whoever_holds_a_class(holder):
    with fastsched.installed():
        assert type(HOLDERS[holder](sgd([0.1]))) is fastsched.StepLR
    assert type(HOLDERS[holder](sgd([0.1]))) is torchs.StepLR


def test_a_module_imported_meanwhile_gets_torchs_again():
    module = types.ModuleType("imported_meanwhile")
    with fastsched.installed():
        exec("from torch.optim.lr_scheduler import StepLR", vars(module))
        assert type(module.StepLR(sgd([0.1]), 3)) is fastsched.StepLR
    assert type(module.StepLR(sgd([0.1]), 3)) is torchs.StepLR


def test_installing_twice_is_installing_once():
    fastsched.install()
    fastsched.install()
    assert type(make("StepLR")) is fastsched.StepLR
    fastsched.uninstall()
    assert type(make("StepLR")) is torchs.StepLR
    fastsched.uninstall()
    assert type(make("StepLR")) is torchs.StepLR


def test_blocks_nest_and_leave_what_was():
    with fastsched.installed():
        with fastsched.installed():
            pass
        assert type(make("StepLR")) is fastsched.StepLR
    fastsched.install()
    with fastsched.installed():
        pass
    assert type(make("StepLR")) is fastsched.StepLR


def test_a_block_is_left_by_an_exception():
    with pytest.raises(KeyError), fastsched.installed():
        raise KeyError
    assert type(make("StepLR")) is torchs.StepLR


def test_it_decorates_a_function():
    @fastsched.installed()
    def made():
        return make("StepLR")

    assert [type(made()) for _ in range(2)] == [fastsched.StepLR] * 2


def test_blocks_of_threads_overlap():
    entered, leave = threading.Event(), threading.Event()

    def other():
        with fastsched.installed():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(30)
    with fastsched.installed():
        leave.set()
        thread.join()
        assert type(make("StepLR")) is fastsched.StepLR
    assert type(make("StepLR")) is torchs.StepLR


def test_what_was_made_goes_on():
    with fastsched.installed():
        scheduler = make("StepLR")
    assert trajectory(scheduler) == trajectory(make("StepLR"))
    assert type(copy.deepcopy(scheduler)) is type(pickle.loads(pickle.dumps(scheduler))) is fastsched.StepLR


@pytest.mark.parametrize("name", TORCHS)
def test_classes_remain_themselves(name):
    before = make(name)
    with fastsched.installed():
        assert getattr(torchs, name, SWALR) is TORCHS[name]
        assert isinstance(before, getattr(torchs, name, SWALR))
        assert isinstance(make(name), TORCHS[name])
        assert pickle.loads(pickle.dumps(TORCHS[name])) is TORCHS[name]
        if name != "LambdaLR" and name != "MultiplicativeLR":
            for copied in (copy.copy(before), copy.deepcopy(before), pickle.loads(pickle.dumps(before))):
                assert type(copied) is TORCHS[name]
                assert vars(copied).keys() == vars(before).keys()
    assert TORCHS[name].__module__.startswith("torch.optim")


def test_a_checkpoint_with_a_whole_scheduler_in_it():
    file = io.BytesIO()
    torch.save(make("StepLR"), file)
    file.seek(0)
    with fastsched.installed():
        assert type(torch.load(file, weights_only=False)) is torchs.StepLR


class Mine(torchs.StepLR):
    def __init__(self, optimizer, span, *, gamma=0.5):
        super().__init__(optimizer, span, gamma)


def test_subclasses_remain_what_they_are():
    class Meanwhile(torchs.CosineAnnealingLR):
        def get_lr(self):
            return [0.25 for _ in self.base_lrs]

    with fastsched.installed():

        class Named(torchs.LRScheduler):
            def get_lr(self):
                return [lr / (1 + self.last_epoch) for lr in self.base_lrs]

        class OfOurs(ours.StepLR):
            pass

        class Abstract(torchs.StepLR, abc.ABC):
            @abc.abstractmethod
            def name(self): ...

        with pytest.raises(TypeError, match="abstract"):
            Abstract(sgd([0.1]), 3)
        for kind, arguments in ((Mine, [2]), (Meanwhile, [3]), (Named, []), (OfOurs, [2])):
            scheduler = kind(sgd([0.5]), *arguments)
            assert type(scheduler) is kind
            trajectory(scheduler)
        assert trajectory(Mine(sgd([0.5]), 2)) == trajectory(torchs.StepLR(sgd([0.5]), 2, 0.5))


class Counted:
    """Another base with a ``__new__``, of which torch's classes know nothing."""

    made = 0

    def __new__(cls, *args, **kwargs):
        Counted.made += 1
        assert args
        assert kwargs == {"gamma": 0.5}
        return super().__new__(cls)


class OwnNew(torchs.StepLR):
    def __new__(cls, optimizer, *_, **__):
        made = super().__new__(cls)
        made.noted = optimizer
        return made


class Both(torchs.StepLR, Counted):
    pass


@pytest.mark.parametrize("how", [fastsched.installed, fastsched.uninstall])
def test_bases_with_a_new_of_their_own(how):
    with how() or fastsched.installed():
        made = Counted.made
        optimizer = sgd([0.1])
        assert type(Both(optimizer, 3, gamma=0.5)) is Both
        assert Counted.made == made + 1
        assert OwnNew(optimizer, 3).noted is optimizer
    assert type(Both(optimizer, 3, gamma=0.5)) is Both
    assert OwnNew(optimizer, 3).noted is optimizer


@pytest.mark.parametrize("kind", [*TORCHS.values(), Mine, OwnNew, fastsched.StepLR, fastsched.OneCycleLR])
def test_signatures_and_help_are_what_they_were(kind):
    expected = list(inspect.signature(kind.__new__ if kind is OwnNew else kind.__init__).parameters.values())[1:]
    with fastsched.installed():
        assert list(inspect.signature(kind).parameters.values()) == expected
    assert list(inspect.signature(kind).parameters.values()) == expected


@pytest.mark.parametrize("name", ["StepLR", "SequentialLR", "ReduceLROnPlateau"])
def test_wrong_arguments_are_refused_as_before(name):
    def refusal():
        with pytest.raises(TypeError) as error:
            TORCHS[name]()
        return str(error.value)

    before = refusal()
    with fastsched.installed():
        assert refusal() == before
        with pytest.raises(TypeError, match="is not an Optimizer"):
            torchs.StepLR(1, 2)


def test_schedulers_made_before_are_children_of_those_made_meanwhile():
    optimizer = sgd([0.5])
    child = torchs.LinearLR(optimizer, total_iters=3)
    with fastsched.installed():
        scheduler = torchs.SequentialLR(optimizer, [child, torchs.StepLR(optimizer, 2)], [3])
    assert type(scheduler) is fastsched.SequentialLR
    expected = sgd([0.5])
    children = [torchs.LinearLR(expected, total_iters=3), torchs.StepLR(expected, 2)]
    assert trajectory(scheduler) == trajectory(torchs.SequentialLR(expected, children, [3]))


def test_importing_fastsched_changes_nothing():
    code = """
import torch
before = {name: dict(vars(kind)) for name, kind in vars(torch.optim.lr_scheduler).items() if isinstance(kind, type)}
import fastsched
for name, attributes in before.items():
    assert dict(vars(getattr(torch.optim.lr_scheduler, name))) == attributes, name
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
