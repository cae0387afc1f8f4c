"""What is distributed: the source distribution, its version, and its description."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

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


@in_checkout
def test_what_is_pinned_can_be_installed_on_every_python_that_it_is_pinned_for():
    """As far as these very versions are installed here."""
    pythons = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    found = list(importlib.metadata.distributions())
    installed = {(canonicalize_name(each.name), each.version.partition("+")[0]): each.metadata for each in found}
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    unfit = []
    for pin in pins:
        about = installed.get((canonicalize_name(pin.name), str(pin.specifier).removeprefix("==")))
        if about is not None:
            wanted = [each for each in pythons if pin.marker is None or pin.marker.evaluate({"python_version": each})]
            fit = SpecifierSet(about.get("Requires-Python", ""))
            unfit += [(str(pin), version) for version in wanted if not fit.contains(f"{version}.99")]
    assert unfit == []
