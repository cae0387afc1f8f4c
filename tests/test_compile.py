"""torch.compile traces a tensor-mode step into one graph and never again."""

import copy

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched

from .conftest import sgd
from .optimizers import stepped_sgd
from .trees import deep
from .values import lrs

# Inductor itself uses deprecated features of torch.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BACKENDS = ["eager", "aot_eager", "inductor"]


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled_step(scheduler, backend):
    frames = torch._dynamo.testing.CompileCounterWithBackend(backend)
    return torch.compile(scheduler.step, fullgraph=True, backend=frames), frames


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtypes", [[torch.float32] * 3, [torch.float32, torch.float64]], ids=["one", "two"])
def test_one_graph_no_recompile_and_the_eager_trajectory(device, backend, dtypes):
    optimizer = sgd([torch.tensor(0.5, dtype=dtype, device=device) for dtype in dtypes], device)
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=1, factor=0.9, cooldown=1, eps=0.0)
    oracle = TorchPlateau(sgd([0.5] * len(dtypes)), patience=1, factor=0.9, cooldown=1, eps=0.0)
    step, frames = compiled_step(scheduler, backend)
    for i in range(60):
        metric = 1.0 / (1 + i // 8)
        step(torch.tensor(metric, device=device))
        oracle.step(float(torch.tensor(metric)))
    assert frames.frame_count == 1
    assert [group["lr"].item() for group in optimizer.param_groups] == [
        torch.tensor(group["lr"], dtype=dtype).item()
        for group, dtype in zip(oracle.optimizer.param_groups, dtypes, strict=True)
    ]
    assert scheduler.last_epoch == oracle.last_epoch == 60
    assert scheduler.best == oracle.best


def test_a_compiled_step_follows_attributes_and_writes_in_place():
    lr = torch.tensor(1.0)
    scheduler = fastsched.ReduceLROnPlateau(sgd([lr]), patience=0, factor=0.5)
    step, frames = compiled_step(scheduler, "aot_eager")
    metric = torch.tensor(1.0)
    step(metric)
    step(metric)
    assert lr.item() == 0.5
    scheduler.factor = 0.25
    step(metric)
    assert lr.item() == 0.125
    lr.fill_(8.0)
    step(metric)
    assert lr.item() == 2.0
    scheduler.best = 3.0
    step(metric)
    assert lr.item() == 2.0
    assert frames.frame_count == 1


def test_a_loaded_checkpoint_reaches_the_compiled_step():
    def make():
        return fastsched.ReduceLROnPlateau(sgd([torch.tensor(1.0)]), patience=0, factor=0.5)

    saved, resumed = make(), make()
    for _ in range(3):
        saved.step(1.0)
    step, frames = compiled_step(resumed, "aot_eager")
    step(torch.tensor(1.0))
    resumed.optimizer.load_state_dict(saved.optimizer.state_dict())
    resumed.load_state_dict(saved.state_dict())
    step(torch.tensor(1.0))
    saved.step(1.0)
    assert resumed.state_dict() == saved.state_dict()
    assert resumed.optimizer.param_groups[0]["lr"].item() == 0.125
    assert frames.frame_count == 1


def test_a_loss_that_requires_grad_may_be_the_metric():
    scheduler = fastsched.ReduceLROnPlateau(sgd([torch.tensor(1.0)]))
    weight = torch.tensor(2.0, requires_grad=True)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def train():
        loss = weight * weight
        scheduler.step(loss)
        return loss

    train().backward()
    assert weight.grad.item() == 4.0
    assert scheduler.best == 4.0


def test_inductor_adds_no_copies_around_the_operator():
    from torch._inductor.utils import run_and_get_code

    optimizer = stepped_sgd([torch.tensor(0.5), torch.tensor(0.25, dtype=torch.float64)])
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"].item()  # tensors, which may be written to, are copied
    scheduler = deep(optimizer, 2)
    scheduler.step(torch.tensor(1.0))
    _, [code] = run_and_get_code(torch.compile(scheduler.step, fullgraph=True), torch.tensor(1.0))
    body = code[code.index("def call(") :]
    assert body.count("torch.ops.fastsched.step_.default(") == 2  # one per dtype
    for copying in ("copy_", "clone", "empty_strided", "auto_functionalized", "as_strided"):
        assert copying not in body


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("composed", [False, True])
def test_settings_that_are_tensors_are_followed_when_written_in_place(backend, composed):
    def run(module, backend):
        torch._dynamo.reset()
        optimizer = stepped_sgd([torch.tensor(lr, dtype=torch.float64) for lr in (0.1, 0.2, 0.3)])
        scheduler = child = module.CosineAnnealingWarmRestarts(optimizer, 5)
        if composed:
            scheduler = module.SequentialLR(optimizer, [module.LinearLR(optimizer, 0.5, total_iters=3), child], [3])
        scheduler.step()
        step = torch.compile(scheduler.step, fullgraph=True, backend=backend) if backend else scheduler.step
        seen = []
        for i in range(9):
            step()
            seen += lrs(scheduler)
            if i == 4:
                child.base_lrs[1].fill_(0.7)
            if i == 6:
                child.base_lrs[0].mul_(0.5)
        return seen

    assert run(fastsched, backend) == pytest.approx(run(torch.optim.lr_scheduler, None), rel=1e-12)


def test_everything_that_steps_write_has_a_static_address():
    """So that CUDA-graph trees take the mutation."""
    scheduler = deep(stepped_sgd([torch.tensor(0.5)]), 1)
    [replica] = scheduler._engine._replicas
    for tensor in (replica.program, replica.state, replica.buffer.masters, replica.buffer.lrs):
        assert tensor._dynamo_static_input_type == "unguarded"


def test_a_python_number_recompiles_once():
    scheduler = fastsched.ReduceLROnPlateau(sgd([torch.tensor(1.0)]), patience=0, factor=0.5)
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    step = torch.compile(lambda metric: scheduler.step(metric), fullgraph=True, backend=frames)
    for i in range(10):
        step(1.0 + i / 7)
    assert frames.frame_count == 2  # as a constant, then as a number
    assert scheduler.best == 1.0
    assert scheduler.optimizer.param_groups[0]["lr"].item() == 0.5**9


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("make", [deep, lambda optimizer, _: fastsched.CosineAnnealingLR(optimizer, T_max=7)])
def test_a_whole_training_step_does_not_recompile_after_warm_up(make):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    fastsched.use_tensor_lr(optimizer)
    scheduler = make(optimizer, 1)
    takes_metric = isinstance(scheduler, fastsched.ChainedScheduler)
    inputs, targets = torch.randn(16, 4), torch.randn(16, 1)

    @torch.compile
    def train():
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        scheduler.step(*([loss] if takes_metric else []))
        return loss

    seen = []
    with torch._dynamo.config.patch(error_on_recompile=False):
        for _ in range(3):
            train()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(20):
            train()
            seen.append(optimizer.param_groups[0]["lr"].item())
    assert len(set(seen)) > 5


def optimizer_of(kind):
    """Two groups with momentum and gradients, and the given learning rates."""
    lrs = {"float": [0.5, 0.25], "float32": [torch.tensor(0.5), torch.tensor(0.25)]}
    lrs["float64"] = [lr.double() for lr in lrs["float32"]]
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs[kind]]
    for group in groups:
        group["params"][0].grad = torch.ones(1)
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def values(optimizer):
    return [(float(group["lr"]), float(group["momentum"])) for group in optimizer.param_groups]


