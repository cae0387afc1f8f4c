import subprocess
import sys

import pytest
import torch

import fastsched
from fastsched.__main__ import main


def test_info_names_versions_and_says_why_an_engine_is_missing():
    output = subprocess.check_output([sys.executable, "-m", "fastsched", "info"], text=True)
    assert f"fastsched            {fastsched.__version__}" in output
    assert torch.__version__ in output
    assert "host engine          yes" in output
    cuda = next(line for line in output.splitlines() if line.startswith("tensor engine, CUDA"))
    if torch.version.cuda is None:
        assert "is a build without CUDA" in cuda
    else:
        assert "yes" in cuda or "no CUDA device" in cuda or "Rebuild" in cuda


@pytest.mark.parametrize("arguments", [[], ["fly"]])
def test_a_wrong_command_points_at_the_argument(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "COMMAND" in capsys.readouterr().err
