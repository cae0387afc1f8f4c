"""Construction errors, copies, references, and what a long run leaves behind."""

import copy
import ctypes
import functools
import gc
import inspect
import io
import pickle
import subprocess
import sys
import sysconfig
import textwrap
import threading
import weakref

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim import swa_utils
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched
from fastsched import _C

from .configurations import CONFIGURATIONS, LONG
from .conftest import sgd
from .optimizers import stepped_sgd

BAD_ARGUMENTS = [
    ({"factor": 1.0}, ValueError),
    ({"factor": 1.0, "mode": "middle"}, ValueError),
    ({"mode": "middle"}, ValueError),
    ({"threshold_mode": "log"}, ValueError),
    ({"min_lr": [0.1, 0.2]}, ValueError),
    ({"min_lr": (0.1, 0.2), "mode": "middle"}, ValueError),
]


@pytest.mark.parametrize(("arguments", "error"), BAD_ARGUMENTS, ids=str)
def test_construction_errors_are_torchs(arguments, error):
    with pytest.raises(error) as expected:
        TorchPlateau(sgd([0.1]), **arguments)
    with pytest.raises(error) as raised:
        fastsched.ReduceLROnPlateau(sgd([0.1]), **arguments)
    assert str(raised.value) == str(expected.value)


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(TypeError, match="str is not an Optimizer"):
        fastsched.ReduceLROnPlateau("SGD")


def test_construction_leaves_the_optimizer_as_torch_does():
    ours, theirs = sgd([0.1]), sgd([0.1])
    fastsched.ReduceLROnPlateau(ours)
    TorchPlateau(theirs)
    assert ours.param_groups[0].keys() == theirs.param_groups[0].keys()  # no initial_lr
    assert not hasattr(ours.step, "_wrapped_by_lr_sched")


@pytest.fixture(params=["float", "tensor"])
def scheduler(request):
    lrs = [0.1, 0.2] if request.param == "float" else [torch.tensor(0.1), torch.tensor(0.2)]
    return fastsched.ReduceLROnPlateau(sgd(lrs), patience=0, factor=0.5)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_carry_the_whole_state(scheduler, duplicate):
    scheduler.step(1.0)
    scheduler.step(2.0)
    twin = duplicate(scheduler)
    assert type(twin) is type(scheduler)
    assert twin.state_dict() == scheduler.state_dict()
    assert twin.best == 1.0


def test_a_scheduler_that_its_optimizer_refers_to_can_be_copied(scheduler):
    scheduler.optimizer.param_groups[0]["scheduler"] = scheduler
    scheduler.step(1.0)
    twin = pickle.loads(pickle.dumps(scheduler))
    twin.step(0.5)
    assert twin.optimizer.param_groups[0]["scheduler"] is twin
    assert (twin.best, scheduler.best) == (0.5, 1.0)


def test_state_dict_survives_weights_only(scheduler):
    scheduler.step(1.0)
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == scheduler.state_dict()


def test_state_dict_has_torchs_keys_and_plain_values(scheduler):
    reference = TorchPlateau(sgd([0.1, 0.2]))
    assert scheduler.state_dict().keys() == reference.state_dict().keys()

    def plain(value):
        return all(map(plain, value)) if type(value) is list else type(value) in (int, float, str, bool, type(None))

    assert all(map(plain, scheduler.state_dict().values()))


