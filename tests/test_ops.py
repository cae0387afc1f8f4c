"""The operator itself, called with buffers made by hand, against the rule written out in Python."""

import itertools
import math

import pytest
import torch

import fastsched
from fastsched import _C
from fastsched.engine import ops

from .conftest import sgd

KIND, SIZE, STATE_SIZE, CHILDREN, TABLE_SIZE = range(5)  # where a node has them; csrc/schedule/plan/layout.h
ATTRIBUTES = {
    "mode": "min",
    "threshold_mode": "rel",
    "threshold": 0.1,
    "factor": 0.5,
    "patience": 1,
    "cooldown": 1,
    "eps": 1e-8,
}
NAMES = _C.counter_names("ReduceLROnPlateau")
SEQUENTIAL = float(list(_C.ATTRIBUTES).index("SequentialLR"))  # its kind


def buffers(
    groups, device="cpu", dtype=torch.float32, lr=1.0, min_lr=0.0, counters=(0.0, math.inf, 0.0, 0.0), **changes
):
    attributes = {**ATTRIBUTES, **changes}
    packed = _C.pack_node("ReduceLROnPlateau", attributes, [[min_lr] * groups], list(range(groups)))
    program = torch.frombuffer(bytearray(packed), dtype=torch.float64).to(device)
    state = torch.zeros(_C.NODE_STATE_SIZE + groups, dtype=torch.float64, device=device)
    state[: len(counters)] = torch.tensor(counters, dtype=torch.float64)
    masters = torch.full((groups,), lr, dtype=torch.float64, device=device)
    return program, state, masters, masters.to(dtype, copy=True)


def counters_of(state):
    return dict(zip(NAMES, state.tolist(), strict=False))


# (attributes, counters before, metric) -> counters after, LR after, from 1.0. Counters: last_epoch, best,
# num_bad_epochs, cooldown_counter.
TRANSITIONS = {
    "first metric improves on infinity": ({}, (0, math.inf, 0, 0), 5.0, (1, 5.0, 0, 0), 1.0),
    "a first infinity is bad": ({}, (0, math.inf, 0, 0), math.inf, (1, math.inf, 1, 0), 1.0),
    "nan is bad and leaves best": ({}, (3, 2.0, 0, 0), math.nan, (4, 2.0, 1, 0), 1.0),
    "an improvement clears the bad epochs": ({}, (3, 2.0, 1, 0), 1.0, (4, 1.0, 0, 0), 1.0),
    "less than the threshold is bad": ({}, (3, 2.0, 0, 0), 1.85, (4, 2.0, 1, 0), 1.0),
    "patience is exceeded, not reached": ({}, (3, 2.0, 0, 0), 2.0, (4, 2.0, 1, 0), 1.0),
    "beyond patience reduces and cools down": ({}, (3, 2.0, 1, 0), 2.0, (4, 2.0, 0, 1), 0.5),
    "a cooldown forgives": ({"patience": 0}, (3, 2.0, 0, 1), 2.0, (4, 2.0, 0, 0), 1.0),
    "a cooldown still notes an improvement": ({}, (3, 2.0, 0, 2), 1.0, (4, 1.0, 0, 1), 1.0),
    "the bound holds": ({"patience": 0, "min_lr": 0.75}, (3, 2.0, 0, 0), 2.0, (4, 2.0, 0, 1), 0.75),
    "a bound above the lr is no raise": ({"patience": 0, "min_lr": 3.0}, (3, 2.0, 0, 0), 2.0, (4, 2.0, 0, 1), 1.0),
    "less than eps is not written": ({"patience": 0, "eps": 0.5}, (3, 2.0, 0, 0), 2.0, (4, 2.0, 0, 1), 1.0),
    "a negative best lets slightly worse pass": ({}, (3, -2.0, 1, 0), -1.9, (4, -1.9, 0, 0), 1.0),
    "absolute threshold": ({"threshold_mode": "abs"}, (3, 2.0, 0, 0), 1.89, (4, 1.89, 0, 0), 1.0),
    "absolute threshold not met": ({"threshold_mode": "abs"}, (3, 2.0, 0, 0), 1.91, (4, 2.0, 1, 0), 1.0),
    "max improves upwards": ({"mode": "max"}, (3, 2.0, 0, 0), 2.3, (4, 2.3, 0, 0), 1.0),
    "max needs the threshold": ({"mode": "max"}, (3, 2.0, 0, 0), 2.1, (4, 2.0, 1, 0), 1.0),
    "a negative best wants better": ({"threshold_mode": "rel_abs"}, (3, -2.0, 0, 0), -1.9, (4, -2.0, 1, 0), 1.0),
    "by the threshold": ({"threshold_mode": "rel_abs"}, (3, -2.0, 0, 0), -2.15, (4, -2.0, 1, 0), 1.0),
    "and beyond it": ({"threshold_mode": "rel_abs"}, (3, -2.0, 0, 0), -2.25, (4, -2.25, 0, 0), 1.0),
    "so does a positive one": ({"threshold_mode": "rel_abs"}, (3, 2.0, 0, 0), 1.85, (4, 2.0, 1, 0), 1.0),
    "no best needs no margin": (
        {"threshold_mode": "rel_abs", "threshold": 1.0},
        (0, math.inf, 0, 0),
        5.0,
        (1, 5.0, 0, 0),
        1.0,
    ),
    "max below zero": ({"mode": "max", "threshold_mode": "rel_abs"}, (3, -2.0, 0, 0), -1.75, (4, -1.75, 0, 0), 1.0),
    "max absolute": ({"mode": "max", "threshold_mode": "abs"}, (3, 2.0, 0, 0), 2.15, (4, 2.15, 0, 0), 1.0),
}


