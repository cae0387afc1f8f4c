"""Run a test suite with fastsched in place of torch's schedulers: ``pytest -p fastsched.pytest_plugin``.

Its tests get fastsched's schedulers wherever they, or the code under test, construct torch's
(:func:`fastsched.install`). A report at the end says how many schedulers were fastsched's, and which were stepped by
Python code, and why. With pytest-xdist all processes are counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest

from .schedulers.base import _EngineScheduler
from .tools import installation
from .tools.explanation import reason_of_other_class


class Report:
    """Counts schedulers by class, and learns from the log which of fastsched's are left to torch's code."""

    def __init__(self) -> None:
        self.ours = 0
        self.others: Counter[tuple[str, str]] = Counter()  # by class and reason
        self.fallbacks: Counter[tuple[str, str]] = Counter()

    def count(self, kind: type) -> None:
        """Count a scheduler of this class."""
        if issubclass(kind, _EngineScheduler):
            self.ours += 1
        else:
            self.others[kind.__name__, reason_of_other_class(kind)] += 1

    def filter(self, record: logging.LogRecord) -> bool:
        """Count a change of engine, and drop the record: a suite may check what is logged."""
        name, message = record.args  # type: ignore[misc]
        _, left_to_torch, reason = str(message).partition("torch's code steps it: ")
        if left_to_torch:
            self.fallbacks[str(name), reason] += 1
        return False

    def numbers(self) -> list[Any]:
        """The counts as plain values, to send to another process."""
        return [self.ours, *([[*key, n] for key, n in found.items()] for found in (self.others, self.fallbacks))]

    def add(self, numbers: list[Any]) -> None:
        """Add the counts of another process."""
        ours, *parts = numbers
        self.ours += ours
        for found, entries in zip((self.others, self.fallbacks), parts, strict=True):
            found.update({(name, reason): n for name, reason, n in entries})

    def lines(self) -> list[str]:
        """The report."""
        lines = [f"fastsched's schedulers: {self.ours} of {self.ours + self.others.total()}"]
        for title, found in (("not fastsched's", self.others), ("left to torch's code", self.fallbacks)):
            lines += [f"  {title}: {name} ({n}): {reason}" for (name, reason), n in found.most_common()]
        return lines


_report = pytest.StashKey[Report]()
_log = logging.getLogger("fastsched")
_sent = "fastsched"  # the name under which a process of pytest-xdist sends its numbers


def pytest_configure(config: pytest.Config) -> None:
    """Install fastsched and begin to count."""
    config.stash[_report] = report = Report()
    _log.addFilter(report)
    _log.setLevel(logging.INFO)
    installation.on_construction = report.count
    installation.install()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Undo :func:`pytest_configure`."""
    installation.uninstall()
    installation.on_construction = None
    _log.removeFilter(config.stash[_report])
    _log.setLevel(logging.NOTSET)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the counts, in a worker of pytest-xdist."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_sent] = session.config.stash[_report].numbers()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add a worker's counts, in the main process."""
    numbers = getattr(node, "workeroutput", {}).get(_sent)
    if numbers is not None:
        node.config.stash[_report].add(numbers)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the report."""
    terminalreporter.section("fastsched")
    for line in config.stash[_report].lines():
        terminalreporter.write_line(line)