NOT_A_STATE = [
    ("nothing", TypeError, "state_dict must be a dict, got str"),
    ({"best": None}, TypeError, r"state_dict\['best'\] must be a number, got None"),
    ({"last_epoch": "three"}, TypeError, r"state_dict\['last_epoch'\] must be a number, got 'three'"),
    ({"num_bad_epochs": 1.5}, ValueError, r"state_dict\['num_bad_epochs'\] must be a whole number, got 1.5"),
    ({"num_bad_epochs": float("nan")}, ValueError, r"state_dict\['num_bad_epochs'\] must be a whole number"),
    ({"num_bad_epochs": float("inf")}, ValueError, r"state_dict\['num_bad_epochs'\] must be a whole number"),
    ({"factor": [0.1]}, TypeError, r"state_dict\['factor'\] must be a number"),
    ({"best": torch.ones(2)}, TypeError, r"state_dict\['best'\] must be a number"),
    ({"min_lrs": 0.1}, TypeError, r"state_dict\['min_lrs'\] must be a list, got float"),
    ({"min_lrs": [0.1, "a"]}, TypeError, r"state_dict\['min_lrs'\]\[1\] must be a number, got 'a'"),
    ({"_last_lr": [None]}, TypeError, r"state_dict\['_last_lr'\]\[0\] must be a number"),
    ({"default_min_lr": "low"}, TypeError, r"state_dict\['default_min_lr'\] must be a number"),
    ({"mode": "middle"}, ValueError, r"state_dict\['mode'\] must be one of \('min', 'max'\), got 'middle'"),
    (
        {"threshold_mode": 3},
        ValueError,
        r"state_dict\['threshold_mode'\] must be one of \('rel', 'abs', 'rel_abs'\), got 3",
    ),
]


@pytest.mark.parametrize(("changes", "error", "message"), NOT_A_STATE, ids=str)
def test_a_malformed_state_names_the_key_and_changes_nothing(scheduler, changes, error, message):
    scheduler.step(1.0)
    before = scheduler.state_dict()
    malformed = {**before, "patience": 7, **changes} if isinstance(changes, dict) else changes
    with pytest.raises(error, match=message):
        scheduler.load_state_dict(malformed)
    assert scheduler.state_dict() == before


@pytest.mark.parametrize("key", ["last_epoch", "best", "num_bad_epochs", "cooldown_counter"])
def test_a_state_without_a_counter_names_it(scheduler, key):
    state = scheduler.state_dict()
    del state[key]
    with pytest.raises(KeyError, match=f"state_dict has no '{key}'"):
        scheduler.load_state_dict(state)


def test_loading_never_writes_the_optimizers_lrs_nor_the_given_dict(scheduler):
    scheduler.step(1.0)
    state = scheduler.state_dict()
    given = copy.deepcopy(state)
    for group in scheduler.optimizer.param_groups:
        group["lr"] = group["lr"] * 2
    before = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
    scheduler.load_state_dict(state)
    assert [float(group["lr"]) for group in scheduler.optimizer.param_groups] == before
    assert state == given
    scheduler.step(1.0)
    assert [float(g["lr"]) for g in scheduler.optimizer.param_groups] == pytest.approx([0.1, 0.2])


def test_an_old_checkpoint_without_the_newer_keys_loads(scheduler):
    state = scheduler.state_dict()
    for newer in ("default_min_lr", "_last_lr"):
        del state[newer]
    scheduler.load_state_dict({**state, "verbose": False, "best": 0.25})
    assert scheduler.best == 0.25
    assert scheduler.mode_worse == float("inf")


@pytest.mark.parametrize("tensor", [False, True])
def test_a_scheduler_is_freed_at_once(tensor):
    optimizer = sgd([torch.tensor(0.1) if tensor else 0.1])
    scheduler = fastsched.ReduceLROnPlateau(optimizer)
    scheduler.step(1.0)
    dead = weakref.ref(scheduler), weakref.ref(optimizer)
    gc.disable()
    try:
        del scheduler, optimizer
        assert [reference() for reference in dead] == [None, None]
    finally:
        gc.enable()


def simulated(scheduler):
    fastsched.simulate(scheduler, 4, 1.0)


def refused_by_simulate(scheduler):
    with pytest.raises(ValueError, match="metrics has 2 numbers"):
        fastsched.simulate(scheduler, 4, [1.0, 2.0])
    scheduler.lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be copied"):
        fastsched.simulate(scheduler, 4, 1.0)


def recorded(scheduler):
    history = fastsched.History(scheduler)
    step_once(scheduler)
    assert len(history) == len(history.to_numpy()) == len(copy.deepcopy(history)) == 1


def saved(scheduler):
    scheduler.load_state_dict(scheduler.state_dict())
    step_once(scheduler)
    scheduler.peek()


def step_once(scheduler):
    scheduler.step(*([1.0] if scheduler._takes_metrics else []))