@pytest.mark.parametrize("name", TRANSITIONS)
@pytest.mark.parametrize("groups", [1, 5, 1500])  # less than a warp, more than a block
def test_transition(device, lr_dtype, name, groups):
    changes, before, metric, after, lr = TRANSITIONS[name]
    program, state, masters, lrs = buffers(groups, device, lr_dtype, counters=before, **changes)
    ops.step_(program, state, masters, lrs, torch.tensor(metric, device=device, dtype=torch.float64), 0.0)
    assert state[:4].tolist() == list(after)
    assert lrs.tolist() == masters.tolist() == state[_C.NODE_STATE_SIZE :].tolist() == [lr] * groups


@pytest.mark.parametrize("metric", [None, "host", "device"])
def test_the_metric_is_read_where_it_lies(device, metric):
    program, state, masters, lrs = buffers(2, device)
    if metric is None:
        ops.step_(program, state, masters, lrs, None, 0.25)
    else:
        tensor = torch.tensor(0.25, device=device if metric == "device" else "cpu")
        ops.step_(program, state, masters, lrs, tensor, 0.0)
    assert counters_of(state)["best"] == 0.25


def test_an_lr_that_is_not_the_rounded_master_is_adopted(device):
    program, state, masters, lrs = buffers(3, device, lr=0.1, patience=0, cooldown=0)
    lrs[1] = 0.7
    for _ in range(2):
        ops.step_(program, state, masters, lrs, None, 1.0)
    written = torch.tensor(0.7).item()  # 0.7 as float32 holds it
    assert masters.tolist() == [0.1 * 0.5, written * 0.5, 0.1 * 0.5]
    assert torch.equal(lrs, masters.float())


