"""Expressions build what the same Python would, point at mistakes, and run nothing."""

import inspect
import re

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fastsched
from fastsched.tools import expression
from fastsched.tools.expression import ExpressionError

from .configurations import CONFIGURATIONS, FUNCTIONS
from .optimizers import stepped_sgd
from .trees import plateaus

np = pytest.importorskip("numpy")
CONFIGURED = {name: kind for name, kind in CONFIGURATIONS.items() if name not in FUNCTIONS} | {
    "ReduceLROnPlateau": plateaus
}
LENGTHS = {"LinearLR": "total_iters", "PolynomialLR": "total_iters", "CosineAnnealingLR": "T_max"}


def optimizer_at(lr=0.1):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr, momentum=0.9)
    optimizer._opt_called = True
    return optimizer


def build(text, optimizer=None):
    return expression.parse(text).build(optimizer or optimizer_at())


leaves = st.sampled_from(sorted(CONFIGURED)).flatmap(lambda name: st.tuples(st.just(name), CONFIGURED[name]))
trees = st.recursive(
    leaves,
    lambda parts: st.tuples(
        st.sampled_from([">>", "*"]),
        st.lists(parts, min_size=2, max_size=3),
        st.lists(st.integers(1, 6), min_size=3, max_size=3),
    ),
    max_leaves=5,
)


def length_of(part):
    """How many steps a part says it lasts, if it does."""
    name, *rest = part
    return rest[0].get(LENGTHS[name]) if name in LENGTHS else None


def as_python(optimizer, tree):
    if len(tree) == 2:
        return getattr(fastsched, tree[0])(optimizer, **tree[1])
    kind, parts, lengths = tree
    made = [as_python(optimizer, part) for part in parts]
    if kind == "*":
        return fastsched.ChainedScheduler(made)
    steps = [length_of(part) or length for part, length in zip(parts, lengths, strict=False)]
    return fastsched.SequentialLR(optimizer, made, [sum(steps[: i + 1]) for i in range(len(made) - 1)])


@st.composite
def values_as_text(draw, value):
    if type(value) is int:
        return draw(st.sampled_from([f"{value}", f"{value} * 1", f"({value} + 4) - 2**2", f"+{value}", f"--{value}"]))
    if type(value) is float:
        return draw(st.sampled_from([f"{value!r}", f"{value!r} / 1", f"-(-{value!r})"]))
    return repr(value)


@st.composite
def as_text(draw, tree):
    if len(tree) == 2:
        name, configuration = tree
        arguments = [(key, draw(values_as_text(value))) for key, value in configuration.items()]
        parameters = list(inspect.signature(getattr(fastsched, name).__init__).parameters)[2:]
        keys = [key for key, _ in arguments]
        fit = next((i for i, (a, b) in enumerate(zip(keys, parameters, strict=False)) if a != b), len(keys))
        positional = draw(st.integers(0, fit))
        written = [value if i < positional else f"{key}={value}" for i, (key, value) in enumerate(arguments)]
        return f"{name}({', '.join(written)})"
    kind, parts, lengths = tree
    texts = []
    for part, length in zip(parts, lengths, strict=False):
        text = draw(as_text(part))
        text = f"({text})" if len(part) == 3 else text
        if kind == ">>" and length_of(part) is None:
            text = f"{text} @ {length}"
        texts.append(text)
    return draw(st.sampled_from([" ", "", "\t"])).join([texts[0], *(f"{kind} {text}" for text in texts[1:])])


@given(data=st.data(), tree=trees)
def test_an_expression_builds_what_the_same_python_does(data, tree):
    text = data.draw(as_text(tree))
    expected = as_python(optimizer_at(), tree)
    built = build(text)
    metrics = [1.0, 2.0, 1.0, 0.5, 0.5, 0.5] * 3
    np.testing.assert_array_equal(fastsched.simulate(built, 18, metrics), fastsched.simulate(expected, 18, metrics))
    assert type(built) is type(expected)


