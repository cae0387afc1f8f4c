"""lr_range_test: the same curve as a plain loop that reads every loss, and no trace left behind."""

import copy
import math
import random
import sys
import warnings
from collections import namedtuple
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

import fastsched
from fastsched import lr_range_test
from fastsched.engine import lr_buffer, reduction

from .conftest import capture, sgd

CROSS_ENTROPY = nn.functional.cross_entropy


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks of this size train more slowly with more, on a busy machine much more slowly."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batches(count=6, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, size, 1, 8, 8, generator=generator)
    return [(x, (x.mean(3).flatten(1)).argmax(1)) for x in inputs]


def dataset():
    return TensorDataset(*(torch.cat(part) for part in zip(*batches(), strict=True)))


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    return TensorDataset(x[:640], torch.tensor(labels)[:640])


def network(device="cpu"):
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(8 * 36, 10),
    ]
    return nn.Sequential(*layers).to(device)


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "fused adam, tensor": lambda parameters: fastsched.use_tensor_lr(torch.optim.Adam(parameters, lr=0.01, fused=True)),
    "fused sgd, tensor": lambda parameters: fastsched.use_tensor_lr(
        torch.optim.SGD(parameters, lr=0.05, momentum=0.9, fused=True), dtype=torch.float64
    ),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.05),
}


def train(model, optimizer, loader, scheduler=None, steps=None):
    """What training does from here on, to the last bit: losses, learning rates and momentum."""
    trace = []
    for x, y in loader:
        optimizer.zero_grad()
        loss = CROSS_ENTROPY(model(x), y)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step(loss.detach()) if isinstance(scheduler, fastsched.ReduceLROnPlateau) else scheduler.step()
        group = optimizer.param_groups[0]
        trace += [loss.item(), float(group["lr"]), float(group.get("momentum", group.get("betas", [0])[0]))]
        if steps is not None and len(trace) == 3 * steps:
            break
    return trace


def contents(model, optimizer):
    """Everything that must not change, as values, together with the objects and addresses that must stay."""
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    for state in optimizer.state.values():
        tensors += state.values()
    for group in optimizer.param_groups:
        tensors.append(group["lr"])
    for buffer in lr_buffer._buffers.get(id(optimizer), []):
        tensors += [buffer.lrs, buffer.masters]
    values = [tensor.clone() if isinstance(tensor, torch.Tensor) else tensor for tensor in tensors]
    places = [(id(t), t.data_ptr()) if isinstance(t, torch.Tensor) else id(t) for t in tensors]
    return values, places, [module.training for module in model.modules()]


def same(before, after):
    values, *rest = before
    values_after, *rest_after = after
    assert rest == rest_after
    assert len(values) == len(values_after)
    for a, b in zip(values, values_after, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a is b


NUMPY = sys.modules.get("numpy")  # torch imports it if it is installed


def seed_others():
    random.seed(1)
    if NUMPY is not None:
        NUMPY.random.seed(1)


def random_numbers():
    return torch.rand(2).tolist(), random.random(), NUMPY.random.random() if NUMPY is not None else 0.0


def jittered(samples):
    """A batch with noise from every generator there is."""
    noise, *others = random_numbers()
    x, y = zip(*samples, strict=True)
    return torch.stack(x) + 0.01 * (noise[0] + sum(others)), torch.stack(y)


SCHEDULERS = {
    "plateau": lambda optimizer: fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.7),
    "one cycle": lambda optimizer: fastsched.OneCycleLR(optimizer, max_lr=0.1, total_steps=30),
    "cyclic": lambda optimizer: fastsched.CyclicLR(optimizer, 0.01, 0.1, step_size_up=4),
    "chained": lambda optimizer: fastsched.ChainedScheduler(
        [fastsched.CosineAnnealingLR(optimizer, 10), fastsched.ExponentialLR(optimizer, 0.9)]
    ),
    "sequence": lambda optimizer: fastsched.SequentialLR(
        optimizer,
        [fastsched.LinearLR(optimizer, total_iters=3), fastsched.CosineAnnealingLR(optimizer, 10)],
        milestones=[4],
    ),
    "torch's": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
}


