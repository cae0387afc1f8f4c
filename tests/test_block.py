"""What the threads of a CUDA block do, done by threads of the host, bit for bit what the CPU's own step does."""

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
    function.argtypes = [pointer, number, pointer, number, pointer, pointer, number, ctypes.c_int, ctypes.c_int]
    function.argtypes += [ctypes.c_double, ctypes.c_int]
    return function


class Twin:
    """Copies of what a replica's steps read and write, histories and mirrors included."""

    def __init__(self, scheduler):
        [replica] = scheduler._engine._replicas
        self.replica = replica
        buffer = replica.buffer
        self.tensors = [tensor.clone() for tensor in (replica.program, replica.state, buffer.masters, buffer.lrs)]
        self.reports = {}  # where to: copies, by the address that is in the state
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

    def step(self, step_in_threads, event, value, threads):
        program, state, masters, lrs = self.tensors
        failed = step_in_threads(
            program.data_ptr(),
            program.numel(),
            state.data_ptr(),
            state.numel(),
            masters.data_ptr(),
            lrs.data_ptr(),
            lrs.numel(),
            lrs.dtype is torch.float32,
            event,
            value,
            threads,
        )
        assert not failed

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
    data=st.data(),
)
def test_a_block_does_what_the_host_does(step_in_threads, tree, dtype, groups, values, threads, data):
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
        twin.step(step_in_threads, event, value, threads)
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
        twin.step(step_in_threads, 0, value, -(-groups // 32) * 32)
        scheduler._engine._call(value, 0, None)
        twin.agrees()
    assert len(history) == 3
