"""simulate: the result of actual steps, without a trace of having stepped."""

import copy
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr_scheduler

import fastsched

from .configurations import CONFIGURATIONS, TORCH, make
from .conftest import sgd
from .optimizers import Wrapper, stepped_sgd
from .trees import functions_of_the_step, grow, trees, trees_of
from .values import bits, double
from .values import lrs as lrs_of

names = pytest.mark.parametrize("name", CONFIGURATIONS)
kinds = pytest.mark.parametrize("kind", [float, double, torch.tensor], ids=["float", "float64", "float32"])
initial_lrs = st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=3)
series = st.lists(st.sampled_from([1.0, 2.0, 3.0, float("nan")]), min_size=12, max_size=12)


def stepped(scheduler, steps, metrics=None):
    """What simulate should return, by taking the steps."""
    rows = [lrs_of(scheduler)]
    for step in range(steps):
        if metrics is None:
            scheduler.step()
        else:
            scheduler.step(metrics[step])
        rows.append(lrs_of(scheduler))
    return np.array(rows)


def held(value):
    """The identity of the object, and its contents."""
    if isinstance(value, torch.Tensor):
        return id(value), value.data_ptr(), value.dtype, value.device, value.tolist()
    if isinstance(value, (list, tuple)):
        return id(value), [held(item) for item in value]
    return id(value), bits(value)


def hyperparameters(optimizer):
    """Every value of every group, and its identity."""
    return [{key: held(value) for key, value in group.items()} for group in optimizer.param_groups]


def everything(scheduler):
    """Everything that a simulation might have changed."""
    optimizer = scheduler.optimizer
    children = [everything(child) for child in getattr(scheduler, "_schedulers", [])]
    state = {
        key: bits(value) for key, value in scheduler.state_dict().items() if key not in ("_schedulers", "anneal_func")
    }
    return (
        state,
        bits([float(lr) for lr in scheduler.get_last_lr()]),
        hyperparameters(optimizer),
        optimizer.__dict__.keys(),
        dict(optimizer.state),
        id(getattr(scheduler, "_engine", None)),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        children,
    )


@names
@kinds
@settings(max_examples=settings.default.max_examples // 6)
@given(data=st.data(), first=st.integers(0, 6))
def test_it_is_what_really_stepping_gives(name, kind, data, first):
    initial = [kind(lr) for lr in data.draw(initial_lrs)]
    scheduler = make(fastsched, name, initial, data.draw(CONFIGURATIONS[name]))
    scheduler.optimizer.step()
    for _ in range(first):
        scheduler.step()
    before = everything(scheduler)
    simulated = fastsched.simulate(scheduler, 20)
    assert everything(scheduler) == before
    assert simulated.dtype == np.float64
    assert simulated.shape == (21, len(initial))
    np.testing.assert_array_equal(simulated, stepped(scheduler, 20))


@kinds
@given(tree=trees, initial=initial_lrs, metrics=series, first=st.integers(0, 4))
def test_compositions(kind, tree, initial, metrics, first):
    scheduler = grow(stepped_sgd([kind(lr) for lr in initial]), tree)
    for step in range(first):
        scheduler.step(metrics[step])
    before = everything(scheduler)
    simulated = fastsched.simulate(scheduler, 12, metrics)
    assert everything(scheduler) == before
    np.testing.assert_array_equal(simulated, stepped(scheduler, 12, metrics))


@kinds
@settings(max_examples=settings.default.max_examples // 3)
@given(tree=trees_of(functions_of_the_step), initial=initial_lrs)
def test_it_agrees_with_lr_at(kind, tree, initial):
    scheduler = grow(stepped_sgd([kind(lr) for lr in initial]), tree)
    assert fastsched.simulate(scheduler, 12).tolist() == [scheduler.lr_at(step) for step in range(13)]


@names
@kinds
@settings(max_examples=settings.default.max_examples // 30)
@given(data=st.data())
def test_torchs_own_schedulers(name, kind, data):
    scheduler = make(TORCH, name, [kind(0.5), kind(0.25)], data.draw(CONFIGURATIONS[name]))
    scheduler.optimizer.step()
    before = everything(scheduler)
    simulated = fastsched.simulate(scheduler, 15)
    assert everything(scheduler) == before
    np.testing.assert_array_equal(simulated, stepped(scheduler, 15))


@kinds
@pytest.mark.parametrize("library", [fastsched, torch_lr_scheduler])
def test_a_plateau_with_its_metrics(library, kind):
    metrics = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    scheduler = library.ReduceLROnPlateau(stepped_sgd([kind(1.0)]), patience=1, factor=0.5)
    scheduler.step(5.0)
    before = everything(scheduler)
    simulated = fastsched.simulate(scheduler, 8, metrics)
    assert everything(scheduler) == before
    np.testing.assert_array_equal(simulated, stepped(scheduler, 8, metrics))
    assert simulated[-1] < 1.0


def test_torchs_compositions():
    optimizer = stepped_sgd([1.0])
    chain = torch_lr_scheduler.ChainedScheduler(
        [torch_lr_scheduler.ConstantLR(optimizer, 0.5, 3), torch_lr_scheduler.ExponentialLR(optimizer, 0.9)]
    )
    np.testing.assert_array_equal(fastsched.simulate(chain, 9), stepped(chain, 9))
    optimizer = stepped_sgd([1.0])
    parts = [torch_lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3), fastsched.CosineAnnealingLR(optimizer, 6)]
    sequence = torch_lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])
    np.testing.assert_array_equal(fastsched.simulate(sequence, 9), stepped(sequence, 9))


