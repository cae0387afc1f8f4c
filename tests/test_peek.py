"""What has reached the host, without waiting for the device."""

import copy
import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastsched
from fastsched import _C
from fastsched.engine import replica as replica_module
from fastsched.engine import tensor as tensor_engine

from .interruption import interrupted
from .optimizers import stepped_sgd
from .trees import deep, grow, tree_of, trees
from .values import double
from .watching import memory_behind


def expected(scheduler):
    lrs = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
    names = [name for name in _C.counter_names(scheduler._schedule) if name not in scheduler._optional]
    return {"lrs": lrs, **{name: getattr(scheduler, name) for name in names}}


@pytest.mark.parametrize("kind", [float, double, torch.tensor], ids=["float", "float64", "float32"])
@given(tree=trees, data=st.data())
def test_on_the_host_it_is_what_there_is(kind, tree, data):
    scheduler = grow(stepped_sgd([kind(0.5), kind(0.25)]), tree)
    watched = [part for part in tree_of(scheduler) if data.draw(st.booleans())]
    for _ in range(6):
        for part in watched:
            assert part.peek() == expected(part)
        scheduler.step(1.0)


def test_it_does_not_call_the_device_again(device):
    scheduler = deep(stepped_sgd([torch.tensor(0.5, device=device) for _ in range(40)]), 1)
    scheduler.step(torch.tensor(1.0, device=device))
    first = scheduler.peek()
    [replica] = scheduler._engine._replicas
    assert replica.mirror.is_pinned() == (device.type == "cuda")
    scheduler.step(torch.tensor(1.0, device=device))
    if device.type == "cuda":
        torch.cuda.synchronize()
    second = scheduler.peek()
    assert first["lrs"] != second["lrs"]
    assert second == expected(scheduler)


def test_half_written_numbers_are_not_returned():
    scheduler = fastsched.ExponentialLR(stepped_sgd([double(1.0)]), 0.5)
    before = scheduler.peek()
    [replica] = scheduler._engine._replicas
    scheduler.step()
    replica.mirror[0] += 1  # as left by a step that is still writing
    replica.mirror[1:-1] = 77.0
    assert scheduler.peek() == before
    replica.mirror[-1] += 1
    assert scheduler.peek()["lrs"] == [77.0]


def test_copies_have_mirrors_of_their_own():
    scheduler = fastsched.ExponentialLR(stepped_sgd([double(1.0)]), 0.5)
    scheduler.peek()
    scheduler.step()
    twin = copy.deepcopy(scheduler)
    twin.step()
    assert scheduler.peek()["lrs"] == [0.5]
    assert twin.peek()["lrs"] == [0.25]


def test_an_address_that_nobody_put_there_is_not_written_to():
    scheduler = fastsched.ExponentialLR(stepped_sgd([double(1.0)]), 0.5)
    [replica] = scheduler._engine._replicas
    replica.state[_C.MIRROR_OFFSET] = 1e300
    scheduler.step()
    assert scheduler.peek()["lrs"] == [0.5]


def test_it_survives_being_made_part_of_a_composition():
    optimizer = stepped_sgd([double(1.0)])
    decay = fastsched.ExponentialLR(optimizer, 0.5)
    decay.peek()
    chain = fastsched.ChainedScheduler([decay])
    chain.step()
    assert decay.peek()["lrs"] == chain.peek()["lrs"] == [0.5]
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": double(4.0)})
    chain.step()
    assert decay.peek()["lrs"] == chain.peek()["lrs"] == [0.25, 2.0]


@pytest.mark.parametrize("composed", [False, True])
def test_a_new_table_keeps_the_mirror(composed):
    scheduler = fastsched.MultiStepLR(stepped_sgd([double(1.0)]), [2, 9], gamma=0.5)
    root = fastsched.ChainedScheduler([scheduler]) if composed else scheduler
    root.step()
    scheduler.peek()
    [replica] = scheduler._engine._replicas
    mirror = replica.mirror
    scheduler.milestones = type(scheduler.milestones)([2, 5, 6, 7])
    root.step()
    assert scheduler._engine._replicas[0].mirror is mirror
    assert scheduler.peek()["lrs"] == [0.5]
    assert mirror is memory_behind(scheduler._engine._replicas[0], _C.MIRROR_OFFSET)


@pytest.mark.parametrize("composed", [False, True])
def test_an_interrupted_first_peek_leaves_no_address_of_freed_memory(composed):
    line = 0
    while True:
        optimizer = stepped_sgd([double(1.0), torch.tensor(0.5)])
        decay = fastsched.ExponentialLR(optimizer, 0.5)
        root = fastsched.ChainedScheduler([decay]) if composed else decay
        stopped = interrupted(decay.peek, line, replica_module, tensor_engine)
        for replica in decay._engine._replicas:
            memory_behind(replica, _C.MIRROR_OFFSET)
        root.step()
        decay.peek()
        root.step()
        assert decay.peek()["lrs"] == [0.25, 0.125]
        if not stopped:
            break
        line += 1
    assert line > 20


def test_a_mirror_lives_as_long_as_the_state_that_has_its_address():
    optimizer = stepped_sgd([double(1.0)])
    decay = fastsched.ExponentialLR(optimizer, 0.5)
    decay.peek()
    chain = fastsched.ChainedScheduler([decay])
    chain.step()
    mirror = weakref.ref(decay._engine._replicas[0].mirror)
    state = chain._engine._replicas[0].state  # as captured graphs and compiled steps hold it
    del decay, chain
    gc.collect()
    assert mirror() is not None
    del state
    gc.collect()
    assert mirror() is None


def test_mirrors_do_not_pile_up_on_an_optimizer():
    optimizer = stepped_sgd([double(1.0)])
    mirrors = []
    for _ in range(5):
        scheduler = fastsched.ExponentialLR(optimizer, 0.5)
        scheduler.peek()
        mirrors.append(weakref.ref(scheduler._engine._replicas[0].mirror))
    del scheduler
    gc.collect()
    assert [mirror() for mirror in mirrors] == [None] * 5