class TestNoTrace:
    @pytest.mark.parametrize("warm", [False, True], ids=["fresh", "warm"])
    @pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
    def test_training_goes_on_as_without_a_range_test(self, digits, make, warm):
        def run(tested):
            model = network()
            optimizer = make(model.parameters())
            torch.manual_seed(1)
            seed_others()
            own = torch.Generator().manual_seed(2)
            loader = DataLoader(digits, batch_size=64, shuffle=True, generator=own, collate_fn=jittered)
            if warm:
                train(model, optimizer, loader, steps=3)
            if tested:
                before = contents(model, optimizer)
                found = lr_range_test(model, optimizer, CROSS_ENTROPY, loader, num_iter=25, progress=False)
                assert len(found.losses) > 5
                same(before, contents(model, optimizer))
            return train(model, optimizer, loader), random_numbers(), list(model.state_dict().values())

        (trace, numbers, weights), (expected, expected_numbers, expected_weights) = run(True), run(False)
        assert trace == expected
        assert numbers == expected_numbers
        assert all(map(torch.equal, weights, expected_weights))

    @pytest.mark.parametrize("steps_before", [0, 3])
    @pytest.mark.parametrize("optimizer_name", ["momentum", "adam", "fused adam, tensor", "fused sgd, tensor"])
    @pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
    def test_an_attached_scheduler_steps_on_as_without_a_range_test(self, make, optimizer_name, steps_before):
        def run(tested):
            model = network()
            optimizer = OPTIMIZERS[optimizer_name](model.parameters())
            scheduler = make(optimizer)
            train(model, optimizer, batches(steps_before), scheduler)
            state = scheduler.state_dict()
            if tested:
                engine = getattr(scheduler, "_engine", None)
                before = contents(model, optimizer)
                lr_range_test(model, optimizer, CROSS_ENTROPY, batches(), num_iter=12, progress=False)
                same(before, contents(model, optimizer))
                assert getattr(scheduler, "_engine", None) is engine
                assert repr(scheduler.state_dict()) == repr(state)
            return train(model, optimizer, batches(10, seed=1), scheduler), repr(scheduler.state_dict())

        assert run(True) == run(False)

    def test_momentum_tensors_keep_their_place(self):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1), momentum=torch.tensor(0.9))
        scheduler = fastsched.OneCycleLR(optimizer, max_lr=0.1, total_steps=30)
        momentum = optimizer.param_groups[0]["momentum"]
        place = (id(momentum), momentum.data_ptr(), momentum.item())
        lr_range_test(model, optimizer, CROSS_ENTROPY, batches(), num_iter=5, progress=False)
        momentum = optimizer.param_groups[0]["momentum"]
        assert (id(momentum), momentum.data_ptr(), momentum.item()) == place
        assert scheduler.last_epoch == 0

    def test_the_warning_about_the_order_of_steps_still_comes(self):
        model = network()
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        scheduler = fastsched.ExponentialLR(optimizer, 0.9)
        lr_range_test(model, optimizer, CROSS_ENTROPY, batches(), num_iter=3, progress=False)
        with pytest.warns(UserWarning, match="before `optimizer.step"):
            scheduler.step()

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
    @pytest.mark.parametrize("tensor", [False, True], ids=["host", "tensor"])
    def test_an_exception_leaves_no_trace_either(self, error, tensor):
        model = network()
        optimizer = OPTIMIZERS["fused adam, tensor" if tensor else "adam"](model.parameters())
        train(model, optimizer, batches(2))
        model.zero_grad()
        model[0].weight.grad = torch.ones_like(model[0].weight)
        model.eval()
        model[3].train()
        before, numbers = contents(model, optimizer), torch.get_rng_state()

        def failing():
            yield from batches(4)
            raise error("in the loader")

        with pytest.raises(error, match="in the loader"):
            lr_range_test(model, optimizer, CROSS_ENTROPY, failing(), num_iter=9, validation_loader=batches(1))
        same(before, contents(model, optimizer))
        assert torch.equal(numbers, torch.get_rng_state())

    def test_a_failure_in_evaluation_mode_restores_the_modes(self):
        model = network()
        before = contents(model, optimizer := OPTIMIZERS["sgd"](model.parameters()))

        def step_fn(model, batch):
            if not model.training:
                raise RuntimeError("in validation")
            return CROSS_ENTROPY(model(batch[0]), batch[1])

        with pytest.raises(RuntimeError, match="in validation"):
            lr_range_test(model, optimizer, None, batches(), step_fn=step_fn, validation_loader=batches(1))
        same(before, contents(model, optimizer))

    def test_unusual_state_is_put_back(self):
        class Odd(torch.optim.Optimizer):
            """Replaces tensors, nests its state, counts in a group and in itself."""

            def __init__(self, parameters):
                super().__init__(parameters, {"lr": 0.1, "k": 0, "seen": []})
                self.steps = 0
                self.inner = torch.optim.Adam(self.param_groups[0]["params"], lr=0.1)

            def step(self, closure=None):
                self.steps += 1
                self.inner.step()
                for group in self.param_groups:
                    group["k"] += 1
                    group["seen"].append(group["lr"])
                    for parameter in group["params"]:
                        parameter.data = parameter.data - group["lr"] * parameter.grad
                        state = self.state[parameter]
                        state.setdefault("pair", [torch.zeros(1), {"deep": (torch.zeros(2),)}])
                        state["pair"][0] = state["pair"][0] + 1
                        state["pair"][1]["deep"][0].add_(1)

        model = nn.Linear(2, 1)
        model.register_buffer("expanded", torch.zeros(1).expand(3))
        model.register_buffer("absent", None)
        optimizer = Odd(model.parameters())
        ones = [(torch.ones(4, 2), torch.zeros(4, 1))]

        def step_fn(model, batch):
            model.expanded = model.expanded + 1
            model.absent = torch.ones(1)
            return nn.functional.mse_loss(model(batch[0]), batch[1])

        def everything():
            pairs = [optimizer.state[parameter]["pair"] for parameter in model.parameters()]
            tensors = [*model.parameters(), model.expanded, *(t for a, b in pairs for t in (a, *b["deep"]))]
            tensors += [entry for state in optimizer.inner.state.values() for entry in state.values()]
            places = [(id(t), t.data_ptr()) for t in tensors]
            counts = (optimizer.steps, [group["k"] for group in optimizer.param_groups])
            return [t.tolist() for t in tensors], places, counts, list(optimizer.param_groups[0]["seen"]), model.absent

        lr_range_test(model, optimizer, None, ones, step_fn=step_fn, num_iter=4, progress=False)
        assert (optimizer.steps, dict(optimizer.state), dict(optimizer.inner.state)) == (0, {}, {})
        step_fn(model, ones[0]).backward()
        optimizer.step()
        before = everything()
        lr_range_test(model, optimizer, None, ones, step_fn=step_fn, num_iter=4, progress=False)
        assert everything() == before

    def test_gradients_that_are_zeroed_in_place_are_put_back(self):
        class InPlace(torch.optim.SGD):
            def zero_grad(self, set_to_none=False):
                super().zero_grad(set_to_none)

        model = network()
        optimizer = InPlace(model.parameters(), lr=0.1)
        train(model, optimizer, batches(1))
        before = contents(model, optimizer)
        lr_range_test(model, optimizer, CROSS_ENTROPY, batches(), num_iter=3, progress=False)
        same(before, contents(model, optimizer))

    def test_a_criterion_with_state_is_put_back_and_trained(self):
        class Learned(nn.Module):
            def __init__(self):
                super().__init__()
                self.temperature = nn.Parameter(torch.ones(()))
                self.modes = []

            def forward(self, outputs, targets):
                self.modes.append(self.training)
                return CROSS_ENTROPY(outputs * self.temperature, targets)

        model, criterion = network(), Learned()
        criterion.eval()
        optimizer = torch.optim.SGD([*model.parameters(), criterion.temperature], lr=0.1)
        lr_range_test(model, optimizer, criterion, batches(), num_iter=2, validation_loader=batches(1), progress=False)
        assert criterion.temperature.item() == 1
        assert criterion.modes == [True, False, True, False]
        assert not criterion.training

    def test_persistent_workers_are_left_alone(self):
        loader = DataLoader(dataset(), batch_size=32, num_workers=1, persistent_workers=True)
        epoch = iter(loader)
        first = next(epoch)
        model = network()
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        lr_range_test(model, optimizer, CROSS_ENTROPY, loader, num_iter=2, progress=False)
        assert loader._iterator is epoch
        rest = list(epoch)
        assert len(rest) == 5
        assert not torch.equal(first[0], rest[0][0])

    def test_layers_frozen_by_eval_stay_frozen(self):
        model = network()
        model[1].eval()
        seen = []
        model[1].register_forward_hook(lambda module, *_: seen.append(module.training))
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        lr_range_test(model, optimizer, CROSS_ENTROPY, batches(), num_iter=2, progress=False)
        model.eval()
        lr_range_test(model, optimizer, CROSS_ENTROPY, batches(), num_iter=2, progress=False)
        assert seen == [False, False, True, True]
        assert not any(module.training for module in model.modules())

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_compiled_model_and_a_compiled_optimizer_step(self):
        torch._dynamo.reset()

        def run(tested):
            model = torch.compile(network(), backend="aot_eager")
            optimizer = OPTIMIZERS["fused sgd, tensor"](model.parameters())
            optimizer.step = torch.compile(optimizer.step, backend="eager")
            train(model, optimizer, batches(2))
            if tested:
                before = contents(model, optimizer)
                found = lr_range_test(model, optimizer, CROSS_ENTROPY, batches(), num_iter=8, progress=False)
                assert min(found.losses) < found.losses[0]
                same(before, contents(model, optimizer))
            return train(model, optimizer, batches(4, seed=1))

        assert run(True) == run(False)
        torch._dynamo.reset()


