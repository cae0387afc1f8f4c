"""History compared with a record kept in Python around every step."""

import copy
import csv
import gc
import math
import pickle
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
import torch._dynamo.testing
from hypothesis import given
from hypothesis import strategies as st

import fastsched
from fastsched import _C
from fastsched.engine import replica
from fastsched.tools import history as history_module

from .conftest import capture
from .interruption import interrupted
from .optimizers import stepped_sgd
from .trees import deep, grow, tree_of, trees
from .values import double
from .watching import NoSyncs, memory_behind

KINDS = {"float": float, "float64": double, "float32": torch.tensor}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
metrics = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, math.nan]), min_size=1, max_size=12)


def plateaus_in(scheduler):
    return [part for part in tree_of(scheduler) if isinstance(part, (fastsched.ReduceLROnPlateau, fastsched.GreedyLR))]


def averaged(metric, state):
    """What a GreedyLR judges."""
    average = state.get("_streaming_avg")
    if average is None:
        return metric
    total, values = average["sum"] + metric, [*average["values"], metric]
    if len(values) > average["window_size"]:
        total -= values.pop(0)
    return total / len(values)


class Account:
    """What the history should say, from the state before and after each step."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.first = getattr(scheduler, "last_epoch", 0) + 1
        self.rows = []

    def step(self, metric):
        plateaus = plateaus_in(self.scheduler)
        before = [copy.copy(plateau.state_dict()) for plateau in plateaus]
        self.scheduler.step(metric)
        best, reductions = math.nan, 0
        for plateau, was in zip(plateaus, before, strict=True):
            if plateau.last_epoch == was["last_epoch"]:
                continue
            best = plateau.best
            if plateau.last_epoch <= getattr(plateau, "warmup_steps", 0):
                continue  # it warms up, and ignores metrics
            better = plateau._is_better(averaged(metric, was), was["best"])
            better = better or bool(was.get("warmup_counter"))  # an epoch that is not judged
            reductions += not better and not was["cooldown_counter"] and was["num_bad_epochs"] + 1 > was["patience"]
        lrs = [float(group["lr"]) for group in self.scheduler.optimizer.param_groups]
        self.rows.append((self.first + len(self.rows), metric if plateaus else math.nan, best, reductions, lrs))

    def agrees_with(self, history):
        rows = history.to_numpy()
        expected = self.rows[-history.capacity :]
        assert len(history) == len(rows) == len(expected)
        for row, (step, metric, best, reductions, lrs) in zip(rows, expected, strict=True):
            assert row["step"] == step
            np.testing.assert_array_equal(row["metric"], metric)
            np.testing.assert_array_equal(row["best"], best)
            assert row["reductions"] == reductions
            np.testing.assert_array_equal(row["lr"][: len(lrs)], lrs)
            assert np.isnan(row["lr"][len(lrs) :]).all()


@kinds
@given(tree=trees, values=metrics)
def test_it_says_what_every_step_did(kind, tree, values):
    scheduler = grow(stepped_sgd([kind(0.5), kind(0.25)]), tree)
    history = fastsched.History(scheduler)
    account = Account(scheduler)
    for value in values:
        account.step(value)
    account.agrees_with(history)


@kinds
@given(values=metrics, data=st.data())
def test_a_plateau_with_every_setting(kind, values, data):
    settings = {
        "mode": data.draw(st.sampled_from(["min", "max"])),
        "patience": data.draw(st.integers(0, 2)),
        "cooldown": data.draw(st.integers(0, 2)),
        "min_lr": data.draw(st.sampled_from([0.0, 0.2])),
    }
    scheduler = fastsched.ReduceLROnPlateau(stepped_sgd([kind(0.5)]), factor=0.5, **settings)
    history = fastsched.History(scheduler, capacity=5)
    account = Account(scheduler)
    for value in values:
        account.step(value)
    account.agrees_with(history)


@kinds
def test_children_have_histories_of_their_own_steps(kind):
    scheduler = deep(stepped_sgd([kind(0.5)]), 1)
    plateau = plateaus_in(scheduler)[0]
    whole, part = fastsched.History(scheduler), fastsched.History(plateau)
    for _ in range(8):
        scheduler.step(1.0)
    assert whole.to_numpy()["step"].tolist() == list(range(1, 9))
    rows = part.to_numpy()
    assert len(rows) == plateau.last_epoch == 6
    # In the chain the exponential halves them after it.
    np.testing.assert_array_equal(rows["lr"], whole.to_numpy()["lr"][-6:] * 2)


@kinds
def test_a_composition_in_another_has_what_it_left(kind):
    optimizer = stepped_sgd([kind(1.0)])
    inner = fastsched.ChainedScheduler([fastsched.ExponentialLR(optimizer, 0.5)])
    scheduler = fastsched.ChainedScheduler([inner, fastsched.ExponentialLR(optimizer, 0.125)])
    history = fastsched.History(inner)
    scheduler.step()
    scheduler.step()
    assert history.to_numpy()["lr"].ravel().tolist() == [0.5, 0.5 / 16]


@kinds
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_steps_that_leave_the_epoch_as_it_was(kind):
    scheduler = fastsched.ReduceLROnPlateau(stepped_sgd([kind(0.5)]), patience=0)
    history = fastsched.History(scheduler)
    scheduler.step(1.0)
    state = scheduler.state_dict()
    scheduler.step(0.5)
    scheduler.load_state_dict(state)
    scheduler.step(0.75)
    assert history.to_numpy()["best"].tolist() == [1.0, 0.5, 0.75]
    for _ in range(3):
        scheduler.step(1.0, 5)
    assert history.to_numpy()["reductions"].tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("odd", [False, True], ids=["numbers", "a tensor"])
def test_a_function_whose_turn_it_is_in_a_sequence(odd):
    """The compositions around it have a row, and the children of each their own."""
    optimizer = stepped_sgd([0.5, 0.25])

    def factor(epoch):
        return torch.tensor(0.5**epoch) if odd and epoch == 2 else 0.5**epoch

    plateau = fastsched.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    inner = fastsched.SequentialLR(optimizer, [fastsched.LambdaLR(optimizer, factor), plateau], [4])
    scheduler = fastsched.SequentialLR(optimizer, [inner, fastsched.ExponentialLR(optimizer, 0.5)], [7])
    whole, nested, part = map(fastsched.History, (scheduler, inner, inner._schedulers[0]))
    account = Account(scheduler)
    for _ in range(9):
        account.step(1.0)
    if odd:  # the learning rates are tensors from then on
        np.testing.assert_array_equal(whole.to_numpy()["lr"], [lrs for *_, lrs in account.rows])
    else:
        account.agrees_with(whole)
    rows = nested.to_numpy()
    assert len(rows) == inner.last_epoch == 6
    np.testing.assert_array_equal(rows["lr"], whole.to_numpy()["lr"][:6])
    np.testing.assert_array_equal(part.to_numpy()["lr"], rows["lr"][:3])


def test_a_plateau_that_an_engine_stepped_has_no_part_in_a_step_that_python_makes():
    optimizer = stepped_sgd([0.5])
    plateau = fastsched.ReduceLROnPlateau(optimizer, patience=0)
    other = fastsched.ExponentialLR(optimizer, 0.5)
    scheduler = fastsched.SequentialLR(optimizer, [plateau, other], [2])
    history = fastsched.History(scheduler)
    account = Account(scheduler)
    account.step(1.0)
    other.step = lambda: fastsched.ExponentialLR.step(other)
    for _ in range(3):
        account.step(1.0)
    account.agrees_with(history)


def test_histories_leave_a_composition_of_numbers_to_one_engine():
    scheduler = deep(stepped_sgd([0.5]), 1)
    histories = [fastsched.History(part) for part in tree_of(scheduler)]
    for _ in range(8):
        scheduler.step(1.0)
    assert isinstance(scheduler._engine, _C.HostEngine)
    assert len(histories[0]) == 8
    assert all(len(history) for history in histories)


def test_a_history_on_numbers_takes_no_more_memory_than_its_rows():
    scheduler = fastsched.ExponentialLR(stepped_sgd([0.5] * 3), 0.5)
    history = fastsched.History(scheduler)
    scheduler.step()
    assert len(pickle.dumps(history)) < 10_000
    twin = pickle.loads(pickle.dumps(history))
    np.testing.assert_array_equal(twin.to_numpy()["lr"], history.to_numpy()["lr"])


def test_rows_stay_in_order_when_a_function_gives_tensors():
    scheduler = fastsched.LambdaLR(
        stepped_sgd([0.5]), lambda epoch: torch.tensor(0.5**epoch) if epoch > 2 else 0.5**epoch, total_steps=9
    )
    history = fastsched.History(scheduler)
    for _ in range(5):
        scheduler.step()
    assert history.to_numpy()["lr"].ravel().tolist() == [0.5**i for i in range(2, 7)]


def test_schedulers_that_compare_by_value():
    class Equal(fastsched.ReduceLROnPlateau):
        __hash__ = None

        def __eq__(self, other):
            return True

    scheduler = Equal(stepped_sgd([0.5]))
    history = fastsched.History(scheduler)
    scheduler.step(1.0)
    assert len(history) == 1


def test_what_cannot_begin_leaves_nothing_behind():
    scheduler = fastsched.ExponentialLR(stepped_sgd([torch.tensor(1.0)]), 0.5)
    with pytest.raises(RuntimeError):
        fastsched.History(scheduler, 2**45)
    history = fastsched.History(scheduler)
    scheduler.step()
    assert len(history) == 1


class OwnRule(fastsched.StepLR):
    def get_lr(self):
        return [group["lr"] * 0.5 for group in self.optimizer.param_groups]


@kinds
def test_what_torchs_code_steps_is_recorded_too(kind):
    scheduler = OwnRule(stepped_sgd([kind(0.5)]), 1)
    history = fastsched.History(scheduler)
    for _ in range(3):
        scheduler.step()
    assert history.to_numpy()["lr"].ravel().tolist() == [0.125, 0.0625, 0.03125]


@kinds
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_jumps_and_skipped_steps(kind):
    scheduler = fastsched.ExponentialLR(stepped_sgd([kind(1.0)]), 0.5)
    history = fastsched.History(scheduler)
    scheduler.step()
    scheduler.step(found_inf=torch.tensor(1.0))
    scheduler.step(found_inf=True)
    scheduler.step(found_inf=False)
    scheduler.step(5)
    assert history.to_numpy()["lr"].ravel().tolist() == [0.5, 0.25, 1 / 32]


@kinds
def test_groups_that_come_later(kind):
    optimizer = stepped_sgd([kind(0.5)])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    history = fastsched.History(scheduler)
    account = Account(scheduler)
    account.step(1.0)
    account.step(1.0)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": kind(2.0)})
    account.step(1.0)
    account.step(0.5)
    account.agrees_with(history)
    assert history.to_numpy()["lr"].shape == (4, 2)


def test_a_run_that_moves_to_tensors_and_back():
    optimizer = stepped_sgd([0.5, 0.25])
    scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    history = fastsched.History(scheduler, capacity=7)
    account = Account(scheduler)
    for _ in range(3):
        account.step(1.0)
    fastsched.use_tensor_lr(optimizer, dtype=torch.float64)
    for _ in range(3):
        account.step(1.0)
    scheduler.__class__ = type("Subclass", (fastsched.ReduceLROnPlateau,), {"_is_better": lambda *_: False})
    for _ in range(2):
        account.step(1.0)
    account.agrees_with(history)


def test_lambdas_that_python_calls():
    scheduler = fastsched.LambdaLR(stepped_sgd([0.5]), lambda epoch: 1 / (1 + epoch))
    history = fastsched.History(scheduler)
    for _ in range(3):
        scheduler.step()
    assert history.to_numpy()["lr"].ravel().tolist() == [0.5 * (1 / 2), 0.5 * (1 / 3), 0.5 * (1 / 4)]


def test_a_closed_history_stays_as_it_is(device):
    scheduler = fastsched.ExponentialLR(stepped_sgd([torch.tensor(1.0, device=device)]), 0.5)
    history = fastsched.History(scheduler)
    scheduler.step()
    history.close()
    history.close()
    scheduler.step()
    assert len(history) == 1
    later = fastsched.History(scheduler)
    scheduler.step()
    assert later.to_numpy()["step"].tolist() == [3]
    assert later.to_numpy()["lr"].tolist() == [[0.125]]
    assert history.to_numpy()["lr"].tolist() == [[0.5]]


def test_copies_record_nothing(device):
    scheduler = fastsched.ExponentialLR(stepped_sgd([torch.tensor(1.0, device=device)]), 0.5)
    history = fastsched.History(scheduler)
    scheduler.step()
    copy.deepcopy(scheduler).step()
    assert len(history) == 1
    scheduler.step()
    assert len(history) == 2


def test_nothing_recorded_is_an_empty_table():
    history = fastsched.History(fastsched.ExponentialLR(stepped_sgd([1.0]), 0.5))
    assert len(history) == len(history.to_numpy()) == len(history.to_pandas()) == 0
    assert list(history.to_pandas().columns) == ["step", "metric", "best", "reductions", "lr_0"]


@kinds
def test_files_and_frames(kind, tmp_path):
    scheduler = deep(stepped_sgd([kind(0.5), kind(0.25)]), 0)
    history = fastsched.History(scheduler)
    for _ in range(5):
        scheduler.step(0.75)
    history.to_csv(tmp_path / "run.csv")
    frame = history.to_pandas()
    assert list(frame.columns) == ["step", "metric", "best", "reductions", "lr_0", "lr_1"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run.csv"), frame)
    with open(tmp_path / "run.csv", newline="") as file:
        assert next(csv.DictReader(file))["best"] == ""
    assert frame["lr_1"].tolist() == [row["lr"][1] for row in history.to_numpy()]


@kinds
def test_its_picture(kind, tmp_path):
    scheduler = fastsched.ReduceLROnPlateau(
        stepped_sgd([kind(0.5), kind(0.25)]), patience=1, factor=0.5, min_lr=0.2, threshold=0.0
    )
    history = fastsched.History(scheduler)
    with pytest.raises(ValueError, match=r"history is empty: step the scheduler before plot\(\)"):
        history.plot(tmp_path / "run.png")
    assert not list(tmp_path.iterdir())
    for _ in range(12):
        scheduler.step(0.75)
    axes = history.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes()[:4] == b"\x89PNG"
    rows = history.to_numpy()
    lines = {line.get_label(): line for line in axes.get_lines()}
    for group in (0, 1):
        x, y = lines[f"learning rate, group {group}"].get_data()
        np.testing.assert_array_equal(x, [0, *rows["step"]])
        np.testing.assert_array_equal(y, [(0.5, 0.25)[group], *rows["lr"][:, group]])
    # Every other epoch decides to reduce; the floor of 0.2 prevents two of those.
    assert rows["reductions"].tolist() == [0, 0, 1] + [0, 1] * 4 + [0]
    marks = [line.get_xydata()[0].tolist() for line in axes.get_lines() if line.get_marker() == "v"]
    assert marks == [[3, 0.25], [5, rows["lr"][4, 0]]]
    [beside] = [other for other in axes.figure.axes if other is not axes]
    np.testing.assert_array_equal(beside.get_lines()[0].get_ydata(), rows["metric"])
    assert (axes.get_title(), axes.get_yscale()) == ("", "linear")
    axes = history.plot(tmp_path / "run.png", scale="log", title="a run")
    assert (axes.get_title(), axes.get_yscale()) == ("a run", "log")
    with pytest.raises(ValueError, match="scale must be 'linear', 'log' or None, got 'sqrt'"):
        history.plot(tmp_path / "run.png", scale="sqrt")


def test_its_picture_names_groups_and_marks_a_reduction_in_the_first_step(tmp_path):
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr, "name": name}
        for lr, name in ((0.1, "body"), (1.0, "head"))
    ]
    scheduler = fastsched.ReduceLROnPlateau(torch.optim.SGD(groups), patience=0, factor=0.5)
    scheduler.step(1.0)
    history = fastsched.History(scheduler)
    for _ in range(4):
        scheduler.step(2.0)
    axes = history.plot(tmp_path / "run.png")
    assert [text.get_text() for text in axes.get_legend().get_texts()][:2] == [
        "learning rate, body",
        "learning rate, head",
    ]
    assert [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "v"] == [2, 3, 4, 5]
    assert axes.get_lines()[0].get_xydata()[0].tolist() == [1, 0.1]


def test_its_picture_does_not_know_the_first_learning_rate_once_steps_are_dropped(tmp_path):
    scheduler = fastsched.ExponentialLR(stepped_sgd([1.0]), 0.5)
    history = fastsched.History(scheduler, capacity=3)
    for _ in range(5):
        scheduler.step()
    assert history.plot(tmp_path / "run.png").get_lines()[0].get_xydata().tolist() == [
        [3, 0.125],
        [4, 0.0625],
        [5, 0.03125],
    ]


@pytest.mark.parametrize(
    ("metrics", "scale"),
    [([2 * 0.7**i for i in range(40)], "log"), ([1.0, 0.9, 0.8] * 9, "linear"), ([0.0] * 9, "linear")],
)
def test_the_axis_of_the_metric_is_logarithmic_where_it_would_lie_on_the_ground(metrics, scale, tmp_path):
    scheduler = fastsched.ReduceLROnPlateau(stepped_sgd([1.0]), patience=100)
    history = fastsched.History(scheduler)
    for metric in metrics:
        scheduler.step(metric)
    [beside] = history.plot(tmp_path / "run.png").figure.axes[1:]
    assert beside.get_yscale() == scale


def test_bad_arguments_are_refused():
    optimizer = stepped_sgd([0.5])
    with pytest.raises(TypeError, match=r"torch\.optim\.lr_scheduler\.StepLR; import it from fastsched\.lr_scheduler"):
        fastsched.History(torch.optim.lr_scheduler.StepLR(optimizer, 1))
    scheduler = fastsched.StepLR(optimizer, 1)
    for capacity in (0, 1.5, True):
        with pytest.raises(ValueError, match="capacity must be a whole number of 1 or more, got"):
            fastsched.History(scheduler, capacity)
    history = fastsched.History(scheduler)
    with pytest.raises(ValueError, match=r"already has a history; close\(\) that one first"):
        fastsched.History(scheduler)
    scheduler.step()
    assert len(history) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_steps_record(device):
    torch._dynamo.reset()
    scheduler = deep(stepped_sgd([torch.tensor(0.5, device=device)]), 1)
    scheduler.step(torch.tensor(1.0, device=device))
    history = fastsched.History(scheduler)
    frames = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    step = torch.compile(scheduler.step, fullgraph=True, backend=frames)
    lrs = []
    for value in (1.0, 0.5, 0.5, 0.5, 0.25):
        step(torch.tensor(value, device=device))
        lrs.append([scheduler.optimizer.param_groups[0]["lr"].item()])
    rows = history.to_numpy()
    assert rows["metric"].tolist() == [1.0, 0.5, 0.5, 0.5, 0.25]
    assert rows["lr"].tolist() == lrs
    assert frames.frame_count == 1


def test_a_damaged_address_is_not_written_to():
    scheduler = fastsched.ExponentialLR(stepped_sgd([double(1.0)]), 0.5)
    history = fastsched.History(scheduler)
    scheduler.step()
    [replica] = scheduler._engine._replicas
    replica.state[fastsched._C.HISTORY_OFFSET] = 1e300
    scheduler.step()
    assert len(history) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("before", [True, False])
def test_replays_record_without_waiting(before):
    scheduler = deep(stepped_sgd([torch.tensor(0.5, device="cuda") for _ in range(70)]), 1)
    metric = torch.tensor(1.0, device="cuda")
    history = fastsched.History(scheduler, capacity=8) if before else None
    graph = capture(lambda: scheduler.step(metric))
    history = history or fastsched.History(scheduler, capacity=8)
    torch.cuda.synchronize()
    ran = len(history)
    lrs = []
    for value in (1.0, 0.5, 0.5, 0.5, 0.25, 0.25):
        metric.fill_(value)
        with NoSyncs():
            graph.replay()
        torch.cuda.synchronize()
        lrs.append([group["lr"].item() for group in scheduler.optimizer.param_groups])
    assert len(history) == ran + 6
    rows = history.to_numpy()[-6:]
    assert rows["metric"].tolist() == [1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert rows["lr"].tolist() == lrs


@pytest.mark.gpu
def test_it_does_not_begin_inside_a_capture():
    scheduler = fastsched.ExponentialLR(stepped_sgd([torch.tensor(1.0, device="cuda")]), 0.5)
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="construct it before the capture, or after"), torch.cuda.graph(graph):
        fastsched.History(scheduler)
    assert scheduler._history is None


def test_a_plateau_whose_turn_it_is_not_has_no_part_in_a_row():
    optimizer = stepped_sgd([0.1])
    plateau = fastsched.ReduceLROnPlateau(optimizer, patience=1)
    scheduler = fastsched.SequentialLR(optimizer, [fastsched.ExponentialLR(optimizer, 0.5), plateau], [100])
    history = fastsched.History(scheduler)
    scheduler.step(1.0)
    plateau.best = torch.tensor(0.25)  # which no engine can store
    scheduler.step(1.0)
    plateau._is_better = plateau._is_better
    scheduler.step(1.0)
    rows = history.to_numpy()
    assert np.isnan(rows["best"]).all()
    assert rows["reductions"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("lrs", [[double(0.5)], [double(0.5), torch.tensor(0.25)]], ids=["one", "two dtypes"])
def test_an_interrupted_history_has_not_begun(lrs):
    line = 0
    while True:
        scheduler = fastsched.ExponentialLR(stepped_sgd([lr.clone() for lr in lrs]), 0.5)
        stopped = interrupted(lambda scheduler=scheduler: fastsched.History(scheduler), line, history_module, replica)
        if not stopped:
            break
        assert scheduler._history is None
        assert [memory_behind(part, _C.HISTORY_OFFSET) for part in scheduler._engine._replicas] == [None] * len(lrs)
        history = fastsched.History(scheduler)
        scheduler.step()
        assert history.to_numpy()["lr"][:, 0].tolist() == [0.25]
        line += 1
    assert line > 20


@pytest.mark.parametrize("lrs", [[double(0.5)], [double(0.5), torch.tensor(0.25)]], ids=["one", "two dtypes"])
def test_an_interrupted_close_is_done_by_the_next(lrs):
    line = 0
    while True:
        scheduler = fastsched.ExponentialLR(stepped_sgd([lr.clone() for lr in lrs]), 0.5)
        history = fastsched.History(scheduler)
        scheduler.step()
        stopped = interrupted(history.close, line, history_module, replica)
        for part in scheduler._engine._replicas:
            memory_behind(part, _C.HISTORY_OFFSET)
        scheduler.step()
        assert history.to_numpy()["lr"][0, 0] == 0.25
        history.close()
        assert scheduler._history is None
        assert [memory_behind(part, _C.HISTORY_OFFSET) for part in scheduler._engine._replicas] == [None] * len(lrs)
        another = fastsched.History(scheduler)
        scheduler.step()
        history.close()
        assert another.to_numpy()["lr"][:, 0].tolist() == [0.0625]
        if not stopped:
            break
        line += 1
    assert line > 10


def test_a_closed_history_lets_its_buffer_go():
    scheduler = fastsched.ExponentialLR(stepped_sgd([double(0.5)]), 0.5)
    history = fastsched.History(scheduler)
    rows = weakref.ref(history._periods[0].parts[0].rows)
    history.close()
    del history
    gc.collect()
    assert rows() is None
    scheduler.step()


@kinds
def test_its_repr(kind):
    scheduler = fastsched.ExponentialLR(stepped_sgd([kind(1.0)]), 0.5)
    history = fastsched.History(scheduler, capacity=3)
    assert repr(history) == "History(ExponentialLR, steps=0, capacity=3)"
    for _ in range(5):
        scheduler.step()
    assert repr(history) == "History(ExponentialLR, steps=3, capacity=3)"
    history.close()
    assert repr(history) == "History(closed, steps=3, capacity=3)"
