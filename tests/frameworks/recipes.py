"""The recipes of docs/frameworks.md, so that tests run exactly what the page shows."""

import linecache
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"
RECIPE = re.compile(r"^<!-- recipe: ([\w-]+) -->\n```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> dict[str, str]:
    """The code of each recipe, by name."""
    return dict(RECIPE.findall(PAGE.read_text()))


def recipe(name: str, **given: Any) -> Any:
    """What the recipe of that name defines; ``given`` are the names that it expects to exist."""
    code = blocks()[name]
    place = f"{PAGE}: {name}"
    linecache.cache[place] = (len(code), None, code.splitlines(keepends=True), place)  # for tracebacks
    defined = {"__name__": name.replace("-", "_"), **given}
    exec(compile(code, place, "exec"), defined)
    return SimpleNamespace(**defined)
