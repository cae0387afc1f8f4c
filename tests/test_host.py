"""The compiled module with inputs that it was not made for, or with Python code running in the middle of its step."""

import collections
import subprocess
import sys
import textwrap
import threading
import types

import pytest
import torch
from torch.optim import lr_scheduler as torch_lr_scheduler

import fastsched
from fastsched import _C
from fastsched.engine import program

from .conftest import sgd

CLASSES = [value for value in vars(_C).values() if isinstance(value, type)]


def run(code, *arguments):
    """In a separate process, so that a crash is just a result."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_object_that_was_never_initialized_has_no_methods(kind):
    blank = kind.__new__(kind)
    names = [name for name in dir(kind) if not name.startswith("_") and not isinstance(vars(kind)[name], staticmethod)]
    assert names
    for name in names:
        for count in range(4):
            with pytest.raises(TypeError):
                getattr(blank, name)(*[None] * count)  # for a property, the look-up raises


def test_an_object_that_was_never_initialized_is_no_argument():
    blank = _C.Guard.__new__(_C.Guard)
    guard = _C.Guard("StepLR")
    with pytest.raises(TypeError, match="not an initialized"):
        guard.record_children([None], [blank])
    with pytest.raises(TypeError, match="not an initialized"):
        _C.DirectStep(blank, [], False, False, 1.0)
    scheduler = fastsched.ChainedScheduler([fastsched.StepLR(sgd([0.1]), 3)])
    object.__setattr__(scheduler._schedulers[0], "_engine", _C.HostEngine.__new__(_C.HostEngine))
    with pytest.raises(TypeError):
        scheduler.step()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_classes_cannot_be_derived_from(kind):
    with pytest.raises(TypeError, match="not an acceptable base type"):
        types.new_class("Derived", (kind,))


def test_a_direct_step_takes_nothing_but_plain_tensors():
    scheduler = fastsched.StepLR(sgd([torch.tensor(0.1)]), 3)
    [replica] = scheduler._engine._replicas
    guard = scheduler._engine._guard

    def made_of(**changes):
        buffer = types.SimpleNamespace(**{name: getattr(replica.buffer, name) for name in ("lrs", "masters", "layout")})
        twin = types.SimpleNamespace(program=replica.program, state=replica.state, buffer=buffer, copied=[])
        for name, value in changes.items():
            setattr(twin if hasattr(twin, name) else buffer, name, value)
        return [twin]

    class Pretender:
        def data_ptr(self):
            return 42

        def numel(self):
            return 18

    assert _C.DirectStep(guard, made_of(), False, False, 9.0).ready(scheduler)
    for name in ("program", "state", "masters", "lrs"):
        for value in (None, 42, Pretender(), torch.zeros(40).half(), torch.zeros(40, 2, dtype=torch.float64)[:, 0]):
            with pytest.raises((TypeError, ValueError)):
                _C.DirectStep(guard, made_of(**{name: value}), False, False, 9.0)
    for replicas in ([], made_of(state=torch.zeros(3, dtype=torch.float64)), made_of(masters=torch.zeros(2).double())):
        with pytest.raises(ValueError, match=r"schedule|replica|one value per LR"):
            _C.DirectStep(guard, replicas, False, False, 9.0)


def test_a_packed_program_is_looked_at_before_it_runs():
    packed = program.whole(fastsched.LambdaLR(sgd([0.1]), lambda epoch: 0.5**epoch), 4)
    assert _C.run_program(packed, [1.0], [], 2) == [0.1 * 0.25]
    with pytest.raises(ValueError, match="not a program"):
        _C.run_program(packed, [1.0, 2.0], [], 2)
    for index in range(len(packed) // 8):
        for value in (float("nan"), -1.0, 0.5, 1e12, 1e300):
            words = torch.frombuffer(bytearray(packed), dtype=torch.float64)
            words[index] = value
            try:
                lrs = _C.run_program(words.numpy().tobytes(), [1.0], [], 2)
            except ValueError:
                continue
            assert len(lrs) == 1
    for size in (float("nan"), -1.0, 1e300):
        words = torch.frombuffer(bytearray(packed), dtype=torch.float64)
        words[2] = size
        with pytest.raises(ValueError, match="not a program"):
            _C.state_size(words.numpy().tobytes())


def test_a_watch_of_itself_ends():
    guard = _C.Guard("ChainedScheduler")
    scheduler = fastsched.ChainedScheduler([fastsched.StepLR(sgd([0.1]), 3)])
    scheduler._schedulers = [scheduler]
    guard.record_children([scheduler], [guard])
    assert not guard.holds(scheduler)
    with pytest.raises(ValueError, match="not one guard per scheduler"):
        guard.record_children([], [guard])
    guard.record_children([], [])


def test_a_composition_that_has_a_child_twice_has_it_step_twice():
    optimizer = sgd([1.0])
    scheduler = fastsched.ChainedScheduler([fastsched.ExponentialLR(optimizer, 0.5)] * 2)
    optimizer.step()
    engine = _C.HostEngine("ChainedScheduler", torch.Tensor, float, "lr")
    assert not engine.attach(scheduler)
    scheduler.step()
    assert scheduler.get_last_lr() == [0.25]


FINALIZER = """
    import collections, gc, itertools, sys
    import torch, fastsched

    def make(lr):
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr(0.1)} for _ in range(150)]
        optimizer = torch.optim.Adam(groups, lr=0.1, foreach=False)
        for group in optimizer.param_groups:
            group["betas"] = (0.5,) * 25  # of tuples of that size Python keeps none: each is allocated
        scheduler = fastsched.CyclicLR(optimizer, 0.01, 0.1, step_size_up=5)
        for _ in range(3):
            scheduler.step()
        return optimizer, scheduler

    def shrink(optimizer, scheduler):
        del optimizer.param_groups[1:]

    def replace(optimizer, scheduler):
        optimizer.param_groups[:] = [collections.UserDict(group) for group in optimizer.param_groups]

    def lists(optimizer, scheduler):
        scheduler.base_lrs, scheduler.max_lrs = scheduler.base_lrs[:1], []
        scheduler.max_momentums.clear()

    def betas(optimizer, scheduler):
        for group in optimizer.param_groups:
            group["betas"] = (0.5,)

    def again(optimizer, scheduler):
        scheduler.step()

    def detach(optimizer, scheduler):
        scheduler.last_epoch = "7"

    class Finalizer:
        def __init__(self, act, *arguments):
            self.act, self.arguments, self.me = act, arguments, self

        def __del__(self):
            print("acts", flush=True)
            self.act(*self.arguments)

    for lr, act, allocations in itertools.product(
        (float, torch.tensor), (shrink, replace, lists, betas, again, detach), (1, 40, 80, 120, 160)
    ):
        gc.disable()
        optimizer, scheduler = make(lr)
        Finalizer(act, optimizer, scheduler)
        print(lr.__name__, act.__name__, allocations, flush=True)
        gc.set_threshold(gc.get_count()[0] + allocations)
        gc.enable()
        for _ in range(2):
            try:
                scheduler.step()
            except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
                print(type(error).__name__)