class Noisy(torch_lr_scheduler.LRScheduler):
    """A user's scheduler that draws from every generator, uses more of its optimizer, and counts."""

    def __init__(self, optimizer):
        self.seen = []
        super().__init__(optimizer)

    def get_lr(self):
        self.seen.append(self.last_epoch)
        noise = torch.rand(()).item() + random.random() + np.random.rand() + self.optimizer.defaults["weight_decay"]
        return [base * noise for base in self.base_lrs]


def test_a_users_scheduler_that_draws_random_numbers():
    scheduler = Noisy(stepped_sgd([1.0, 2.0]))
    before = everything(scheduler), list(scheduler.seen)
    simulated = fastsched.simulate(scheduler, 10)
    assert (everything(scheduler), scheduler.seen) == before
    np.testing.assert_array_equal(simulated, stepped(scheduler, 10))
    assert len(set(simulated[:, 0])) == 11


@kinds
def test_a_users_subclass(kind):
    class Floored(fastsched.ExponentialLR):
        def get_lr(self):
            return [max(float(lr), 0.1) for lr in super().get_lr()]

    scheduler = Floored(stepped_sgd([kind(1.0)]), 0.5)
    scheduler.step()
    before = everything(scheduler)
    simulated = fastsched.simulate(scheduler, 8)
    assert everything(scheduler) == before
    np.testing.assert_array_equal(simulated, stepped(scheduler, 8))


class Halving(torch_lr_scheduler.LRScheduler):
    """A user's scheduler that halves when a metric is not 0."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self, metrics):
        for group in self.optimizer.param_groups:
            group["lr"] *= 0.5 if metrics else 1.0


def test_a_users_scheduler_that_takes_metrics():
    scheduler = Halving(sgd([1.0]))
    assert fastsched.simulate(scheduler, 3, [1, 0, 1]).ravel().tolist() == [1.0, 0.5, 0.5, 0.25]
    with pytest.raises(ValueError, match="metrics: step 1 of this Halving needs a metric"):
        fastsched.simulate(scheduler, 3)


class Forwarding(fastsched.ExponentialLR):
    """A user's scheduler that takes what every scheduler takes, and counts its calls."""

    seen = 0.0

    def step(self, epoch=None, *, metrics=None):
        super().step(epoch, metrics=metrics)
        if metrics is not None:
            Forwarding.seen += metrics


def test_a_metric_that_is_taken_by_keyword_alone():
    scheduler = Forwarding(stepped_sgd([1.0]), 0.5)
    assert fastsched.simulate(scheduler, 2, [1, 2]).ravel().tolist() == [1.0, 0.5, 0.25]
    assert Forwarding.seen == 3.0
    assert fastsched.simulate(fastsched.ExponentialLR(stepped_sgd([1.0]), 0.5), 2, [1, 2]).ravel().tolist()[-1] == 0.25


class Delegate(torch.optim.Optimizer):
    """Has nothing of its own and delegates, as accelerate's does."""

    def __init__(self, optimizer):
        self.inner = optimizer

    @property
    def param_groups(self):
        return self.inner.param_groups

    @property
    def state(self):
        return self.inner.state

    @property
    def defaults(self):
        return self.inner.defaults

    def step(self, closure=None):
        return self.inner.step(closure)

    def halve(self):
        for group in self.inner.param_groups:
            group["lr"] *= 0.5


