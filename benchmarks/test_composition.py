"""Cost of one step of schedulers made of schedulers, over the depth of the composition."""

from __future__ import annotations

import pytest

from fastsched.cli.bench import LIBRARIES, LONG, groups_of

from .conftest import BRIEFLY, timer

# torch steps a composite once while nesting it, and warns that this is too early.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")

DEPTHS = [1, 2, 4, 8, 16]


def side_by_side(library, optimizer, depth):
    return library.ChainedScheduler([library.ExponentialLR(optimizer, 1 - 1e-9) for _ in range(depth)], optimizer)


def nested(library, optimizer, depth):
    """Sequences in sequences, all in their first part."""
    scheduler = library.CosineAnnealingLR(optimizer, T_max=1000)
    for _ in range(depth):
        after = library.ConstantLR(optimizer, total_iters=LONG)
        scheduler = library.SequentialLR(optimizer, [scheduler, after], milestones=[LONG])
    return scheduler


@pytest.mark.parametrize("groups", [1, 100, 1000])
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("composed", [side_by_side, nested], ids=["ChainedScheduler", "SequentialLR"])
@pytest.mark.parametrize("mode", ["host", "tensor"])
def test_composition(compare, benchmark, mode, composed, depth, groups):
    benchmark.extra_info["schedule"] = "ChainedScheduler" if composed is side_by_side else "SequentialLR"
    contestants = {}
    for name, library in LIBRARIES.items():
        optimizer = groups_of(groups, mode)
        scheduler = composed(library, optimizer, depth)
        optimizer.step()
        scheduler.step()
        contestants[name] = timer(scheduler.step)
    compare(contestants, part=BRIEFLY)