def test_the_example_of_the_documentation():
    built = build("warmup(10) >> ReduceLROnPlateau(patience=5)")
    assert isinstance(built, fastsched.SequentialLR)
    assert built._milestones == [10]
    lrs = fastsched.simulate(built, 30, 1.0)[:, 0]
    assert lrs[:10] == pytest.approx([0.1 * (step + 1) / 11 for step in range(10)])
    assert lrs[[10, 15, 16]] == pytest.approx([0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("text", "milestones"),
    [
        ("LinearLR(0.1, total_iters=10) >> CosineAnnealingLR(90) >> ConstantLR(0.5)", [10, 100]),
        ("ConstantLR() >> StepLR(3)", [5]),
        ("OneCycleLR(1, 30) >> StepLR(3)", [30]),
        ("OneCycleLR(1, epochs=3, steps_per_epoch=7) >> StepLR(3)", [21]),
        ("SWALR(0.01, 8) >> StepLR(3)", [8]),
        ("CosineAnnealingLR(90.0) >> StepLR(3)", [90]),
        ("CosineAnnealingLR(90) @ 45 >> StepLR(3)", [45]),
        ("StepLR(3) @ (3 * 30) >> StepLR(3) @ 7", [90]),
        ("(warmup(3) >> CosineAnnealingLR(7)) >> StepLR(3)", [3, 10]),
        ("(warmup(3) >> StepLR(7) @ 6) * ConstantLR(1, 12) >> StepLR(3)", [12]),
        ("warmup(5) >> (warmup(3) >> StepLR(3))", [5]),
    ],
)
def test_how_long_a_part_lasts(text, milestones):
    built = build(text)
    assert built._milestones == milestones


def test_operators_bind_as_in_python():
    built = build("ExponentialLR(0.9) * ConstantLR(0.5, 3) @ 4 >> StepLR(3) * ExponentialLR(0.5)")
    assert built._milestones == [4]
    assert [type(part) for part in built._schedulers] == [fastsched.ChainedScheduler] * 2


# Refused text, and the characters at fault.
REFUSED = [
    ("", " ", "the expression is empty"),
    ("   ", " ", "the expression is empty"),
    ("3", "3", "expected a scheduler here"),
    ("StepLR", "StepLR", r"StepLR needs its arguments: StepLR\(step_size, gamma=0.1"),
    ("StepLR()", "StepLR()", r"StepLR needs step_size: StepLR\(step_size"),
    ("CyclicLR()", "CyclicLR()", r"CyclicLR needs base_lr and max_lr"),
    ("StepLR(3", "(", "never closed"),
    ("StepLR(3))", ")", "unmatched"),
    ("StpLR(3)", "StpLR", r"there is no scheduler StpLR; did you mean StepLR\?"),
    ("Qqqq(3)", "Qqqq", "there is no scheduler Qqqq; available: ConstantLR, "),
    ("StepLR(3, gama=0.5)", "gama=0.5", r"StepLR has no argument gama; did you mean gamma\?"),
    ("StepLR(3, zzz=0.5)", "zzz=0.5", r"StepLR has no argument zzz; it takes step_size"),
    ("StepLR(3, step_size=0.5)", "step_size=0.5", "StepLR is given step_size twice"),
    ("StepLR(3, gamma=1, gamma=2)", "gamma=2", "StepLR is given gamma twice"),
    ("StepLR(3, 0.5, -1, 7)", "7", "the optimizer is left out"),
    ("StepLR(optimizer, 3)", "optimizer", "the optimizer is left out here"),
    ("StepLR(*[3])", "*[3]", "an argument must be a number"),
    ("StepLR(**3)", "**3", r"\*\* is not supported"),
    ("ReduceLROnPlateau(mode=max)", "max", "if this is a string, write 'max'"),
    ("StepLR(3j)", "3j", "an argument must be a number"),
    ("StepLR(b'3')", "b'3'", "an argument must be a number"),
    ("StepLR(...)", "...", "an argument must be a number"),
    ("StepLR({3: 4})", "{3: 4}", "an argument must be a number"),
    ("StepLR(f'{1}')", "f'{1}'", "an argument must be a number"),
    ("StepLR(StepLR(3))", "StepLR(3)", "an argument must be a number"),
    ("StepLR(1 if 2 else 3)", "1 if 2 else 3", "an argument must be a number"),
    ("StepLR('3' * 9)", "'3'", "arithmetic is for numbers"),
    ("StepLR(-'3')", "'3'", "arithmetic is for numbers"),
    ("StepLR([3] * 9)", "[3]", "arithmetic is for numbers"),
    ("StepLR(1 << 3)", "1 << 3", "an argument must be a number"),
    ("StepLR(3 // 0)", "3 // 0", "by zero"),
    ("StepLR(10.0**999)", "10.0**999", "out of range"),
    ("StepLR((-1)**0.5)", "(-1)**0.5", "not a real number"),
    ("StepLR(9**9**9)", "9**9**9", r"larger than 2\*\*128"),
    (f"StepLR({'9' * 50})", "9" * 50, r"larger than 2\*\*128"),
    ("StepLR(10**38 * 10)", "10**38 * 10", r"larger than 2\*\*128"),
    ("LambdaLR(lambda epoch: 1)", "LambdaLR", "LambdaLR needs a function, which cannot be written here"),
    ("MultiplicativeLR(3)", "MultiplicativeLR", "MultiplicativeLR needs a function"),
    ("SequentialLR([])", "SequentialLR", "SequentialLR is written with operators: A >> B"),
    ("ChainedScheduler([])", "ChainedScheduler", "ChainedScheduler is written with operators"),
    ("fastsched.StepLR(3)", "fastsched.StepLR", "only schedulers can be called, by their plain names"),
    ("StepLR(3).step()", "StepLR(3).step", "only schedulers can be called, by their plain names"),
    ("StepLR(3) + StepLR(3)", "StepLR(3) + StepLR(3)", "expected a scheduler here"),
    ("StepLR(3) * 0.5", "0.5", "expected a scheduler here"),
    ("StepLR(3) @ 4 * StepLR(3)", "StepLR(3) @ 4", "@ goes after the whole chain"),
    ("StepLR(3) @ 4 @ 5", "5", "how long this lasts has already been given"),
    ("StepLR(3) @ 0", "0", "after @ there must be a positive whole number of steps, not 0"),
    ("StepLR(3) @ 1.5", "1.5", "after @ there must be a positive whole number"),
    ("StepLR(3) @ '4'", "'4'", "after @ there must be a positive whole number"),
    ("StepLR(3) @ StepLR(3)", "StepLR(3)", "an argument must be a number"),
    ("StepLR(3) >> warmup(3)", "StepLR(3)", r"how many steps it lasts .* add it with @: StepLR\(3\) @ 10"),
    ("warmup(3) * StepLR(3) >> warmup(3)", "warmup(3) * StepLR(3)", "this does not say how many steps"),
    ("(warmup(3) >> StepLR(3)) >> StepLR(1)", "StepLR(3)", "this does not say how many steps"),
    ("CosineAnnealingLR(1.5) >> StepLR(1)", "CosineAnnealingLR(1.5)", "this lasts 1.5 steps"),
    ("ConstantLR(1, 0) >> StepLR(1)", "ConstantLR(1, 0)", "this lasts 0 steps"),
    ("ConstantLR(1, 1e999) >> StepLR(1)", "ConstantLR(1, 1e999)", "this lasts inf steps"),
    ("ConstantLR(1, '5') >> StepLR(1)", "'5'", "total_iters must be a number, not '5'"),
    ("ConstantLR(2)", "ConstantLR(2)", "ConstantLR: .* between 0 and 1"),
    ("StepLR(1) * ConstantLR(2)", "ConstantLR(2)", "ConstantLR: .* between"),
    ("warmup(-1)", "warmup(-1)", "warmup: steps must be a positive whole number, got -1"),
    ("warmup(True)", "warmup(True)", "got True"),
    ("ReduceLROnPlateau('é', patienc=1)", "patienc=1", "did you mean patience"),
    ("a\0b", None, "null"),
    ("é = 3", "=", "invalid syntax"),
    ("(" * 1000, None, "nested"),
    ("-" * 1900 + "1", None, "."),
    ("[" * 60 + "]" * 60, None, "expected a scheduler here"),
    ("StepLR(" + "-" * 1900 + "1)", None, "nested"),
    ("StepLR(3)" * 1000, None, "longer than 2000 characters"),
    ("\udc80", None, "surrogates"),
]


@pytest.mark.parametrize(("text", "fault", "message"), REFUSED, ids=[text[:40] for text, _, _ in REFUSED])
def test_what_is_refused_is_pointed_at(text, fault, message):
    with pytest.raises(ExpressionError, match=message) as caught:
        build(text)
    error = caught.value
    if fault is not None:
        shown = f"{error.text} "[error.start : error.end]
        assert shown == fault or (not error.text and shown == " ")
    _, line, carets = str(error).rsplit("\n", 2)
    assert line == f"  {error.text}"
    assert re.fullmatch(r"  ( *)\^+", carets).group(1) == " " * error.start


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch canary')",
        "StepLR(__import__('os').system('touch canary'))",
        "StepLR(3, gamma=open('canary', 'w').close())",
        "StepLR([open('canary', 'w') for _ in 'a'])",
        "StepLR((lambda: open('canary', 'w'))())",
        "(StepLR := open('canary', 'w'))",
        "StepLR(f\"{open('canary', 'w')}\")",
        "StepLR.__init__.__globals__['os'].mknod('canary')",
        "StepLR(3) @ open('canary', 'w')",
        "open('canary', 'w') >> StepLR(3)",
        "warmup.__class__('canary')",
        "eval('1')",
        "exec(\"open('canary', 'w')\")",
    ],
)
def test_nothing_is_executed(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExpressionError):
        build(text)
    assert not (tmp_path / "canary").exists()