class ByMethod(torch_lr_scheduler.LRScheduler):
    """A user's scheduler that lets a wrapper do the work."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer.halve()


@pytest.mark.parametrize(
    ("wrap", "kind", "tensor"),
    [(Wrapper, float, False), (Wrapper, float, True), (Wrapper, torch.tensor, False), (Delegate, float, False)],
)
def test_a_wrapped_optimizer(wrap, kind, tensor):
    inner = stepped_sgd([kind(0.7), kind(0.3)])
    if tensor:
        fastsched.use_tensor_lr(inner)
    scheduler = fastsched.ExponentialLR(wrap(inner), 0.97)
    scheduler.optimizer._opt_called = True
    scheduler.step()
    before = hyperparameters(inner), copy.deepcopy(scheduler.state_dict())
    simulated = fastsched.simulate(scheduler, 30)
    assert (hyperparameters(inner), scheduler.state_dict()) == before
    np.testing.assert_array_equal(simulated, stepped(scheduler, 30))


def test_a_method_of_the_optimizer_acts_on_the_copy():
    scheduler = ByMethod(Delegate(stepped_sgd([1.0])))
    assert fastsched.simulate(scheduler, 2).ravel().tolist() == [1.0, 0.5, 0.25]
    assert lrs_of(scheduler) == [1.0]


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("momentum_tensors", [False, True])
@pytest.mark.parametrize("kind", [float, torch.tensor])
@pytest.mark.parametrize("name", ["CyclicLR", "OneCycleLR"])
def test_momentum_is_left_alone(optimizer_class, momentum_tensors, kind, name):
    momentum = torch.tensor(0.9) if momentum_tensors else 0.9
    parameter = torch.nn.Parameter(torch.zeros(1))
    if optimizer_class is torch.optim.Adam:
        second = torch.tensor(0.99) if momentum_tensors else 0.99
        optimizer = torch.optim.Adam([parameter], kind(0.1), (momentum, second), foreach=False)
    else:
        optimizer = torch.optim.SGD([parameter], kind(0.1), momentum=0.9)
        optimizer.param_groups[0]["momentum"] = momentum
    optimizer._opt_called = True
    arguments = {"base_lr": 0.1, "step_size_up": 3} if name == "CyclicLR" else {"total_steps": 30}
    scheduler = getattr(fastsched, name)(optimizer, max_lr=0.7, **arguments)
    scheduler.step()
    before = everything(scheduler)
    simulated = fastsched.simulate(scheduler, 20)
    assert everything(scheduler) == before
    np.testing.assert_array_equal(simulated, stepped(scheduler, 20))


def two_schedulers(optimizer):
    fastsched.ExponentialLR(optimizer, 0.9).step()
    return fastsched.ExponentialLR(optimizer, 0.97)


def a_loaded_state(optimizer):
    scheduler = fastsched.ExponentialLR(optimizer, 0.97)
    scheduler.load_state_dict({**scheduler.state_dict(), "_last_lr": [0.7000000001, 0.3]})
    return scheduler


def a_written_lr(optimizer):
    scheduler = fastsched.ExponentialLR(optimizer, 0.97)
    scheduler.step()
    optimizer.param_groups[0]["lr"].fill_(0.123)
    return scheduler


def a_replaced_lr(optimizer):
    scheduler = fastsched.ExponentialLR(optimizer, 0.97)
    scheduler.step()
    optimizer.param_groups[0]["lr"] = 0.123
    optimizer.param_groups[1]["lr"] = torch.tensor(0.456)
    return scheduler


def an_added_group(optimizer):
    scheduler = fastsched.StepLR(optimizer, 3, 0.97)
    scheduler.step()
    scheduler.step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": torch.tensor(0.2)})
    return scheduler


def made_before_the_tensors(optimizer):
    for group in optimizer.param_groups:
        group["lr"] = 0.7
    scheduler = fastsched.ExponentialLR(optimizer, 0.97)
    scheduler.step()
    fastsched.use_tensor_lr(optimizer)
    return scheduler


@pytest.mark.parametrize(
    "situation",
    [two_schedulers, a_loaded_state, a_written_lr, a_replaced_lr, an_added_group, made_before_the_tensors],
    ids=lambda function: function.__name__,
)
def test_float64_learning_rates_behind_float32_tensors_are_gone_on_from(situation):
    scheduler = situation(stepped_sgd([torch.tensor(0.7), torch.tensor(0.3)]))
    scheduler.optimizer._opt_called = True
    before = hyperparameters(scheduler.optimizer)
    simulated = fastsched.simulate(scheduler, 60)
    assert hyperparameters(scheduler.optimizer) == before
    np.testing.assert_array_equal(simulated, stepped(scheduler, 60))


def test_no_weight_is_copied_and_looking_at_one_is_an_error():
    class ByWeight(torch_lr_scheduler.LRScheduler):
        def get_lr(self):
            [weight] = self.optimizer.param_groups[0]["params"]
            return [0.5 / weight.numel() if self.last_epoch % 2 else weight.norm().item()]

    weight = torch.nn.Parameter(torch.ones(1000, 1000))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    optimizer.state[weight] = {"momentum_buffer": sys.stdout}  # which cannot be copied
    scheduler = ByWeight(optimizer)
    optimizer._opt_called = True
    assert fastsched.simulate(scheduler, 1)[1] == [0.5e-6]
    with pytest.raises(RuntimeError, match="meta"):
        fastsched.simulate(scheduler, 2)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, lambda: torch.device("meta")])
def test_whatever_mode_torch_is_in(mode):
    scheduler = fastsched.ExponentialLR(stepped_sgd([torch.tensor(0.7)]), 0.97)
    scheduler.step()
    scheduler.optimizer.param_groups[0]["lr"] = torch.tensor(0.456)  # known to no buffer yet
    with mode():
        simulated = fastsched.simulate(scheduler, 30)
    np.testing.assert_array_equal(simulated, stepped(scheduler, 30))


@pytest.mark.parametrize("library", [fastsched, torch_lr_scheduler])
def test_a_learning_rate_that_is_part_of_a_graph(library):
    initial = torch.tensor(0.7, requires_grad=True) * 1
    scheduler = library.ExponentialLR(stepped_sgd([initial]), 0.97)
    scheduler.step()
    simulated = fastsched.simulate(scheduler, 30)
    assert scheduler.optimizer.param_groups[0]["lr"].grad_fn is not None
    with torch.no_grad():  # so that reading such a learning rate does not warn
        np.testing.assert_array_equal(simulated, stepped(scheduler, 30))


def test_an_error_half_way_leaves_everything_as_it_was():
    scheduler = fastsched.OneCycleLR(stepped_sgd([torch.tensor(1.0)]), 1.0, total_steps=5, cycle_momentum=False)
    scheduler.step()
    before = everything(scheduler)
    with pytest.raises(ValueError, match="Tried to step 6 times"):
        fastsched.simulate(scheduler, 6)
    assert everything(scheduler) == before
    np.testing.assert_array_equal(fastsched.simulate(scheduler, 4), stepped(scheduler, 4))


def test_a_scheduler_that_cannot_be_copied_says_so():
    scheduler = fastsched.StepLR(sgd([1.0]), 1)
    scheduler.log = sys.stdout
    with pytest.raises(TypeError, match="this StepLR cannot be copied: cannot pickle"):
        fastsched.simulate(scheduler, 1)


def test_nothing_is_said_about_the_order_and_what_you_say_is_heard():
    class Talking(fastsched.StepLR):
        def get_lr(self):
            warnings.warn("something of yours", UserWarning, stacklevel=1)
            return super().get_lr()

    with pytest.warns(UserWarning, match="something of yours"):
        scheduler = Talking(sgd([1.0]), 1)  # no optimizer.step() yet
    with pytest.warns(UserWarning, match="something of yours") as caught:
        fastsched.simulate(scheduler, 2)
    assert len(caught) == 2
    for library in (fastsched, torch_lr_scheduler):
        fastsched.simulate(library.StepLR(sgd([1.0]), 1), 2)
    fresh = fastsched.StepLR(sgd([1.0]), 1)
    fastsched.simulate(fresh, 2)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        fresh.step()


def warm_up_then_plateau():
    optimizer = stepped_sgd([1.0])
    parts = [fastsched.LinearLR(optimizer, 0.1, total_iters=3), fastsched.ReduceLROnPlateau(optimizer)]
    return fastsched.SequentialLR(optimizer, parts, milestones=[3])


def test_a_metric_is_wanted_where_a_step_needs_one():
    scheduler = warm_up_then_plateau()
    assert fastsched.simulate(scheduler, 3).shape == (4, 1)
    with pytest.raises(ValueError, match="metrics: step 4 of this SequentialLR needs a metric"):
        fastsched.simulate(scheduler, 4)
    with pytest.raises(ValueError, match="metrics: step 1 of this ReduceLROnPlateau needs a metric"):
        fastsched.simulate(torch_lr_scheduler.ReduceLROnPlateau(sgd([1.0])), 1)


@pytest.mark.parametrize(
    "metrics",
    [
        [1.0] * 6,
        (1,) * 9,
        np.ones(6, dtype=np.float32),
        torch.ones(6),
        [torch.tensor(1.0)] * 6,
        iter([1.0] * 6),
        1,
        np.float32(1),
        np.array(1.0),
        torch.tensor(1.0),
    ],
)
def test_what_may_be_metrics(metrics):
    scheduler = fastsched.ReduceLROnPlateau(stepped_sgd([1.0]), patience=1, factor=0.5)
    expected = [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert fastsched.simulate(scheduler, 6, metrics).ravel().tolist() == expected


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ([1.0], ValueError, r"metrics has 1 numbers for 2 steps"),
        ("loss", TypeError, r"metrics must be numbers, .*got str"),
        ({"loss": [1.0, 1.0]}, TypeError, r"metrics must be numbers, .*got dict"),
        ([1.0, "high"], TypeError, r"metrics\[1\] must be a number, got 'high'"),
        (object(), TypeError, r"metrics must be a number, got <object"),
    ],
)
def test_bad_metrics_are_refused(metrics, error, message):
    with pytest.raises(error, match=message):
        fastsched.simulate(warm_up_then_plateau(), 2, metrics)


@pytest.mark.parametrize(("steps", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError), (True, TypeError)])
def test_bad_steps_are_refused(steps, error):
    with pytest.raises(error, match="steps must be"):
        fastsched.simulate(warm_up_then_plateau(), steps)


@pytest.mark.parametrize("scheduler", [None, sgd([1.0]), torch_lr_scheduler.LRScheduler])
def test_what_is_no_scheduler_is_refused(scheduler):
    with pytest.raises(TypeError, match="scheduler must have step"):
        fastsched.simulate(scheduler, 1)


def test_zero_steps_and_a_numpy_int():
    assert fastsched.simulate(warm_up_then_plateau(), 0).tolist() == [[0.1]]
    assert fastsched.simulate(warm_up_then_plateau(), np.int64(2)).shape == (3, 1)


def test_numpy_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ImportError, match=r"simulate returns a NumPy array: pip install 'fastsched\[plot\]'"):
        fastsched.simulate(warm_up_then_plateau(), 1)


def test_importing_fastsched_imports_nothing_that_it_needs_for_drawing_only():
    script = (
        "import sys, torch; before = set(sys.modules); import fastsched, fastsched.__main__\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*new & {'numpy', 'matplotlib', 'rich', 'plotext', 'sklearn', 'tqdm', 'csv'})"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).split() == []


@pytest.mark.gpu
@pytest.mark.parametrize("library", [fastsched, torch_lr_scheduler])
def test_tensors_on_a_gpu_are_stepped_on_the_host(library):
    optimizer = sgd([torch.tensor(0.5, device="cuda")], "cuda")
    optimizer._opt_called = True
    scheduler = library.LinearLR(optimizer, 0.1, total_iters=20)
    scheduler.step()
    before = everything(scheduler), torch.cuda.get_rng_state().tolist()
    simulated = fastsched.simulate(scheduler, 20)
    assert (everything(scheduler), torch.cuda.get_rng_state().tolist()) == before
    np.testing.assert_array_equal(simulated, stepped(scheduler, 20))
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="simulate cannot be captured"), torch.cuda.graph(graph):
        fastsched.simulate(scheduler, 2)


def test_a_child_whose_turn_comes_in_python_is_as_exact_as_in_the_run():
    optimizer = sgd([torch.tensor(0.1)])
    optimizer._opt_called = True
    parts = [torch.optim.lr_scheduler.StepLR(optimizer, 3), fastsched.LinearLR(optimizer, 0.2, 1.0, 5)]
    scheduler = fastsched.SequentialLR(optimizer, parts, [2])
    ahead = fastsched.simulate(scheduler, 6)
    run = [optimizer.param_groups[0]["lr"].item()]
    for _ in range(6):
        scheduler.step()
        run.append(optimizer.param_groups[0]["lr"].item())
    assert ahead.ravel().tolist() == run
