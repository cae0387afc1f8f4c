"""A CUDA block's step made by host threads, which must equal the CPU's own step bit for bit."""

import ctypes
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastsched
from fastsched import _C

from .optimizers import stepped_sgd
from .trees import deep, grow, tree_of, trees

SOURCE = Path(__file__).parent / "block" / "threads.cpp"


@pytest.fixture(scope="module")
def step_in_threads(tmp_path_factory):
    if not (SOURCE.parents[2] / "csrc").is_dir():
        pytest.skip("the sources of the kernel are not here: these tests are for a checkout")
    library = tmp_path_factory.mktemp("block") / "threads.so"
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    flags = [
        "-std=c++17",
        "-O2",
        "-ffp-contract=off",
        "-shared",
        "-fPIC",
        "-pthread",
        f"-I{SOURCE.parents[2] / 'csrc'}",
    ]
    subprocess.run([*compiler, *flags, str(SOURCE), "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).step_in_threads
    pointer, number = ctypes.c_void_p, ctypes.c_long
    function.argtypes = [pointer, number, pointer, number, pointer, pointer, number, ctypes.c_bool, ctypes.c_int]
    function.argtypes += [pointer, pointer, ctypes.c_bool, ctypes.c_int]
    function.restype = ctypes.c_bool
    return function


class Twin:
    """Copies of what a replica's steps read and write, histories and mirrors included."""

    def __init__(self, scheduler):
        [replica] = scheduler._engine._replicas
        self.replica = replica
        buffer = replica.buffer
        self.tensors = [tensor.clone() for tensor in (replica.program, replica.state, buffer.masters, buffer.lrs)]
        self.reports = {}  # their copies, by the address in the state
        state = self.tensors[1]
        words = state.view(torch.int64)
        for part in tree_of(scheduler):
            [own] = part._engine._replicas
            at = own.state.storage_offset() - replica.state.storage_offset()
            for offset, memory in ((_C.MIRROR_OFFSET, own.mirror), (_C.HISTORY_OFFSET, own.history)):
                if memory is not None:
                    copy = memory.clone()
                    self.reports[memory] = copy
                    words[at + offset] = copy.data_ptr()
                    words[at + offset + 1] = ~copy.data_ptr()
                    self.words = [*getattr(self, "words", []), at + offset, at + offset + 1]

    def step(self, step_in_threads, event, value, threads, *, has_room, found_inf=None):
        """Whether it was accepted as a schedule."""
        metric = torch.tensor(value)
        overflow = None if found_inf is None else torch.tensor(found_inf)
        program, state, masters, lrs = self.tensors
        return step_in_threads(
            program.data_ptr(),
            program.numel(),
            state.data_ptr(),
            state.numel(),
            masters.data_ptr(),
            lrs.data_ptr(),
            lrs.numel(),
            lrs.dtype is torch.float32,
            event,
            metric.data_ptr(),
            None if overflow is None else overflow.data_ptr(),
            has_room,
            threads,
        )

    def agrees(self):
        replica = self.replica
        now = [replica.program, replica.state.clone(), replica.buffer.masters, replica.buffer.lrs]
        for word in getattr(self, "words", []):
            now[1].view(torch.int64)[word] = self.tensors[1].view(torch.int64)[word]
        for mine, theirs in (*zip(self.tensors, now, strict=True), *self.reports.items()):
            integers = torch.int32 if mine.dtype is torch.float32 else torch.int64
            assert torch.equal(mine.contiguous().view(integers), theirs.contiguous().view(integers))


@settings(max_examples=60)
@given(
    tree=trees,
    dtype=st.sampled_from([torch.float32, torch.float64]),
    groups=st.integers(1, 5),
    values=st.lists(st.sampled_from([0.0, 0.5, 1.0, float("nan")]), min_size=1, max_size=6),
    threads=st.sampled_from([1, 2, 3, 7]),
    has_room=st.booleans(),
    data=st.data(),
)
def test_a_block_does_what_the_host_does(step_in_threads, tree, dtype, groups, values, threads, has_room, data):
    some = st.none() | st.lists(st.integers(0, groups - 1), min_size=1, unique=True)
    optimizer = stepped_sgd([torch.tensor(0.5 / (1 + i), dtype=dtype) for i in range(groups)])
    scheduler = grow(optimizer, tree, groups=lambda: data.draw(some))
    scheduler.step(1.0)
    histories = []
    for part in tree_of(scheduler):
        if data.draw(st.booleans()):
            part.peek()
        if data.draw(st.booleans()):
            histories.append(fastsched.History(part, capacity=3))
    for value in values:
        event = data.draw(st.sampled_from([0, 0, 0, 3]))
        twin = Twin(scheduler)
        assert twin.step(step_in_threads, event, value, threads, has_room=has_room)
        scheduler._engine._call(value if event == 0 else None, event, None)
        twin.agrees()


@pytest.mark.parametrize("groups", [1, 31, 33, 100])
def test_as_many_threads_as_a_block_has(step_in_threads, groups):
    scheduler = deep(stepped_sgd([torch.tensor(0.5 / (1 + i)) for i in range(groups)]), 2)
    scheduler.step(1.0)
    scheduler.peek()
    history = fastsched.History(scheduler, capacity=3)
    for value in (1.0, 0.5, 0.5, 0.5):
        twin = Twin(scheduler)
        assert twin.step(step_in_threads, 0, value, -(-groups // 32) * 32, has_room=True)
        scheduler._engine._call(value, 0, None)
        twin.agrees()
    assert len(history) == 3


@pytest.mark.parametrize("has_room", [True, False])
def test_overflow_stops_every_thread_before_anything_is_written(step_in_threads, has_room):
    scheduler = deep(stepped_sgd([torch.tensor(0.5 / (1 + i)) for i in range(5)]), 2)
    scheduler.step(1.0)
    twin = Twin(scheduler)
    for found_inf in (1.0, float("inf"), float("nan")):
        assert twin.step(step_in_threads, 0, 1.0, 3, has_room=has_room, found_inf=found_inf)
        twin.agrees()
    assert twin.step(step_in_threads, 0, 1.0, 3, has_room=has_room, found_inf=0.0)
    scheduler._engine._call(1.0, 0, None)
    twin.agrees()


@pytest.mark.parametrize("has_room", [True, False])
@pytest.mark.parametrize("word", [0, 1, 2, 3, 4, 6])
def test_a_block_refuses_what_is_not_a_program_and_changes_nothing(step_in_threads, word, has_room):
    scheduler = deep(stepped_sgd([torch.tensor(0.5 / (1 + i)) for i in range(5)]), 2)
    scheduler.step(1.0)
    *_, last = tree_of(scheduler)
    twin = Twin(scheduler)
    program, *written = twin.tensors
    before = [tensor.clone() for tensor in written]
    for node in (0, len(program) - len(last._engine._replicas[0].program)):
        right = program[node + word].item()
        one_more = [] if word == 0 else [right + 1.0]  # of the kind: another schedule, perhaps of the same size
        for wrong in (-1.0, right + 0.5, *one_more, 1e300, float("nan")):
            program[node + word] = wrong
            assert not twin.step(step_in_threads, 0, 1.0, 3, has_room=has_room)
        program[node + word] = right
    for tensor, copy in zip(written, before, strict=True):
        assert torch.equal(tensor, copy)
    assert twin.step(step_in_threads, 0, 1.0, 3, has_room=has_room)
