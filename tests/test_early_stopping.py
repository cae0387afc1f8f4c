"""EarlyStopping against a plain Python version of its rule, and against torch's plateau where the two agree."""

import copy
import io
import math
import pickle
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched
from fastsched import _C
from fastsched.engine import arrivals

from .conftest import capture, sgd
from .watching import NoSyncs


class Reference:
    """The rule, on the host, in the words of the docstring."""

    def __init__(self, settings):
        self.settings = {"patience": 10, "baseline": None, "start_after": 0, "stop_on_nan": True} | settings
        # torch decides what is better. It multiplies best by the threshold, which is reversed below zero.
        self.judge = TorchPlateau(sgd([0.1]), settings.get("mode", "min"))
        self.threshold = settings.get("threshold", 1e-4)
        self.judge.threshold_mode = "abs" if settings.get("threshold_mode") == "abs" else "rel"
        self.best = math.inf if self.judge.mode == "min" else -math.inf
        self.epoch = self.bad = 0
        self.stopped = None
        self.improved = False

    def is_better(self, metric, best):
        self.judge.threshold = self.threshold
        if self.judge.threshold_mode == "rel":
            self.judge.threshold = 0.0 if math.isinf(best) else math.copysign(self.threshold, best)
        return self.judge._is_better(metric, best)

    def step(self, metric):
        self.epoch += 1
        self.improved = False
        if self.epoch <= self.settings["start_after"]:
            return
        self.improved = self.is_better(metric, self.best)
        if self.improved:
            self.best = metric
        baseline = self.settings["baseline"]
        good = self.improved and (baseline is None or self.is_better(metric, baseline))
        self.bad = 0 if good else self.bad + 1
        stops = self.bad > self.settings["patience"] or (self.settings["stop_on_nan"] and math.isnan(metric))
        if stops and self.stopped is None:
            self.stopped = self.epoch

    def agrees_with(self, stopper):
        assert stopper.best == self.best
        assert stopper.num_bad_epochs == self.bad
        assert stopper.last_epoch == self.epoch
        assert stopper.stopped_epoch == self.stopped
        assert stopper.should_stop == (self.stopped is not None)


numbers = st.floats(-2, 2, allow_subnormal=False)
metrics = st.lists(st.one_of(numbers, st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf])), max_size=25)
like_a_plateau = {
    "mode": st.sampled_from(["min", "max"]),
    "patience": st.sampled_from([0, 1, 2, 5, 2.5]),
    "threshold": st.sampled_from([0, 1e-4, 0.1, 1]),
    "threshold_mode": st.sampled_from(["rel", "abs", "rel_abs"]),
}
of_its_own = {
    "baseline": st.one_of(st.none(), numbers),
    "start_after": st.integers(0, 5),
    "stop_on_nan": st.booleans(),
}
settings_of = st.fixed_dictionaries({}, optional=like_a_plateau | of_its_own)
AS_METRIC = {
    "float": float,
    "numpy": np.float64,
    "float64": lambda value: torch.tensor(value, dtype=torch.float64),
    "element": lambda value: torch.tensor([[value]], dtype=torch.float64, requires_grad=True),
}


@pytest.mark.parametrize("kind", AS_METRIC.values(), ids=AS_METRIC)
@given(settings=settings_of, values=metrics)
def test_it_follows_its_rule(kind, settings, values):
    stopper = fastsched.EarlyStopping(**settings)
    reference = Reference(settings)
    for value in values:
        stopper.step(kind(value))
        reference.step(value)
        reference.agrees_with(stopper)
        assert stopper.poll() == stopper.should_stop


def test_a_metric_by_the_name_that_schedulers_have_for_it():
    stopper = fastsched.EarlyStopping()
    stopper.step(metrics=torch.tensor(2.0))
    with pytest.raises(TypeError, match="got the metric twice"):
        stopper.step(1.0, metrics=1.0)
    with pytest.raises(TypeError, match="got None"):
        stopper.step()
    assert (stopper.best, stopper.last_epoch) == (2.0, 1)


