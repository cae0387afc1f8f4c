"""Ctrl-C at a given line."""

import gc
import linecache
import sys
import types
from collections.abc import Callable
from pathlib import Path

import fastsched

_PACKAGE = tuple(str(path) for path in Path(fastsched.__file__).parent.rglob("*.py"))


def interrupted(action: Callable[[], object], line: int, *modules: types.ModuleType) -> bool:
    """Run it, with a KeyboardInterrupt before the given one of the lines executed in these modules.

    By default in all of fastsched. False if it has fewer lines: then it was done.
    """
    files = [module.__file__ for module in modules] or _PACKAGE
    closing = None

    def trace(frame: types.FrameType, event: str, about: object):
        nonlocal line, closing
        if frame.f_code.co_filename not in files:
            return None
        # A tracer sees the line of a `with` once more before its exit, where no signal handler ever runs: raising there
        # would leave a lock locked.
        here = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        # From Python 3.13 on it sees a `yield from` once more when the generator is closed before its end, where Python
        # itself drops whatever is raised.
        if event == "exception" and isinstance(about, tuple) and about[0] is GeneratorExit:
            closing = frame
        if event == "line" and frame is not closing and not here.lstrip().startswith("with "):
            line -= 1
            if line == -1:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    gc.disable()  # finalizers of what earlier tests left behind would be traced, and Python drops what those raise
    sys.settrace(trace)
    try:
        action()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
        gc.enable()
    return False
