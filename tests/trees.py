"""Random compositions of schedulers, and a deep one."""

from __future__ import annotations

from hypothesis import strategies as st

import fastsched

from .configurations import CONFIGURATIONS, OWN, tabulated

plateaus = st.fixed_dictionaries(
    {"patience": st.integers(0, 2), "factor": st.floats(0.3, 0.9), "cooldown": st.integers(0, 2)}
)

warmed_up = st.tuples(plateaus, st.integers(0, 3)).map(lambda drawn: {**drawn[0], "warmup_steps": drawn[1]})
greedy = st.fixed_dictionaries(
    {
        "patience": st.integers(0, 1),
        "factor": st.floats(0.3, 0.9),
        "cooldown": st.integers(0, 1),
        "warmup": st.integers(0, 1),
        "min_lr": st.sampled_from([0.0, 0.2, 0.5]),
        "max_lr": st.sampled_from([0.6, 1.0]),
        "smooth": st.booleans(),
        "window_size": st.integers(1, 3),
        "reset_start": st.integers(0, 2),
    }
)
READ_METRICS = {"ReduceLROnPlateau": plateaus, "WarmupReduceLROnPlateau": warmed_up, "GreedyLR": greedy}
LEAVES = {**CONFIGURATIONS, **OWN, **READ_METRICS}

leaves = st.sampled_from(sorted(LEAVES)).flatmap(lambda name: st.tuples(st.just(name), LEAVES[name]))


def trees_of(leaves):
    return st.recursive(
        leaves,
        lambda parts: st.tuples(
            st.sampled_from(["SequentialLR", "ChainedScheduler"]),
            st.lists(parts, min_size=1, max_size=3),
            st.lists(st.integers(1, 6), min_size=2, max_size=2),
        ),
        max_leaves=6,
    )


trees = trees_of(leaves).filter(lambda tree: len(tree) == 3)


def grow(optimizer, tree, composites=fastsched, groups=lambda: None):
    """``groups`` is called for each leaf and returns the groups that it drives."""
    if len(tree) == 2:
        name, configuration = tree
        # Momentum in Python numbers is written by Python, child by child.
        plain = {"cycle_momentum": False} if "cycle_momentum" in configuration else {}
        settings = {**configuration, **plain, **tabulated(fastsched, name)}
        return getattr(fastsched, name)(optimizer, **settings, groups=groups())
    name, parts, lengths = tree
    made = [grow(optimizer, part, composites, groups) for part in parts]
    if name == "ChainedScheduler":
        return composites.ChainedScheduler(made)
    return composites.SequentialLR(optimizer, made, [sum(lengths[: i + 1]) for i in range(len(made) - 1)])


def deep(optimizer, depth):
    """Warm-up then plateau, `depth` chains around it."""
    warm_up = fastsched.LinearLR(optimizer, start_factor=0.25, total_iters=3)
    plateau = fastsched.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scheduler = fastsched.SequentialLR(optimizer, [warm_up, plateau], milestones=[3])
    for _ in range(depth):
        scheduler = fastsched.ChainedScheduler([scheduler, fastsched.ExponentialLR(optimizer, 0.5)])
    return scheduler


def tree_of(scheduler):
    yield scheduler
    for child in getattr(scheduler, "_schedulers", []):
        yield from tree_of(child)


# SWALR starts from the current learning rates.
FUNCTIONS_OF_THE_STEP = sorted({*CONFIGURATIONS, *OWN} - {"SWALR"})

functions_of_the_step = st.sampled_from(FUNCTIONS_OF_THE_STEP).flatmap(
    lambda name: st.tuples(st.just(name), LEAVES[name])
)