def nested(optimizer):
    children = [fastsched.LinearLR(optimizer), fastsched.ReduceLROnPlateau(optimizer)]
    first = fastsched.ChainedScheduler([fastsched.StepLR(optimizer, 2), fastsched.ExponentialLR(optimizer, 0.9)])
    return fastsched.SequentialLR(optimizer, [first, fastsched.SequentialLR(optimizer, children, [2])], [2])


CLASSES = {
    name: lambda optimizer, name=name: getattr(fastsched, name)(optimizer, **LONG[name]) for name in CONFIGURATIONS
} | {
    "ReduceLROnPlateau": fastsched.ReduceLROnPlateau,
    "nested": nested,
    "with torch's": lambda optimizer: fastsched.ChainedScheduler([torch_schedulers.StepLR(optimizer, 2)]),
}


@pytest.mark.parametrize("use", [step_once, simulated, refused_by_simulate, recorded, saved])
@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["float", "float32"])
@pytest.mark.parametrize("name", CLASSES)
def test_no_use_of_a_scheduler_leaves_a_reference_cycle(name, kind, use):
    def alive():
        optimizer = stepped_sgd([kind(0.5), kind(0.25)])
        scheduler = CLASSES[name](optimizer)
        use(scheduler)
        children = getattr(scheduler, "_schedulers", [])
        return [weakref.ref(one) for one in (optimizer, scheduler, *children)]

    frees_at_once(alive)


def frees_at_once(alive):
    """Whether the objects that it returns weak references to die when it ends, without the garbage collector."""
    alive()  # torch imports, and keeps, some things on first use
    gc.disable()
    try:
        assert [reference() for reference in alive() if reference() is not None] == []
    finally:
        gc.enable()


def test_a_history_outlives_its_scheduler():
    scheduler = fastsched.StepLR(stepped_sgd([0.5]), 1)
    history = fastsched.History(scheduler)
    scheduler.step()
    del scheduler
    history.close()
    assert history.to_numpy()["lr"].tolist() == [[0.05]]


def trained_for_a_range(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = fastsched.StepLR(optimizer, 2)
    batches = [(torch.ones(2, 2), torch.ones(2, 1))] * 12
    fastsched.lr_range_test(model, optimizer, torch.nn.functional.mse_loss, batches, num_iter=12, progress=False)
    return optimizer, scheduler


def failed_in_a_range(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1))
    with pytest.raises(ZeroDivisionError):
        fastsched.lr_range_test(model, optimizer, lambda *_: 1 / 0, [(torch.ones(2, 2), 0)], progress=False)
    return (optimizer,)


def stopped_early(model):
    stopper = fastsched.EarlyStopping(model=model)
    for metric in (1.0, torch.tensor(2.0)):
        stopper.step(metric)
    stopper.load_state_dict(copy.deepcopy(stopper).state_dict())
    stopper.restore_best()
    return (stopper,)


@pytest.mark.parametrize("use", [trained_for_a_range, failed_in_a_range, stopped_early])
def test_no_use_of_a_model_leaves_a_reference_cycle(use):
    def alive():
        model = torch.nn.Linear(2, 1)
        return [weakref.ref(one) for one in (model, *use(model))]

    frees_at_once(alive)


@pytest.mark.parametrize("tensor", [False, True])
def test_a_scheduler_in_a_cycle_of_the_users_making_is_collected(tensor):
    optimizer = sgd([torch.tensor(0.1) if tensor else 0.1])
    optimizer.scheduler = fastsched.ReduceLROnPlateau(optimizer)
    optimizer.scheduler.callback = optimizer.scheduler.step
    optimizer.scheduler.step(1.0)
    dead = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert dead() is None


@pytest.mark.parametrize(("tensor", "steps"), [(False, 1_000_000), (True, 100_000)])
def test_many_steps_leak_nothing(tensor, steps):
    scheduler = fastsched.ReduceLROnPlateau(
        sgd([torch.tensor(0.1) if tensor else 0.1] * 2), patience=0, factor=0.999, eps=0.0
    )
    metric = torch.tensor(1.0) if tensor else 1.0

    def run(count):
        for _ in range(count):
            scheduler.step(metric)

    run(1000)
    gc.collect()
    blocks = sys.getallocatedblocks()
    resident = peak_memory()
    run(steps)
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 200
    assert peak_memory() - resident < 4 << 20