def test_a_negative_metric_has_to_get_better():
    worse = fastsched.EarlyStopping(patience=3)
    for epoch in range(200):
        worse.step(-1.0 + 0.00005 * epoch)
    assert worse.best == -1.0
    assert worse.stopped_epoch == 5
    for threshold_mode in ("rel", "rel_abs"):
        for sign, mode in ((1.0, "min"), (-1.0, "max")):
            stopper = fastsched.EarlyStopping(mode, threshold=0.1, threshold_mode=threshold_mode)
            for value in (-1.0, -1.05, -1.11, -1.2, -1.23, 0.0):
                stopper.step(sign * value)
            assert (stopper.best, stopper.num_bad_epochs) == (sign * -1.23, 1)
            for value in (sign * 1e-9, sign * math.inf, math.nan, -sign * math.inf):
                stopper.step(value)
            assert (stopper.best, stopper.num_bad_epochs) == (-sign * math.inf, 0)


@pytest.mark.parametrize("threshold", [0, 1, 5.0, math.inf])
def test_anything_finite_is_better_than_no_best(threshold):
    for mode, metric in (("min", 2.0), ("max", -2.0)):
        stopper = fastsched.EarlyStopping(mode, threshold=threshold)
        stopper.step(metric)
        assert (stopper.best, stopper.num_bad_epochs) == (metric, 0)


@given(
    settings=st.fixed_dictionaries({}, optional=like_a_plateau),
    values=st.lists(st.floats(0, 2, allow_subnormal=False), max_size=25),
)
def test_above_zero_it_stops_when_a_plateau_first_reduces(settings, values):
    if settings.get("threshold") == 1:  # times infinity that is NaN in torch, and nothing is ever better
        settings["threshold"] = 0.5
    stops_as_a_plateau_reduces(fastsched.EarlyStopping(**settings), settings, values)


@given(settings=st.fixed_dictionaries({}, optional=like_a_plateau), values=st.lists(numbers, max_size=25))
def test_it_stops_when_a_plateau_first_reduces(settings, values):
    stopper = fastsched.EarlyStopping(**settings)
    if settings.get("threshold_mode") != "abs":
        settings["threshold_mode"] = "rel_abs"
    stops_as_a_plateau_reduces(stopper, settings, values)


def stops_as_a_plateau_reduces(stopper, settings, values):
    plateau = fastsched.ReduceLROnPlateau(sgd([0.5]), **settings)
    for value in values:
        stopper.step(value)
        plateau.step(value)
        assert stopper.should_stop == (plateau.get_last_lr() != [0.5])
        if stopper.should_stop:
            break
        assert (stopper.best, stopper.num_bad_epochs) == (plateau.best, plateau.num_bad_epochs)


@given(settings=settings_of, values=metrics, later=metrics)
def test_a_state_goes_on_elsewhere(settings, values, later):
    first = fastsched.EarlyStopping(**settings)
    for value in values:
        first.step(value)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    others = [fastsched.EarlyStopping("max", 3), pickle.loads(pickle.dumps(first)), copy.deepcopy(first)]
    others[0].load_state_dict(torch.load(file, weights_only=True))
    for value in later:
        for stopper in (first, *others):
            stopper.step(value)
    for other in others:
        assert repr(other) == repr(first)
        assert other.state_dict() == first.state_dict()


def test_a_repr_shows_settings_and_where_it_is():
    stopper = fastsched.EarlyStopping("max", patience=1, baseline=0.5, model=torch.nn.Linear(1, 1))
    settings = (
        "mode='max', patience=1, threshold=0.0001, threshold_mode='rel', baseline=0.5, start_after=0, "
        "stop_on_nan=True, accumulate=1, smoothing=0.0, patience_counts='torch', model=Linear"
    )
    assert repr(stopper) == f"EarlyStopping({settings}, last_epoch=0, stopped_epoch=None)"
    for value in (0.9, 0.8, 0.7, 0.6):
        stopper.step(value)
    assert repr(stopper) == f"EarlyStopping({settings}, last_epoch=4, stopped_epoch=3)"
    stopper.patience = 7
    assert "patience=7" in repr(copy.deepcopy(stopper))


@pytest.mark.gpu
def test_a_repr_does_not_wait():
    stopper = fastsched.EarlyStopping(device="cuda")
    stopper.step(torch.ones((), device="cuda"))
    with NoSyncs():
        assert repr(stopper).endswith("last_epoch=<on cuda:0>, stopped_epoch=<on cuda:0>)")