def reference(model, optimizer, loader, lrs, smoothing, factor, accumulation_steps=1, validation=None):
    """Losses, smoothed losses and the step that diverged, with each loss read at once."""
    losses, smoothed, average, lowest = [], [], 0.0, math.inf
    source = iter([batch for _ in range(len(lrs) * accumulation_steps) for batch in loader])
    for step, lr in enumerate(lrs):
        for group in optimizer.param_groups:
            group["lr"] = torch.full_like(group["lr"], lr) if isinstance(group["lr"], torch.Tensor) else lr
        optimizer.zero_grad()
        loss = 0.0
        for _ in range(accumulation_steps):
            x, y = next(source)
            part = CROSS_ENTROPY(model(x), y)
            (part / accumulation_steps).backward()
            loss += part.item()
        loss /= accumulation_steps
        optimizer.step()
        if validation is not None:
            model.eval()
            with torch.no_grad():
                loss = sum(CROSS_ENTROPY(model(x), y).item() for x, y in validation) / len(validation)
            model.train()
        average = (1 - smoothing) * average + smoothing * loss
        value = average / (1 - (1 - smoothing) ** (step + 1)) if smoothing else loss
        lowest = min(lowest, value)
        if not math.isfinite(loss) or value > factor * lowest:
            return losses, smoothed, step
        losses.append(loss)
        smoothed.append(value)
    return losses, smoothed, None