"""


def test_a_finalizer_in_the_midst_of_a_step_may_change_anything():
    process = run(FINALIZER)
    assert process.returncode == 0, (process.returncode, process.stdout[-200:], process.stderr)
    assert "acts" in process.stdout


# A key whose comparison is Python code, encountered while "lr" or "betas" is looked up.
KEY = """
    import itertools
    import torch, fastsched

    actions = {
        "shrink": lambda optimizer, scheduler: optimizer.param_groups.__delitem__(slice(1, None)),
        "again": lambda optimizer, scheduler: scheduler.step(),
        "detach": lambda optimizer, scheduler: setattr(scheduler, "last_epoch", "7"),
        "replace": lambda optimizer, scheduler: optimizer.param_groups.__setitem__(slice(None), [{}] * 30),
        "raise": lambda optimizer, scheduler: 1 / 0,
    }

    class Key:
        act = None
        countdown = 0
        like = "lr"

        def __hash__(self):
            return hash(Key.like)

        def __eq__(self, other):
            Key.countdown -= 1
            if Key.countdown == 0:
                Key.act()
            return False

    def make(lr):
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr(0.1)} for _ in range(30)]
        if Key.like == "lr":
            optimizer = torch.optim.SGD(groups, lr=0.1)
            scheduler = fastsched.ExponentialLR(optimizer, 0.5)
        else:
            optimizer = torch.optim.Adam(groups, lr=0.1, foreach=False)
            scheduler = fastsched.OneCycleLR(optimizer, 0.5, total_steps=100)
        for group in optimizer.param_groups:
            entries = dict(group)
            group.clear()
            group[Key()] = 0
            group.update(entries)
        return optimizer, scheduler

    cases = itertools.product((float, torch.tensor), ("lr", "betas"), actions, range(1, 130, 9))
    for lr, Key.like, action, countdown in cases:
        Key.countdown = 0
        optimizer, scheduler = make(lr)
        Key.act = lambda: actions[action](optimizer, scheduler)
        Key.countdown = countdown
        print(lr.__name__, Key.like, action, countdown, flush=True)
        for _ in range(3):
            try:
                scheduler.step()
            except (ValueError, TypeError, IndexError, KeyError, RuntimeError, ZeroDivisionError):
                pass
