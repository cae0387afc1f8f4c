"""What is distributed: the source distribution, its version, and its description."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import fastsched

ROOT = Path(__file__).parents[1]
NAMED = {"CHANGELOG.md", "CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml"}

in_checkout = pytest.mark.skipif(not (ROOT / "csrc").exists(), reason="there are no sources beside the tests")


@in_checkout
def test_the_source_distribution_has_all_sources_and_nothing_else(tmp_path, monkeypatch):
    from scikit_build_core.build import build_sdist

    monkeypatch.chdir(ROOT)
    with tarfile.open(tmp_path / build_sdist(str(tmp_path))) as archive:
        packed = {name.split("/", 1)[1] for name in archive.getnames()}
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "csrc", "fastsched"]
    sources = set(subprocess.check_output(command, text=True).split())
    assert packed == sources | NAMED | {"PKG-INFO"}


def test_the_changelog_begins_with_this_version():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == fastsched.__version__


def test_modules_are_found_under_the_names_that_they_had():
    from fastsched import lr_buffer, metric, scheduler, tensor_engine

    assert (lr_buffer.__name__, metric.__name__) == ("fastsched.engine.lr_buffer", "fastsched.engine.metric")
    assert scheduler._EngineScheduler in fastsched.StepLR.__mro__
    assert tensor_engine.TensorEngine.__module__ == "fastsched.engine.tensor"
    with pytest.raises(AttributeError, match="no attribute 'there_is_no_such_name'"):
        _ = fastsched.there_is_no_such_name


def test_tools_are_imported_once_they_are_asked_for():
    code = (
        "import sys, fastsched\n"
        "print([name for name in sys.modules if name.startswith('fastsched.tools')])\n"
        "assert set(fastsched.__all__) <= set(dir(fastsched))\n"
        "assert all(getattr(fastsched, name) is getattr(fastsched, name) for name in fastsched.__all__)\n"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