class TestCurve:
    @pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"smoothing": 0, "divergence_factor": 2.0},
            {"mode": "linear", "start_lr": 0.01, "end_lr": 3},
            {"accumulation_steps": 3, "num_iter": 15},
            {"validation_loader": batches(2, seed=5), "num_iter": 20},
            {"end_lr": 0.01, "num_iter": 7},
            {"end_lr": 1e30, "num_iter": 40, "smoothing": 0.01},
        ],
        ids=["default", "raw", "linear", "accumulated", "validated", "cycled", "overflow"],
    )
    def test_it_is_that_of_a_plain_loop(self, make, settings):
        settings = {"start_lr": 1e-7, "end_lr": 10.0, "num_iter": 60, "mode": "exp", **settings}
        start, end, count, mode = (settings[name] for name in ("start_lr", "end_lr", "num_iter", "mode"))
        if mode == "linear":
            expected_lrs = [start + (end - start) * step / (count - 1) for step in range(count)]
        else:
            expected_lrs = [start * (end / start) ** (step / (count - 1)) for step in range(count)]
        lrs = curve_lrs(start, end, count, mode)
        assert lrs == pytest.approx(expected_lrs, rel=1e-12)

        loader = batches(5)
        model = network()
        found = lr_range_test(model, make(model.parameters()), CROSS_ENTROPY, loader, progress=False, **settings)
        model = network()
        losses, smoothed, diverged_at = reference(
            model,
            make(model.parameters()),
            loader,
            lrs,
            settings.get("smoothing", 0.05),
            settings.get("divergence_factor", 4.0),
            accumulation_steps=settings.get("accumulation_steps", 1),
            validation=settings.get("validation_loader"),
        )
        assert (found.losses, found.smoothed, found.diverged_at) == (losses, smoothed, diverged_at)
        assert found.lrs == lrs[: len(losses)]
        assert found.diverged_lr == (None if diverged_at is None else lrs[diverged_at])

    @pytest.mark.parametrize("mode", ["exp", "linear"])
    def test_the_learning_rates_reach_from_start_to_end(self, mode):
        model = nn.Linear(1, 1, dtype=torch.float64)
        written = []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        optimizer.register_step_pre_hook(lambda optimizer, *_: written.append(optimizer.param_groups[0]["lr"]))
        found = lr_range_test(
            model, optimizer, None, [0], step_fn=lambda model, _: 0 * model.weight.sum(), start_lr=1e-300, end_lr=1e300,
            num_iter=7, mode=mode, progress=False,
        )  # fmt: skip
        assert found.lrs == written
        assert (written[0], written[-1]) == (1e-300, 1e300)
        steps = [b / a if mode == "exp" else b - a for a, b in pairwise(written)]
        assert steps == pytest.approx([1e100 if mode == "exp" else 1e300 / 6] * 6)

    @pytest.mark.parametrize("tensor", [False, True], ids=["host", "tensor"])
    @pytest.mark.parametrize(
        ("lrs", "ratios"), [([0.1, 0.4, 0.0], [0.25, 1.0, 0.0]), ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])]
    )
    def test_groups_keep_their_ratios(self, tensor, lrs, ratios):
        optimizer = sgd(lrs)
        if tensor:
            fastsched.use_tensor_lr(optimizer, dtype=torch.float64)
        model = nn.ParameterList([group["params"][0] for group in optimizer.param_groups])
        written = []
        optimizer.register_step_pre_hook(
            lambda optimizer, *_: written.append([float(group["lr"]) for group in optimizer.param_groups])
        )
        step_fn = lambda model, _: sum(p.sum() for p in model)  # noqa: E731
        found = lr_range_test(model, optimizer, None, [0], step_fn=step_fn, num_iter=4, progress=False)
        assert written == [[lr * ratio for ratio in ratios] for lr in found.lrs]

    def test_initial_learning_rates_count_where_a_scheduler_has_noted_them(self):
        optimizer = sgd([0.1, 0.4])
        fastsched.LambdaLR(optimizer, [lambda _: 0.0, lambda _: 1.0])
        assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.4]
        model = nn.ParameterList([group["params"][0] for group in optimizer.param_groups])
        written = []
        optimizer.register_step_pre_hook(
            lambda optimizer, *_: written.append([group["lr"] for group in optimizer.param_groups])
        )
        step_fn = lambda model, _: sum(p.sum() for p in model)  # noqa: E731
        lr_range_test(model, optimizer, None, [0], step_fn=step_fn, num_iter=2, end_lr=1.0, progress=False)
        assert written[-1] == [0.25, 1.0]

    @pytest.mark.parametrize(
        ("losses", "diverged_at"),
        [
            ([-1.0, -1.5, 1.0, 3.0, 3.125], 4),  # three times 1.5 above -1.5 is 3
            ([1.0, 0.5, 1.875, 2.0, 2.125], 4),
            ([1.0, math.nan, 1.0, 1.0, 1.0], 1),
            ([1.0, -math.inf, 1.0, 1.0, 1.0], 1),
            ([math.inf, 1.0, 1.0, 1.0, 1.0], 0),
            ([1.0, 2.0, 3.0, 4.0, 4.0], None),
        ],
    )
    def test_where_it_diverges(self, device, losses, diverged_at):
        model = nn.Linear(1, 1, device=device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        steps = []

        def step_fn(model, loss):
            steps.append(loss)
            return model.weight.sum() * 0 + loss

        found = lr_range_test(model, optimizer, None, losses, step_fn=step_fn, num_iter=5, smoothing=0, progress=False)
        assert found.diverged_at == diverged_at
        assert found.losses == found.smoothed == losses[:diverged_at]
        assert len(found.lrs) == len(found.losses)
        if device.type == "cpu":  # seen at once
            assert len(steps) == (5 if diverged_at is None else diverged_at + 1)

    def test_processes_that_train_together_all_go_on_to_the_end(self, monkeypatch):
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        monkeypatch.setattr(reduction, "_warned", set())
        model = nn.Linear(1, 1)
        steps = []

        def step_fn(model, loss):
            steps.append(loss)
            return model.weight.sum() * 0 + loss

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = [1.0, 9.0, math.nan, 1.0]
        keywords = {"step_fn": step_fn, "num_iter": 4, "smoothing": 0, "progress": False}
        with pytest.warns(UserWarning, match="lr_range_test was given no process_group=: each of the 2 ranks"):
            found = lr_range_test(model, optimizer, None, losses, **keywords)
        assert (found.losses, found.diverged_at, len(steps)) == ([1.0], 1, 4)

    def test_the_host_reads_nothing_in_the_loop_but_whether_the_loss_has_diverged(self):
        class Reads(TorchDispatchMode):
            count = 0

            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                self.count += function is torch.ops.aten._local_scalar_dense.default
                return function(*args, **(kwargs or {}))

        model = network()
        optimizer = fastsched.use_tensor_lr(OPTIMIZERS["momentum"](model.parameters()))
        optimizer.step = lambda: None  # on the CPU it reads its learning rate
        with Reads() as reads:
            lr_range_test(
                model, optimizer, CROSS_ENTROPY, batches(), num_iter=9, validation_loader=batches(2), progress=False
            )
        assert reads.count == 1 + 9  # the learning rate before the loop, and the flag at each step

    def test_half_precision_losses_of_one_element_are_read_exactly(self):
        model = nn.Linear(1, 1, dtype=torch.bfloat16)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step_fn = lambda model, _: (model.weight * 0 + 0.3).reshape(1, 1)  # noqa: E731
        found = lr_range_test(model, optimizer, None, [0], step_fn=step_fn, num_iter=2, smoothing=0, progress=False)
        assert found.losses == [torch.tensor(0.3, dtype=torch.bfloat16).item()] * 2

    def test_batches_of_any_nesting_are_moved(self, device):
        Pair = namedtuple("Pair", "a b")
        x = torch.ones(3, 2)
        batch = {"pair": Pair(x, [x, "text"]), "plain": (x, 3)}
        model = nn.Linear(2, 1, device=device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step_fn(model, batch):
            assert type(batch["pair"]) is Pair
            assert batch["pair"].b[1] == "text"
            assert batch["plain"][1] == 3
            found = (batch["pair"].a, batch["pair"].b[0], batch["plain"][0])
            assert {tensor.device for tensor in found} == {device}
            return model(found[0]).mean()

        lr_range_test(model, optimizer, None, [batch], step_fn=step_fn, num_iter=2, progress=False)

    def test_gradients_flow_where_the_caller_has_them_off(self):
        model = network()
        with torch.no_grad():
            found = lr_range_test(
                model, OPTIMIZERS["sgd"](model.parameters()), CROSS_ENTROPY, batches(), num_iter=2, progress=False
            )
            assert not torch.is_grad_enabled()
        assert len(found.losses) == 2


def curve_lrs(start, end, count, mode):
    """The learning rates as a range test writes them, to the last bit."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return lr_range_test(
        model, optimizer, None, [0], step_fn=lambda model, _: 0 * model.weight.sum() + 1, start_lr=start, end_lr=end,
        num_iter=count, mode=mode, progress=False,
    ).lrs  # fmt: skip


class TestProgress:
    def run(self, **kwargs):
        model = network()
        return lr_range_test(
            model, OPTIMIZERS["sgd"](model.parameters()), CROSS_ENTROPY, batches(), num_iter=3, **kwargs
        )

    def test_a_bar_is_shown(self, capsys):
        pytest.importorskip("tqdm")
        self.run()
        assert "LR range test" in (text := capsys.readouterr().err)
        assert "3/3" in text

    def test_no_bar_is_shown(self, capsys):
        self.run(progress=False)
        assert capsys.readouterr().err == ""

    def test_without_tqdm_there_is_none(self, capsys, monkeypatch):
        monkeypatch.setattr("fastsched.tools.range_test.find_spec", lambda name: None)
        assert len(self.run().losses) == 3
        assert capsys.readouterr().err == ""


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LazyLinear(1)


def two_devices():
    return nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1, device="meta")])


TINY = nn.Linear(2, 1)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"start_lr": 0}, ValueError, "start_lr must be positive and finite, got 0"),
        ({"start_lr": -1e-3}, ValueError, "start_lr must be positive and finite, got -0.001"),
        ({"start_lr": math.nan}, ValueError, "start_lr must be positive and finite, got nan"),
        ({"start_lr": "1"}, TypeError, "start_lr must be a number, got str"),
        ({"start_lr": 1.0, "end_lr": 1}, ValueError, r"end_lr must be finite and more than start_lr \(1.0\), got 1"),
        ({"end_lr": math.inf}, ValueError, "end_lr must be finite and more than start_lr"),
        ({"end_lr": None}, TypeError, "end_lr must be a number, got NoneType"),
        ({"num_iter": 1}, ValueError, "num_iter must be 2 or more, got 1"),
        ({"num_iter": 10.0}, TypeError, "num_iter must be an int, got float"),
        ({"mode": "log"}, ValueError, "mode must be 'exp' or 'linear', got 'log'"),
        ({"smoothing": 1}, ValueError, "smoothing must be at least 0 and less than 1, got 1"),
        ({"smoothing": -0.1}, ValueError, "smoothing must be at least 0 and less than 1, got -0.1"),
        ({"smoothing": True}, TypeError, "smoothing must be a number, got bool"),
        ({"divergence_factor": 1}, ValueError, "divergence_factor must be more than 1, got 1"),
        ({"divergence_factor": "4"}, TypeError, "divergence_factor must be a number, got str"),
        ({"accumulation_steps": 0}, ValueError, "accumulation_steps must be 1 or more, got 0"),
        ({"accumulation_steps": True}, TypeError, "accumulation_steps must be an int, got bool"),
        ({"criterion": None}, TypeError, "criterion must be a function .*, got NoneType; or pass step_fn"),
        ({"step_fn": CROSS_ENTROPY}, ValueError, "criterion is not used with step_fn: pass criterion=None"),
        ({"step_fn": 3}, TypeError, "step_fn must be a function of model and batch, got int"),
        ({"train_loader": 3}, TypeError, "train_loader must be iterable, .*, got int"),
        ({"validation_loader": 3}, TypeError, "validation_loader must be iterable, .*, got int"),
        ({"model": CROSS_ENTROPY}, TypeError, "model must be a torch.nn.Module, got function"),
        ({"model": nn.ReLU()}, ValueError, "model has no parameters"),
        ({"model": Lazy()}, ValueError, "uninitialized lazy parameters: call it once on a batch first"),
        ({"model": two_devices()}, ValueError, "model is on several devices, cpu, meta: move it to one"),
        ({"model": nn.Linear(2, 1, device="meta")}, ValueError, "model must be on the CPU or a CUDA device, not meta"),
        ({"optimizer": TINY}, TypeError, "optimizer must be a torch.optim.Optimizer, got Linear"),
        ({"optimizer": torch.optim.LBFGS(TINY.parameters())}, ValueError, "LBFGS evaluates the loss several times"),
        ({"optimizer": sgd([0.1])}, ValueError, "optimizer has none of the model's parameters"),
        ({"train_loader": []}, ValueError, "train_loader is empty: it gave no batch"),
        ({"train_loader": iter([(torch.ones(1, 2), torch.ones(1, 1))] * 3), "num_iter": 5, "accumulation_steps": 2},
         ValueError, "train_loader ended after 3 of 10 batches and cannot start over"),
        ({"validation_loader": []}, ValueError, "validation_loader gave no batch: it is empty, or an exhausted"),
        ({"validation_loader": iter([(torch.ones(1, 2), torch.ones(1, 1))])}, ValueError, "or an exhausted iterator"),
        ({"train_loader": [{"x": 1}]}, TypeError, r"must be a pair \(inputs, targets\), got dict; pass step_fn"),
        ({"train_loader": [(1, 2, 3)]}, TypeError, r"must be a pair \(inputs, targets\), got tuple of 3; pass step_fn"),
        ({"criterion": lambda x, y: x - y}, ValueError, r"the loss must have one element, got shape \(4, 1\): reduce"),
        ({"criterion": lambda x, y: 1.0}, TypeError, "the loss must be a tensor, got float: return one from criterion"),
        ({"criterion": lambda x, y: x.detach().sum()}, ValueError, "the loss does not require grad: make criterion or"),
    ],
)  # fmt: skip
def test_bad_input_names_the_argument_and_the_fix_and_changes_nothing(changed, error, message):
    model = TINY
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    arguments = {
        "model": model,
        "optimizer": optimizer,
        "criterion": nn.functional.mse_loss,
        "train_loader": [(torch.ones(4, 2), torch.zeros(4, 1))],
        "progress": False,
        **changed,
    }
    before, numbers = contents(model, optimizer), torch.get_rng_state()
    with pytest.raises(error, match=message):
        lr_range_test(**arguments)
    same(before, contents(model, optimizer))
    assert torch.equal(numbers, torch.get_rng_state())


@pytest.mark.parametrize("lr", [math.nan, -0.1, "0.1", None, torch.ones(2)])
@pytest.mark.parametrize("name", ["lr", "initial_lr"])
def test_a_learning_rate_that_is_no_number_is_refused(name, lr):
    optimizer = torch.optim.SGD(TINY.parameters(), lr=0.1)
    optimizer.param_groups[0][name] = lr
    message = rf"optimizer.param_groups\[0\]\['{name}'\] must be a finite number, 0 or more, got "
    with pytest.raises(ValueError, match=message):
        lr_range_test(TINY, optimizer, CROSS_ENTROPY, [])
    assert optimizer.param_groups[0][name] is lr


class WithoutSyncs:
    """Batches on the GPU; from the second one until the last any wait for the device raises."""

    def __init__(self, batch, count):
        self.batch = batch
        self.count = count
        self.given = 0

    def __iter__(self):
        self.given += 1
        if self.given == 2:
            torch.cuda.synchronize()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the mode is a prototype
                torch.cuda.set_sync_debug_mode("error")
        if self.given == self.count:
            torch.cuda.set_sync_debug_mode("default")
        yield self.batch


def gpu_batch():
    x, y = batches(1)[0]
    return x.cuda(), y.cuda()


@pytest.mark.gpu
class TestOnGPU:
    @pytest.mark.parametrize("tensor", [False, True], ids=["host", "tensor"])
    def test_the_loop_never_waits_for_the_device(self, tensor):
        model = network("cuda")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
        if tensor:
            fastsched.use_tensor_lr(optimizer)
        loader = WithoutSyncs(gpu_batch(), 50)
        try:
            found = lr_range_test(
                model,
                optimizer,
                nn.CrossEntropyLoss(),
                loader,
                num_iter=50,
                end_lr=0.1,
                divergence_factor=1e9,
                validation_loader=[gpu_batch()] * 2,
                progress=False,
            )
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert loader.given == 50
        assert len(found.losses) == 50
        assert min(found.losses) < found.losses[0]

    def test_a_divergence_is_seen_without_waiting_for_it(self):
        model = nn.Linear(1, 1, device="cuda")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = [torch.tensor(loss, device="cuda") for loss in [1.0] * 5 + [math.nan] * 2000]
        steps = []

        def step_fn(model, loss):
            steps.append(loss)
            if len(steps) == 20:
                torch.cuda.synchronize()  # by now the flag has arrived
            return model.weight.sum() * 0 + loss

        found = lr_range_test(model, optimizer, None, losses, step_fn=step_fn, num_iter=1000, progress=False)
        assert found.diverged_at == 5
        assert found.losses == [1.0] * 5
        assert 6 <= len(steps) <= 20

    @pytest.mark.parametrize("tensor", [False, True], ids=["host", "tensor"])
    def test_it_leaves_no_trace(self, tensor):
        model = network("cuda")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
        if tensor:
            fastsched.use_tensor_lr(optimizer)
        scheduler = fastsched.CosineAnnealingLR(optimizer, 10)
        train(model, optimizer, [gpu_batch()] * 3, scheduler)
        before = contents(model, optimizer)
        kept = (scheduler.state_dict(), torch.cuda.get_rng_state().tolist(), torch.get_rng_state().tolist())
        lr_range_test(model, optimizer, CROSS_ENTROPY, batches(), num_iter=20, progress=False)
        same(before, contents(model, optimizer))
        assert (scheduler.state_dict(), torch.cuda.get_rng_state().tolist(), torch.get_rng_state().tolist()) == kept
        train(model, optimizer, [gpu_batch()], scheduler)
        assert scheduler.last_epoch == 4
        assert float(optimizer.param_groups[0]["lr"]) == scheduler.lr_at(4)[0]

    def test_a_captured_step_stays_valid(self):
        model = nn.Linear(4, 1, device="cuda")
        optimizer = fastsched.use_tensor_lr(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True))
        x, y = torch.ones(8, 4, device="cuda"), torch.zeros(8, 1, device="cuda")

        def step(model=model, optimizer=optimizer):
            optimizer.zero_grad(set_to_none=False)
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()

        graph = capture(step)
        twin = copy.deepcopy(model)
        expected = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, fused=True)
        expected.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        lr_range_test(model, optimizer, nn.functional.mse_loss, [(x, y)], num_iter=10, progress=False)
        graph.replay()
        step(twin, expected)
        torch.testing.assert_close(model.weight, twin.weight)


class LooksAhead(torch.optim.SGD):
    """Keeps more than ``state``: tensors in lists, counts in a dict, another optimizer in a list."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr)
        self.slow = [[parameter.detach().clone() for parameter in group["params"]] for group in self.param_groups]
        self.count = torch.zeros(())
        self.info = {"steps": 0}
        self.inner = [torch.optim.Adam(self.param_groups[0]["params"], lr=1e-3)]

    def step(self, closure=None):
        loss = super().step(closure)
        self.inner[0].step()
        self.count += 1
        self.info["steps"] += 1
        for weights, group in zip(self.slow, self.param_groups, strict=True):
            for weight, parameter in zip(weights, group["params"], strict=True):
                weight.lerp_(parameter.detach(), 0.5)
        return loss


def test_what_an_optimizer_keeps_elsewhere_is_put_back():
    model = nn.Linear(4, 2)
    optimizer = LooksAhead(model.parameters(), lr=0.1)
    before = copy.deepcopy((optimizer.slow, optimizer.count, optimizer.info, optimizer.inner[0].state_dict()))
    batches = [(torch.randn(8, 4), torch.randint(0, 2, (8,)))]
    fastsched.lr_range_test(model, optimizer, nn.CrossEntropyLoss(), batches, num_iter=5, end_lr=0.1, progress=False)
    after = (optimizer.slow, optimizer.count, optimizer.info, optimizer.inner[0].state_dict())
    torch.testing.assert_close(after, before, rtol=0, atol=0)


class Engine:
    def __init__(self, optimizer):
        self.optimizer = optimizer


class WrapsAnEngine(torch.optim.Optimizer):
    """Like DeepSpeed's: a wrapper that is not an optimizer itself."""

    def __init__(self, engine):
        self.engine = engine

    param_groups = property(lambda self: self.engine.optimizer.param_groups)
    state = property(lambda self: self.engine.optimizer.state)

    def step(self, closure=None):
        return self.engine.optimizer.step(closure)

    def zero_grad(self, set_to_none=True):
        self.engine.optimizer.zero_grad(set_to_none)


def test_what_an_optimizer_shows_of_another_is_put_back():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = [(torch.randn(8, 4), torch.randint(0, 2, (8,)))]
    nn.CrossEntropyLoss()(model(batches[0][0]), batches[0][1]).backward()
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    wrapper = WrapsAnEngine(Engine(optimizer))
    fastsched.lr_range_test(model, wrapper, nn.CrossEntropyLoss(), batches, num_iter=5, progress=False)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    torch.testing.assert_close(after["state"], before["state"], rtol=0, atol=0)


class TestWhatIsNotMeant:
    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"criterion": nn.MSELoss}, r"criterion .* got the class MSELoss itself: pass an instance, MSELoss\(\)"),
            ({"model": nn.Linear}, r"model must be a torch.nn.Module, got the class Linear itself"),
            ({"optimizer": torch.optim.SGD}, r"optimizer must be .* got the class SGD itself"),
            ({"step_fn": dict, "criterion": None}, r"step_fn must be a function .* got the class dict itself"),
            ({"train_loader": DataLoader}, r"train_loader must be iterable, .* got the class DataLoader itself"),
            ({"train_loader": dataset()}, r"train_loader must give batches, and TensorDataset is a Dataset"),
            (
                {"train_loader": Subset(dataset(), [1, 2])},
                r"and Subset is a Dataset, which gives samples: pass",
            ),
            ({"validation_loader": dataset()}, r"validation_loader must give batches, and TensorDataset is a Dataset"),
        ],
    )
    def test_is_refused_by_name(self, changed, words):
        model = network()
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        arguments = {"model": model, "optimizer": optimizer, "criterion": CROSS_ENTROPY, "train_loader": batches()}
        with pytest.raises(TypeError, match=words):
            lr_range_test(**{**arguments, **changed}, progress=False)

    def test_a_dataset_that_is_iterated_may_give_batches(self):
        class Batches(IterableDataset):
            def __iter__(self):
                return iter(batches())

        model = network()
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        found = lr_range_test(model, optimizer, CROSS_ENTROPY, Batches(), num_iter=3, progress=False)
        assert len(found.losses) == 3


@pytest.mark.parametrize("smoothing", [0.05, 0.2])
def test_noise_has_no_suggestion(smoothing):
    random = torch.Generator().manual_seed(0)

    def losses(falls):
        for step in range(100):
            yield 2 - falls * max(step - 30, 0) / 50 + 0.2 * torch.randn((), generator=random).item()

    def suggested(falls):
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step_fn = lambda model, loss: (model.weight * 0 + loss).sum()  # noqa: E731
        found = lr_range_test(
            model, optimizer, None, list(losses(falls)), step_fn=step_fn, smoothing=smoothing, progress=False
        )
        try:
            return found.suggestion() > 0
        except ValueError as error:
            return "the loss never f" not in str(error)

    assert sum(suggested(0.0) for _ in range(20)) <= 1
    assert sum(suggested(1.0) for _ in range(20)) == 20
