"""Several ranks: all make the same decisions."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from torch import distributed
from torch.distributed import checkpoint

import fastsched
from tests.conftest import sgd
from tests.ranks import on_ranks

# For each rank, epoch by epoch: alone, they would not reduce together. Their sums are exact in any order.
METRICS = [
    [1.0, 0.75, 0.875, 0.625, 0.6875, 0.25],
    [1.0, 1.375, 0.75, 0.9375, 0.375, 0.875],
    [0.125, 0.25, 0.3125, 0.125, 0.75, 0.25],
]
OPS = {"mean": lambda values: sum(values) / len(values), "sum": sum, "min": min, "max": max}
KINDS = ["float", torch.float32, torch.float64]


def optimizer_of(kind):
    optimizer = sgd([0.1, 0.03])
    return optimizer if kind == "float" else fastsched.use_tensor_lr(optimizer, dtype=kind)


def plateau(optimizer, **keywords):
    return fastsched.ReduceLROnPlateau(optimizer, factor=0.3, patience=0, threshold=0.05, **keywords)


def sequence(optimizer, **keywords):
    children = [fastsched.ConstantLR(optimizer, 0.5, total_iters=9), plateau(optimizer)]
    return fastsched.SequentialLR(optimizer, children, [2], **keywords)


def sequence_of_child(optimizer, **keywords):
    children = [fastsched.ConstantLR(optimizer, 0.5, total_iters=9), plateau(optimizer, **keywords)]
    return fastsched.SequentialLR(optimizer, children, [2])


def chain_by_python(optimizer, **keywords):
    children = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), plateau(optimizer, **keywords)]
    return fastsched.ChainedScheduler(children)


def nested(optimizer, **keywords):
    return fastsched.ChainedScheduler([sequence(optimizer, **keywords), fastsched.ExponentialLR(optimizer, 0.9)])


def greedy(optimizer, **keywords):
    arguments = {"factor": 0.5, "patience": 0, "min_lr": 0.02, "max_lr": 0.2, "reset_start": 1}
    return fastsched.GreedyLR(optimizer, **arguments, smooth=True, window_size=2, **keywords)


BUILDERS = [plateau, greedy, sequence, sequence_of_child, chain_by_python, nested]


def lrs_of(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def run(scheduler, metrics, **keywords):
    seen = []
    for metric in metrics:
        scheduler.optimizer.step()
        scheduler.step(metric, **keywords)
        seen.append(lrs_of(scheduler.optimizer))
    return seen


def step_all(rank, ranks):
    """Every class, kind of LR and operation: each rank with its own metrics."""
    found = {}
    for build in BUILDERS:
        for kind in KINDS:
            for op in OPS:
                scheduler = build(optimizer_of(kind), process_group=distributed.group.WORLD, reduce_op=op)
                metrics = [metric if kind == "float" else torch.tensor(metric) for metric in METRICS[rank]]
                found[build.__name__, str(kind), op] = (run(scheduler, metrics), scheduler.state_dict())
    return found


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_rank_decides_by_the_metric_of_all(ranks):
    first, *others = on_ranks(ranks, step_all, ranks)
    assert all(other == first for other in others)
    for build in BUILDERS:
        for kind in KINDS:
            for op, reduce in OPS.items():
                alone = build(optimizer_of(kind))
                expected = run(alone, [reduce(values) for values in zip(*METRICS[:ranks], strict=True)])
                lrs, state = first[build.__name__, str(kind), op]
                assert lrs == expected, (build, kind, op)
                assert state == alone.state_dict()


def test_a_group_changes_something():
    assert on_ranks(2, step_alone) != on_ranks(1, step_alone) * 2


def step_alone(rank):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(plateau(optimizer_of("float")), METRICS[rank])


def weigh_all(rank):
    return [weigh(rank, kind) for kind in KINDS]


def weigh(rank, kind):
    # 5 samples and 1: the second rank's metric is 0/0 once it has none.
    scheduler = plateau(optimizer_of(kind), process_group=distributed.group.WORLD)
    best = []
    for metrics, weights in [([4.0, 1.0], [5, 1]), ([2.0, math.nan], [5.0, 0.0]), ([1.0, 0.5], [1, 1])]:
        metric, weight = metrics[rank], weights[rank]
        if kind != "float":
            metric, weight = torch.tensor(metric), torch.tensor(weight)
        scheduler.step(metric, weight=weight)
        best.append(scheduler.best)
    return best


def test_weights():
    assert on_ranks(2, weigh_all) == [[[21 / 6, 2.0, 0.75]] * len(KINDS)] * 2


def skip_all(rank):
    return {(str(kind), op): skip(rank, kind, op) for kind in KINDS for op in OPS}


def skip(rank, kind, op):
    scheduler = sequence(optimizer_of(kind), process_group=distributed.group.WORLD, reduce_op=op)
    scheduler.optimizer.step()
    for metric, found in zip([3.0, 1.0, 2.0, 2.5], [None, 1, None, 0], strict=True):
        inf = float(found == rank)
        scheduler.step(metric + rank, found_inf=inf if kind == "float" else torch.tensor(inf))
    return scheduler.last_epoch, scheduler._schedulers[1].best, lrs_of(scheduler.optimizer)


def test_where_one_rank_skips_its_step_all_do():
    first, second = on_ranks(2, skip_all)
    assert first == second
    for (_, op), (steps, best, _) in first.items():
        assert steps == 2  # of four
        assert best == OPS[op]([2.0, 3.0])


def not_a_number_by_all(rank):
    return {op: not_a_number(rank, op) for op in OPS}


def not_a_number(rank, op):
    scheduler = plateau(optimizer_of(torch.float64), process_group=distributed.group.WORLD, reduce_op=op)
    for metrics in ([1.0, 2.0, 3.0], [0.1, math.nan, 0.1], [math.inf, 0.1, 0.2]):
        scheduler.step(metrics[rank])
    return scheduler.state_dict()


def test_the_nan_of_one_rank_is_that_of_all():
    first, *others = on_ranks(3, not_a_number_by_all)
    assert all(other == first for other in others)
    for op, reduce in OPS.items():
        alone = plateau(optimizer_of(torch.float64))
        for metric in (reduce([1.0, 2.0, 3.0]), math.nan, reduce([math.inf, 0.1, 0.2])):
            alone.step(metric)
        assert first[op] == alone.state_dict()


def resume_all(rank):
    return [resume(rank, kind) for kind in KINDS]


def resume(rank, kind):
    def begin():
        return sequence(optimizer_of(kind), process_group=distributed.group.WORLD)

    whole, before, after = begin(), begin(), begin()
    expected = run(whole, METRICS[rank])
    run(before, METRICS[rank][:3])
    after.load_state_dict(before.state_dict())
    after.optimizer.load_state_dict(before.optimizer.state_dict())
    assert run(after, METRICS[rank][3:]) == expected[3:]
    return expected


def test_ranks_agree_after_resuming():
    first, *others = on_ranks(3, resume_all)
    assert all(other == first for other in others)


def some_of_them(rank):
    group = distributed.new_group([0, 2])
    found = []
    try:
        scheduler = plateau(optimizer_of("float"), process_group=group)
    except ValueError as error:
        return str(error)
    for metric in METRICS[rank]:
        scheduler.step(metric)
        found.append(scheduler.best)
    return found


def test_a_group_of_some_ranks():
    first, refused, third = on_ranks(3, some_of_them)
    assert first == third
    assert first[0] == (METRICS[0][0] + METRICS[2][0]) / 2
    assert refused == "process_group: this rank is not in the group; construct it on the group's ranks only"


def copies(rank):
    scheduler = plateau(optimizer_of("float"), process_group=distributed.group.WORLD, reduce_op="max")
    scheduler.step(1.0 + rank)
    assert set(scheduler.state_dict()) == set(plateau_without_warning().state_dict())
    shallow = copy.copy(scheduler)
    assert shallow.process_group is scheduler.process_group
    found = []
    for copied in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        assert copied.process_group is None
        copied.process_group = distributed.group.WORLD
        copied.step(0.5 + rank)
        found.append(copied.best)
    # On one rank only, which would wait for the others if it communicated.
    if rank == 0:
        found.append(fastsched.simulate(scheduler, 3, metrics=[5.0, 6.0, 7.0])[:, 0].tolist())
    return found


def plateau_without_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plateau(optimizer_of("float"))


def test_copies_have_no_group_until_they_are_given_one_and_simulate_communicates_nothing():
    first, second = on_ranks(2, copies)
    assert first == [1.5, 1.5, [0.1, 0.1 * 0.3, 0.1 * 0.3 * 0.3, 0.1 * 0.3 * 0.3 * 0.3]]
    assert second == [1.5, 1.5]


def construct(build, **keywords):
    if build is fastsched.EarlyStopping:
        return build(**keywords)
    scheduler = build(optimizer_of("float"), **keywords)
    scheduler.optimizer.step()
    return scheduler


def warned(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial

    said = []
    mesh = init_device_mesh("cpu", (2,))
    complete = DTensor.from_local(torch.tensor(0.5), mesh, [Partial()])
    for build in (plateau, sequence, chain_by_python, fastsched.EarlyStopping):
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            for metric in (complete, 1.0, 2.0, 2.0):  # the first is the same on all ranks
                one = construct(build)
                one.step(metric)
                one.step(metric)
                said.append(len(record))
        for entry in record:
            assert "pass process_group=torch.distributed.group.WORLD" in str(entry.message), entry.message
            assert entry.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for build in (plateau, sequence, fastsched.EarlyStopping):
            construct(build, process_group=distributed.group.WORLD).step(1.0)
        construct(lambda optimizer: fastsched.StepLR(optimizer, 2)).step()
    return said


def test_without_a_group_ranks_are_warned_once():
    assert on_ranks(2, warned) == [[0, 1, 1, 1] * 4] * 2


def test_without_other_ranks_nobody_is():
    assert on_ranks(1, step_alone_strictly) == [[[0.1, 0.03], [0.03, 0.009]]]


def step_alone_strictly(rank):
    return run(plateau(optimizer_of("float")), [1.0, 2.0])


def compile_steps(rank):
    from torch._dynamo.testing import CompileCounterWithBackend

    found = []
    for build in (sequence, fastsched.EarlyStopping):
        stopping = build is fastsched.EarlyStopping
        one = build(patience=0, process_group=distributed.group.WORLD) if stopping else compiled_one(build)
        frames = CompileCounterWithBackend("aot_eager")
        step = torch.compile(one.step, fullgraph=True, backend=frames)
        for metric in METRICS[rank]:
            answer = step(torch.tensor(metric), weight=torch.tensor(1.0 + rank))
            assert not stopping or bool(answer) == one.should_stop
        found.append((one.state_dict(), frames.frame_count))
    return found


def compiled_one(build):
    scheduler = build(optimizer_of(torch.float32), process_group=distributed.group.WORLD)
    scheduler.optimizer.step()
    scheduler.step(2.0, weight=1)
    return scheduler


def test_compiled_steps_reduce_in_one_graph():
    first, second = on_ranks(2, compile_steps)
    assert first == second
    for build, (state, graphs) in zip((sequence, fastsched.EarlyStopping), first, strict=True):
        assert graphs == 1
        metrics = [(one + 2 * other) / 3 for one, other in zip(*METRICS[:2], strict=True)]
        if build is fastsched.EarlyStopping:
            alone = build(patience=0)
        else:
            alone = build(optimizer_of(torch.float32))
            alone.optimizer.step()
            alone.step(2.0)
        for metric in metrics:
            alone.step(metric)
        assert state == alone.state_dict()


def refused(rank):
    """What is not a group, and what no group can do; nothing is changed, and nothing sent to other ranks."""
    world, other = distributed.group.WORLD, distributed.new_group([0])
    said = []

    def refuse(call, *args, **keywords):
        with pytest.raises((TypeError, ValueError)) as caught:
            call(*args, **keywords)
        said.append(str(caught.value))

    for build in (plateau, sequence, fastsched.EarlyStopping):
        construct(build, process_group=world)
        refuse(construct, build, process_group="gloo")
        refuse(construct, build, process_group=world, reduce_op="avg")
        refuse(construct, build, process_group=distributed.GroupMember.NON_GROUP_MEMBER)
        refuse(construct(build).step, 1.0, weight=2.0)
        refuse(construct(build, process_group=world, reduce_op="sum").step, 1.0, weight=2.0)
        one = construct(build, process_group=world)
        before = one.state_dict()
        refuse(one.step, 1.0, weight=-1.0)
        refuse(one.step, 1.0, weight=math.nan)
        refuse(one.step, 1.0, weight=torch.ones(2))
        refuse(one.step, "1.0.0")
        assert one.state_dict() == before

    optimizer = optimizer_of("float")
    children = [plateau(optimizer, process_group=world), plateau(optimizer, process_group=other)]
    refuse(fastsched.ChainedScheduler, children)
    refuse(fastsched.ChainedScheduler, children[:1], process_group=other)
    refuse(fastsched.ChainedScheduler, children[:1], process_group=world, reduce_op="max")
    assert [child.process_group for child in children] == [world, other]
    refuse(fastsched.ChainedScheduler, [fastsched.ConstantLR(optimizer)], process_group=world)
    return said


def test_what_is_refused_is_named():
    [said] = on_ranks(1, refused)
    each = [
        "process_group must be a process group, got str: pass torch.distributed.group.WORLD, or mesh.get_group()",
        "reduce_op must be one of 'mean', 'sum', 'min', 'max', got 'avg'",
        "process_group: this rank is not in the group; construct it on the group's ranks only",
        "weight= is for a mean over ranks; construct",
        "weight= is for reduce_op='mean', and this is 'sum': leave it out, or weigh the metric",
        "weight must be a finite number, 0 or more, got -1.0",
        "weight must be a finite number, 0 or more, got nan",
        "weight must have one element, got shape (2,)",
        "could not convert string to float: '1.0.0'",
    ]
    for index, message in enumerate(said[: 3 * len(each)]):
        assert each[index % len(each)] in message
    assert said[-2].startswith("ChainedScheduler: a child has another process_group or reduce_op")
    assert said[-4:-1] == [said[-2]] * 3
    assert said[-1].startswith("ChainedScheduler: process_group is for a metric, and nothing here decides by one")


def one_collective(rank):
    """The additional operators of a step, by name, compared with one without a group."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.append(str(function))
            return function(*args, **(kwargs or {}))

    found = []
    for keywords in ({}, {"weight": torch.tensor(1.0), "found_inf": torch.tensor(0.0)}):
        scheduler = compiled_one(plateau)
        called: list[str] = []
        with Operators():
            scheduler.step(torch.tensor(1.0), **keywords)
        found.append([name for name in called if "c10d" in name or "local_scalar" in name])
    return found