def warm_up_then(child):
    return lambda optimizer: fastsched.SequentialLR(
        optimizer, [fastsched.LinearLR(optimizer, 0.1, total_iters=3), child(optimizer)], milestones=[3]
    )


def with_exponential(child):
    return lambda optimizer: fastsched.ChainedScheduler(
        [fastsched.ExponentialLR(optimizer, 0.9), child(optimizer)], optimizer
    )


def plateau(optimizer, **settings):
    return fastsched.ReduceLROnPlateau(optimizer, **{"patience": 0, "factor": 0.5, **settings})


def lambdas(optimizer, **settings):
    return fastsched.LambdaLR(optimizer, lambda epoch: 0.9**epoch, **settings)


def exponential(optimizer, gamma=0.9):
    return fastsched.ExponentialLR(optimizer, gamma)


def momentum_tensors(optimizer):
    for group in optimizer.param_groups:
        group["momentum"] = torch.tensor(0.9)
    return fastsched.CyclicLR(optimizer, base_lr=0.1, max_lr=0.5, step_size_up=3)


# Steps that only Python can make: on learning rates that are tensors, and of every kind on Python numbers.
PYTHON_STEPS = {
    "functions": lambdas,
    "factors": lambda optimizer: fastsched.MultiplicativeLR(optimizer, lambda epoch: 0.9),
    "scale_fn": lambda optimizer: fastsched.CyclicLR(optimizer, 0.1, 0.5, 3, scale_fn=lambda x: 0.9**x),
    "a fractional T_max": lambda optimizer: fastsched.CosineAnnealingLR(optimizer, T_max=7.5),
    "a NumPy gamma": lambda optimizer: exponential(optimizer, np.float64(0.9)),
    "a tensor gamma": lambda optimizer: exponential(optimizer, torch.tensor(0.9, dtype=torch.float64)),
    "a NumPy factor": lambda optimizer: plateau(optimizer, factor=np.float64(0.5)),
    "functions in a sequence": warm_up_then(lambdas),
    "functions in a chain": with_exponential(lambdas),
}
COMPILED_STEPS = {
    "plateau": plateau,
    "list of minima": lambda optimizer: plateau(optimizer, min_lr=[0.01, 0.02]),
    "exponential": exponential,
    "milestones": lambda optimizer: fastsched.MultiStepLR(optimizer, [2, 4], 0.5),
    "cosine": lambda optimizer: fastsched.CosineAnnealingLR(optimizer, T_max=7),
    "restarts": lambda optimizer: fastsched.CosineAnnealingWarmRestarts(optimizer, T_0=3),
    "momentum": lambda optimizer: fastsched.CyclicLR(optimizer, base_lr=0.1, max_lr=0.5, step_size_up=3),
    "momentum tensors": momentum_tensors,
    "one cycle": lambda optimizer: fastsched.OneCycleLR(optimizer, 0.5, total_steps=40),
    "table": lambda optimizer: lambdas(optimizer, total_steps=40),
    "sequence": warm_up_then(exponential),
    "sequence with a plateau": warm_up_then(plateau),
    "chain": with_exponential(plateau),
    "nested": warm_up_then(with_exponential(exponential)),
}


