"""Other projects' suites under fastsched."""

import json
import logging
import types

import torch

import fastsched
from fastsched import pytest_plugin

pytest_plugins = ["pytester"]

SUITE = """
import logging
import numpy as np, pytest, torch
from torch.optim.lr_scheduler import LRScheduler, StepLR

class Mine(StepLR):
    pass

class Own(LRScheduler):
    def get_lr(self):
        return self.base_lrs

def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)

@pytest.mark.parametrize("gamma", [0.1, 0.5, np.float64(0.5)])
def test_steps(gamma, caplog):
    caplog.set_level(logging.DEBUG)
    scheduler = StepLR(optimizer(), 3, gamma)
    assert type(scheduler).__module__.startswith("fastsched.")
    for _ in range(4):
        scheduler.optimizer.step()
        scheduler.step()
    assert not [record for record in caplog.records if record.name == "fastsched"]

def test_others():
    Mine(optimizer(), 3)
    Own(optimizer())

def test_fails():
    assert type(StepLR(optimizer(), 3)) is not StepLR
    assert False
"""
EXPECTED = [
    "*= fastsched =*",
    "fastsched's schedulers: 4 of 6",
    "  not fastsched's: Mine (1): Mine is derived from torch's StepLR; derive it from fastsched.StepLR",
    "  not fastsched's: Own (1): Own is not one of torch's schedulers but a class of its own*",
    "  left to torch's code: StepLR (1): `gamma` is of type numpy.float64, not a Python float or int",
]


def test_a_suite_is_run_and_its_schedulers_are_counted(pytester):
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_inprocess("-p", "fastsched.pytest_plugin", "-n0")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines_random(EXPECTED[1:])
    result.stdout.fnmatch_lines(EXPECTED[:1])
    log = logging.getLogger("fastsched")
    assert (log.filters, log.level) == ([], logging.NOTSET)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    assert type(torch.optim.lr_scheduler.StepLR(optimizer, 3)) is not fastsched.StepLR


def test_processes_of_xdist_are_added_up():
    """Each sends its counts as xdist can send them, and the main process adds them to its own."""
    stash = {pytest_plugin._report: pytest_plugin.Report()}
    config = types.SimpleNamespace(stash=stash, workeroutput={})
    report = stash[pytest_plugin._report]
    report.count(fastsched.StepLR)
    report.count(torch.optim.lr_scheduler.StepLR)
    report.filter(logging.makeLogRecord({"args": ("StepLR", "torch's code steps it: because")}))
    report.filter(logging.makeLogRecord({"args": ("StepLR", "the host engine steps it")}))
    pytest_plugin.pytest_sessionfinish(types.SimpleNamespace(config=config))
    sent = json.loads(json.dumps(config.workeroutput))
    pytest_plugin.pytest_testnodedown(types.SimpleNamespace(config=config, workeroutput=sent))
    assert report.numbers()[0] == 2
    assert report.lines()[0] == "fastsched's schedulers: 2 of 4"
    assert report.lines()[-1] == "  left to torch's code: StepLR (2): because"
