"""found_inf of a GradScaler, with real ones."""

import types

import pytest
import torch

import fastsched


def training(*, fused=False, tensor_lr=False, enabled=True):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.5, fused=fused)
    if tensor_lr:
        fastsched.use_tensor_lr(optimizer)
    scheduler = fastsched.ExponentialLR(optimizer, 0.5)
    return weight, optimizer, scheduler, torch.amp.GradScaler("cpu", init_scale=4.0, enabled=enabled)


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("fused", [False, True], ids=["for each", "fused"])
@pytest.mark.parametrize("unscale", [False, True], ids=["step", "unscale_"])
def test_the_schedule_skips_what_the_scaler_skips(fused, tensor_lr, unscale):
    weight, optimizer, scheduler, scaler = training(fused=fused, tensor_lr=tensor_lr)
    wrapper = types.SimpleNamespace(optimizer=types.SimpleNamespace(optimizer=optimizer))
    lrs = []
    for value in (1.0, float("inf"), 1.0, float("nan"), 1.0):
        optimizer.zero_grad()
        scaler.scale((weight * value).sum()).backward()
        if unscale:
            scaler.unscale_(optimizer)
        before = weight.detach().clone()
        scaler.step(optimizer)
        found = fastsched.found_inf(scaler, wrapper)
        assert found.numel() == 1
        assert bool(found) == torch.equal(before, weight)
        scheduler.step(found_inf=found)
        lrs.append(float(optimizer.param_groups[0]["lr"]))
        scaler.update()
    assert lrs == [0.25, 0.25, 0.125, 0.125, 0.0625]


def test_several_devices():
    _, optimizer, _, scaler = training()
    found = {"a": torch.zeros(1), "b": torch.ones(1)}
    scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"] = found
    assert fastsched.found_inf(scaler, optimizer).tolist() == [1.0]
    found["b"].zero_()
    assert fastsched.found_inf(scaler, optimizer).tolist() == [0.0]


def test_a_scaler_that_is_off_skips_nothing():
    _, optimizer, _, scaler = training(enabled=False)
    assert fastsched.found_inf(scaler, optimizer) == 0.0


def test_too_early_and_too_late():
    weight, optimizer, _, scaler = training()
    with pytest.raises(RuntimeError, match=r"after\s+scaler.unscale_"):
        fastsched.found_inf(scaler, optimizer)
    scaler.scale(weight.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    with pytest.raises(RuntimeError, match=r"before scaler.update\(\)"):
        fastsched.found_inf(scaler, optimizer)
    assert not scaler._per_optimizer_states


def test_what_is_not_a_scaler():
    with pytest.raises(TypeError, match="scaler must be a"):
        fastsched.found_inf(None, training()[1])