def test_settings_may_be_written():
    stopper = fastsched.EarlyStopping(patience=100)
    for value in (1.0, 2.0, 2.0):
        stopper.step(value)
    stopper.patience = 2
    assert not stopper.should_stop
    stopper.step(2.0)
    assert stopper.should_stop
    assert stopper.patience == 2


BAD = {
    "mode": ("mean", ValueError, "mode must be 'min' or 'max', got 'mean'"),
    "patience": (-1, ValueError, "patience must be 0 or more, got -1"),
    "threshold": ("0.1", TypeError, "threshold must be a number, got '0.1'"),
    "threshold_mode": ("ratio", ValueError, "threshold_mode must be 'rel', 'abs' or 'rel_abs', got 'ratio'"),
    "baseline": (math.nan, ValueError, "baseline must be a number, got nan"),
    "start_after": (None, TypeError, "start_after must be a number, got None"),
    "stop_on_nan": (1, TypeError, "stop_on_nan must be True or False, got 1"),
    "model": ([], TypeError, "model must be a torch.nn.Module, got list"),
    "device": ("meta", ValueError, "device must be a CPU or CUDA device, got meta; pass device='cpu'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused(name):
    value, error, message = BAD[name]
    with pytest.raises(error) as caught:
        fastsched.EarlyStopping(**{name: value})
    assert message in str(caught.value)
    if name in ("model", "device"):
        return
    stopper = fastsched.EarlyStopping()
    before = stopper.state_dict()
    with pytest.raises(error) as caught:
        setattr(stopper, name, value)
    assert message in str(caught.value)
    assert stopper.state_dict() == before


def test_bad_metrics_and_states_change_nothing():
    model = torch.nn.Linear(2, 1)
    stopper = fastsched.EarlyStopping(model=model)
    stopper.step(1.0)
    before = stopper.state_dict()

    def unchanged():
        state = stopper.state_dict()
        weights = state.pop("best_weights")
        assert state == {name: value for name, value in before.items() if name != "best_weights"}
        assert all(torch.equal(weight, before["best_weights"][name]) for name, weight in weights.items())

    for metric, error in (
        (None, TypeError),
        (torch.zeros(2), ValueError),
        ("x", ValueError),
        (torch.tensor(1j), RuntimeError),
    ):
        with pytest.raises(error):
            stopper.step(metric)
        unchanged()
    other = fastsched.EarlyStopping(model=torch.nn.Linear(3, 1)).state_dict()
    for state, error, message in (
        ([], TypeError, "state_dict must be a dict, got list"),
        ({}, KeyError, "state_dict has no 'mode'"),
        (fastsched.EarlyStopping().state_dict(), KeyError, "state_dict has no 'best_weights'"),
        (other, ValueError, "state_dict['best_weights'] do not fit this model"),
        ({**before, "best": "low"}, TypeError, "state_dict['best'] must be a number, got 'low'"),
        ({**before, "patience": -3}, ValueError, "patience must be 0 or more, got -3"),
    ):
        with pytest.raises(error) as caught:
            stopper.load_state_dict(state)
        assert message in str(caught.value)
        unchanged()
    with pytest.raises(RuntimeError, match=r"construct EarlyStopping with model="):
        fastsched.EarlyStopping().restore_best()


def digits():
    data = load_digits()
    images = torch.tensor(data.data, dtype=torch.float32) / 16
    labels = torch.tensor(data.target)
    return images[:1000], labels[:1000], images[1000:], labels[1000:]


def test_the_best_weights_of_a_real_training_come_back(device):
    torch.manual_seed(0)
    images, labels, unseen, answers = (part.to(device) for part in digits())
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.BatchNorm1d(64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    ).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    stopper = fastsched.EarlyStopping(patience=5, threshold=0.0, threshold_mode="abs", model=model)
    reference = Reference(stopper.state_dict())
    best = {}
    for _ in range(200):
        model.train()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(model(unseen), answers)
        stopper.step(loss)
        reference.step(loss.item())
        if reference.improved:
            best = copy.deepcopy(model.state_dict())
        if stopper.should_stop:
            break
    reference.agrees_with(stopper)
    assert 10 < stopper.last_epoch < 200
    assert not all(torch.equal(weight, best[name]) for name, weight in model.state_dict().items())
    stopper.restore_best()
    assert all(torch.equal(weight, best[name]) for name, weight in model.state_dict().items())
    assert model[1].num_batches_tracked.dtype is torch.int64


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_a_compiled_step_is_one_graph(device, backend):
    torch._dynamo.reset()
    model = torch.nn.Linear(2, 1).to(device)
    stopper = fastsched.EarlyStopping(patience=3, model=model, device=device)
    reference = Reference({"patience": 3})
    frames = torch._dynamo.testing.CompileCounterWithBackend(backend)
    step = torch.compile(stopper.step, fullgraph=True, backend=frames)
    best = None
    for value in (3.0, 2.0, 2.5, 1.0, 4.0, 4.0, 4.0, 4.0, 0.5):
        with torch.no_grad():
            model.weight += 1.0
        step(torch.tensor(value, device=device))
        reference.step(value)
        reference.agrees_with(stopper)
        if reference.improved:
            best = model.weight.detach().clone()
        assert torch.equal(stopper.state_dict()["best_weights"]["weight"], best)
    assert frames.frame_count == 1


@pytest.mark.gpu
def test_on_the_device_nothing_waits():
    model = torch.nn.Linear(2, 1).cuda()
    stopper = fastsched.EarlyStopping(patience=3, model=model)
    values = [torch.tensor(value, device="cuda") for value in (3.0, 2.0, 2.5, 2.5, 2.5, 2.5)]
    with NoSyncs():
        for value in values:
            stopper.step(value)
            stopper.poll()
        stopper.restore_best()
    torch.cuda.synchronize()
    assert stopper.poll()
    assert stopper.stopped_epoch == 6
    assert stopper.best == 2.0


@pytest.mark.gpu
def test_a_captured_step_is_replayed():
    model = torch.nn.Linear(2, 1).cuda()
    stopper = fastsched.EarlyStopping(patience=2, model=model)
    reference = Reference({"patience": 2})
    metric = torch.tensor(9.0, device="cuda")
    graph = capture(lambda: stopper.step(metric))
    reference.step(9.0)  # the warm-up
    for value in (3.0, 2.0, 2.5, 2.5, 2.5, 1.0):
        metric.fill_(value)
        with torch.no_grad():
            model.weight += 1.0
        graph.replay()
        reference.step(value)
        torch.cuda.synchronize()
        reference.agrees_with(stopper)
        assert stopper.poll() == stopper.should_stop
    assert torch.equal(stopper.state_dict()["best_weights"]["weight"], model.weight)


@pytest.mark.gpu
def test_what_a_graph_would_freeze_is_refused():
    stopper = fastsched.EarlyStopping()
    device_metric = torch.tensor(1.0, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="step once before capturing"), torch.cuda.graph(graph):
        stopper.step(device_metric)
    stopper.step(device_metric)
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="frozen"), torch.cuda.graph(graph):
        stopper.step(1.0)
    assert stopper.last_epoch == 1


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 2)
        self.tied = self.first
        self.norm = torch.nn.BatchNorm1d(2)
        self.register_buffer("average", torch.zeros(2))
        self.register_buffer("same", torch.zeros(1).expand(4))


