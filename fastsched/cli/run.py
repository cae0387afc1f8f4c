"""Running any script with fastsched in place of torch's schedulers: ``fastsched run``."""

from __future__ import annotations

import argparse
import builtins
import os
import runpy
import signal
import sys
import types
import zipfile
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from types import TracebackType

from ..tools.installation import install

ABOUT = """\
Runs a script as python does, with fastsched in place of torch's schedulers (fastsched.install()):

  fastsched run train.py --epochs 10
  fastsched run -m package.train --epochs 10
  torchrun --nproc-per-node 2 -m fastsched run train.py --epochs 10

Arguments after the script's name are the script's. FASTSCHED_LOG=1 in the environment logs what steps each scheduler.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "-m", dest="is_module", action="store_true", help="SCRIPT is the name of a module, as in python -m"
    )
    parser.add_argument("script", metavar="SCRIPT", help="a file, or whatever else python runs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="the script's own arguments")


def run(script: str, arguments: Sequence[str], *, is_module: bool) -> int:
    """Run it as ``__main__`` in this process, without cleaning up after the script; returns the exit status.

    Raises:
        SystemExit: the script did.
    """
    sys.argv = [script, *arguments]
    if not getattr(sys.flags, "safe_path", False):  # with safe_path, python has put nothing there
        sys.path[0] = os.getcwd() if is_module else os.path.dirname(os.path.realpath(script))
    install()
    try:
        if is_module:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        elif os.path.isfile(script) and not (zipfile.is_zipfile(script) or script.endswith(".pyc")):
            _run_source(os.path.abspath(script))
        else:
            runpy.run_path(script, run_name="__main__")
    except SystemExit:
        raise
    except BaseException as error:
        traceback = _of_script(error.__traceback__)
        if traceback is None and isinstance(error, (ImportError, OSError)):  # there is no such script
            sys.stderr.write(f"fastsched run: error: argument SCRIPT: {error}\n")
            return 2
        sys.excepthook(type(error), error.with_traceback(traceback), traceback)
        if isinstance(error, KeyboardInterrupt):
            _die_of_interrupt()
        return 1
    return 0


def _run_source(path: str) -> None:
    """As python runs a file. :mod:`runpy` removes the module while threads and ``atexit`` functions still use it."""
    module = types.ModuleType("__main__")
    loader = SourceFileLoader("__main__", path)
    vars(module).update(__file__=path, __loader__=loader, __builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = module
    exec(compile(loader.get_data(path), path, "exec", dont_inherit=True), vars(module))


def _of_script(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames above the script."""
    ours = (__name__, "runpy", "importlib._bootstrap_external")
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") in ours:
        traceback = traceback.tb_next
    return traceback


def _die_of_interrupt() -> None:
    """End as python does, so that a shell loop around it ends as well."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