def takes_metric(scheduler):
    composite = isinstance(scheduler, (fastsched.SequentialLR, fastsched.ChainedScheduler))
    return scheduler._reads_metric() if composite else isinstance(scheduler, fastsched.ReduceLROnPlateau)


def training_step(optimizer, scheduler, *, with_optimizer=True):
    metrics = [torch.tensor(1.0)] if takes_metric(scheduler) else []

    def step():
        if with_optimizer:
            optimizer.step()
        scheduler.step(*metrics)

    return step


def run_with(step, optimizer, change=lambda: None, *, steps=9, at=4):
    seen = []
    for index in range(steps):
        if index == at:
            change()
        optimizer._opt_called = True
        step()
        seen.append(values(optimizer))
    return seen


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "float32") for name in PYTHON_STEPS]
    + [
        (name, "float") for name in ("functions", "plateau", "exponential", "restarts", "momentum", "sequence", "chain")
    ],
)
def test_a_step_that_python_has_to_make_breaks_the_graph(name, kind):
    make = {**PYTHON_STEPS, **COMPILED_STEPS}[name]
    eager = optimizer_of(kind)
    expected = run_with(training_step(eager, make(eager)), eager)
    optimizer = optimizer_of(kind)
    step = torch.compile(training_step(optimizer, make(optimizer)), backend="eager")
    assert run_with(step, optimizer) == expected


@pytest.mark.parametrize("kind", ["float", "float32"])
@pytest.mark.parametrize("name", ["functions", "plateau", "exponential", "momentum", "sequence"])
def test_a_scheduler_may_be_made_in_the_compiled_function(name, kind):
    make = {**PYTHON_STEPS, **COMPILED_STEPS}[name]

    def train(optimizer):
        scheduler = make(optimizer)
        step = training_step(optimizer, scheduler)
        for _ in range(3):
            step()

    eager, optimizer = optimizer_of(kind), optimizer_of(kind)
    train(eager)
    torch.compile(train, backend="eager")(optimizer)
    assert values(optimizer) == values(eager)


@pytest.mark.parametrize("name", ["plateau", "exponential", "restarts", "momentum", "sequence with a plateau", "chain"])
def test_learning_rates_may_become_tensors_after_compiling(name):
    seen = []
    for compiled in (False, True):
        torch._dynamo.reset()
        optimizer = optimizer_of("float")
        step = training_step(optimizer, COMPILED_STEPS[name](optimizer))
        step = torch.compile(step, backend="eager") if compiled else step
        before = run_with(step, optimizer, lambda o=optimizer: fastsched.use_tensor_lr(o))
        later = run_with(step, optimizer, lambda o=optimizer: fastsched.use_tensor_lr(o, dtype=torch.float64))
        seen.append((before, later))
    assert seen[1] == seen[0]


def without_fullgraph(step):
    return torch.compile(step, backend="eager")


def with_fullgraph(step):
    return torch.compile(step, backend="eager", fullgraph=True)


