"""Calls the operator as requested on standard input, so that a crash ends this process and not the tests.

In: pickled arguments, tensors as slices of memory that several of them may share. Out: what became of the call.
"""

import pickle
import sys
from typing import Any, NamedTuple

import torch


class Slice(NamedTuple):
    """A tensor's place: which memory, and from which element to which."""

    memory: str
    begin: int
    end: int


def call(memories: dict[str, tuple[bytes, torch.dtype]], slices: dict[str, Slice], numbers: dict[str, Any]) -> str:
    from fastsched.engine import ops

    tensors = {
        name: torch.frombuffer(bytearray(data), dtype=dtype).clone() if data else torch.zeros(0, dtype=dtype)
        for name, (data, dtype) in memories.items()
    }
    arguments = {name: tensors[where.memory][where.begin : where.end] for name, where in slices.items()}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    try:
        for _ in range(3):
            ops.step_(**{"metric": None, "found_inf": None, **arguments, **numbers})
    except RuntimeError:
        changed = [name for name, tensor in tensors.items() if not same(tensor, before[name])]
        return f"refused, but wrote to {changed}" if changed else "refused"
    return "stepped"


def same(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(tensor.view(torch.uint8), other.view(torch.uint8)) if tensor.numel() else True


def main() -> None:
    output = sys.stdout.buffer
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = call(*request)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        output.write(answer.replace("\n", " ").encode() + b"\n")
        output.flush()


if __name__ == "__main__":
    main()
