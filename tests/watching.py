"""Contexts that raise or count while code runs."""

from __future__ import annotations

import warnings

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Counts the operators that run under it."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.calls.append(function)
        return function(*arguments, **(keywords or {}))


class NoSyncs:
    """Any wait for the device raises."""

    def __enter__(self):
        torch.cuda.synchronize()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the mode is a prototype
            torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *_):
        torch.cuda.set_sync_debug_mode("default")


def memory_behind(replica, offset):
    """What the address in the state points to, which must still exist; None without an address."""
    address = replica.state[offset : offset + 1].clone().view(torch.int64).item()
    if address == 0:
        return None
    kept = replica.state.untyped_storage()._fastsched_kept[replica.state.storage_offset() + offset]
    [memory] = [memory for memory in kept if memory.data_ptr() == address]
    return memory
