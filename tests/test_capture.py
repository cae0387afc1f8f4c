"""CUDA graphs and host syncs. All of this needs a GPU."""

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

import fastsched

from .conftest import capture, sgd
from .launch_modes import METRIC, SCHEDULERS
from .optimizers import stepped_sgd
from .trees import deep
from .watching import NoSyncs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty:UserWarning"),  # where the step in it was refused
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # inductor itself uses what torch has deprecated
]


def make(groups=3, **configuration):
    lrs = [torch.tensor(0.5, device="cuda") for _ in range(groups)]
    return fastsched.ReduceLROnPlateau(sgd(lrs, "cuda"), **{"patience": 0, "factor": 0.9, **configuration})


def test_every_replay_advances_the_schedule():
    scheduler = make(groups=1500, patience=1, cooldown=1)
    oracle = TorchPlateau(sgd([0.5]), patience=1, cooldown=1, factor=0.9)
    metric = torch.tensor(1.0, device="cuda")
    graph = capture(lambda: scheduler.step(metric))
    oracle.step(1.0)  # the warm-up; capturing itself runs nothing
    for i in range(100):
        metric.fill_(1.0 / (1 + i // 10))
        graph.replay()
        oracle.step(float(metric))
        assert scheduler.last_epoch == oracle.last_epoch
        assert scheduler.best == oracle.best
    expected = torch.tensor(oracle.optimizer.param_groups[0]["lr"]).item()
    assert {group["lr"].item() for group in scheduler.optimizer.param_groups} == {expected}
    assert {lr.item() for lr in scheduler.get_last_lr()} == {expected}


def test_a_whole_iteration_in_one_graph_trains_as_the_eager_one():
    def run(replay):
        torch.manual_seed(0)
        model = torch.nn.Linear(8, 1, device="cuda")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True, capturable=True)
        optimizer._warned_capturable_if_run_uncaptured = True  # the captured run is compared with the eager one
        fastsched.use_tensor_lr(optimizer)
        scheduler = fastsched.ReduceLROnPlateau(optimizer, patience=2, factor=0.5)
        inputs = torch.randn(32, 8, device="cuda")

        def iteration():
            optimizer.zero_grad(set_to_none=False)
            loss = model(inputs).square().mean() + 1
            loss.backward()
            optimizer.step()
            scheduler.step(loss)

        model.weight.grad, model.bias.grad = torch.zeros_like(model.weight), torch.zeros_like(model.bias)
        if replay:
            graph = capture(iteration)
            for _ in range(99):
                graph.replay()
        else:
            for _ in range(100):
                iteration()
        return model.weight.detach().clone(), scheduler.state_dict()

    eager, captured = run(replay=False), run(replay=True)
    assert torch.equal(captured[0], eager[0])
    assert captured[1] == eager[1]
    assert captured[1]["_last_lr"][0] < 0.1


def test_hyperparameters_and_checkpoints_reach_a_captured_graph():
    scheduler = make(factor=0.5)
    metric = torch.tensor(1.0, device="cuda")
    saved = scheduler.optimizer.state_dict(), scheduler.state_dict()
    saved[0]["param_groups"] = [{**group, "lr": group["lr"].clone()} for group in saved[0]["param_groups"]]
    graph = capture(lambda: scheduler.step(metric))
    graph.replay()
    assert scheduler.optimizer.param_groups[0]["lr"].item() == 0.25
    scheduler.factor = 0.1
    graph.replay()
    assert scheduler.state_dict()["_last_lr"] == [0.25 * 0.1] * 3
    scheduler.optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict({**saved[1], "best": 0.0})
    graph.replay()
    assert scheduler.state_dict()["_last_lr"] == [0.5 * 0.5] * 3


@pytest.mark.parametrize("metric", [1.0, torch.tensor(1.0)], ids=["number", "host tensor"])
def test_a_metric_on_the_host_is_refused_in_a_capture(metric):
    scheduler = make()
    scheduler.step(1.0)
    with (
        pytest.raises(RuntimeError, match="would be frozen into the CUDA graph"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        scheduler.step(metric)
    torch.cuda.synchronize()


def test_what_needs_python_is_refused_in_a_capture():
    metric = torch.tensor(1.0, device="cuda")
    floats = fastsched.ReduceLROnPlateau(sgd([0.5], "cuda"))
    changed = make()
    changed.step(metric)
    changed.optimizer.param_groups[0]["lr"] = 0.25
    with pytest.raises(RuntimeError, match="were changed; step once before"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        changed.step(metric)
    with pytest.raises(RuntimeError, match="are Python numbers"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        floats.step(metric)
    torch.cuda.synchronize()


def momentum_in_numbers():
    optimizer = stepped_sgd([torch.tensor(0.5, device="cuda")])
    return fastsched.OneCycleLR(optimizer, max_lr=0.5, total_steps=50)


def a_users_get_lr():
    class Own(fastsched.StepLR):
        def get_lr(self):
            return [0.5]

    return Own(stepped_sgd([torch.tensor(0.5, device="cuda")]), 1)


def functions_without_a_table():
    return fastsched.LambdaLR(stepped_sgd([torch.tensor(0.5, device="cuda")]), lambda epoch: 0.5)


def a_sequence_of_torchs():
    optimizer = stepped_sgd([torch.tensor(0.5, device="cuda")])
    return fastsched.SequentialLR(optimizer, [torch.optim.lr_scheduler.ConstantLR(optimizer)], [])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (momentum_in_numbers, "cycles momentum that is a Python number"),
        (a_users_get_lr, "cannot be captured"),
        (functions_without_a_table, "cannot be captured"),
        (a_sequence_of_torchs, "cannot be captured"),
    ],
)
def test_what_would_freeze_is_refused_with_a_reason(make, reason):
    scheduler = make()
    scheduler.step()
    scheduler.step()
    with pytest.raises(RuntimeError, match=reason), torch.cuda.graph(torch.cuda.CUDAGraph()):
        scheduler.step()
    torch.cuda.synchronize()


def test_a_thousand_eager_steps_never_wait_for_the_device(lr_dtype):
    lrs = [torch.tensor(0.5, dtype=lr_dtype, device="cuda") for _ in range(10)]
    scheduler = fastsched.ReduceLROnPlateau(sgd(lrs, "cuda"), patience=1, factor=0.99)
    metrics = [torch.tensor(1.0, dtype=dtype, device="cuda") for dtype in (torch.float32, torch.bfloat16)]
    metrics += [torch.ones(1, 1, device="cuda", dtype=torch.float16), torch.tensor(1.0)]
    with NoSyncs():
        for i in range(1000):
            scheduler.step(metrics[i % len(metrics)])
        scheduler.step(1.0)
        scheduler.get_last_lr()
    assert scheduler.last_epoch == 1001


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_thousand_steps_of_every_scheduler_never_wait(name):
    optimizer = stepped_sgd([torch.tensor(0.5, device="cuda") for _ in range(3)])
    scheduler = SCHEDULERS[name](fastsched, optimizer)
    metric = [torch.tensor(1.0, device="cuda")] if name in METRIC else []
    found_inf = torch.zeros((), device="cuda")
    scheduler.step(*metric)
    scheduler.peek()
    with NoSyncs():
        for i in range(1000):
            scheduler.step(*metric, found_inf=found_inf if i % 3 else None)
            scheduler.peek()
        scheduler.get_last_lr()


def test_peek_follows_graph_replays():
    scheduler = make(groups=1500, patience=0, factor=0.5)
    metric = torch.tensor(1.0, device="cuda")
    graph = capture(lambda: scheduler.step(metric))
    before = scheduler.peek()  # after the capture: the graph finds the address in device memory
    for i in range(3):
        graph.replay()
        torch.cuda.synchronize()
        now = scheduler.peek()
        assert now["last_epoch"] == before["last_epoch"] + i + 1
        assert now["lrs"] == [group["lr"].item() for group in scheduler.optimizer.param_groups]


def test_found_inf_decides_at_every_replay():
    scheduler = make(factor=0.5)
    metric, found_inf = torch.tensor(1.0, device="cuda"), torch.zeros(1, device="cuda")
    scheduler.step(metric)
    graph = capture(lambda: scheduler.step(metric, found_inf=found_inf))
    epoch = scheduler.last_epoch
    for skip, expected in ((0.0, 1), (1.0, 1), (0.0, 2)):
        found_inf.fill_(skip)
        graph.replay()
        assert scheduler.last_epoch == epoch + expected


def test_reduce_overhead_takes_the_mutation(monkeypatch):
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.triton, "cudagraph_or_error", True)
    torch._dynamo.reset()
    scheduler = deep(stepped_sgd([torch.tensor(0.5, device="cuda")]), 1)
    oracle = deep(stepped_sgd([0.5]), 1)
    metric = torch.tensor(1.0, device="cuda")
    for either in (scheduler, oracle):
        either.step(1.0)
    step = torch.compile(lambda m: scheduler.step(m), mode="reduce-overhead", fullgraph=True)
    for _ in range(12):
        torch.compiler.cudagraph_mark_step_begin()
        step(metric)
        oracle.step(1.0)
        lr = scheduler.optimizer.param_groups[0]["lr"].item()
        assert lr == pytest.approx(oracle.optimizer.param_groups[0]["lr"], rel=2e-7)
    torch._dynamo.reset()


if torch.cuda.device_count() > 1:

    def test_groups_on_several_gpus_are_decided_alike():
        devices = [torch.device("cuda", i % torch.cuda.device_count()) for i in range(5)]
        parts = [
            {"params": [torch.nn.Parameter(torch.zeros(1, device=device))], "lr": torch.tensor(0.5, device=device)}
            for device in devices
        ]
        scheduler = fastsched.ReduceLROnPlateau(torch.optim.SGD(parts, lr=0.1), patience=0, factor=0.5)
        metric = torch.tensor(1.0, device="cuda:0")
        scheduler.step(metric)
        with NoSyncs():
            for _ in range(5):
                scheduler.step(metric)
        assert {group["lr"].item() for group in parts} == {0.5**6}


def test_a_step_runs_on_the_current_stream():
    scheduler = make(groups=1, factor=0.5)
    metric = torch.tensor(1.0, device="cuda")
    scheduler.step(metric)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        metric.fill_(0.0)
        scheduler.step(metric)
    stream.synchronize()
    assert scheduler.best == 0.0


def test_float_lrs_with_a_gpu_metric_warn_once(monkeypatch):
    monkeypatch.setattr("fastsched.engine.metric._warned_about_sync", False)
    scheduler = fastsched.ReduceLROnPlateau(sgd([0.5], "cuda"))
    metric = torch.tensor(1.0, device="cuda")
    with pytest.warns(UserWarning, match=r"fastsched\.use_tensor_lr") as record:
        scheduler.step(metric)
    assert record[0].filename == __file__
    scheduler.step(metric)  # warnings are errors in these tests: a second one would raise
