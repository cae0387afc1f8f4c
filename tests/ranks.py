"""Several ranks on this machine, communicating over gloo."""

import multiprocessing
import pickle
import tempfile
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import distributed

# Ranks are forked from a process that has imported these, so that tests do not wait for imports.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["torch._dynamo", "torch.distributed.tensor", "tests.test_ranks"])
_TIMEOUT = 60.0


def on_ranks(count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``function(rank, *args)`` returns on each of ``count`` ranks; AssertionError if one raises or hangs."""
    with tempfile.TemporaryDirectory() as folder:
        pipes = [_PROCESSES.Pipe(duplex=False) for _ in range(count)]
        processes = [
            _PROCESSES.Process(target=_run, args=(rank, count, f"{folder}/store", sender, function, args))
            for rank, (_, sender) in enumerate(pipes)
        ]
        for process, (_, sender) in zip(processes, pipes, strict=True):
            process.start()
            sender.close()
        try:
            answers = [_answer(receiver) for receiver, _ in pipes]
        finally:
            for process in processes:
                process.kill()
                process.join()
    failures = [f"rank {rank}: {text}" for rank, (done, text) in enumerate(answers) if not done]
    assert not failures, "\n".join(failures)
    return [value for _, value in answers]


def _answer(receiver: Connection) -> tuple[bool, Any]:
    if not wait([receiver], _TIMEOUT):
        return False, f"nothing heard for {_TIMEOUT} s"
    try:
        return pickle.loads(receiver.recv_bytes())
    except EOFError:
        return False, "died"


def _run(rank: int, count: int, store: str, sender: Connection, function: Callable[..., Any], args: Any) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    try:
        distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
        answer = (True, function(rank, *args))
        distributed.barrier()
        distributed.destroy_process_group()
    except BaseException:
        answer = (False, traceback.format_exc())
    sender.send_bytes(pickle.dumps(answer))  # not send(), which would share the memory of tensors