TOKENS = """
    ( ) [ ] , = >> * @ ** // / - 9 0 0.5 1e999 'a' None True gamma step_size lambda for if . : x await yield
    total_iters= factor= StepLR(3) warmup(3) 9**9**9 LambdaLR SequentialLR \\ # " \0 é
"""
tokens = st.sampled_from([*TOKENS.split(), *expression.CALLABLE, " "])


@settings(max_examples=3 * settings.default.max_examples)
@given(text=st.text(max_size=60) | st.lists(tokens, max_size=25).map("".join))
@example("StepLR(" + "9**" * 600 + "9)")
@example("ReduceLROnPlateau(1e999, '\\d')")
@example("1(2)")
def test_anything_else_is_an_expression_error(text):
    try:
        built = build(text)
    except ExpressionError as error:
        assert 0 <= error.start <= len(error.text) or not error.text  # noqa: PT017  not every text is refused
        return
    assert hasattr(built, "step")


def test_every_scheduler_can_be_written_or_says_why_not():
    for name in fastsched.lr_scheduler.__all__:
        if isinstance(getattr(fastsched.lr_scheduler, name), type) and not name.endswith("LRScheduler"):
            assert name in expression.SCHEDULERS


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("StepLR(0)", "step_size must be 1 or more, not 0"),
        ("StepLR(step_size=0)", "step_size must be 1 or more, not 0"),
        ("CosineAnnealingLR(0)", "T_max must be 1 or more, not 0"),
        ("CyclicLR(0.1, 1, 0)", "step_size_up must be 1 or more, not 0"),
        ("warmup(0)", "steps must be 1 or more, not 0"),
        ("StepLR('30')", "step_size must be a number, not '30'"),
        ("StepLR(None)", "step_size must be a number, not None"),
        ("StepLR([30])", r"step_size must be a number, not \[30\]"),
        ("ExponentialLR(gamma='0.9')", "gamma must be a number, not '0.9'"),
        ("MultiStepLR(30)", r"milestones must be a list of numbers, such as \[30, 60\], not 30"),
        ("MultiStepLR('30')", "milestones must be a list of numbers"),
        ("MultiStepLR([30, '60'])", "milestones must contain only numbers, not '60'"),
        ("ReduceLROnPlateau(mode=1)", "mode must be a string, not 1"),
        ("OneCycleLR(0.1, 5, cycle_momentum='no')", "cycle_momentum must be True or False, not 'no'"),
        ("CyclicLR(0.1, 1, scale_fn='f')", "scale_fn is a function, which cannot be written here"),
    ],
)
def test_an_argument_of_another_kind_is_called_by_its_name(text, problem):
    with pytest.raises(expression.ExpressionError, match=f"^{problem}"):
        expression.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "PolynomialLR(0)",
        "LinearLR(total_iters=0)",
        "CyclicLR([0.1], (1,), step_size_down=None)",
        "ReduceLROnPlateau(min_lr=[0])",
    ],
)
def test_what_torch_takes_is_taken(text):
    expression.parse(text).build(stepped_sgd([0.1]))


