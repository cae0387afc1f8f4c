"""Timing contestants in alternating rounds of one process, so that a drifting machine cancels out of the ratios."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from timeit import Timer
from typing import Any

import pytest
from tqdm import tqdm

from fastsched.cli.bench import calls_per_round, one_thread, quartiles

ROUNDS = 25
FEWEST_ROUNDS = 5
ROUND_SECONDS = 0.004
CASE_SECONDS = 0.8  # if rounds take longer, there are fewer of them
BRIEFLY = 0.3  # share of rounds and seconds for cases without a bar


class SuppliedTimer(Timer):
    """Times calls that consume their argument: a round's arguments are all made beforehand."""

    def __init__(self, call: Callable[[Any], Any], supply: Callable[[int], Iterator[Any]]):
        self._supply = supply
        self._names: dict[str, Any] = {"call": call}
        super().__init__("call(next(arguments))", globals=self._names)

    def timeit(self, number: int = 1) -> float:
        self._names["arguments"] = self._supply(number)
        return super().timeit(number)


def timer(call: Callable[..., Any], *arguments: Any) -> Timer:
    names = {f"argument{index}": argument for index, argument in enumerate(arguments)}
    return Timer(f"call({', '.join(names)})", globals={"call": call, **names})


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def compare(benchmark: Any) -> Callable[..., dict[str, float]]:
    """``compare({"torch": timer, "fastsched": timer, ...}, at_least=bar)``.

    Records the quartiles of every contestant's time per call and of its ratio to fastsched's in the same round, and
    checks the median ratio of torch to fastsched against the bar. Returns the median ratios.
    """

    def run(contestants: dict[str, Timer], at_least: float = 0.0, part: float = 1.0) -> dict[str, float]:
        gc.collect()
        counts = {name: calls_per_round(timed, ROUND_SECONDS * part) for name, timed in contestants.items()}
        gc.collect()
        times: dict[str, list[float]] = {name: [] for name in contestants}

        def one_round(name: str) -> None:
            times[name].append(contestants[name].timeit(counts[name]) / counts[name])

        def others() -> None:
            for name in contestants:
                if name != "fastsched":
                    one_round(name)

        others()  # one uncounted round of each, to find out how long a round takes
        one_round("fastsched")
        seconds = sum(samples.pop() * counts[name] for name, samples in times.items())
        rounds = max(FEWEST_ROUNDS, int(min(ROUNDS, CASE_SECONDS / seconds) * part))
        benchmark.pedantic(one_round, args=("fastsched",), setup=others, rounds=rounds, iterations=1)
        ratios = {
            name: quartiles([other / own for other, own in zip(samples, times["fastsched"], strict=True)])
            for name, samples in times.items()
            if name != "fastsched"
        }
        benchmark.extra_info.update(
            microseconds={name: [value * 1e6 for value in quartiles(samples)] for name, samples in times.items()},
            ratio=ratios,
            rounds=rounds,
            at_least=at_least,
        )
        if at_least:
            ratio = ratios["torch"][1]
            assert ratio >= at_least, f"{ratio:.1f} times torch; the bar is {at_least}"
        return {name: middle for name, (_, middle, _) in ratios.items()}

    return run


class Progress:
    """A progress bar with the current case and the time left, in place of pytest's dots."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] | None = None

    def pytest_runtestloop(self, session: pytest.Session) -> None:
        self.bar = tqdm(total=len(session.items), unit="case", file=sys.stderr, dynamic_ncols=True, mininterval=0.5)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self.bar is not None:
            self.bar.set_description(nodeid.split("/")[-1], refresh=False)

    def pytest_runtest_logfinish(self) -> None:
        if self.bar is not None:
            self.bar.update()

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return ("passed", "", "") if report.passed and report.when == "call" else None

    def pytest_sessionfinish(self) -> None:
        if self.bar is not None:
            self.bar.close()


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("verbose") < 0:  # --quiet
        config.pluginmanager.register(Progress())
