"""Decisions that wait for their metrics to arrive, so that steps do not: the same ones, in order, later."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed

import fastsched
from fastsched.engine import arrivals, capture
from fastsched.engine.tensor import TensorEngine

from .configurations import configurations, metrics
from .conftest import sgd
from .interruption import interrupted
from .late_device import LateDevice
from .optimizers import stepped_sgd
from .ranks import on_ranks
from .values import bits, double, lrs
from .watching import NoSyncs

few = settings(max_examples=settings.default.max_examples // 3)
streams = st.lists(
    # on the device or on the host, and how much the device has done before the next one
    st.tuples(metrics, st.sampled_from(["device", "device", "device", "float", "tensor"]), st.integers(0, 3)),
    max_size=25,
)
noise = st.fixed_dictionaries(
    {
        "accumulate": st.integers(1, 3),
        "smoothing": st.sampled_from([0.0, 0.9]),
        "patience_counts": st.sampled_from(["torch", "keras"]),
    }
)
KINDS = {"floats": float, "tensors": torch.tensor, "torch's code": lambda lr: torch.tensor(lr, dtype=torch.float16)}


@pytest.fixture
def device():
    with LateDevice() as device:
        yield device


def plateau(kind=float, **keywords):
    return fastsched.ReduceLROnPlateau(
        stepped_sgd([kind(8.0)]), **{"patience": 0, "factor": 0.5, "deferred": True, **keywords}
    )


def given_by(metric, place):
    return metric if place == "float" else torch.tensor(metric, dtype=torch.float64 if place == "device" else None)


class Arriving:
    """How many metrics have been used: those of the device, in order, as far as they have arrived."""

    def __init__(self, device):
        self._device, self._places, self.decided = device, [], 0

    def give(self, place):
        self._places.append(place)
        sent = sum(place == "device" for place in self._places[: self.decided])
        while self.decided < len(self._places):
            away = self._places[self.decided] == "device"
            if away and (sent == self._device.done or self.decided == len(self._places) - 1):
                break  # the newest is left to a later step
            sent += away
            self.decided += 1


@few
@given(data=st.data(), stream=streams, noisy=noise)
def test_at_every_step_learning_rates_are_those_of_the_metrics_that_have_arrived(data, stream, noisy):
    initial = data.draw(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=2))
    configuration = {**data.draw(configurations(len(initial))), **noisy}
    oracle = fastsched.ReduceLROnPlateau(sgd(initial), **configuration)
    with LateDevice() as device:
        scheduler = fastsched.ReduceLROnPlateau(sgd(initial), **configuration, deferred=True)
        arriving = Arriving(device)
        given = [float(given_by(metric, place)) for metric, place, _ in stream]
        for metric, place, progress in stream:
            scheduler.step(given_by(metric, place))
            arriving.give(place)
            while oracle.last_epoch < arriving.decided:
                oracle.step(given[oracle.last_epoch])
            assert bits(lrs(scheduler)) == bits(lrs(oracle))
            assert bits(scheduler.get_last_lr()) == bits(oracle.get_last_lr())
            assert bits(float(scheduler.best)) == bits(float(oracle.best))
            device.finish(progress)
        assert device.waits == 0
        scheduler.flush()
    for metric in given[oracle.last_epoch :]:
        oracle.step(metric)
    assert bits(list(scheduler.state_dict().items())) == bits(list(oracle.state_dict().items()))
    assert bits(lrs(scheduler)) == bits(lrs(oracle))


@few
@given(stream=streams, patience=st.integers(0, 3), stop_on_nan=st.booleans(), noisy=noise)
def test_so_does_an_early_stopping_stop(stream, patience, stop_on_nan, noisy):
    keywords = {"patience": patience, "stop_on_nan": stop_on_nan, **noisy}
    oracle = fastsched.EarlyStopping(**keywords)
    with LateDevice() as device:
        stopper = fastsched.EarlyStopping(**keywords, deferred=True)
        arriving = Arriving(device)
        given = [float(given_by(metric, place)) for metric, place, _ in stream]
        for metric, place, progress in stream:
            answer = stopper.step(given_by(metric, place))
            arriving.give(place)
            while oracle.last_epoch < arriving.decided:
                oracle.step(given[oracle.last_epoch])
            assert answer is stopper.should_stop is oracle.should_stop
            device.finish(progress)
        assert device.waits == 0
        stopper.flush()
    for metric in given[oracle.last_epoch :]:
        oracle.step(metric)
    assert bits(list(stopper.state_dict().items())) == bits(list(oracle.state_dict().items()))


def test_it_is_a_step_after_the_metrics_own_that_decides(device):
    scheduler = plateau()
    found = []
    for metric in (1.0, 2.0, 2.0):
        scheduler.step(double(metric))
        device.finish(1)
        found.append((lrs(scheduler), scheduler.last_epoch, scheduler.best))
    assert found == [([8.0], 0, float("inf")), ([8.0], 1, 1.0), ([4.0], 2, 1.0)]
    scheduler.flush()
    assert (lrs(scheduler), device.waits) == ([2.0], 0)


def test_metrics_are_those_at_the_step(device):
    scheduler = plateau()
    metric = double(1.0)
    for value in (1.0, 2.0, 0.5):
        metric.fill_(value)
        scheduler.step(metric)
    metric.fill_(0.0)
    scheduler.flush()
    assert (scheduler.best, lrs(scheduler)) == (0.5, [4.0])


@pytest.mark.parametrize("metric", [double([[1.0]]), double(1.0).requires_grad_(), torch.nn.Parameter(double([1.0]))])
def test_any_shape_of_one_number_will_do(metric, device):
    scheduler = plateau()
    scheduler.step(metric)
    scheduler.step(metric)
    assert device.sent == 2
    scheduler.flush()
    assert (scheduler.best, lrs(scheduler)) == (1.0, [4.0])


def test_on_the_host_nothing_is_deferred():
    scheduler, stopper = plateau(), fastsched.EarlyStopping(patience=0, deferred=True)
    for metric in (1.0, torch.tensor(2.0), np.float32(3.0)):
        scheduler.step(metric)
        answer = stopper.step(metric)
    assert (lrs(scheduler), scheduler.last_epoch, answer, stopper.stopped_epoch) == ([2.0], 3, True, 2)


def deferring(device, kind=float, **keywords):
    """One with three metrics pending, and what it will have decided by them."""
    scheduler, decided = plateau(kind, **keywords), plateau(kind, **keywords)
    for metric in (1.0, 3.0, 2.0):
        scheduler.step(double(metric))
        decided.step(metric)
    assert (lrs(scheduler), lrs(decided), device.waits) == ([8.0], [2.0], 0)
    return scheduler, decided


READ = {
    "flush": lambda scheduler: scheduler.flush() or scheduler.state_dict(),
    "state_dict": lambda scheduler: scheduler.state_dict(),
    "__dict__": lambda scheduler: {name: scheduler.__dict__[name] for name in plateau().state_dict()},
    "copy": lambda scheduler: copy.copy(scheduler).state_dict(),
    "deepcopy": lambda scheduler: copy.deepcopy(scheduler).state_dict(),
    "pickle": lambda scheduler: pickle.loads(pickle.dumps(scheduler)).state_dict(),
}


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_who_takes_the_state_waits_for_all(read, kind, device):
    scheduler, decided = deferring(device, kind)
    assert READ[read](scheduler) == decided.state_dict()
    assert (device.waits, lrs(scheduler)) == (3, lrs(decided))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_are_deferred_too_and_have_metrics_of_their_own(copied, device):
    for original in (plateau(), fastsched.EarlyStopping(patience=0, deferred=True)):
        original.step(double(1.0))
        twin = copied(original)
        assert twin.deferred
        twin.step(double(2.0))
        assert twin.last_epoch == 1
        original.flush()
        assert original.last_epoch == 1
        twin.flush()
        assert (original.last_epoch, twin.last_epoch) == (1, 2)


def test_attributes_tell_what_has_been_decided_without_waiting(device):
    scheduler, _ = deferring(device)
    device.finish(2)
    seen = scheduler.best, scheduler.num_bad_epochs, scheduler.last_epoch, scheduler.get_last_lr(), scheduler.peek()
    assert seen[:4] == (float("inf"), 0, 0, [8.0])
    assert seen[4]["lrs"] == [8.0]
    assert "deferred=True" in repr(scheduler)
    scheduler.factor = 0.25  # applies to those still to come
    scheduler.step(double(9.0))
    assert (lrs(scheduler), scheduler.best, device.waits) == ([2.0], 1.0, 0)


def test_loading_a_state_gives_pending_metrics_up(device):
    scheduler, _ = deferring(device)
    other = plateau()
    other.step(5.0)
    scheduler.load_state_dict(other.state_dict())
    scheduler.flush()
    assert (scheduler.state_dict(), lrs(scheduler), device.waits) == (other.state_dict(), [8.0], 0)
    stopper, stopped = (fastsched.EarlyStopping(patience=0, deferred=deferred) for deferred in (True, False))
    stopper.step(double(1.0))
    stopped.step(5.0)
    stopper.load_state_dict(stopped.state_dict())
    stopper.flush()
    assert (stopper.state_dict(), device.waits) == (stopped.state_dict(), 0)


def test_a_state_that_is_refused_leaves_them_pending(device):
    scheduler, decided = deferring(device)
    with pytest.raises(TypeError, match="patience"):
        scheduler.load_state_dict({**plateau().state_dict(), "patience": "none"})
    scheduler.flush()
    assert scheduler.state_dict() == decided.state_dict()


@pytest.mark.parametrize(
    ("metric", "error"),
    [(None, TypeError), ("high", ValueError), (double([1.0, 1.0]), ValueError), ([1.0], TypeError)],
)
def test_what_is_no_metric_is_an_error_at_once(metric, error, device):
    scheduler, decided = deferring(device)
    with pytest.raises(error):
        scheduler.step(metric)
    scheduler.flush()
    assert scheduler.state_dict() == decided.state_dict()


def test_an_epoch_is_refused(device):
    scheduler, decided = deferring(device)
    with pytest.raises(ValueError, match=r"epoch= is deprecated, and not for a plateau with deferred=True"):
        scheduler.step(double(1.0), epoch=3)
    scheduler.flush()
    assert scheduler.state_dict() == decided.state_dict()


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_it_is_true_or_false(value):
    for construct in (plateau, fastsched.EarlyStopping):
        with pytest.raises(TypeError, match="deferred must be True or False"):
            construct(deferred=value)
    assert not plateau(deferred=False).deferred


def test_without_it_flush_changes_nothing():
    for one in (plateau(deferred=False), fastsched.EarlyStopping()):
        one.step(1.0)
        before = one.state_dict()
        one.flush()
        assert (one.state_dict(), one.deferred) == (before, False)


def test_skipped_steps_are_known_as_late_as_metrics(device):
    scheduler = plateau()
    oracle = plateau(deferred=False)
    skipped = [0.0, 1.0, 0.0, True, False, float("nan"), 0.0]
    for metric, found_inf in zip((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0), skipped, strict=True):
        given = found_inf if isinstance(found_inf, bool) else double([found_inf])
        scheduler.step(double(metric), found_inf=given)
        oracle.step(metric, found_inf=found_inf)
    assert (lrs(scheduler), device.waits) == ([8.0], 0)
    with pytest.raises(ValueError, match="found_inf must hold exactly one element"):
        scheduler.step(double(1.0), found_inf=double([0.0, 0.0]))
    scheduler.step(8.0, found_inf=double(0.0))  # the metric is there, but not whether it counts
    oracle.step(8.0)
    scheduler.flush()
    assert (scheduler.state_dict(), oracle.last_epoch) == (oracle.state_dict(), 5)


def test_an_error_of_a_decision_loses_no_metric(device):
    optimizer = stepped_sgd([8.0])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, min_lr=[0.0], deferred=True)
    for metric in (1.0, 2.0, 0.5):
        scheduler.step(double(metric))
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 4.0})
    device.finish(3)
    with pytest.raises(RuntimeError, match="modify the `min_lrs`"):
        scheduler.step(double(2.0))
    scheduler.min_lrs = [0.0, 0.0]
    scheduler.flush()
    assert scheduler.last_epoch == 4
    assert scheduler.best == 0.5
    assert lrs(scheduler)[1] <= 2.0


def test_tensors_that_come_in_between(device):
    scheduler, decided = deferring(device)
    for one in (scheduler, decided):
        fastsched.use_tensor_lr(one.optimizer)
    for metric in (4.0, 0.5, 1.0):
        scheduler.step(double(metric))
        decided.step(metric)
        device.finish(1)
    scheduler.flush()
    assert isinstance(scheduler._engine, TensorEngine)
    assert (scheduler.state_dict(), lrs(scheduler)) == (decided.state_dict(), lrs(decided))


@pytest.fixture
def learning_rates_there(monkeypatch):
    """Treats tensor learning rates as being on the device."""
    monkeypatch.setattr(TensorEngine, "device", torch.device("meta"))


@pytest.mark.usefixtures("learning_rates_there")
def test_where_learning_rates_are_on_the_device_nothing_is_deferred(device):
    scheduler, decided = plateau(), plateau()
    for metric in (1.0, 3.0):
        scheduler.step(double(metric))
        decided.step(metric)
    for one in (scheduler, decided):
        fastsched.use_tensor_lr(one.optimizer)
        one._follow_to_tensors()
    for metric in (2.0, 5.0, 4.0):
        scheduler.step(double(metric))
        decided.step(metric)
        assert lrs(scheduler) == lrs(decided)
    assert (scheduler.state_dict(), device.sent) == (decided.state_dict(), 2)


@pytest.mark.usefixtures("learning_rates_there")
def test_nor_is_it_in_a_compiled_step(device):
    torch._dynamo.reset()
    scheduler, decided = plateau(torch.tensor), plateau(torch.tensor, deferred=False)
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    step = torch.compile(scheduler.step, fullgraph=True, backend=frames)
    for one in (scheduler, decided):
        one.step(9.0)
    for metric in (1.0, 3.0, 2.0, 0.5):
        step(torch.tensor(metric))
        decided.step(metric)
        assert lrs(scheduler) == lrs(decided)
    assert (frames.frame_count, device.sent) == (1, 0)
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_compiled_code_defers_between_its_graphs(kind, device):
    torch._dynamo.reset()
    scheduler, decided = plateau(kind), plateau(kind, deferred=False)
    stopper, stopped = (fastsched.EarlyStopping(patience=0, deferred=deferred) for deferred in (True, False))

    @torch.compile(backend="eager")
    def step(metric):
        scheduler.step(metric * 1.0)
        stopper.step(metric * 1.0)

    for metric in (1.0, 3.0, 2.0, 0.5):
        step(double(metric))
        decided.step(metric)
        stopped.step(metric)
    assert (device.waits, device.sent) == (0, 8)
    scheduler.flush()
    stopper.flush()
    assert scheduler.state_dict() == decided.state_dict()
    assert stopper.state_dict() == stopped.state_dict()
    torch._dynamo.reset()


def test_in_capture_it_is_refused(device, monkeypatch):
    scheduler, decided = deferring(device)
    stopper = fastsched.EarlyStopping(deferred=True)
    stopper.step(double(1.0))
    monkeypatch.setattr(capture, "in_capture", lambda: True)
    for one in (scheduler, stopper):
        with pytest.raises(RuntimeError, match="deferred=True sends the metric to the host"):
            one.step(double(1.0))
        with pytest.raises(RuntimeError, match=r"call flush\(\) before the capture"):
            one.flush()
    monkeypatch.undo()
    arrivals.mark, arrivals.is_away = device.mark, device.is_away
    scheduler.flush()
    stopper.flush()
    assert (scheduler.state_dict(), stopper.last_epoch) == (decided.state_dict(), 1)


def test_compositions_refuse_it():
    for compose in (
        lambda one: fastsched.SequentialLR(one.optimizer, [fastsched.LinearLR(one.optimizer), one], [5]),
        lambda one: fastsched.ChainedScheduler([one]),
        lambda one: fastsched.with_warmup(one, 5),
    ):
        with pytest.raises(ValueError, match=r"schedulers\[\d\], a ReduceLROnPlateau, has deferred=True"):
            compose(plateau())


def test_a_warm_up_before_it(device):
    keywords = {"patience": 0, "factor": 0.5, "warmup_steps": 3}
    scheduler, decided = (
        fastsched.WarmupReduceLROnPlateau(stepped_sgd([8.0]), **keywords, deferred=deferred)
        for deferred in (True, False)
    )
    for metric in (9.0, 9.0, 9.0, 1.0, 2.0, 3.0):
        scheduler.step(double(metric))
        decided.step(metric)
    assert (lrs(scheduler), device.waits) == ([0.8], 0)
    scheduler.flush()
    assert (scheduler.state_dict(), lrs(scheduler)) == (decided.state_dict(), [2.0])


def test_by_name(device):
    keywords = {"patience": 0, "factor": 0.5, "deferred": True}
    scheduler = fastsched.get_scheduler("reduce_lr_on_plateau", stepped_sgd([8.0]), scheduler_specific_kwargs=keywords)
    scheduler.step(double(1.0))
    assert (scheduler.deferred, scheduler.last_epoch) == (True, 0)


def test_a_history_has_the_steps_as_they_are_decided(device):
    scheduler = plateau()
    history = fastsched.History(scheduler)
    for metric in (1.0, 3.0, 2.0):
        scheduler.step(double(metric))
    assert len(history) == 0
    scheduler.flush()
    rows = history.to_numpy()
    assert rows["metric"].tolist() == [1.0, 3.0, 2.0]
    assert rows["lr"].tolist() == [[8.0], [4.0], [2.0]]


def test_simulations_begin_after_what_is_pending(device):
    scheduler, _ = deferring(device)
    assert fastsched.simulate(scheduler, 2, metrics=[3.0, 4.0])[:, 0].tolist() == [2.0, 1.0, 0.5]
    assert lrs(scheduler) == [2.0]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_it_may_be_interrupted_anywhere(kind):
    line, reached = 0, True
    while reached:
        with LateDevice() as device:
            scheduler, decided = plateau(kind), plateau(kind, deferred=False)
            for metric in (1.0, 3.0, 2.0):
                scheduler.step(double(metric))
                decided.step(metric)
            device.finish(2)
            reached = interrupted(lambda scheduler=scheduler: scheduler.step(double(5.0)), line)
            scheduler.flush()
            before = scheduler.last_epoch
            assert before in (3, 4)  # the interrupted step may or may not have been given its metric
            if before == 4:
                decided.step(5.0)
            # If torch's own code was in the middle of a step, it has made part of it.
            if kind is not KINDS["torch's code"]:
                assert scheduler.state_dict() == decided.state_dict()
                assert lrs(scheduler) == lrs(decided)
        line += 1
    assert line > 20


def test_a_method_of_the_users_may_look_at_the_state_meanwhile(device):
    class Told(fastsched.ReduceLROnPlateau):
        def _reduce_lr(self, epoch):
            self.seen = self.state_dict()["last_epoch"]
            super()._reduce_lr(epoch)

    scheduler = Told(stepped_sgd([8.0]), patience=0, factor=0.5, deferred=True)
    for metric in (1.0, 3.0, 2.0):
        scheduler.step(double(metric))
    scheduler.flush()
    assert (scheduler.seen, lrs(scheduler)) == (3, [2.0])


def test_a_thread_that_saves_states_meanwhile(device):
    scheduler, decided = plateau(patience=2, factor=0.9), plateau(patience=2, factor=0.9)
    stop, states, errors = threading.Event(), [], []

    def save():
        try:
            while not stop.is_set():
                states.append(scheduler.state_dict())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=save)
    thread.start()
    for epoch in range(2000):
        scheduler.step(double(float(epoch % 7)))
        decided.step(float(epoch % 7))
    stop.set()
    thread.join()
    scheduler.flush()
    assert not errors
    assert states
    assert scheduler.state_dict() == decided.state_dict()


@pytest.mark.parametrize("behind", [0, 1, 2, 5])
def test_a_poll_answers_for_an_earlier_step(behind, device):
    stopper = fastsched.EarlyStopping(patience=2, deferred=True)
    for epoch, metric in enumerate((1.0, 1.1, 1.2, 1.3, 0.5, 0.4), 1):
        stopper.step(double(metric))
        assert stopper.poll(behind) is (epoch - behind >= 4)
        assert len(stopper._deferred) == min(behind, epoch)
    assert device.waits == 6 - behind if behind < 6 else 0


def test_a_poll_takes_what_has_arrived_and_waits_for_nothing(device):
    stopper = fastsched.EarlyStopping(patience=0, deferred=True)
    stopper.step(double(1.0))
    stopper.step(double(2.0))
    assert not stopper.poll()
    device.finish(1)
    assert not stopper.poll()
    device.finish(1)
    assert stopper.poll()
    assert (stopper.stopped_epoch, device.waits) == (2, 0)


def test_early_stopping_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="deferred=True cannot keep the best weights"):
        fastsched.EarlyStopping(model=torch.nn.Linear(1, 1), deferred=True)
    with pytest.raises(ValueError, match="deferred=True decides on the host, and device is cuda"):
        fastsched.EarlyStopping(device="cuda", deferred=True)


def late_on_one_rank(rank, together):
    """On rank 0 metrics arrive late."""
    keywords = {"process_group": distributed.group.WORLD} if together else {}
    with LateDevice() as device, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*process_group")
        scheduler = plateau(deferred=True, **keywords)
        stopper = fastsched.EarlyStopping(patience=0, deferred=True, **keywords)
        found = []
        for metric in (1.0, 2.0, 3.0, 4.0):
            scheduler.step(double(metric + rank * together))
            answer = stopper.step(double(metric + rank * together))
            found.append((lrs(scheduler), answer, stopper.poll()))
            device.finish(9 * rank)
        waited = device.waits
        scheduler.flush()
        stopper.flush()
        return found, waited, scheduler.state_dict(), stopper.state_dict()


@pytest.mark.parametrize("together", [True, False])
def test_ranks_decide_at_the_same_step(together):
    (late, waits, *late_states), (early, nobody_waits, *early_states) = on_ranks(2, late_on_one_rank, together)
    assert late == early == [([8.0], False, False), ([8.0], False, False), ([4.0], True, True), ([2.0], True, True)]
    assert late_states == early_states
    assert late_states[0]["best"] == (1.5 if together else 1.0)
    assert (waits, nobody_waits) == (6, 0)


def skip_on_one_rank(rank):
    with LateDevice():
        scheduler = plateau(process_group=distributed.group.WORLD)
        for epoch, metric in enumerate((1.0, 2.0, 3.0)):
            scheduler.step(double(metric + rank), weight=1.0 + 2 * rank, found_inf=double(float(epoch == rank)))
        scheduler.flush()
        return scheduler.last_epoch, scheduler.best


def test_where_one_rank_skips_all_do():
    assert on_ranks(2, skip_on_one_rank) == [(1, 3.75)] * 2


def by_gloo(rank):
    # The reduced metric is on the host: there is nothing to wait for.
    scheduler = plateau(process_group=distributed.group.WORLD)
    stopper = fastsched.EarlyStopping(patience=0, deferred=True, process_group=distributed.group.WORLD)
    answers = []
    for metric in (1.0, 2.0, 3.0):
        scheduler.step(torch.tensor(metric), found_inf=torch.tensor(0.0))
        answers.append((lrs(scheduler), stopper.step(metric), stopper.poll()))
    return answers


def test_what_the_host_reduces_is_decided_at_once():
    assert on_ranks(2, by_gloo) == [[([8.0], False, False), ([4.0], True, True), ([2.0], True, True)]] * 2


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["plateau", "EarlyStopping"])
def test_on_a_gpu_no_step_waits(kind):
    is_plateau = kind == "plateau"
    one, decided = (
        plateau(deferred=deferred) if is_plateau else fastsched.EarlyStopping(patience=2, deferred=deferred)
        for deferred in (True, False)
    )
    values = [3.0, 2.0, 2.5, 2.5, 1.0, 2.5, 2.5, 2.5]
    metric = torch.zeros((), device="cuda")
    metric.fill_(9.0)  # loads the kernel, which may wait
    pinned = [torch.empty((), pin_memory=True) for _ in range(2 * len(values))]
    del pinned  # which torch keeps, so that the steps allocate none
    one.step(metric)
    one.flush()
    decided.step(9.0)
    with NoSyncs():
        torch.cuda._sleep(500_000_000)
        for value in values:
            metric.fill_(value)
            one.step(metric)  # is overwritten right after
    assert one.last_epoch == 1  # the device is still asleep
    torch.cuda.synchronize()
    with NoSyncs():
        one.step(metric)
    for value in values:
        decided.step(value)
    assert one.last_epoch == decided.last_epoch == 1 + len(values)
    assert one.best == decided.best == 1.0
    decided.step(values[-1])
    assert one.state_dict() == decided.state_dict()
    assert is_plateau is (one.__class__ is fastsched.ReduceLROnPlateau)


@pytest.mark.gpu
def test_on_a_gpu_it_is_refused_in_capture():
    scheduler = plateau()
    metric = torch.tensor(1.0, device="cuda")
    scheduler.step(metric)
    with pytest.raises(RuntimeError, match="deferred=True"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        scheduler.step(metric)
    scheduler.flush()
    assert scheduler.last_epoch == 1


@pytest.mark.gpu
def test_learning_rates_on_a_gpu_are_decided_there():
    scheduler, decided = (
        fastsched.ReduceLROnPlateau(sgd([8.0], "cuda"), patience=0, factor=0.5, deferred=deferred)
        for deferred in (True, False)
    )
    for metric in (1.0, 3.0):
        scheduler.step(torch.tensor(metric, device="cuda"))
        decided.step(metric)
    torch.cuda.synchronize()
    scheduler.optimizer.param_groups[0]["lr"] = torch.tensor(8.0, device="cuda")
    decided.optimizer.param_groups[0]["lr"] = torch.tensor(4.0, device="cuda")
    for metric in (2.0, 5.0, 0.5):
        scheduler.step(torch.tensor(metric, device="cuda"))
        decided.step(torch.tensor(metric, device="cuda"))
    assert len(scheduler._deferred) == 0
    assert scheduler.state_dict() == decided.state_dict()
    assert lrs(scheduler) == lrs(decided) == [1.0]