def test_a_step_is_one_collective_and_reads_nothing():
    on_host = "aten._local_scalar_dense.default"  # found_inf, where the host steps
    assert on_ranks(2, one_collective) == [[["c10d.allreduce_.default"], ["c10d.allreduce_.default", on_host]]] * 2


def complete(rank):
    """Metrics of which each rank has a part, or which are still pending."""
    from torch.distributed import _functional_collectives as functional
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

    warnings.filterwarnings("ignore", ".*process_group")
    mesh = init_device_mesh("cpu", (2,))
    part = torch.tensor(1.0 + rank)

    def metrics():
        yield DTensor.from_local(part, mesh, [Partial()]), 3.0
        yield DTensor.from_local(part, mesh, [Partial("avg")]), 1.5
        yield DTensor.from_local(part.reshape(1)[rank:], mesh, [Shard(0)], shape=(1,), stride=(1,)), 1.0
        yield DTensor.from_local(torch.tensor(5.0), mesh, [Replicate()]), 5.0
        yield functional.all_reduce(part, "sum", distributed.group.WORLD), 3.0

    for expected in range(5):
        for build in (plateau, chain_by_python, nested, fastsched.EarlyStopping):
            for kind in KINDS:
                metric, value = list(metrics())[expected]
                one = build() if build is fastsched.EarlyStopping else build(optimizer_of(kind))
                if build is not fastsched.EarlyStopping:
                    one.optimizer.step()
                if build is nested:
                    one.step(9.0), one.step(9.0)
                for _ in range(2):
                    one.step(metric)
                best = [one.best] if hasattr(one, "best") else bests(one)
                assert best == [value], (build, kind, metric)
    skipped = plateau(optimizer_of("float"))
    skipped.step(1.0, found_inf=DTensor.from_local(torch.tensor(float(rank)), mesh, [Partial()]))
    assert skipped.last_epoch == 0
    return True


