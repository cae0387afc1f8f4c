"""Timing fastsched against torch in alternating rounds of one process, so that a drifting machine cancels out."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from timeit import Timer
from typing import Any

import pytest

ROUNDS = 25
ROUND_SECONDS = 0.004


def timer(step: Callable[[Any], Any], argument: Any) -> Timer:
    return Timer("step(argument)", globals={"step": step, "argument": argument})


def calls_per_round(timed: Timer) -> int:
    timed.timeit(1)
    count = 1
    while timed.timeit(count) < ROUND_SECONDS / 2:
        count *= 2
    return count


@pytest.fixture
def compare(benchmark: Any) -> Callable[[Timer, Timer, float], None]:
    """``compare(torch_timer, fastsched_timer, at_least)`` records the median ratio and checks it against a bar."""

    def run(theirs: Timer, ours: Timer, at_least: float) -> None:
        counts = calls_per_round(theirs), calls_per_round(ours)
        torch_times: list[float] = []
        own_times: list[float] = []

        def torch_round() -> None:
            torch_times.append(theirs.timeit(counts[0]) / counts[0])

        def own_round() -> None:
            own_times.append(ours.timeit(counts[1]) / counts[1])

        benchmark.pedantic(own_round, setup=torch_round, rounds=ROUNDS, iterations=1)
        ratios = sorted(slow / fast for slow, fast in zip(torch_times, own_times, strict=True))
        ratio = statistics.median(ratios)
        benchmark.extra_info.update(
            torch_us=statistics.median(torch_times) * 1e6,
            fastsched_us=statistics.median(own_times) * 1e6,
            ratio=ratio,
            ratio_quartiles=[ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]],
            at_least=at_least,
        )
        assert ratio >= at_least, f"{ratio:.1f} times torch; the bar is {at_least}"

    return run