"""


def test_comparing_a_key_in_the_midst_of_a_step_may_change_anything():
    process = run(KEY)
    assert process.returncode == 0, (process.returncode, process.stdout[-200:], process.stderr)


# A child that has another one replaced, and let go of, while the engines of all are looked at.
CHILD = """
    import torch, fastsched

    class Child(fastsched.ExponentialLR):
        countdown = 0

        def __getattribute__(self, name):
            if name == "_engine":
                Child.countdown -= 1
                if Child.countdown == 0:
                    scheduler._schedulers[0] = fastsched.ExponentialLR(optimizer, 0.25)
            return super().__getattribute__(name)

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e6)
    for countdown in range(1, 12):
        children = [fastsched.ExponentialLR(optimizer, 0.5), Child(optimizer, 0.5)]
        scheduler = fastsched.ChainedScheduler(children)
        scheduler.step()
        scheduler._detach()
        Child.countdown = countdown
        scheduler.step()
        before, children = optimizer.param_groups[0]["lr"], None
        scheduler.step()
        replaced = Child.countdown <= 0
        assert optimizer.param_groups[0]["lr"] == before * (0.125 if replaced else 0.25), countdown
    assert replaced is False
"""


def test_a_child_may_be_replaced_while_engines_are_looked_at():
    process = run(CHILD)
    assert process.returncode == 0, (process.returncode, process.stderr)


def test_two_threads_may_step_one_scheduler():
    optimizer = sgd([0.1] * 20)
    scheduler = fastsched.LambdaLR(optimizer, lambda epoch: sum(0.0 for _ in range(50)) + 0.99**epoch)
    cyclic = fastsched.CyclicLR(torch.optim.Adam([{"params": [w]} for w in make_weights(20)]), 0.1, 0.5, 7)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    errors = []

    def steps():
        try:
            for _ in range(300):
                scheduler.step()
                cyclic.step()
        except Exception as error:
            errors.append(error)

    optimizer.step()
    scheduler.step()
    cyclic.optimizer.step()
    threads = [threading.Thread(target=steps) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    assert scheduler.last_epoch > 300
    assert cyclic.last_epoch == 600


def make_weights(count):
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(count)]
    for weight in weights:
        weight.grad = torch.ones(1)
    return weights


class Wrapper(torch.optim.Optimizer):
    """Exposes its groups as another kind of sequence, like optimizers made of several."""

    def __init__(self, groups, sequence):
        self.groups, self.sequence, self.defaults = groups, sequence, {}

    @property
    def param_groups(self):
        return self.sequence(self.groups)

    def step(self, closure=None):
        pass


class Listed(list):
    pass


class Mapping(collections.UserDict):
    pass


SEQUENCES = {"tuple": tuple, "deque": collections.deque, "list of a class": Listed, "UserList": collections.UserList}
MAPPINGS = {
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "defaultdict": lambda group: collections.defaultdict(list, group),
    "UserDict": Mapping,
    "ChainMap": lambda group: collections.ChainMap({}, group),
}
SCHEDULES = {
    "StepLR": lambda m, o: m.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [2, 4], 0.5),
    "ConstantLR": lambda m, o: m.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.5, total_iters=4),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.5),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 9, 2.0),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 9),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 3),
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda epoch: 0.5**epoch),
    "MultiplicativeLR": lambda m, o: m.MultiplicativeLR(o, lambda epoch: 0.5),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.01, 0.5, 3, cycle_momentum=False),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.5, total_steps=20, cycle_momentum=False),
    "ReduceLROnPlateau": lambda m, o: m.ReduceLROnPlateau(o, patience=1),
    "SequentialLR": lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1, total_iters=3), m.ExponentialLR(o, 0.5)], [3]),
    "ChainedScheduler": lambda m, o: m.ChainedScheduler([m.StepLR(o, 2, 0.5), m.ExponentialLR(o, 0.9)]),
}


def follow(module, make, sequence, mapping, lr, when):
    """The learning rates of eight steps, with these groups from the beginning or only later."""
    groups = [{"params": [weight], "lr": lr(0.25 / (1 + i))} for i, weight in enumerate(make_weights(2))]
    optimizer = Wrapper(groups, list)
    if when == 0:
        optimizer.groups, optimizer.sequence = [mapping(group) for group in groups], sequence
    scheduler = make(module, optimizer)
    found = []
    for step in range(1, 9):
        if step == when:
            optimizer.groups, optimizer.sequence = [mapping(group) for group in optimizer.groups], sequence
        optimizer.step()
        metric = [1.0] if isinstance(scheduler, torch_lr_scheduler.ReduceLROnPlateau) else []
        scheduler.step(*metric)
        found.append([float(group["lr"]) for group in optimizer.param_groups])
    return found


@pytest.mark.filterwarnings("ignore:Seems like:UserWarning", "ignore:Detected call:UserWarning")
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("when", [0, 4])
@pytest.mark.parametrize("what", [*SEQUENCES, *MAPPINGS])
def test_groups_of_another_kind_are_stepped_as_by_torch(schedule, when, what):
    make, sequence, mapping = SCHEDULES[schedule], SEQUENCES.get(what, list), MAPPINGS.get(what, dict)
    expected = follow(torch_lr_scheduler, make, sequence, mapping, float, when)
    assert follow(fastsched.lr_scheduler, make, sequence, mapping, float, when) == expected
    tensors = follow(fastsched.lr_scheduler, make, sequence, mapping, lambda lr: torch.tensor(lr).double(), when)
    torch.testing.assert_close(tensors, expected, rtol=1e-12, atol=0.0)
