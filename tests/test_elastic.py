"""Ranks that torchrun starts, and restarts when one of them dies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = Path(__file__).with_name("elastic_training.py")

pytestmark = pytest.mark.timeout(600)  # every restart starts processes that import torch


def torchrun(ranks, folder, *deaths):
    """The trajectories of all ranks, and what torchrun said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [*command, f"--max-restarts={len(deaths)}", "--monitor-interval=0.1", str(TRAINING), str(folder), *deaths],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        cwd=TRAINING.parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return torchrun(2, tmp_path_factory.mktemp("undisturbed"))


def agree(ranks):
    first, *others = ranks
    assert all(other == first for other in others)
    for trajectory in first:
        assert [epoch["epoch"] for epoch in trajectory] == list(range(1, 11))
        assert {epoch["bad_epochs"] for epoch in trajectory} == {0, 1}
        assert len({tuple(epoch["lrs"]) for epoch in trajectory}) > 1  # it was reduced


def test_two_ranks_agree(undisturbed):
    agree(undisturbed)


def test_three_ranks_agree(undisturbed, tmp_path):
    three = torchrun(3, tmp_path)
    agree(three)
    assert three[:2] != undisturbed  # the third rank counts


def test_ranks_that_are_started_again_go_on_to_the_bit(undisturbed, tmp_path):
    # Killed while the other rank waits in its step's collective; after the restart, following a reduction that is not
    # in any checkpoint.
    assert torchrun(2, tmp_path, "0:4:step", "1:6:checkpoint") == undisturbed
    for rank in range(2):
        assert (tmp_path / f"resumed-{rank}.txt").read_text().split("\n") == ["1 4", "2 6", ""]
