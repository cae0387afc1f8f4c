"""docs/frameworks.md: every recipe has a test."""

import re
from pathlib import Path

import pytest
from recipes import PAGE, blocks, recipe

CALLS = [
    name
    for file in sorted(Path(__file__).parent.glob("test_*.py"))
    for name in re.findall(r"\brecipe\(\s*\"([\w-]+)\"", file.read_text())
]


@pytest.mark.parametrize("name", blocks())
def test_it_is_used(name):
    assert name in CALLS
    assert recipe(name)


def test_every_marker_is_before_a_recipe():
    assert PAGE.read_text().count("<!-- recipe:") == len(blocks())