def bests(composition):
    found = []
    for child in composition._schedulers:
        found += [child.best] if hasattr(child, "best") else bests(child) if hasattr(child, "_schedulers") else []
    return found


def test_metrics_of_which_each_rank_has_a_part_are_made_whole():
    assert on_ranks(2, complete) == [True] * 2


def find_rate(rank, together):
    """A range test with different data on each rank; they train together, by averaging gradients."""
    torch.manual_seed(rank)
    inputs = torch.randn(64, 4)
    batches = [(part, part.sum(1, keepdim=True) * (1 + rank)) for part in inputs.split(8)]
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    keywords = {"process_group": distributed.group.WORLD} if together else {}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = fastsched.lr_range_test(
            model, optimizer, torch.nn.MSELoss(), batches, start_lr=1e-3, progress=False, num_iter=60, **keywords
        )
    assert all(map(torch.equal, before, model.parameters()))
    said = [str(entry.message) for entry in said if "process_group" in str(entry.message)]
    assert said == [] if together else "has the curve of its own losses" in said[0]
    return result.losses, result.diverged_at, result.suggestion()


def test_a_range_test_has_one_curve_on_all_ranks():
    first, second = on_ranks(2, find_rate, True)
    assert first == second
    assert first[1] is not None
    alone, other = on_ranks(2, find_rate, False)
    assert alone != other
    means = [(a + b) / 2 for a, b in zip(alone[0], other[0], strict=False)]
    assert first[0][: len(means)] == pytest.approx(means, rel=1e-6)