def test_opcheck(device, lr_dtype):
    metrics = [None, torch.tensor(1.0, device=device), torch.tensor([1.0], dtype=torch.float16, device=device)]
    for groups, metric in itertools.product([1, 3], metrics):
        arguments = (*buffers(groups, device, lr_dtype, counters=(3.0, 2.0, 1.0, 0.0)), metric, 2.0)
        torch.library.opcheck(ops.step_, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_found_inf_skips_the_step(device, dtype):
    arguments = buffers(3, device, patience=0, counters=(3.0, 2.0, 0.0, 0.0))
    before = [tensor.clone() for tensor in arguments]
    ops.step_(*arguments, None, 5.0, found_inf=torch.ones((), dtype=dtype, device=device))
    assert all(map(torch.equal, arguments, before))
    ops.step_(*arguments, None, 5.0, found_inf=torch.zeros(1, dtype=dtype, device=device))
    assert arguments[3].tolist() == [0.5] * 3


def composition():
    """A sequence of a plateau and a chain of two, over two groups."""
    leaf = _C.pack_node("ReduceLROnPlateau", ATTRIBUTES, [[0.0] * 2], [0, 1])
    size, state_size = len(leaf) // 8, _C.state_size(leaf)
    chain = _C.pack_node("ChainedScheduler", {}, [[1.0] * 2], [0, 1], [], 0, 2, 2 * size, 2 * state_size)
    chain += leaf + leaf
    below = (2, size + len(chain) // 8, state_size + _C.state_size(chain))
    packed = _C.pack_node("SequentialLR", {"_milestones": [2]}, [[1.0] * 2], [0, 1], [], 0, *below) + leaf + chain
    program = torch.frombuffer(bytearray(packed), dtype=torch.float64)
    masters = torch.ones(2, dtype=torch.float64)
    state = torch.zeros(_C.state_size(packed), dtype=torch.float64)
    return program, state, masters, masters.float()


def test_no_damage_to_a_composition_is_followed():
    """Whichever number in the nodes is wrong, the operator notices or stays within its buffers."""
    whole = composition()[0]
    ops.step_(*composition(), None, 1.0)
    refused = 0
    for index, value in itertools.product(range(len(whole)), (-1.0, 0.5, 1e9, math.nan, math.inf)):
        program, *buffers = composition()
        program[index] = value
        try:
            ops.step_(program, *buffers, None, 1.0)
        except RuntimeError as error:
            refused += MALFORMED in str(error)
    assert refused > 100


def with_changed(changes):
    program, state, masters, lrs = buffers(2)
    arguments = {"program": program, "state": state, "masters": masters, "lrs": lrs, "metric": None, "found_inf": None}
    return {**arguments, **{name: change(arguments[name]) for name, change in changes.items()}}


def wild(index, value):
    def change(tensor):
        tensor[index] = value
        return tensor

    return change


def shrunk(tensor, nbytes):
    tensor.untyped_storage().resize_(nbytes)
    return tensor


def is_readable(tensor):
    return not tensor.is_meta and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


MALFORMED = "program and state do not describe a schedule of 2 param groups"
BAD_ARGUMENTS = {
    "program must be float64": {"program": torch.Tensor.float},
    "state must be float64": {"state": torch.Tensor.float},
    "masters must be float64": {"masters": torch.Tensor.float},
    "lrs must be float32 or float64": {"lrs": torch.Tensor.half},
    "state must be contiguous": {"state": lambda t: t.repeat_interleave(2)[::2]},
    "lrs must be contiguous": {"lrs": lambda t: t.repeat_interleave(2)[::2]},
    "masters must have one value per LR": {"masters": lambda t: t[:1]},
    "metric must hold exactly one element, got 2": {"metric": lambda _: torch.ones(2)},
    "metric has a dtype without a real value": {"metric": lambda _: torch.tensor(1j)},
    "found_inf must hold exactly one element, got 2": {"found_inf": lambda _: torch.ones(2)},
    "empty program": {"program": lambda t: t[:1]},
    "short program": {"program": lambda t: t[:-1]},
    "long state": {"state": lambda t: torch.cat([t, t])},
    "unknown kind": {"program": wild(KIND, 99.0)},
    "negative kind": {"program": wild(KIND, -1.0)},
    "nan kind": {"program": wild(KIND, math.nan)},
    "a leaf with children": {"program": wild(CHILDREN, 1.0)},
    "a childless composite": {"program": wild(KIND, SEQUENTIAL)},
    "another size": {"program": wild(SIZE, 3.0)},
    "endless size": {"program": wild(SIZE, 1e300)},
    "nan size": {"program": wild(SIZE, math.nan)},
    "another state size": {"program": wild(STATE_SIZE, 3.0)},
    "more parameters": {"program": wild(KIND, 11.0)},
    "endless table": {"program": wild(TABLE_SIZE, 1e9)},
    "negative table": {"program": wild(TABLE_SIZE, -1e9)},
    "fraction of a kind": {"program": wild(KIND, 0.5)},
    "fraction of a size": {"program": wild(SIZE, 18.5)},
    "fraction of a table": {"program": wild(TABLE_SIZE, 0.5)},
    "infinite table": {"program": wild(TABLE_SIZE, math.inf)},
    "the storage of state is smaller than the tensor": {"state": lambda t: shrunk(t, 8)},
    "the storage of masters is smaller than the tensor": {"masters": lambda t: shrunk(t, 0)},
    "the storage of metric is smaller than the tensor": {"metric": lambda _: shrunk(torch.ones(()), 0)},
    "the storage of found_inf is smaller than the tensor": {"found_inf": lambda _: shrunk(torch.ones(1), 0)},
    "program must not be a negated view": {"program": torch._neg_view},
    "state must not be a negated view": {"state": torch._neg_view},
    "masters must not be a negated view": {"masters": torch._neg_view},
    "lrs must not be a negated view": {"lrs": torch._neg_view},
    "meta tensors, which hold nothing, cannot": {"lrs": lambda t: t.to("meta")},
    "meta tensors, which hold nothing, cannot be": {"metric": lambda _: torch.ones((), device="meta")},
    "meta tensors, which hold nothing, cannot be mixed": {"found_inf": lambda _: torch.ones((), device="meta")},
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_raise_and_change_nothing(name):
    arguments = with_changed(BAD_ARGUMENTS[name])
    readable = {key: value for key, value in arguments.items() if value is not None and is_readable(value)}
    before = {key: value.clone() for key, value in readable.items()}
    message = name if any(word in name for word in (" must ", "without", "smaller", "meta")) else MALFORMED
    with pytest.raises(RuntimeError, match=message):
        ops.step_(**arguments, value=1.0)
    for key, value in before.items():
        assert torch.equal(arguments[key], value) or value.isnan().any()


# Pairs of arguments that share memory; the first of each is written.
ALIASES = ["state program", "masters program", "lrs program", "masters state", "lrs state", "lrs masters"]
ALIASES += [f"{written} {read}" for written in ("state", "masters", "lrs") for read in ("metric", "found_inf")]


@pytest.mark.parametrize("names", ALIASES)
@pytest.mark.parametrize("whole", [True, False])
def test_memory_that_is_written_must_be_no_other_arguments(device, names, whole):
    written, read = names.split()
    program, state, masters, lrs = buffers(1, device, torch.float64)
    arguments = {"program": program, "state": state, "masters": masters, "lrs": lrs}
    arguments |= {"metric": torch.ones(1, device=device), "found_inf": torch.zeros(1, device=device)}
    larger = max(names.split(), key=lambda name: arguments[name].numel())
    memory = arguments[larger]
    [smaller] = {written, read} - {larger}
    # At its beginning, or in the middle: in a program the first two numbers are its kind and its size.
    size = arguments[smaller].numel() if whole or smaller in ("state", "program") else 1
    at = 0 if whole else memory.numel() - size
    arguments[smaller] = memory[at : at + size]
    before = {key: value.clone() for key, value in arguments.items()}
    with pytest.raises(RuntimeError, match="must not share memory"):
        ops.step_(**arguments, value=1.0)
    assert all(torch.equal(value, before[key]) for key, value in arguments.items())


def test_a_metric_that_is_a_negated_view_is_read(device):
    program, state, masters, lrs = buffers(2, device)
    ops.step_(program, state, masters, lrs, torch._neg_view(torch.tensor(0.25, device=device)), 0.0)
    assert counters_of(state)["best"] == -0.25


def test_a_learning_rate_may_be_the_metric():
    optimizer, torch_optimizer = sgd([torch.tensor(0.5)]), sgd([0.5])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0)
    torch_scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(torch_optimizer, patience=0)
    for _ in range(5):
        scheduler.step(optimizer.param_groups[0]["lr"])
        torch_scheduler.step(torch_optimizer.param_groups[0]["lr"])
        expected = torch.tensor(torch_optimizer.param_groups[0]["lr"])
        assert torch.equal(optimizer.param_groups[0]["lr"], expected)
    assert torch.tensor(scheduler.best) == torch.tensor(torch_scheduler.best)


def factors(groups, schedule="LambdaLR"):
    """A program over three epochs of two functions, the columns of its groups, and the other buffers."""
    columns = [float(i % 2) for i in range(groups)]
    packed = _C.pack_node(schedule, {}, [[1.0] * groups, columns], list(range(groups)), [0.5] * 6, 2)
    program = torch.frombuffer(bytearray(packed), dtype=torch.float64)
    masters = torch.ones(groups, dtype=torch.float64)
    state = torch.zeros(_C.state_size(packed), dtype=torch.float64)
    return program, program[_C.NODE_SIZE + groups : _C.NODE_SIZE + 2 * groups], state, masters, masters.float()


@pytest.mark.parametrize("schedule", ["LambdaLR", "MultiplicativeLR"])
@pytest.mark.parametrize("column", [2.0, -1.0, 0.5, 1e12, 1e300, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("group", [0, 4])
def test_a_column_outside_of_the_table_is_refused(schedule, column, group):
    program, columns, *written = factors(5, schedule)
    ops.step_(program.clone(), *(tensor.clone() for tensor in written), None, 0.0)
    columns[group] = column
    before = [tensor.clone() for tensor in written]
    with pytest.raises(RuntimeError, match="do not describe a schedule of 5 param groups"):
        ops.step_(program, *written, None, 0.0)
    assert all(map(torch.equal, written, before))


@pytest.mark.parametrize("epoch", [-1.0, 0.5, 2.5, 3.0, 1e12, 1e300, math.nan, math.inf])
def test_an_epoch_outside_of_the_table_leaves_the_learning_rates(epoch):
    program, _, state, masters, lrs = factors(2)
    ops.step_(program, state, masters, lrs, None, epoch, 2)
    assert lrs.tolist() == [0.5 if 0 <= epoch <= 2 else 1.0] * 2


@pytest.mark.parametrize("value", [-1.0, 0.5, 3.0, 1e300, math.nan, math.inf])
def test_words_that_a_step_leaves_to_itself_are_not_believed(value):
    """Event, update, and addresses without their complement: whatever a state has there is overwritten or ignored."""
    for state_word in range(_C.NODE_COUNTERS, _C.NODE_STATE_SIZE):
        program, state, masters, lrs = composition()
        expected = composition()[1:]
        state[state_word] = value
        ops.step_(program, state, masters, lrs, None, 1.0)
        ops.step_(program, *expected, None, 1.0)
        assert torch.equal(lrs, expected[2])
        assert torch.equal(state[: _C.NODE_COUNTERS], expected[0][: _C.NODE_COUNTERS])


@pytest.mark.parametrize("event", [-1, 6])
def test_an_unknown_event_raises_and_changes_nothing(event):
    arguments = buffers(2)
    before = [tensor.clone() for tensor in arguments]
    with pytest.raises(RuntimeError, match=rf"event must be in 0\.\.5, got {event}"):
        ops.step_(*arguments, None, 1.0, event)
    assert all(map(torch.equal, arguments, before))


def test_a_cuda_tensor_without_cuda_operators_says_how_to_rebuild(monkeypatch):
    monkeypatch.setattr(ops, "CUDA_UNAVAILABLE", f"fastsched was built without CUDA. {ops._REBUILD}")
    with pytest.raises(RuntimeError, match=r"no CUDA operators: .*built without CUDA.*FASTSCHED_CUDA=ON pip install"):
        ops.require(torch.device("cuda", 0))
    with pytest.raises(RuntimeError, match="FASTSCHED_CUDA=ON"):
        ops._step_without_cuda()
    ops.require(torch.device("cpu"))
