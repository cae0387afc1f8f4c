"""fastsched under torch's own names, which is how it gets into frameworks that construct schedulers themselves."""

import json
import subprocess
import sys

CODE = """
import json, sys, warnings
import torch, fastsched

warnings.simplefilter("ignore")
schedulers = fastsched.lr_scheduler
if sys.argv[1] == "replaced":
    names = torch.optim.lr_scheduler
    for name in schedulers.__all__:
        setattr(names, name, getattr(schedulers, name))
    torch.optim.swa_utils.SWALR = fastsched.SWALR
    schedulers = names

MAKE = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 2),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [2, 5], 0.5),
    "ConstantLR": lambda o: schedulers.ConstantLR(o),
    "LinearLR": lambda o: schedulers.LinearLR(o),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 4),
    "by torch's code": lambda o: schedulers.CosineAnnealingLR(o, 4.5),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.1, 0.5, 3),
    "scale_fn": lambda o: schedulers.CyclicLR(o, 0.1, 0.5, 3, scale_fn=lambda x: 0.9**x),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.5, total_steps=30),
    "SWALR": lambda o: schedulers.SWALR(o, 0.05, 4),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=1),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o,
        [
            schedulers.LinearLR(o),
            schedulers.CosineAnnealingWarmRestarts(o, 3),
            schedulers.ReduceLROnPlateau(o, patience=0),
        ],
        [2, 5],
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler([schedulers.LinearLR(o), schedulers.StepLR(o, 2)]),
    "nested": lambda o: schedulers.SequentialLR(
        o,
        [
            schedulers.LinearLR(o),
            schedulers.ChainedScheduler([schedulers.ConstantLR(o), schedulers.ReduceLROnPlateau(o, patience=0)]),
        ],
        [2],
    ),
}
METRIC = ("ReduceLROnPlateau", "SequentialLR", "nested")


def run(name, lr):
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    optimizer = torch.optim.SGD([parameter], lr=lr, momentum=0.9)
    scheduler = MAKE[name](optimizer)
    metrics = [1.0] if name in METRIC else []
    group = optimizer.param_groups[0]
    ahead = fastsched.simulate(scheduler, 8, *metrics).tolist()
    history = fastsched.History(scheduler)
    seen = []
    for _ in range(8):
        optimizer.step()
        scheduler.step(*metrics)
        seen.append([float(group["lr"]), float(group["momentum"])])
    scheduler.load_state_dict(scheduler.state_dict())
    if not metrics:
        scheduler.step(*([4] if name == "CosineAnnealingWarmRestarts" else []))
    return [seen, ahead, float(group["lr"]), len(history), type(scheduler).__module__]


print(json.dumps({name: [run(name, lr) for lr in (0.5, torch.tensor(0.5))] for name in MAKE}))
"""


def results(how):
    run = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_every_class_works_under_torchs_name():
    replaced = results("replaced")
    assert replaced == results("beside torch")
    assert len(replaced) == 19