SCHEDULES = [
    lambda optimizer: plateau(optimizer, process_group=distributed.group.WORLD),
    lambda optimizer: sequence(optimizer, process_group=distributed.group.WORLD),
    lambda optimizer: fastsched.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
    lambda optimizer: fastsched.OneCycleLR(optimizer, 0.5, total_steps=20),
    lambda optimizer: fastsched.SWALR(optimizer, 0.05),
    lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2),
]


def come_apart(rank, index, kind):
    scheduler = SCHEDULES[index](optimizer_of(kind))
    optimizer = scheduler.optimizer
    fastsched.assert_ranks_agree(scheduler)
    for _ in range(2):
        optimizer.step()
        scheduler.step(*([1.0] if index < 2 else []))
    fastsched.assert_ranks_agree(scheduler)
    if rank == 1:
        scheduler.last_epoch += 1
        with torch.no_grad():
            for group in optimizer.param_groups:
                group["lr"] = 0.0625 if kind == "float" else group["lr"].fill_(0.0625)
    with pytest.raises(AssertionError, match=r"'last_epoch'\] is 2 on ranks 0, 2; 3 on rank 1") as caught:
        fastsched.assert_ranks_agree(scheduler)
    tensors = [group["lr"] for group in optimizer.param_groups]
    fastsched.broadcast_state(scheduler, src=1)
    fastsched.assert_ranks_agree(scheduler)
    assert lrs_of(optimizer) == [0.0625] * 2
    assert kind == "float" or all(group["lr"] is lr for group, lr in zip(optimizer.param_groups, tensors, strict=True))
    optimizer.step()
    scheduler.step(*([1.0] if index < 2 else []))
    fastsched.assert_ranks_agree(scheduler)
    return scheduler.last_epoch, lrs_of(optimizer), str(caught.value)


