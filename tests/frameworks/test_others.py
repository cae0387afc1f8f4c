"""ignite and skorch."""

import numpy as np
import skorch
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ReduceLROnPlateauScheduler
from ignite.handlers.param_scheduler import LRScheduler as IgniteScheduler
from recipes import recipe
from skorch.callbacks import LRScheduler as SkorchScheduler
from training import came_to, cosine, data, installed_if, loader, model, sgd

import fastsched


def swapped_ignite(folder=None, tensor_lr=False, attach=None):
    network = model()
    optimizer = sgd(network, tensor_lr)
    scheduler = cosine(optimizer)
    lrs = []

    def update(engine, batch):
        x, y = batch
        lrs.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()

    engine = Engine(update)
    if attach is None:
        engine.add_event_handler(Events.ITERATION_STARTED, IgniteScheduler(scheduler))
    else:
        attach(engine, scheduler)
    engine.run(loader(), max_epochs=2)
    return came_to(scheduler, lrs, network)


def swapped_ignite_stepped(folder=None, tensor_lr=False):
    return swapped_ignite(folder, tensor_lr, recipe("ignite").attach)


def test_ignites_plateau():
    """It constructs torch's itself, and reduces itself."""
    runs = []
    for install in (False, True):
        optimizer = torch.optim.SGD(model().parameters(), lr=0.1)
        arguments = {"metric_name": "loss", "patience": 0, "threshold": 10.0, "threshold_mode": "abs", "factor": 0.5}
        with installed_if(install):
            handler = ReduceLROnPlateauScheduler(optimizer, **arguments)
        assert isinstance(handler.scheduler, fastsched.ReduceLROnPlateau) is install
        engine = Engine(lambda engine, batch: None)
        lrs = []

        @engine.on(Events.EPOCH_COMPLETED)
        def note(engine, optimizer=optimizer, lrs=lrs):
            engine.state.metrics["loss"] = -1.0
            lrs.append(optimizer.param_groups[0]["lr"])

        engine.add_event_handler(Events.EPOCH_COMPLETED, handler)
        engine.run([0], max_epochs=5)
        runs.append(lrs)
    assert runs[0] == runs[1]
    assert runs[0][-1] < 0.1


def fit(policy, **arguments):
    x, y = data().tensors
    net = skorch.NeuralNetRegressor(
        model,
        lr=0.1,
        max_epochs=5,
        batch_size=8,
        train_split=None,
        verbose=0,
        callbacks=[("schedule", SkorchScheduler(policy, event_name="event_lr", **arguments))],
    )
    net.fit(x.numpy().astype(np.float32), y.numpy())
    return net, net.history[:, "event_lr"]


def swapped_skorch(folder=None):
    """It compares classes by identity and passes ``last_epoch``, so it is given torch's class."""
    net, lrs = fit(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)
    return came_to(dict(net.callbacks_)["schedule"].lr_scheduler_, lrs, net.module_)


def test_skorchs_plateau():
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau
    arguments = {"monitor": "train_loss", "patience": 0, "threshold": 10.0, "threshold_mode": "abs", "factor": 0.5}
    _, theirs = fit(torchs, **arguments)
    with fastsched.installed():
        net, ours = fit(torchs, **arguments)
    assert ours == theirs
    assert ours[-1] < 0.1
    assert type(dict(net.callbacks_)["schedule"].lr_scheduler_) is fastsched.ReduceLROnPlateau