def reassign(model):
    model.average = model.average + 1
    model.first.weight = torch.nn.Parameter(model.first.weight * 2)


def load_by_assignment(model):
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)


CHANGES = {"reassigned": reassign, "double": torch.nn.Module.double, "assigned": load_by_assignment}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("compiled", [False, True])
def test_weights_are_found_where_they_are_now(change, compiled):
    torch._dynamo.reset()
    model = Net()
    stopper = fastsched.EarlyStopping(model=model)
    change(model)
    with torch.no_grad():
        model.first.weight += 0.123456789
        model.norm.running_mean += 3
    step = torch.compile(stopper.step, backend="eager", fullgraph=True) if compiled else stopper.step
    step(torch.tensor(1.0))
    best = {name: value.clone() for name, value in model.state_dict().items()}
    change(model)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.reshape(-1)[:1].add_(1) if value.dim() == 0 else value[..., :1].add_(1)
    stopper.step(2.0)
    stopper.restore_best()
    for name, value in model.state_dict().items():
        assert value.dtype == best[name].dtype
        assert torch.equal(value, best[name]), name


def test_weights_of_another_shape_are_refused():
    model = torch.nn.Linear(2, 1)
    stopper = fastsched.EarlyStopping(model=model)
    model.weight = torch.nn.Parameter(torch.zeros(1, 3))
    with pytest.raises(RuntimeError, match=r"weight of the model changed its shape .*, from \(1, 2\) to \(1, 3\)"):
        stopper.step(1.0)
    with pytest.raises(ValueError, match=r"run it once, then pass model="):
        fastsched.EarlyStopping(model=torch.nn.LazyLinear(3))