def come_apart_all(rank):
    return [come_apart(rank, index, kind) for kind in ("float", torch.float32) for index in range(6)]


def test_ranks_that_came_apart_are_told_and_made_equal():
    first, *others = on_ranks(3, come_apart_all)
    assert all(other == first for other in others)
    assert all(last == 4 for last, *_ in first)


def stop_apart(rank):
    model = torch.nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(rank)
    stopper = fastsched.EarlyStopping(patience=0, model=model, process_group=distributed.group.WORLD)
    stopper.process_group = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stopper.step(float(rank))
    with pytest.raises(AssertionError, match=r"EarlyStopping differ: state_dict\(\)\['best'\] is 0.0 on rank 0; 1.0"):
        fastsched.assert_ranks_agree(stopper)
    fastsched.broadcast_state(stopper, src=1)
    fastsched.assert_ranks_agree(stopper)
    return stopper.best, stopper.state_dict()["best_weights"]["weight"].item()


def test_stoppers_that_came_apart_too():
    assert on_ranks(2, stop_apart) == [(1.0, 1.0)] * 2


def test_without_ranks_nothing_is_compared():
    with pytest.raises(ValueError, match="init_process_group"):
        fastsched.assert_ranks_agree(plateau(optimizer_of("float")))
    with pytest.raises(ValueError, match="init_process_group"):
        fastsched.broadcast_state(plateau(optimizer_of("float")))