PHASES = {
    "warmup(10) >> cosine(90, min=0.1)": 100,
    "warmup(4) >> stable(8) >> one_minus_sqrt(4)": 16,
    "stable(3) >> linear(3, 0.5) >> rex(3, 0.25)": 9,
    "stable(2) >> exponential(3, 0.5) >> one_minus_square(3, 0.5) >> polynomial(3, 2, min=0.5)": 11,
    "WarmupStableDecayLR(2, 3, 9) >> WarmupCosineLR(0.5, 4)": 13,
    "warmup(3) >> inverse_sqrt(3)": None,
}


@pytest.mark.parametrize("kind", [float, torch.tensor])
@pytest.mark.parametrize("text", PHASES)
def test_phases_are_part_of_the_language(text, kind):
    optimizer = optimizer_at(kind(0.5))
    scheduler = fastsched.parse(text, optimizer)
    assert expression.parse(text).lasts(scheduler) == PHASES[text]
    for step in range(1, 18):
        scheduler.step()
        assert [group["lr"] for group in optimizer.param_groups] == scheduler.lr_at(step)


def test_a_phase_goes_down_to_its_share():
    lrs = [fastsched.parse("warmup(1) >> cosine(2, min=0.1)", optimizer_at()).lr_at(step)[0] for step in range(5)]
    assert lrs == pytest.approx([0.05, 0.1, 0.055, 0.01, 0.01], rel=1e-15)


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_a_refused_text_leaves_the_optimizer_as_it_was(kind):
    optimizer = optimizer_at(kind(0.5))
    before = dict(optimizer.param_groups[0])
    for text in ("warmup(10) >> rex(0.5)", "warmup(10) >> sine(3)", "stable() >> warmup(3)", "linear(3, min=-1)"):
        with pytest.raises(ValueError, match=r"\^"):
            fastsched.parse(text, optimizer)
        assert optimizer.param_groups[0] == before
        assert optimizer.param_groups[0]["lr"] is before["lr"]


def test_phases_by_their_list_are_written_with_operators():
    with pytest.raises(ExpressionError, match="PhasesLR is written with operators"):
        fastsched.parse("PhasesLR([3])", optimizer_at())