def replaced_lr(make):
    def change(optimizer, _):
        optimizer.param_groups[0]["lr"] = make()

    return change


def add_group(make):
    def change(optimizer, _):
        parameter = torch.nn.Parameter(torch.zeros(1))
        parameter.grad = torch.ones(1)
        optimizer.add_param_group({"params": [parameter], "lr": make()})

    return change


def load_smaller_lrs(optimizer, _):
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group["lr"] = group["lr"] / 4
    optimizer.load_state_dict(state)


def replace_groups(optimizer, _):
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]


def write(name, value):
    return lambda _, scheduler: setattr(scheduler, name, value)


def write_item(name, value):
    return lambda _, scheduler: getattr(scheduler, name).__setitem__(0, value)


def write_into_dict(name, value):
    return lambda _, scheduler: scheduler.__dict__.__setitem__(name, value)


def load_earlier_epoch(_, scheduler):
    scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": 1})


def replace_child(optimizer, scheduler):
    scheduler._schedulers[1] = fastsched.ExponentialLR(optimizer, 0.5)


def write_to_children(_, scheduler):
    scheduler._schedulers[1].gamma = 0.25


def momentum_numbers(optimizer, _):
    for group in optimizer.param_groups:
        group["momentum"] = torch.tensor(0.5)


def two_milestones_more(_, scheduler):
    scheduler.milestones.update([7, 8])


# Changes that compiled code cannot see, and the schedulers that they are made to.
OF_GROUPS = {
    "a tensor": replaced_lr(lambda: torch.tensor(0.125)),
    "a tensor of another dtype": replaced_lr(lambda: torch.tensor(0.125, dtype=torch.float64)),
    "a number": replaced_lr(lambda: 0.125),
    "use_tensor_lr": lambda optimizer, _: fastsched.use_tensor_lr(optimizer),
    "float64": lambda optimizer, _: fastsched.use_tensor_lr(optimizer, dtype=torch.float64),
    "loaded": load_smaller_lrs,
    "other dicts": replace_groups,
}
CHANGES = [
    *((name, what, change) for name in ("exponential", "plateau", "chain") for what, change in OF_GROUPS.items()),
    *((name, "a group", add_group(lambda: torch.tensor(0.3))) for name in ("exponential", "plateau", "milestones")),
    ("exponential", "a group with a number", add_group(lambda: 0.3)),
    ("plateau", "a minimum", write_item("min_lrs", 0.2)),
    ("list of minima", "a minimum", write_item("min_lrs", 0.2)),
    ("list of minima", "minima", write("min_lrs", [0.2, 0.1])),
    ("restarts", "a base", write_item("base_lrs", 0.9)),
    ("cosine", "T_max", write("T_max", 9)),
    ("exponential", "gamma in the dict", write_into_dict("gamma", 0.7)),
    ("plateau", "factor in the dict", write_into_dict("factor", 0.7)),
    ("cosine", "the epoch in the dict", write_into_dict("last_epoch", 9)),
    ("milestones", "more milestones", two_milestones_more),
    ("milestones", "a state", load_earlier_epoch),
    ("cosine", "a state", load_earlier_epoch),
    ("sequence", "a child", replace_child),
    ("sequence", "a child's setting", write_to_children),
    ("sequence", "the milestone", write_item("_milestones", 6)),
    ("momentum", "a bound", write_item("max_momentums", 0.99)),
    ("momentum tensors", "a bound", write_item("max_momentums", 0.99)),
    ("momentum tensors", "other tensors", momentum_numbers),
    ("table", "a function", write_item("lr_lambdas", lambda epoch: 0.5**epoch)),
]


WITHOUT_EFFECT = ("use_tensor_lr", "float64", "other dicts", "other tensors")  # on the values, where it is followed


@pytest.mark.parametrize("with_optimizer", [False, True], ids=["alone", "with the optimizer"])
@pytest.mark.parametrize(("name", "what", "change"), CHANGES, ids=[f"{name}: {what}" for name, what, _ in CHANGES])
def test_the_next_compiled_step_follows_what_it_cannot_see(name, what, change, with_optimizer):
    seen, frames = [], torch._dynamo.testing.CompileCounterWithBackend("eager")
    for compiled in (False, True):
        optimizer = optimizer_of("float32")
        scheduler = COMPILED_STEPS[name](optimizer)
        step = training_step(optimizer, scheduler, with_optimizer=with_optimizer)
        run_with(step, optimizer, steps=1)
        if compiled:  # with the optimizer's step, which is traced first, one graph would be too much to expect
            step = torch.compile(step, backend=frames, fullgraph=not with_optimizer)
        seen.append(run_with(step, optimizer, lambda o=optimizer, s=scheduler: change(o, s)))
    assert seen[1] == seen[0]
    assert what in WITHOUT_EFFECT or seen[0] != run_without_change(name)
    assert frames.frame_count >= 1