def other_groups(rank):
    scheduler = fastsched.StepLR(sgd([0.1] * (1 + rank)), 2)
    before = scheduler.state_dict()
    if rank == 0:
        fastsched.broadcast_state(scheduler)
    else:
        with pytest.raises(ValueError, match="rank 0 has 1 param groups, this one 2; construct them the same way"):
            fastsched.broadcast_state(scheduler)
    with pytest.raises(TypeError, match=r"state_dict\(\) and load_state_dict\(\), got float"):
        fastsched.assert_ranks_agree(1.0)
    assert scheduler.state_dict() == before
    return True


def test_a_state_that_does_not_fit_changes_nothing():
    assert on_ranks(2, other_groups) == [True] * 2


def sharded_model(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(rank)
    inputs = torch.randn(8, 4)
    return mesh, model, optimizer, inputs, inputs.sum(1, keepdim=True)


def whole(model):
    return [parameter.full_tensor().clone() for parameter in model.parameters()]


def stop_sharded(rank, by_device):
    _, model, optimizer, inputs, targets = sharded_model(rank)
    model(inputs)  # leaves the root's parameters gathered
    stopper = fastsched.EarlyStopping(model=model, process_group=distributed.group.WORLD)
    if by_device:  # as metrics on a GPU do, where the host does not know
        stopper._weights.keep = lambda: stopper._weights.keep_if(torch.tensor(1.0))
    for metric in (3.0, 1.0, 2.0):
        torch.nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        model(inputs)
        stopper.step(metric)
        if metric == 1.0:
            best = whole(model)
    model(inputs)
    stopper.restore_best()
    assert all(map(torch.equal, whole(model), best))
    resumed = fastsched.EarlyStopping(model=model, process_group=distributed.group.WORLD)
    resumed.load_state_dict(stopper.state_dict())
    return [tensor.tolist() for tensor in best]


@pytest.mark.parametrize("by_device", [False, True])
def test_the_best_weights_of_a_sharded_model(by_device):
    first, second = on_ranks(2, stop_sharded, by_device)
    assert first == second


def find_rate_sharded(rank):
    _, model, optimizer, inputs, targets = sharded_model(rank)
    keywords = {"num_iter": 5, "progress": False, "process_group": distributed.group.WORLD}
    batches = [(inputs, targets)]
    found = []
    for validation in (None, batches):
        model(inputs)
        before = list(model.parameters())
        model(inputs)
        found.append(
            fastsched.lr_range_test(
                model, optimizer, torch.nn.MSELoss(), batches, validation_loader=validation, **keywords
            ).losses
        )
        now = list(model.parameters())
        assert [type(parameter) for parameter in now] == [type(parameter) for parameter in optimizer_params(optimizer)]
        assert len(before) == len(now)
        torch.nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return found


def optimizer_params(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def test_a_range_test_of_a_sharded_model():
    first, second = on_ranks(2, find_rate_sharded)
    assert first == second


def lrs_sharded(rank):
    from torch.distributed.tensor import DTensor, Replicate

    mesh, model, optimizer, _, _ = sharded_model(rank)
    fastsched.use_tensor_lr(optimizer)
    assert type(optimizer.param_groups[0]["lr"]) is torch.Tensor
    assert optimizer.param_groups[0]["lr"].device == torch.device("cpu")
    scheduler = plateau(optimizer, process_group=distributed.group.WORLD)
    scheduler.step(1.0)
    scheduler.step(2.0)
    of_ranks = DTensor.from_local(torch.tensor(0.5), mesh, [Replicate()])
    other = torch.optim.SGD([{"params": [part], "lr": 0.5} for part in model.parameters()], lr=0.1)
    other.param_groups[1]["lr"] = of_ranks
    for convert in (fastsched.use_tensor_lr, fastsched.use_float_lr):
        with pytest.raises(TypeError, match=r"param_groups\[1\]\['lr'\] is a DTensor.*set it to lr.full_tensor\(\)"):
            convert(other)
        assert [group["lr"] for group in other.param_groups if group["lr"] is not of_ranks] == [0.5] * 3
    return lrs_of(optimizer)


def test_learning_rates_of_sharded_parameters_are_plain():
    lr = torch.tensor(0.1 * 0.3).item()
    assert on_ranks(2, lrs_sharded) == [[lr]] * 2


def save_distributed(rank, folder, way):
    scheduler, stopper = begin_distributed()
    for metric in METRICS[rank][:4]:
        scheduler.optimizer.step()
        scheduler.step(metric)
        stopper.step(metric)
    state = distributed_state(scheduler, stopper, way)
    if way == "async":
        checkpoint.async_save(state, checkpoint_id=folder).result()
    else:
        checkpoint.save(state, checkpoint_id=folder)
    return after_loading(scheduler, stopper)


def load_distributed(rank, folder, way):
    scheduler, stopper = begin_distributed()
    state = distributed_state(scheduler, stopper, way)
    checkpoint.load(state, checkpoint_id=folder)
    if way == "flat":
        state = {
            name: {key: state[f"{name}.{key}"] for key in part} for name, part in parts(scheduler, stopper).items()
        }
    scheduler.load_state_dict(state["scheduler"])
    scheduler.optimizer.load_state_dict(state["optimizer"])
    stopper.load_state_dict(state["stopper"])
    fastsched.assert_ranks_agree(scheduler)
    fastsched.assert_ranks_agree(stopper)
    return after_loading(scheduler, stopper)


def begin_distributed():
    world = distributed.group.WORLD
    return sequence(optimizer_of(torch.float32), process_group=world), fastsched.EarlyStopping(process_group=world)


def parts(scheduler, stopper):
    return {name: part.state_dict() for name, part in named(scheduler, stopper).items()}


def named(scheduler, stopper):
    return {"scheduler": scheduler, "optimizer": scheduler.optimizer, "stopper": stopper}


def distributed_state(scheduler, stopper, way):
    state = parts(scheduler, stopper)
    if way != "flat":
        return state
    return {f"{name}.{key}": value for name, part in state.items() for key, value in part.items()}


def after_loading(scheduler, stopper):
    """What happens with metrics that are equal on all ranks, however many there are."""
    lrs = []
    for metric in (0.5, 0.75, 0.75, 0.25, 0.5):
        scheduler.optimizer.step()
        scheduler.step(metric)
        stopper.step(metric)
        lrs.append(lrs_of(scheduler.optimizer))
    return lrs, scheduler.state_dict(), stopper.state_dict()


@pytest.mark.parametrize("way", ["nested", "flat", "async"])
def test_distributed_checkpoints_go_on_exactly_on_fewer_ranks(way, tmp_path):
    saved = on_ranks(2, save_distributed, str(tmp_path), way)
    assert saved[0] == saved[1]
    for ranks in (2, 1):
        assert on_ranks(ranks, load_distributed, str(tmp_path), way) == [saved[0]] * ranks
