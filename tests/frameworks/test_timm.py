"""timm: the loop of its train.py, with its schedulers and with fastsched's in their place."""

import torch
from recipes import recipe
from timm.scheduler import CosineLRScheduler
from training import loader, model, numbers

import fastsched


def train(make, epochs, start_epoch=0, state=None):
    """As in train.py: the scheduler is passed the next epoch, and where to resume."""
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    if state is not None:
        network.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])
    scheduler = make(optimizer)
    if start_epoch > 0:
        scheduler.step(start_epoch)
    lrs, updates = [], start_epoch * len(loader())
    for epoch in range(start_epoch, epochs):
        lrs.append(optimizer.param_groups[0]["lr"])
        for x, y in loader():
            loss = torch.nn.functional.mse_loss(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            scheduler.step_update(num_updates=updates, metric=loss.item())
        scheduler.step(epoch + 1, loss.item())
    return lrs, numbers(network), [network.state_dict(), optimizer.state_dict()]


def timms(optimizer):
    return CosineLRScheduler(optimizer, 6, 0.01, warmup_t=2, warmup_lr_init=0.02, warmup_prefix=True)


def ours(optimizer):
    return recipe("timm").TimmScheduler(fastsched.WarmupCosineLR(optimizer, 2, 8, 0.1, warmup_start=0.2))


def close(numbers):
    return [round(number, 12) for number in numbers]


def test_its_loop_and_resuming():
    theirs, our_own = train(timms, 8), train(ours, 8)
    assert close(our_own[0]) == close(theirs[0])
    assert len(set(our_own[0])) == 8
    first = train(ours, 5)
    second = train(ours, 8, start_epoch=5, state=first[2])
    assert close(first[0] + second[0]) == close(our_own[0])
