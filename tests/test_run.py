"""``fastsched run``: a script does what it does under python, except for whose schedulers it makes."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

import fastsched
from fastsched.__main__ import main

WHOSE = """
import torch
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
print(type(scheduler).__module__)
"""

# Things a script may look at or do that do not depend on schedulers. They need no torch.
LOOKS = {
    "argv": "import sys; print(sys.argv)",
    "path": "import sys, os; print(os.path.realpath(sys.path[0]))",
    "names": "print(__name__, __file__, __package__, __doc__)",
    "main": "import sys; me = 1; print(sys.modules['__main__'].me, sys.modules['__main__'].__file__)",
    "neighbour": "import neighbour; print(neighbour.WORD)",
    "pickle": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)",
    "exit code": "raise SystemExit(7)",
    "exit message": "import sys; sys.exit('enough')",
    "exit true": "import sys; sys.exit(True)",
    "exception": "def f():\n    raise ValueError('wrong')\nf()",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e",
    "syntax error": "print('never')\nif:\n",
    "import error": "import there_is_no_such_module",
    "os error": "open('there is no such file')",
    "broken pipe": "raise BrokenPipeError('of the script')",
    "excepthook": "import sys; sys.excepthook = lambda kind, error, _: print('hooked', kind, error); 1 / 0",
    "argparse": "import argparse; p = argparse.ArgumentParser(); p.add_argument('-m'); p.add_argument('--steps'); "
    "print(p.parse_args())",
    "usage": "import argparse; argparse.ArgumentParser().parse_args()",
}
IN_A_PROCESS = """
import atexit, pickle, warnings

class Mine:
    pass

@atexit.register
def late():
    print(type(pickle.loads(pickle.dumps(Mine()))) is Mine)

warnings.warn("old", DeprecationWarning)
raise ValueError("wrong")
"""
ARGUMENTS = ["-m", "x", "--steps", "3"]
FRAMES_OF_RUNPY = re.compile(r'  File "[^"]*runpy[^"]*".*\n(?:    .*\n)*')  # before Python 3.11 with source lines


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "neighbour.py").write_text("WORD = 'here'")
    return tmp_path


def outcome(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def in_process(capfd, monkeypatch):
    """The outcome of ``fastsched run``, without the seconds it takes to start python and torch."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    def run(arguments):
        try:
            status = main(["run", *arguments])
        except SystemExit as leaving:
            status = leaving.code
            if not isinstance(status, int):
                sys.stderr.write(f"{status}\n")
                status = 1
        output, errors = capfd.readouterr()
        return int(status), output, errors

    yield run
    fastsched.uninstall()


@pytest.mark.parametrize("name", LOOKS)
def test_a_script_sees_what_it_sees_under_python(name, folder, in_process):
    (folder / "scripts" / "look.py").write_text(LOOKS[name])
    arguments = [os.path.join("scripts", "look.py"), *ARGUMENTS]
    assert in_process(arguments) == outcome([sys.executable, *arguments])


def test_in_a_process_of_its_own(folder):
    (folder / "scripts" / "look.py").write_text(IN_A_PROCESS)
    arguments = [os.path.join("scripts", "look.py"), *ARGUMENTS]
    assert outcome([sys.executable, "-m", "fastsched", "run", *arguments]) == outcome([sys.executable, *arguments])


@pytest.mark.parametrize("name", ["argv", "names", "main", "exit code", "exception", "argparse"])
def test_a_module_sees_what_it_sees_under_python(name, folder, in_process, monkeypatch):
    package = folder / "package"
    package.mkdir()
    monkeypatch.delitem(sys.modules, "package", raising=False)
    (package / "__init__.py").write_text("")
    (package / "look.py").write_text(LOOKS[name])
    expected = outcome([sys.executable, "-m", "package.look", *ARGUMENTS])
    assert in_process(["-m", "package.look", *ARGUMENTS]) == (*expected[:2], FRAMES_OF_RUNPY.sub("", expected[2]))


def test_schedulers_are_fastscheds(folder, in_process):
    (folder / "whose.py").write_text(WHOSE)
    assert in_process(["whose.py"]) == (0, "fastsched.schedulers.epoch\n", "")
    assert in_process(["-m", "whose"]) == (0, "fastsched.schedulers.epoch\n", "")


@pytest.mark.parametrize("arguments", [["there_is_none.py"], ["-m", "there_is_none"], ["-m", "email"]])
def test_what_cannot_be_run_is_named(arguments, folder, in_process):
    status, output, errors = in_process(arguments)
    assert (status, output) == (2, "")
    assert "argument SCRIPT" in errors
    assert arguments[-1] in errors
    assert len(errors.splitlines()) == 1


def test_a_script_is_needed(capsys):
    with pytest.raises(SystemExit):
        main(["run"])
    assert "SCRIPT" in capsys.readouterr().err


def test_an_interrupt_ends_it_as_it_ends_python(folder):
    (folder / "wait.py").write_text("import time\nprint('waiting', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "fastsched", "run", "wait.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert "fastsched" not in errors
