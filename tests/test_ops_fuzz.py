"""Whatever programs, states and aliases it is called with, the operator steps within its buffers, or refuses."""

import math
import pickle
import select
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .optimizers import stepped_sgd
from .stepping_process import Slice
from .trees import grow, leaves, trees

TENSORS = ["program", "state", "masters", "lrs"]
wild = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300, 2.0**53, 2.0**63, 4.3e9, 1e12, -1.0, 0.5, 1e-300]),
    st.integers(0, 40).map(float),
    st.floats(),
)
word = st.integers(0, 10**6)  # of how many there are, the rest of the division
damages = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(TENSORS), word, wild),
        st.tuples(st.just("head"), st.just("program"), st.integers(0, 18), wild),  # all else depends on these
        st.tuples(st.just("exchange"), st.just("program"), word, word),
        st.tuples(st.just("resize"), st.sampled_from(TENSORS), st.integers(-3, 3), wild),
    ),
    max_size=4,
)
aliases = st.none() | st.tuples(
    st.sampled_from([*TENSORS, "metric", "found_inf"]), st.sampled_from(TENSORS), st.integers(0, 30)
)


class Process:
    """Steps in a separate process, which is replaced at the next call if it has died."""

    def __init__(self):
        self.process = None

    def call(self, *request):
        if self.process is None:
            command = [sys.executable, "-W", "ignore", "-m", "tests.stepping_process"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": Path(__file__).parents[1]}
            self.process = subprocess.Popen(command, **pipes)
        self.process.stdin.write(pickle.dumps(request))
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], 120)
        answer = self.process.stdout.readline().decode().strip() if ready else "does not end"
        if not ready or not answer:
            self.close()
            return answer or "died"
        return answer

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def process():
    process = Process()
    yield process
    process.close()


def memories_of(tree, dtype, groups):
    scheduler = grow(stepped_sgd([torch.tensor(0.5 / (1 + i), dtype=dtype) for i in range(groups)]), tree)
    [replica] = scheduler._engine._replicas
    buffer = replica.buffer
    return {"program": replica.program, "state": replica.state, "masters": buffer.masters, "lrs": buffer.lrs}


def damage(tensors, how, name, place, value):
    tensor = tensors[name]
    if how == "resize":
        added = torch.full((max(place, 0),), value, dtype=torch.float64).to(tensor.dtype)
        tensors[name] = torch.cat([tensor[: max(len(tensor) + min(place, 0), 0)], added])
    elif len(tensor) and how == "exchange":
        pair = [place % len(tensor), value % len(tensor)]
        tensor[pair] = tensor[pair[::-1]]
    elif len(tensor):
        tensor[place % len(tensor)] = torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@settings(max_examples=60)
@given(
    tree=trees | leaves,
    groups=st.integers(1, 4),
    damages=damages,
    alias=aliases,
    metric=st.none() | wild,
    value=wild,
    event=st.integers(0, 5) | st.integers(-(2**63), 2**63 - 1),
)
def test_it_steps_or_refuses(process, dtype, tree, groups, damages, alias, metric, value, event):
    tensors = {name: tensor.clone() for name, tensor in memories_of(tree, dtype, groups).items()}
    for change in damages:
        damage(tensors, *change)
    if metric is not None:
        tensors["metric"] = torch.tensor([metric])
    slices = {name: Slice(name, 0, len(tensor)) for name, tensor in tensors.items()}
    if alias is not None:
        name, memory, begin = alias
        slices[name] = Slice(memory, begin, begin + (len(tensors[name]) if name in tensors else 1))
    data = {name: (tensor.numpy().tobytes(), tensor.dtype) for name, tensor in tensors.items()}
    answer = process.call(data, slices, {"value": value, "event": event})
    assert answer in ("stepped", "refused")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_is_whole_is_stepped(process, dtype):
    tensors = memories_of(("StepLR", {"step_size": 3}), dtype, 2)
    data = {name: (tensor.numpy().tobytes(), tensor.dtype) for name, tensor in tensors.items()}
    slices = {name: Slice(name, 0, len(tensor)) for name, tensor in tensors.items()}
    assert process.call(data, slices, {"value": 0.0}) == "stepped"
    assert process.call(data, {**slices, "lrs": Slice("masters", 0, 2)}, {"value": 0.0}) == "refused"


def test_a_process_that_dies_is_noticed(process):
    process.call({}, {}, {})
    process.process.kill()
    process.process.wait()
    with pytest.raises(BrokenPipeError):
        process.call({}, {}, {})
    process.close()
