"""accelerate: a loop of one's own."""

import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from training import expected, loader, model

import fastsched


def cosine(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)


def train(tensor_lr=False, steps=8):
    accelerator = Accelerator(cpu=True)
    network, batches = model(), loader()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    if tensor_lr:
        fastsched.use_tensor_lr(optimizer)
    scheduler = cosine(optimizer)
    network, optimizer, batches, scheduler = accelerator.prepare(network, optimizer, batches, scheduler)
    lrs = []
    while len(lrs) < steps:
        for x, y in batches:
            lrs.append(float(optimizer.param_groups[0]["lr"]))
            accelerator.backward(torch.nn.functional.mse_loss(network(x), y))
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return accelerator, scheduler, lrs[:steps]


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
def test_the_swap(tensor_lr):
    with fastsched.installed():
        _, scheduler, lrs = train(tensor_lr)
    assert type(scheduler.scheduler) is fastsched.CosineAnnealingLR
    assert lrs == (pytest.approx(expected(cosine, 8), rel=1e-6) if tensor_lr else expected(cosine, 8))


def test_resuming(tmp_path):
    with fastsched.installed():
        accelerator, scheduler, _ = train(steps=4)
        accelerator.save_state(tmp_path)
        before = scheduler.state_dict()
        scheduler.step()
        accelerator.load_state(tmp_path)
    assert scheduler.state_dict() == before


PROCESSES = """
import sys
sys.path.insert(0, {folder!r})
from test_accelerate import *
with fastsched.installed():
    print(train(steps=4)[2])
"""


def test_two_processes_step_the_schedule_twice_as_fast(request, tmp_path):
    """accelerate steps a prepared scheduler once for each process."""
    script = tmp_path / "script.py"
    script.write_text(PROCESSES.format(folder=str(request.path.parent)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert [[float(lr) for lr in line[1:-1].split(",")] for line in lines] == [expected(cosine, 8)[::2]] * 2
