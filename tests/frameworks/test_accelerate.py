"""accelerate: a custom loop."""

import pytest
import torch
from accelerate import Accelerator
from recipes import recipe
from training import (
    WARMUP_REDUCE_LR_ON_PLATEAU,
    came_to,
    cosine,
    elsewhere,
    expected,
    kill_at,
    loader,
    model,
    never_content,
    numbers,
    sgd,
)

import fastsched


def train(tensor_lr=False, steps=8):
    accelerator = Accelerator(cpu=True)
    network, batches = model(), loader()
    optimizer = sgd(network, tensor_lr)
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
    return scheduler, lrs[:steps], network


def swapped(folder=None, tensor_lr=False):
    scheduler, lrs, network = train(tensor_lr)
    return came_to(scheduler.scheduler, lrs, network)


def two_processes():
    with fastsched.installed():
        return train(steps=4)[1]


def test_two_processes_step_the_schedule_twice_as_fast():
    """accelerate steps a prepared scheduler once for each process."""
    assert elsewhere("test_accelerate.two_processes()", processes=2) == [expected(cosine, 8)[::2]] * 2


def warm_up_then_plateau(folder, killed_at=None, resume=False, tensor_lr=False):
    network = model()
    optimizer = sgd(network, tensor_lr)
    plateau = recipe("accelerate-plateau")
    accelerator, network, optimizer, batches, scheduler = plateau.prepared(network, optimizer, loader())
    never_content(scheduler.scheduler)
    epoch = torch.zeros(1, dtype=torch.int64)
    count = Count(epoch)
    accelerator.register_for_checkpointing(count)
    if resume:
        accelerator.load_state(folder)
    lrs = []
    while epoch < 6:
        kill_at(killed_at, int(epoch))
        lrs.append(float(optimizer.param_groups[0]["lr"]))
        for x, y in batches:
            loss = torch.nn.functional.mse_loss(network(x), y)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        plateau.end_of_epoch(accelerator, scheduler, loss.detach())
        epoch += 1
        accelerator.save_state(folder)
    return lrs, numbers(accelerator.unwrap_model(network))


class Count:
    def __init__(self, number):
        self.number = number

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number.copy_(state["number"])


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("processes", [None, 2])
def test_warm_up_then_plateau_goes_on_after_a_kill(tmp_path, tensor_lr, processes):
    if tensor_lr and processes:
        whole = elsewhere(call(tmp_path / "whole", tensor_lr=True), processes=processes)
        assert whole[0] == whole[1]
        assert whole[0][0] == pytest.approx(WARMUP_REDUCE_LR_ON_PLATEAU, rel=1e-6)
        return
    whole = elsewhere(call(tmp_path / "whole", tensor_lr=tensor_lr), processes=processes)
    of_one = whole[0] if processes else whole
    assert of_one[0] == pytest.approx(WARMUP_REDUCE_LR_ON_PLATEAU, rel=1e-6 if tensor_lr else 1e-15)
    elsewhere(call(tmp_path / "parts", killed_at=4, tensor_lr=tensor_lr), processes=processes, killed=True)
    resumed = elsewhere(call(tmp_path / "parts", resume=True, tensor_lr=tensor_lr), processes=processes)
    rest = [of_one[0][4:], of_one[1]]
    assert resumed == ([rest] * 2 if processes else rest)


def call(folder, **arguments):
    named = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return f"test_accelerate.warm_up_then_plateau({str(folder)!r}, {named})"


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_scaler_skips(fused):
    """accelerate only notices a skip if the optimizer is not called; the recipe always does."""
    skipping = {4, 5}
    runs = {}
    for way in ("prepared", "recipe"):
        accelerator = Accelerator(cpu=True)
        network = model()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, fused=fused)
        scheduler = fastsched.StepLR(optimizer, 1, 0.5)
        # What accelerate itself does with fp16, which it accepts only on a GPU.
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        network, optimizer = accelerator.prepare(network, optimizer)
        if way == "prepared":
            scheduler = accelerator.prepare(scheduler)
        runs[way] = []
        for i, (x, y) in enumerate([*loader()] * 2):
            runs[way].append(float(optimizer.param_groups[0]["lr"]))
            loss = torch.nn.functional.mse_loss(network(x), y)
            accelerator.scaler.scale(loss * (float("inf") if i in skipping else 1.0)).backward()
            if way == "recipe":
                recipe("accelerate-skipped").step(accelerator, optimizer, scheduler)
            else:
                optimizer.step()
                scheduler.step()
            optimizer.zero_grad()
    right, wrong = [], []
    for i in range(8):
        right.append(0.1 * 0.5 ** (i - sum(step < i for step in skipping)))
        wrong.append(0.1 * 0.5**i)
    assert runs["recipe"] == right
    assert runs["prepared"] == (wrong if fused else right)
