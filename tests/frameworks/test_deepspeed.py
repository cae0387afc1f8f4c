"""DeepSpeed on the CPU, without its own operators; it needs a process group, so each run is a process of its own."""

import sys

import pytest
import torch
from recipes import recipe
from training import (
    WARMUP_REDUCE_LR_ON_PLATEAU,
    came_to,
    cosine,
    elsewhere,
    kill_at,
    loader,
    model,
    never_content,
    numbers,
    sgd,
)

import fastsched

CONFIG = {
    "train_micro_batch_size_per_gpu": 8,
    "zero_allow_untested_optimizer": True,
    "zero_optimization": {"stage": 0},
    "steps_per_print": 10**9,
}


def initialize(schedule, tensor_lr=False, network=None, **config):
    import deepspeed

    # It would compile an operator for processes that share memory; gloo works without it.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    network = model() if network is None else network
    optimizer = sgd(network, tensor_lr)
    engine, *_ = deepspeed.initialize(
        model=network, optimizer=optimizer, lr_scheduler=schedule, config={**CONFIG, **config}
    )
    return engine


def swapped(folder=None, tensor_lr=False, installed=True, by_name=False):
    if installed:
        fastsched.install()
    in_config = {"scheduler": {"type": "CosineAnnealingLR", "params": {"T_max": 8, "eta_min": 0.01}}}
    engine = initialize(None if by_name else cosine, tensor_lr, **(in_config if by_name else {}))
    lrs = []
    for _ in range(2):
        for x, y in loader():
            lrs.append(float(engine.optimizer.param_groups[0]["lr"]))
            engine.backward(torch.nn.functional.mse_loss(engine(x), y))
            engine.step()
    return came_to(engine.lr_scheduler, lrs, engine.module)


def test_a_scheduler_by_its_name_in_the_config():
    [given], [named] = (elsewhere(f"test_deepspeed.swapped(by_name={by_name})", processes=1) for by_name in (0, 1))
    assert named[0] == "fastsched.schedulers.epoch.CosineAnnealingLR"
    assert named == given


def warm_up_then_plateau(folder, killed_at=None, resume=False, stage=0):
    made = recipe("deepspeed-plateau")
    engine = initialize(
        lambda optimizer: never_content(made.make_scheduler(optimizer)), zero_optimization={"stage": stage}
    )
    batches = [*loader()][torch.distributed.get_rank() :: torch.distributed.get_world_size()]
    lrs = []
    first = 0
    if resume:
        _, state = engine.load_checkpoint(folder)
        first = state["epoch"] + 1
    for epoch in range(first, 6):
        kill_at(killed_at, epoch)
        lrs.append(float(engine.optimizer.param_groups[0]["lr"]))
        made.train_epoch(engine, batches)
        engine.save_checkpoint(folder, client_state={"epoch": epoch})
        fastsched.assert_ranks_agree(engine.lr_scheduler)
    return lrs, numbers(engine.module)


@pytest.mark.parametrize(("processes", "stage"), [(1, 0), (2, 0), (2, 2), (2, 3)])
def test_warm_up_then_plateau_goes_on_after_a_kill(tmp_path, processes, stage):
    def run(folder, arguments="", killed=False):
        call = f"test_deepspeed.warm_up_then_plateau({str(tmp_path / folder)!r}, stage={stage}{arguments})"
        return elsewhere(call, processes=processes, killed=killed)

    lrs, weights = run("whole")[0]
    assert lrs == WARMUP_REDUCE_LR_ON_PLATEAU
    run("parts", ", killed_at=4", killed=True)
    assert run("parts", ", resume=True") == [[lrs[4:], weights]] * processes
