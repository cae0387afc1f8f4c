"""README and guide: every block runs as it stands, no link to a file is dead, no scheduler is left out."""

import contextlib
import inspect
import io
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator, pad
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer
from sybil.parsers.myst import CodeBlockParser
from sybil.parsers.rest.lexers import DirectiveLexer

import fastsched
from fastsched import lr_scheduler
from fastsched.cli import main as cli

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch.compile itself uses deprecated features of torch
    pytest.mark.filterwarnings("ignore:This instance was constructed with capturable=True:UserWarning"),  # warming up
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),
]

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
HOME = r"https://(?:github|raw\.githubusercontent)\.com/fastsched"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("*.rst"))]
GPU_BLOCK = "<!-- gpu -->"  # before a block that needs a CUDA device
BLOCK = r"^(```python|```console|\.\. plot::)$"
SCHEDULERS = [
    name
    for name in lr_scheduler.__all__
    if getattr(getattr(lr_scheduler, name), "__module__", "").startswith("fastsched.")
]


def compile_next(example):
    example.document.pop_evaluator(compile_next)
    compile(pad(example.parsed, example.line + example.parsed.line_offset), example.path, "exec")


def gpu_markers(document):
    """Makes the block after a marker be compiled but not run."""
    for region in DirectiveInHTMLCommentLexer("gpu")(document):
        region.evaluator = lambda example: example.document.push_evaluator(compile_next)
        yield region


def draw(example):
    """A block of the plot directive, which fails if it draws no plot."""
    import matplotlib.pyplot as plt

    plt.close("all")
    PythonEvaluator()(example)
    drawn = len(plt.get_fignums())
    plt.close("all")
    wanted = "nofigs" not in example.region.lexemes["options"]
    return None if drawn == wanted else f"{drawn} pictures"


def command_lines(example):
    """Runs the commands after ``$``; what one prints must be what follows it, if anything does."""
    commands = re.split(r"^\$ ", example.parsed.replace("\\\n", " "), flags=re.MULTILINE)[1:]
    for command, _, shown in (text.partition("\n") for text in commands):
        name, *arguments = shlex.split(command)
        assert name == "fastsched"
        with io.StringIO() as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                status = cli.main(arguments)
            except SystemExit as left:
                status = left.code
            printed = out.getvalue()
        if status == 1:
            pytest.skip(printed)  # the message says that an extra is not installed
        if shown.strip() and printed.strip() != shown.strip():
            return f"$ {command}\nprints\n{printed}"
        if status != 0 and " error: " not in shown:
            return f"$ {command}\nfails:\n{printed}"
    return None


def pictures(document):
    for region in DirectiveLexer("plot")(document):
        region.parsed = region.lexemes["source"]
        region.evaluator = draw
        yield region


def blocks(page, with_gpu):
    if page.suffix == ".rst":
        parsers = [pictures]
    else:
        parsers = [
            CodeBlockParser("python", PythonEvaluator()),
            CodeBlockParser("console", command_lines),
            pictures,
            *([] if with_gpu else [gpu_markers]),
        ]
    return list(Sybil(parsers, patterns=[page.name], path=str(page.parent)).parse(page))


def run(page, with_gpu):
    for example in blocks(page, with_gpu):
        example.evaluate()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Blocks must not write into the tree."""
    torch._dynamo.reset()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # a process group puts its own there
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_in_order(page):
    run(page, with_gpu=False)


@pytest.mark.gpu
@pytest.mark.parametrize("page", [page for page in PAGES if GPU_BLOCK in page.read_text()], ids=lambda page: page.name)
def test_with_the_blocks_that_need_a_gpu(page):
    run(page, with_gpu=True)


def test_no_block_is_overlooked():
    for page in PAGES:
        text = page.read_text()
        assert len(blocks(page, with_gpu=True)) == len(re.findall(BLOCK, text, flags=re.MULTILINE)), page
        assert len(blocks(page, with_gpu=False)) - len(blocks(page, with_gpu=True)) == text.count(GPU_BLOCK), page
        assert text.count(GPU_BLOCK) == text.count(f"{GPU_BLOCK}\n```python"), page


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_has_a_formula_a_picture_and_its_reference(name):
    _, *sections = re.split(r"^(\w+)\n[-~]+\n", (DOCS / "schedulers.rst").read_text(), flags=re.MULTILINE)
    section = dict(zip(sections[::2], sections[1::2], strict=True))[name]
    code = "\n".join(re.findall(r"^\.\. plot::\n((?:   .*\n|\n)+)", section, flags=re.MULTILINE))
    assert ".. math::" in section
    assert f"lr_scheduler.{name}" in code
    assert ":alt: " in code
    assert f":class:`fastsched.{name}`" in section
    assert f".. autoclass:: fastsched.{name}\n" in (DOCS / "api.md").read_text()


@pytest.mark.skipif(not (ROOT / "CMakeLists.txt").exists(), reason="needs the checkout")
@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES], ids=lambda page: page.name)
def test_no_link_to_a_file_is_dead(page):
    """For links within docs/, Sphinx checks the anchors as well."""
    text = page.read_text()
    if page.suffix == ".md":
        links = re.findall(r"\]\((?!https?:|#fastsched)([^)#]+)", text)
        assert [link for link in links if not (page.parent / link).exists()] == []
    at_home = re.findall(rf"{HOME}/fastsched/(?:blob/|tree/)?main/([^)#\s\"]+)", text)
    assert [link for link in at_home if not (ROOT / link).exists()] == []


def test_the_readme_reads_on_a_package_index():
    """Nothing in it is relative to the repository, and it is short."""
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert re.findall(r"\]\((?!https://)[^)]*\)", text) == []


def test_every_picture_has_a_name_of_its_own():
    """To Sphinx each Markdown block is a document, with plots numbered from 1: they would share a file."""
    names = []
    for page in PAGES:
        for block in re.findall(r"^\.\. plot::\n((?:   :.*\n)*)", page.read_text(), flags=re.MULTILINE):
            name = re.search(r":filename-prefix: (\S+)", block)
            assert name or page.suffix == ".rst", f"{page.name}: a picture needs a :filename-prefix:"
            names += [name[1]] if name else []
    assert len(set(names)) == len(names)
    assert not set(names) & {page.stem for page in PAGES}  # Sphinx names numbered plots after the page


PUBLIC = [
    name
    for name in fastsched.__all__
    if callable(getattr(fastsched, name)) and getattr(fastsched, name).__module__.startswith("fastsched")
]


@pytest.mark.parametrize("name", PUBLIC)
def test_help_says_what_there_is_to_know(name):
    """Arguments, errors and an example, in plain text."""
    thing = getattr(fastsched, name)
    text = inspect.getdoc(thing)
    assert ":math:" not in text
    if thing in (fastsched.LRRangeTestResult, fastsched.Explanation):  # nobody constructs these
        return
    parameters = inspect.signature(thing).parameters
    if parameters:
        assert "::\n\n    " in text  # an example
        assert "\nArgs:\n" in text
        assert "\nRaises:\n" in text
    assert [name for name in parameters if not re.search(rf"^    (\w+, )*{name}(, \w+)*:", text, re.MULTILINE)] == []