def test_it_may_be_made_in_inference_mode():
    model = torch.nn.Linear(2, 1)
    with torch.inference_mode():
        stopper = fastsched.EarlyStopping(model=model)
    stopper.step(1.0)
    with torch.no_grad():
        model.weight += 1.0
    stopper.restore_best()
    assert torch.equal(model.weight, stopper.state_dict()["best_weights"]["weight"])


def test_settings_beyond_any_metric():
    assert fastsched.EarlyStopping(patience=10**400).patience == math.inf
    assert fastsched.EarlyStopping(baseline=-(10**400)).baseline == -math.inf
    stopper = fastsched.EarlyStopping(start_after=1)
    stopper.step(3.0)
    stopper.mode = "max"
    stopper.step(-5.0)
    assert stopper.best == -5.0


@pytest.mark.parametrize("weights", [None, 5, {"weight": 1.0}, {"weight": np.zeros((1, 2)), "bias": np.zeros(1)}])
def test_states_with_other_weights_change_nothing(weights):
    stopper = fastsched.EarlyStopping(model=torch.nn.Linear(2, 1))
    stopper.step(1.0)
    with pytest.raises(ValueError, match=r"state_dict\['best_weights'\]"):
        stopper.load_state_dict({**stopper.state_dict(), "patience": 3, "best": 0.0, "best_weights": weights})
    assert (stopper.patience, stopper.best) == (10, 1.0)


def test_a_model_of_another_structure_is_refused():
    def replace(model):
        model[1] = torch.nn.Linear(2, 2)

    def drop(model):
        del model[1].bias

    for change, message in ((replace, "'1' of the model was replaced"), (drop, "the model no longer has 1.bias")):
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        stopper = fastsched.EarlyStopping(model=model)
        stopper.step(1.0)
        change(model)
        with pytest.raises(RuntimeError, match=message):
            stopper.step(0.5)
        with pytest.raises(RuntimeError, match=message):
            stopper.restore_best()
        assert (stopper.best, stopper.last_epoch) == (1.0, 1)


def test_ties_that_come_apart_and_sparse_buffers():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    model.register_buffer("mask", (torch.eye(3) * 2).to_sparse())
    stopper = fastsched.EarlyStopping(model=model)
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    stopper.step(1.0)
    best = [model[0].weight.detach().clone(), model[1].weight.detach().clone()]
    with torch.no_grad():
        model[0].weight += 1
        model[1].weight += 2
        model.mask.values().mul_(5) if model.mask.is_coalesced() else model.mask._values().mul_(5)
    stopper.restore_best()
    assert torch.equal(model[0].weight, best[0])
    assert torch.equal(model[1].weight, best[1])
    assert model.mask.to_dense().sum() == 6


def test_patience_may_be_any_int():
    stopping = fastsched.EarlyStopping(patience=2**53 + 1)
    for _ in range(3):
        stopping.step(1.0)
    assert not stopping.should_stop
    assert stopping.num_bad_epochs == 2


STOPS_IN_4 = (1.0, 1.1, 1.2, 1.3, 0.5, 0.4)


def test_a_loop_may_break_on_a_step():
    stopper = stopper_that_polls()
    answers = [stopper.step(metric) for metric in STOPS_IN_4]
    assert answers == [False, False, False, True, True, True]
    assert all(type(answer) is bool for answer in answers)


def stopper_that_polls(**keywords):
    return fastsched.EarlyStopping(patience=2, **keywords)