def peak_memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_import_is_quick():
    """Less than a tenth of torch's own import; the least of several fresh interpreters, as the machine may be busy."""
    code = (
        "from time import perf_counter as now; start = now(); import torch; middle = now(); import fastsched; "
        "print((now() - middle) / (middle - start))"
    )
    parts = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    assert min(parts) < 0.1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # dynamo itself uses deprecated features of torch
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda optimizer: functools.partial(type(optimizer).step, optimizer),
        lambda optimizer: lambda closure=None: type(optimizer).step(optimizer, closure),
        lambda optimizer: torch.compile(optimizer.step, backend="eager"),
        lambda optimizer: Stepper(optimizer).step,
    ],
    ids=["partial", "lambda", "compiled", "another object's method"],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: fastsched.ExponentialLR(optimizer, 0.5),
        lambda optimizer: fastsched.LambdaLR(optimizer, lambda epoch: 0.5**epoch),
        lambda optimizer: fastsched.CyclicLR(optimizer, 0.1, 0.5, cycle_momentum=False),
        lambda optimizer: fastsched.OneCycleLR(optimizer, 0.5, total_steps=9, cycle_momentum=False),
        lambda optimizer: fastsched.SWALR(optimizer, 0.05),
        lambda optimizer: fastsched.ChainedScheduler([fastsched.StepLR(optimizer, 1)]),
    ],
    ids=["ExponentialLR", "LambdaLR", "CyclicLR", "OneCycleLR", "SWALR", "ChainedScheduler"],
)
def test_a_step_that_is_no_method_of_the_optimizers_is_taken(make, wrap, tensor):
    optimizer = sgd([torch.tensor(0.1) if tensor else 0.1])
    [parameter] = optimizer.param_groups[0]["params"]
    parameter.grad = torch.ones(1)
    optimizer.step = wrap(optimizer)
    scheduler = make(optimizer)
    before = parameter.item()
    lr = optimizer.param_groups[0]["lr"]
    lr = lr.item() if tensor else lr
    optimizer.step()
    assert parameter.item() == pytest.approx(before - lr)
    scheduler.step()  # without a warning about the order

    optimizer = sgd([torch.tensor(0.1) if tensor else 0.1])
    optimizer.step = wrap(optimizer)
    scheduler = make(optimizer)
    with pytest.warns(UserWarning, match=r"before `optimizer.step\(\)`"):
        scheduler.step()


class Stepper:
    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self, closure=None):
        return type(self.optimizer).step(self.optimizer, closure)


def test_a_wrapped_step_keeps_nothing_alive():
    gc.collect()
    gc.disable()
    try:
        optimizer = sgd([0.1])
        reference = weakref.ref(optimizer)
        optimizer.step = functools.partial(print)
        scheduler = fastsched.StepLR(optimizer, 2)
        wrapped = optimizer.step
        del optimizer, scheduler
        assert reference() is None
        wrapped()  # called by code that kept it
    finally:
        gc.enable()


def test_a_write_to_base_lrs_leaves_a_step_that_was_put_there_later():
    optimizer = sgd([0.1])
    scheduler = fastsched.StepLR(optimizer, 2)
    optimizer.step = lambda: None
    scheduler.base_lrs = [0.2]
    with pytest.warns(UserWarning, match="has been overridden"):
        scheduler.step()


def test_import_leaves_dynamo_alone():
    code = "import sys, fastsched; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_changes_of_dicts_are_noticed_by_what_python_has():
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")  # as built: importing fastsched turns the GIL on
    expected = "look-ups" if free_threaded else "version tags" if sys.version_info < (3, 13) else "watchers"
    assert expected == _C.DICT_VERSIONS


