"""torchtitan: its container of schedulers, over several optimizers."""

import torch
from recipes import recipe
from torchtitan.components.optimizer.lr_scheduler import LRSchedulersContainer
from training import WARMUP_REDUCE_LR_ON_PLATEAU, came_to, loader, model, never_content, numbers

import fastsched


def optimizers_of(network, tensor_lr=False):
    made = [torch.optim.SGD([parameter], lr=0.1) for parameter in network.parameters()]
    for optimizer in made if tensor_lr else []:
        fastsched.use_tensor_lr(optimizer)
    return made


def train(network, optimizers, steps, after):
    lrs = []
    for _, (x, y) in zip(range(steps), [batch for _ in range(steps) for batch in loader()], strict=False):
        lrs.append(float(optimizers[0].param_groups[0]["lr"]))
        loss = torch.nn.functional.mse_loss(network(x), y)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        after(loss.detach())
    return lrs


def container(optimizers):
    config = LRSchedulersContainer.Config(warmup_steps=3, decay_ratio=0.5, decay_type="cosine", min_lr_factor=0.1)
    return config.build(optimizers=optimizers, training_steps=12)


def swapped(folder=None, tensor_lr=False):
    network = model()
    optimizers = optimizers_of(network, tensor_lr)
    schedulers = container(optimizers)
    lrs = train(network, optimizers, 12, lambda loss: schedulers.step())
    assert list(schedulers.get_metrics()) == ["lr/SGD"]
    return came_to(schedulers.schedulers[1], lrs, network)


def test_resuming(tmp_path):
    """It saves only ``last_epoch``, and gets the learning rates from the schedulers when it loads that."""
    with fastsched.installed():
        whole = swapped()
        network = model()
        optimizers = optimizers_of(network)
        schedulers = container(optimizers)
        lrs = train(network, optimizers, 8, lambda loss: schedulers.step())
        state = [schedulers.state_dict(), *(optimizer.state_dict() for optimizer in optimizers)]
        optimizers = optimizers_of(network)
        schedulers = container(optimizers)
        for stateful, loaded in zip([schedulers, *optimizers], state, strict=True):
            stateful.load_state_dict(loaded)
        lrs += train(network, optimizers, 4, lambda loss: schedulers.step())
    assert (lrs, numbers(network)) == (whole.lrs, whole.weights)


def test_warm_up_then_plateau_resumes():
    runs = []
    for parts in ([24], [15, 9]):
        network, lrs, state = model(), [], None
        for steps in parts:
            optimizers = optimizers_of(network)
            schedulers = recipe("torchtitan-plateau").PlateauContainer(optimizers)
            for scheduler in schedulers:
                never_content(scheduler)
            if state is not None:
                for stateful, loaded in zip([schedulers, *optimizers], state, strict=True):
                    stateful.load_state_dict(loaded)
            lrs += train(network, optimizers, steps, schedulers.step)
            state = [schedulers.state_dict(), *(optimizer.state_dict() for optimizer in optimizers)]
        runs.append((lrs, numbers(network)))
    assert runs[0][0][:6] == WARMUP_REDUCE_LR_ON_PLATEAU
    assert runs[1][0] == runs[0][0]