@pytest.mark.parametrize("behind", [0, 1, 2, 5])
def test_a_poll_may_ask_of_an_earlier_step(behind):
    stopper = stopper_that_polls()
    assert not stopper.poll(behind)
    for epoch, metric in enumerate(STOPS_IN_4, 1):
        stopper.step(metric)
        assert stopper.poll(behind) is (epoch - behind >= 4)
        assert stopper.poll(behind=behind) is stopper.poll(behind)


class Late:
    """The event of a device that does nothing until it is waited for."""

    waited: ClassVar[list[int]] = []
    sent = 0

    def __init__(self, device):
        type(self).sent += 1
        self.number = self.sent

    def query(self):
        return self.number in self.waited

    def synchronize(self):
        self.waited.append(self.number)


@pytest.fixture
def late(monkeypatch):
    """Treats metrics on the host as being on a device that is late."""
    monkeypatch.setattr(arrivals, "mark", Late)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(Late, "waited", [])
    monkeypatch.setattr(Late, "sent", 0)

    def made(**keywords):
        stopper = stopper_that_polls(**keywords)
        stopper._replica.buffer.on_host = False
        stopper._stays = True
        return stopper

    return made


@pytest.mark.parametrize("behind", [0, 1, 2, 5])
@pytest.mark.parametrize("polls_from", [1, 3])
def test_a_poll_waits_for_that_step_only(late, behind, polls_from):
    stopper = late()
    stopper._replica.mirror = torch.zeros(_C.mirror_size(0), dtype=torch.float64)  # to which no step writes
    for epoch, metric in enumerate(STOPS_IN_4, 1):
        assert stopper.step(metric) is False  # as far as the host has heard
        if epoch >= polls_from:
            assert stopper.poll(behind) is (epoch - behind >= 4)
    sent = Late.sent
    assert sent == len(STOPS_IN_4) - polls_from + 1
    if behind and polls_from == 1:
        assert sent not in Late.waited
        assert sent - min(behind, sent - 1) in Late.waited


def test_with_a_group_on_a_device_a_step_answers_for_the_step_before(late, monkeypatch):
    monkeypatch.setattr(fastsched.EarlyStopping, "process_group", "a group")
    stopper = late()
    assert [stopper.step(metric) for metric in STOPS_IN_4] == [False] * 4 + [True] * 2
    again = late()
    polls = []
    for metric in STOPS_IN_4:
        again.step(metric)
        polls.append(again.poll())
    assert polls == [False] * 4 + [True] * 2
    loaded = late()
    loaded.load_state_dict(stopper.state_dict())
    assert loaded.poll()


def test_polls_count_the_steps_of_a_graph(late):
    # Its replays run no Python: only the counters show them.
    stopper = late()
    answers = []
    for metric in STOPS_IN_4:
        stopper._replica.call(metric)
        answers.append(stopper.poll(behind=1))
    assert answers == [False] * 4 + [True] * 2


def test_a_poll_that_is_not_called_is_not_true():
    stopper = stopper_that_polls()
    with pytest.raises(TypeError, match=r"EarlyStopping.poll is a method: call it, poll\(\)"):
        bool(stopper.poll)
    assert stopper.poll.__doc__ == fastsched.EarlyStopping.poll.__doc__
    assert fastsched.EarlyStopping.poll(stopper) is False


@pytest.mark.parametrize(
    ("behind", "error"), [(-1, "behind must be 0 or more"), (1.0, "behind must be an int"), (True, "got bool")]
)
def test_what_is_no_number_of_steps_is_refused(behind, error):
    with pytest.raises((TypeError, ValueError), match=error):
        stopper_that_polls().poll(behind)


@pytest.mark.parametrize(
    ("metric", "error", "words"),
    [
        (None, TypeError, "got None"),
        ("high", ValueError, "got str: could not convert string to float: 'high'"),
        ([1.0], TypeError, "got list"),
        (torch.ones(2), ValueError, "got Tensor"),
        (torch.ones(2, dtype=torch.complex64), ValueError, "got Tensor"),
        (1j, TypeError, "got complex"),
    ],
)
def test_what_is_no_metric_is_named(metric, error, words):
    stopper = stopper_that_polls()
    with pytest.raises(error, match=f"metric must be a number, or a tensor with one element, {words}"):
        stopper.step(metric)
    assert stopper.last_epoch == 0