def run_without_change(name):
    optimizer = optimizer_of("float32")
    step = training_step(optimizer, COMPILED_STEPS[name](optimizer))
    run_with(step, optimizer, steps=1)
    return run_with(step, optimizer)


@pytest.mark.parametrize("name", ["plateau", "exponential", "cosine", "table", "chain", "nested"])
def test_what_goes_in_place_does_not_recompile(name):
    optimizer = optimizer_of("float32")
    scheduler = COMPILED_STEPS[name](optimizer)
    frames = torch._dynamo.testing.CompileCounterWithBackend("eager")
    step = torch.compile(training_step(optimizer, scheduler, with_optimizer=False), backend=frames, fullgraph=True)
    # Loading replaces the tensors in "initial_lr", from which a sequence begins its children: it is compiled for those.
    kept = ("a tensor", "a number") if name == "nested" else ("a tensor", "a number", "loaded")
    changes = [OF_GROUPS[what] for what in kept]
    for change in (*changes, lambda *_: scheduler.state_dict(), lambda *_: vars(scheduler)):
        run_with(step, optimizer, lambda change=change: change(optimizer, scheduler))
    assert frames.frame_count == 1


def test_one_graph_is_refused_with_what_helps_where_python_has_to_step():
    optimizer = optimizer_of("float32")
    step = with_fullgraph(training_step(optimizer, lambdas(optimizer), with_optimizer=False))
    optimizer.step()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="has to be taken by Python"):
        step()


def test_an_error_of_an_eager_step_is_that_of_a_compiled_one():
    optimizer = optimizer_of("float32")
    scheduler = COMPILED_STEPS["list of minima"](optimizer)
    step = without_fullgraph(training_step(optimizer, scheduler))
    step()
    add_group(lambda: torch.tensor(0.3))(optimizer, scheduler)
    with pytest.raises(RuntimeError, match="min_lrs has 2 values for 3 param groups"):
        step()
    scheduler.min_lrs = [0.0, 0.0, 0.0]
    step()
    assert values(optimizer)[2][0] == torch.tensor(0.15).item()


@pytest.mark.parametrize("compile_", [without_fullgraph, with_fullgraph])
def test_a_method_replaced_on_the_object_is_called_or_refused(compile_):
    optimizer = optimizer_of("float32")
    scheduler = exponential(optimizer)
    step = compile_(training_step(optimizer, scheduler, with_optimizer=False))
    optimizer.step()
    step()
    scheduler.get_lr = lambda: [0.75, 0.5]
    if compile_ is with_fullgraph:
        with pytest.raises(torch._dynamo.exc.Unsupported, match="has to be taken by Python"):
            step()
    else:
        step()
        assert [lr for lr, _ in values(optimizer)] == [0.75, 0.5]


def test_early_stopping_follows_its_settings_and_a_model_with_other_weights():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    stopper = fastsched.EarlyStopping(patience=5, model=model)
    frames = torch._dynamo.testing.CompileCounterWithBackend("eager")
    step = torch.compile(stopper.step, fullgraph=True, backend=frames)
    step(torch.tensor(1.0))
    stopper.mode = "max"
    step(torch.tensor(9.0))
    assert stopper.best == 9.0
    model[0].weight = torch.nn.Parameter(torch.full((1, 1), 7.0))
    step(torch.tensor(10.0))
    assert frames.frame_count == 1
    model[0].weight.data.fill_(0.0)
    stopper.restore_best()
    assert model[0].weight.item() == 7.0


def test_early_stopping_with_another_model_raises_in_compiled_steps_too():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    stopper = fastsched.EarlyStopping(model=model)
    step = without_fullgraph(stopper.step)
    step(torch.tensor(1.0))
    model[1] = torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="construct a new one"):
        step(torch.tensor(0.5))
    assert stopper.last_epoch == 1


def test_a_history_made_after_compiling_records_compiled_steps():
    optimizer = optimizer_of("float32")
    scheduler = exponential(optimizer)
    optimizer.step()
    step = with_fullgraph(training_step(optimizer, scheduler, with_optimizer=False))
    step()
    history = fastsched.History(scheduler)
    step()
    step()
    assert len(history) == 2
