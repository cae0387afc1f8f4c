"""The table in docs/migrating.md compared with Megatron, DeepSpeed and timm themselves, including warm-up and end."""

import deepspeed.runtime.lr_schedules as deepspeed
import megatron.core.optimizer_param_scheduler as megatron
import pytest
import timm.scheduler as timm
import torch

import fastsched
from fastsched import Phase

LR, S, R, W, N, T, D = 0.5, 0.1, 0.2, 5, 20, 25, 8


def sgd(lr=LR, **more):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], **more} for _ in "ab"]
    return torch.optim.SGD(groups, lr=lr)


def lrs(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def of_megatron(style, floor=R, **more):
    def make(optimizer):
        wsd = {"wsd_decay_steps": D, "lr_wsd_decay_style": more["wsd"]} if "wsd" in more else {}
        decay = {"start_wd": 0.1, "end_wd": 0.4, "wd_incr_steps": T, "wd_incr_style": more.get("wd", "linear")}
        return megatron.OptimizerParamScheduler(optimizer, S * LR, LR, floor * LR, W, T, style, **decay, **wsd)

    return make


def wsd(decay):
    return lambda o: fastsched.WarmupStableDecayLR(o, W, D, T, R, decay=decay, warmup_start=S)


MEGATRON = {
    "linear": (of_megatron("linear"), lambda o: fastsched.WarmupLinearLR(o, W, T, R, warmup_start=S)),
    "cosine": (of_megatron("cosine"), lambda o: fastsched.WarmupCosineLR(o, W, T, R, warmup_start=S)),
    "WSD linear": (of_megatron("WSD", wsd="linear"), wsd("linear")),
    "WSD cosine": (of_megatron("WSD", wsd="cosine"), wsd("cosine")),
    "WSD exponential": (of_megatron("WSD", wsd="exponential"), wsd("exp2")),
    "WSD minus_sqrt": (of_megatron("WSD", wsd="minus_sqrt"), wsd("1-sqrt")),
}


@pytest.mark.parametrize("name", MEGATRON)
def test_megatron(name):
    theirs, ours = sgd(), sgd()
    reference, scheduler = MEGATRON[name][0](theirs), MEGATRON[name][1](ours)
    ours.step()
    for _ in range(T + 10):
        assert lrs(ours) == pytest.approx(lrs(theirs), rel=1e-13, abs=1e-16)
        reference.step(1)
        scheduler.step()


def test_megatrons_inverse_square_root_until_its_last_step():
    theirs, ours = sgd(), sgd()
    reference = of_megatron("inverse-square-root", 0.0)(theirs)
    scheduler = fastsched.InverseSqrtLR(ours, W, warmup_start=S)
    ours.step()
    for _ in range(T + 1):
        assert lrs(ours) == pytest.approx(lrs(theirs), rel=1e-13)
        reference.step(1)
        scheduler.step()


@pytest.mark.parametrize("style", ["linear", "cosine"])
def test_megatrons_weight_decay(style):
    theirs, ours = sgd(), sgd(weight_decay=0.4)
    reference = of_megatron("linear", wd=style)(theirs)
    scheduler = fastsched.WarmupLR(ours, T, style, 0.1 / 0.4, param_name="weight_decay")
    ours.step()
    for _ in range(T + 5):
        assert ours.param_groups[1]["weight_decay"] == pytest.approx(theirs.param_groups[1]["weight_decay"], rel=1e-13)
        reference.step(1)
        scheduler.step()


WARM = {"warmup_min_lr": S * LR, "warmup_max_lr": LR, "warmup_num_steps": W}
DEEPSPEED = {
    "WarmupLR linear": (
        lambda o: deepspeed.WarmupLR(o, **WARM, warmup_type="linear"),
        lambda o: fastsched.WarmupLR(o, W, warmup_start=S),
    ),
    "WarmupLR log": (
        lambda o: deepspeed.WarmupLR(o, **WARM),
        lambda o: fastsched.WarmupLR(o, W - 1, "log", S),
    ),
    "WarmupDecayLR linear": (
        lambda o: deepspeed.WarmupDecayLR(o, T, **WARM, warmup_type="linear"),
        lambda o: fastsched.WarmupLinearLR(o, W, T, S, warmup_start=S),
    ),
    "WarmupDecayLR log": (
        lambda o: deepspeed.WarmupDecayLR(o, T, **WARM),
        lambda o: fastsched.PhasesLR(o, [Phase(W - 1, "log", S, 1), Phase(1), Phase(T - W, "linear", 1, S)]),
    ),
    "WarmupCosineLR log": (
        lambda o: deepspeed.WarmupCosineLR(o, T, warmup_min_ratio=S, warmup_num_steps=W, cos_min_ratio=R),
        lambda o: fastsched.WarmupCosineLR(o, W - 1, T - 1, R, warmup="log", warmup_start=S),
    ),
}


@pytest.mark.parametrize("name", DEEPSPEED)
def test_deepspeed_which_is_a_step_behind(name):
    theirs, ours = sgd(), sgd()
    reference, scheduler = DEEPSPEED[name][0](theirs), DEEPSPEED[name][1](ours)
    ours.step()
    for _ in range(T + 10):
        reference.step()
        assert lrs(ours) == pytest.approx(lrs(theirs), rel=1e-13, abs=1e-16)
        scheduler.step()


@pytest.mark.parametrize("bounds", [(-7.0, 3.0), (-2.0, 1.5)])
@pytest.mark.parametrize("prefix", [True, False])
def test_timms_tanh(bounds, prefix):
    warm = {"warmup_t": W, "warmup_lr_init": S * LR, "warmup_prefix": True} if prefix else {}
    first = [Phase(W, "linear", S, 1)] if prefix else []
    theirs, ours = sgd(), sgd()
    reference = timm.TanhLRScheduler(theirs, N, *bounds, R * LR, **warm)
    scheduler = fastsched.PhasesLR(ours, [*first, Phase(N, "tanh", 1, R, bounds=bounds), Phase(None, "constant", R)])
    ours.step()
    for epoch in range(1, W + N + 5):
        reference.step(epoch)
        scheduler.step()
        assert lrs(ours) == pytest.approx(lrs(theirs), rel=1e-13)


@pytest.mark.parametrize("noise_range", [(3, 12), 4])
@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
def test_timms_noise_is_a_function_in_a_chain(noise_range, tensor_lr):
    begin, end = noise_range if isinstance(noise_range, tuple) else (noise_range, 10**9)

    def noise(t, share=0.67, deviation=1.0, seed=42):
        if not begin <= t < end:
            return 1.0
        generator = torch.Generator().manual_seed(seed + t)
        while abs(drawn := torch.randn(1, generator=generator).item() * deviation) >= share:
            pass
        return 1.0 + drawn

    theirs, ours = sgd(), sgd()
    if tensor_lr:
        fastsched.use_tensor_lr(ours)
    reference = timm.CosineLRScheduler(theirs, N, R * LR, noise_range_t=noise_range)
    decay = fastsched.WarmupCosineLR(ours, 0, N, R)
    scheduler = fastsched.ChainedScheduler([decay, fastsched.MultiplicativeLR(ours, noise, total_steps=N + 9)])
    ours.step()
    for epoch in range(1, N + 9):
        reference.step(epoch)
        scheduler.step()
        assert lrs(ours) == pytest.approx(lrs(theirs), rel=1e-6 if tensor_lr else 1e-13)
