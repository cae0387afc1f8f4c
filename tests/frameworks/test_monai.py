"""MONAI: its handler for schedulers, on a trainer of its own."""

import torch
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from recipes import recipe
from training import WARMUP_REDUCE_LR_ON_PLATEAU, came_to, cosine, data, model, never_content, sgd


def trainer(tensor_lr=False, epochs=2):
    network = model()
    optimizer = sgd(network, tensor_lr)
    batches = torch.utils.data.DataLoader([{"image": x, "label": y} for x, y in data()], batch_size=8)
    engine = SupervisedTrainer("cpu", epochs, batches, network, optimizer, torch.nn.functional.mse_loss)
    lrs = []

    @engine.on("ITERATION_STARTED")
    def note(engine):
        lrs.append(float(optimizer.param_groups[0]["lr"]))

    return engine, optimizer, lrs


def swapped(folder=None, tensor_lr=False):
    engine, optimizer, lrs = trainer(tensor_lr)
    scheduler = cosine(optimizer)
    LrScheduleHandler(scheduler, epoch_level=False).attach(engine)
    engine.run()
    return came_to(scheduler, lrs, engine.network)


def test_warm_up_then_plateau():
    engine, optimizer, lrs = trainer(epochs=6)
    handler = recipe("monai-plateau").schedule(engine, optimizer)
    never_content(handler.lr_scheduler)
    engine.run()
    assert lrs == [lr for lr in WARMUP_REDUCE_LR_ON_PLATEAU for _ in range(4)]
