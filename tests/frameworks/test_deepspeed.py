"""DeepSpeed on the CPU, without operators of its own; it needs a process group, so each training has a process."""

import sys

import torch
from recipes import recipe
from training import WARMUP_REDUCE_LR_ON_PLATEAU, came_to, cosine, elsewhere, kill_at, loader, model, numbers

import fastsched

CONFIG = {"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": 0}, "steps_per_print": 10**9}


def initialize(schedule, tensor_lr=False, network=None, **config):
    import deepspeed

    # It would compile an operator for processes that share memory; without it gloo does.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    network = model() if network is None else network
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    if tensor_lr:
        fastsched.use_tensor_lr(optimizer)
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


def warm_up_then_plateau(folder, killed_at=None, resume=False):
    train_epoch, make = (getattr(recipe("deepspeed-plateau"), name) for name in ("train_epoch", "make_scheduler"))
    engine = initialize(lambda optimizer: make(optimizer))
    plateau = engine.lr_scheduler
    plateau.factor, plateau.patience, plateau.threshold, plateau.threshold_mode = 0.5, 0, 10.0, "abs"
    lrs = []
    first = 0
    if resume:
        _, state = engine.load_checkpoint(folder)
        first = state["epoch"] + 1
    for epoch in range(first, 6):
        kill_at(killed_at, epoch)
        lrs.append(float(engine.optimizer.param_groups[0]["lr"]))
        train_epoch(engine, loader())
        engine.save_checkpoint(folder, client_state={"epoch": epoch})
    return lrs, numbers(engine.module)


def test_warm_up_then_plateau_goes_on_after_a_kill(tmp_path):
    [[lrs, weights]] = elsewhere(f"test_deepspeed.warm_up_then_plateau({str(tmp_path / 'whole')!r})", processes=1)
    assert lrs == WARMUP_REDUCE_LR_ON_PLATEAU
    there = repr(str(tmp_path / "parts"))
    elsewhere(f"test_deepspeed.warm_up_then_plateau({there}, killed_at=4)", processes=1, killed=True)
    assert elsewhere(f"test_deepspeed.warm_up_then_plateau({there}, resume=True)", processes=1) == [[lrs[4:], weights]]