def test_without_a_watcher_dicts_are_looked_up():
    """An interpreter has eight, which others may have taken. Older Pythons need none."""
    code = """
        import ctypes, sys, torch
        if sys.version_info >= (3, 13):
            add = ctypes.pythonapi.PyDict_AddWatcher
            nothing = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)(
                lambda *_: 0
            )
            ctypes.pythonapi.PyDict_AddWatcher.argtypes = [ctypes.c_void_p]
            try:
                for _ in range(9):
                    add(ctypes.cast(nothing, ctypes.c_void_p))
            except RuntimeError:
                pass
        import fastsched
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        scheduler = fastsched.ExponentialLR(optimizer, 0.5)
        for _ in range(3):
            optimizer.step()
            scheduler.step()
            optimizer.param_groups[0]["lr"] *= 2
        assert optimizer.param_groups[0]["lr"] == 0.5
        assert (fastsched._C.DICT_VERSIONS == "look-ups") == (sys.version_info >= (3, 13))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no watchers")
def test_others_that_watch_a_dict_are_told_of_each_write():
    """As torch.compile is; and a write of theirs is noticed after one of ours, which does not have us told."""
    told = []
    signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    tell = signature(lambda event, group, key, value: told.append(group) or 0)
    python = ctypes.pythonapi
    watcher = python.PyDict_AddWatcher(tell)
    try:
        optimizer = sgd([0.5, 0.25, 0.25])
        scheduler = fastsched.ExponentialLR(optimizer, 0.5)
        optimizer.step()
        scheduler.step()
        groups = optimizer.param_groups
        python.PyDict_Watch(watcher, ctypes.py_object(groups[1]))
        for _ in range(3):
            scheduler.step()
        assert told == [id(groups[1])] * 3
        groups[1]["lr"] = 8.0
        scheduler.step()
        assert told == [id(groups[1])] * 5
        assert [group["lr"] for group in groups] == [0.5**6, 4.0, 0.25 * 0.5**5]
        python.PyDict_Unwatch(watcher, ctypes.py_object(groups[1]))
        groups[1]["lr"] = 2.0
        scheduler.step()
        assert len(told) == 5
        assert groups[1]["lr"] == 1.0
    finally:
        python.PyDict_ClearWatcher(watcher)


@pytest.mark.parametrize("groups", [1, 3])
def test_each_of_several_schedulers_sees_what_the_others_and_finalizers_write(groups):
    class Writes:
        def __init__(self, group):
            self.group = group

        def __del__(self):
            self.group["lr"] = 8.0

    def run(module):
        optimizer = sgd([0.5] * groups)
        schedulers = [module.ExponentialLR(optimizer, 0.5), module.ExponentialLR(optimizer, 0.25)]
        optimizer.step()
        seen = []
        for i in range(12):
            for scheduler in schedulers:
                scheduler.step()
            if i % 3 == 0:
                optimizer.param_groups[-1]["lr"] = 4.0
            if i % 4 == 1:
                optimizer.param_groups[0]["extra"] = Writes(optimizer.param_groups[0])
                optimizer.param_groups[0]["extra"] = None
            if i == 6:
                optimizer.param_groups[0] = dict(optimizer.param_groups[0])
            seen.append([group["lr"] for group in optimizer.param_groups])
        return seen

    assert run(fastsched) == run(torch_schedulers)


SCHEDULERS = ("LR", "Restarts", "Plateau", "Scheduler")
OF_TORCH = [name for name in (*torch_schedulers.__all__, "SWALR") if name.endswith(SCHEDULERS)]


@pytest.mark.parametrize("name", OF_TORCH)
def test_signatures_are_torchs(name):
    """What ``help()`` and editors show."""
    ours = inspect.signature(getattr(fastsched.lr_scheduler, name))
    theirs = inspect.signature(getattr(swa_utils if name == "SWALR" else torch_schedulers, name))
    shown = list(ours.parameters.values())
    expected = list(theirs.parameters.values())
    for parameter, oracle in zip(shown, expected, strict=False):
        assert (parameter.name, parameter.default, parameter.kind) == (oracle.name, oracle.default, oracle.kind)
    more = shown[len(expected) :]
    known = {
        "total_steps",
        "param_name",
        "groups",
        "last_epoch",
        "accumulate",
        "smoothing",
        "patience_counts",
        "deferred",
    }
    assert {parameter.name for parameter in more} <= known | {"process_group", "reduce_op", "deferred"}
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in more)
