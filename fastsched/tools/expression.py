"""Schedules written as one line of text, ``warmup(10) >> CosineAnnealingLR(90)``, and read without executing it.

The line is parsed as Python and its syntax tree is walked; anything not listed here is refused.

===========================  =====================================================================================
``StepLR(30, gamma=0.5)``    a scheduler of :mod:`fastsched.lr_scheduler` without its optimizer. Arguments are
                             numbers, strings, lists, tuples, None, True, False, and arithmetic on numbers
``warmup(10)``               linear warm-up over 10 steps, from ``1 / 11`` of the learning rate, or ``start_factor``
``cosine(90, min=0.1)``      from the learning rate down to a tenth of it in 90 steps; likewise ``linear``,
                             ``polynomial`` (``power=``), ``rex``, ``one_minus_sqrt``, ``one_minus_square`` and
                             ``exponential``
``stable(80)``               the learning rate unchanged, for 80 steps
``inverse_sqrt(100)``        down with the inverse square root of the step, without end; 100 is the timescale
``A >> B``                   one after another: a ``SequentialLR``
``A * B``                    both at every step: a ``ChainedScheduler``; binds more tightly than ``>>``
``A @ 10``                   A lasts 10 steps; needed before ``>>`` unless A says so itself (``total_iters``,
                             ``total_steps``, ``T_max``, ``anneal_epochs``, or phases that end)
===========================  =====================================================================================
"""

from __future__ import annotations

import ast
import difflib
import inspect
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .. import lr_scheduler
from ..schedulers import warmup as with_names
from ..schedulers.base import _EngineScheduler
from ..schedulers.compose import ChainedScheduler, SequentialLR, _Composite
from ..schedulers.functions import _FunctionScheduler
from ..schedulers.phases import Phase, PhasesLR

LONGEST = 2000  # characters; longer text was not typed by hand, and might nest too deeply for Python's parser
BITS = 128  # of an integer
DIVISORS = ("step_size", "T_max", "step_size_up", "steps")  # torch divides by these without checking


class ExpressionError(ValueError):
    """What is wrong with an expression, and where.

    Attributes:
        problem: what is wrong, without the place.
        text: the expression.
        start, end: the characters at fault, ``text[start:end]``.
    """

    def __init__(self, problem: str, text: str, start: int, end: int):
        self.problem = problem
        self.text = text
        self.start = start
        self.end = end
        super().__init__(f"{problem}\n  {text}\n  {' ' * start}{'^' * max(end - start, 1)}")


def warmup(optimizer: Optimizer, steps: int, start_factor: float | None = None) -> LRScheduler:
    """Linear warm-up over ``steps`` steps, from zero by default, which is one step before the first."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive whole number, got {steps!r}")
    factor = 1 / (steps + 1) if start_factor is None else start_factor
    scheduler: LRScheduler = lr_scheduler.LinearLR(optimizer, start_factor=factor, total_iters=steps)
    return scheduler


def stable(optimizer: Optimizer, steps: int | None = None) -> LRScheduler:
    """The learning rate unchanged, for ``steps`` steps."""
    return PhasesLR(optimizer, [Phase(steps)])


def inverse_sqrt(optimizer: Optimizer, timescale: float) -> LRScheduler:
    """Down with the inverse square root of the step."""
    return PhasesLR(optimizer, [Phase(None, "inverse_sqrt", timescale=timescale)])


def polynomial(optimizer: Optimizer, steps: int, power: float = 1.0, min: float = 0.0) -> LRScheduler:
    """Down to ``min`` times the learning rate by a polynomial."""
    return PhasesLR(optimizer, [Phase(steps, "polynomial", 1.0, min, power)])


def _falling(name: str, curve: str) -> Callable[..., LRScheduler]:
    def fall(optimizer: Optimizer, steps: int, min: float = 0.0) -> LRScheduler:
        return PhasesLR(optimizer, [Phase(steps, curve, 1.0, min)])

    fall.__name__ = name
    return fall


_FALLING = {
    "cosine": "cosine",
    "exponential": "exponential",
    "linear": "linear",
    "one_minus_sqrt": "1-sqrt",
    "one_minus_square": "1-square",
    "rex": "rex",
}

# torch's schedulers, and those that only fastsched has.
SCHEDULERS: dict[str, Callable[..., Any]] = {
    name: kind
    for module, names in ((lr_scheduler, lr_scheduler.__all__), (with_names, with_names.__all__))
    for name, kind in vars(module).items()
    if name in names and isinstance(kind, type) and issubclass(kind, _EngineScheduler)
}
SCHEDULERS["PhasesLR"] = PhasesLR
CALLABLE = {
    name: kind
    for name, kind in SCHEDULERS.items()
    if not issubclass(kind, (_Composite, _FunctionScheduler)) and kind is not PhasesLR  # type: ignore[arg-type]
}
CALLABLE |= {phase.__name__: phase for phase in (warmup, stable, inverse_sqrt, polynomial)}
CALLABLE |= {name: _falling(name, curve) for name, curve in _FALLING.items()}


def parse(text: str) -> Expression:
    """Read an expression.

    Raises:
        ExpressionError: something in it is not part of the language, or the scheduler has no such argument.
    """
    return _Reader(text).expression()


@dataclass(frozen=True)
class Expression:
    """What was read; ``text[start:end]`` is where."""

    text: str
    start: int
    end: int

    def build(self, optimizer: Optimizer) -> Any:
        """Make the scheduler for an optimizer, as the same calls in Python would.

        Raises:
            ExpressionError: a scheduler refuses its arguments, or how long one lasts is unknown.
        """
        raise NotImplementedError

    def lasts(self, scheduler: Any) -> Any:
        """How many steps the scheduler built from this lasts; None if it has no end."""
        return None

    @property
    def source(self) -> str:
        """The part of the text that this was read from."""
        return self.text[self.start : self.end]

    def error(self, problem: str) -> ExpressionError:
        """An error that points here."""
        return ExpressionError(problem, self.text, self.start, self.end)

    def _make(self, kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return kind(*args, **kwargs)
        except Exception as error:  # whatever it is, this part caused it
            raise self.error(f"{kind.__name__}: {error or type(error).__name__}") from error


@dataclass(frozen=True)
class _Call(Expression):
    name: str
    args: list[Any]
    kwargs: dict[str, Any]

    LENGTHS: ClassVar[tuple[str, ...]] = ("total_iters", "total_steps", "T_max", "anneal_epochs", "length")

    def build(self, optimizer: Optimizer) -> Any:
        return self._make(CALLABLE[self.name], optimizer, *self.args, **self.kwargs)

    def lasts(self, scheduler: Any) -> Any:
        lengths = (getattr(scheduler, name, None) for name in self.LENGTHS)
        return next((steps for steps in lengths if isinstance(steps, (int, float))), None)


@dataclass(frozen=True)
class _Lasting(Expression):
    part: Expression
    steps: int

    def build(self, optimizer: Optimizer) -> Any:
        return self.part.build(optimizer)

    def lasts(self, scheduler: Any) -> Any:
        return self.steps


@dataclass(frozen=True)
class _Sequence(Expression):
    parts: list[Expression]

    def build(self, optimizer: Optimizer) -> Any:
        schedulers = [part.build(optimizer) for part in self.parts]
        milestones: list[int] = []
        for part, scheduler in zip(self.parts[:-1], schedulers, strict=False):
            steps = part.lasts(scheduler)
            if steps is None:
                raise part.error(
                    f"this does not say how many steps it lasts before the next begins; add it with @: "
                    f"{part.source} @ 10"
                )
            if steps // 1 != steps or steps < 1:  # also true for nan and infinity
                raise part.error(f"this lasts {steps} steps; before >> it must be a positive whole number")
            milestones.append(sum(milestones[-1:]) + int(steps))
        return self._make(SequentialLR, optimizer, schedulers, milestones)

    def lasts(self, scheduler: Any) -> Any:
        steps = self.parts[-1].lasts(scheduler._schedulers[-1])
        return None if steps is None else scheduler._milestones[-1] + steps


@dataclass(frozen=True)
class _Chain(Expression):
    parts: list[Expression]

    def build(self, optimizer: Optimizer) -> Any:
        return self._make(ChainedScheduler, [part.build(optimizer) for part in self.parts], optimizer)

    def lasts(self, scheduler: Any) -> Any:
        steps = [part.lasts(child) for part, child in zip(self.parts, scheduler._schedulers, strict=True)]
        return None if None in steps else max(steps)


class _Reader:
    """Walks Python's syntax tree of one text."""

    def __init__(self, text: str):
        # On one line, a position is a column.
        self.text = "".join(" " if character.isspace() else character for character in text).strip()

    def expression(self) -> Expression:
        if not self.text:
            raise ExpressionError("the expression is empty", self.text, 0, 1)
        if len(self.text) > LONGEST:
            raise ExpressionError(f"the expression is longer than {LONGEST} characters", self.text[:60], 0, 60)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's own, about code that is refused anyway
                tree = ast.parse(self.text, mode="eval")
            return self._scheduler(tree.body)
        except SyntaxError as error:
            start = min(max((error.offset or 1) - 1, 0), len(self.text))
            end = max((error.end_offset or 0) - 1, start + 1)
            raise ExpressionError(error.msg, self.text, start, min(end, len(self.text) + 1)) from None
        except ExpressionError:
            raise
        except (ValueError, RecursionError, MemoryError) as error:
            problem = "too deeply nested" if not isinstance(error, ValueError) else str(error)
            raise ExpressionError(problem, self.text.encode(errors="replace").decode(), 0, len(self.text)) from None

    def _place(self, node: Any) -> tuple[str, int, int]:
        encoded = self.text.encode()
        start = len(encoded[: node.col_offset].decode())
        return self.text, start, start + len(encoded[node.col_offset : node.end_col_offset].decode())

    def _error(self, node: Any, problem: str) -> ExpressionError:
        return ExpressionError(problem, *self._place(node))

    def _scheduler(self, node: ast.expr) -> Expression:
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            return self._lasting(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.RShift):
            return _Sequence(*self._place(node), self._operands(node, ast.RShift))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            parts = self._operands(node, ast.Mult)
            for part in parts:
                if isinstance(part, _Lasting):
                    raise part.error("@ goes after the whole chain: (A * B) @ 10")
            return _Chain(*self._place(node), parts)
        if isinstance(node, ast.Name):
            self._callable(node)
            raise self._error(node, f"{node.id} needs its arguments: {node.id}({self._teaching(node.id)})")
        raise self._error(
            node, "expected a scheduler here, such as StepLR(30); schedulers are combined with >> and * and @"
        )

    def _operands(self, node: ast.expr, kind: type[ast.operator]) -> list[Expression]:
        """All three of ``A >> B >> C``, which Python parses as ``(A >> B) >> C``."""
        operands = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, kind):
            operands.append(node.right)
            node = node.left
        return [self._scheduler(operand) for operand in reversed([*operands, node])]

    def _lasting(self, node: ast.BinOp) -> Expression:
        part = self._scheduler(node.left)
        if isinstance(part, _Lasting):
            raise self._error(node.right, "how long this lasts has already been given")
        steps = self._literal(node.right)
        if type(steps) is not int or steps < 1:
            raise self._error(node.right, f"after @ there must be a positive whole number of steps, not {steps!r}")
        return _Lasting(*self._place(node), part, steps)

    def _callable(self, node: ast.Name) -> None:
        name = node.id
        if name in CALLABLE:
            return
        if name not in SCHEDULERS:
            near = difflib.get_close_matches(name, CALLABLE, 1, 0.5)
            known = f"did you mean {near[0]}?" if near else f"available: {', '.join(sorted(CALLABLE))}"
            raise self._error(node, f"there is no scheduler {name}; {known}")
        if issubclass(SCHEDULERS[name], _FunctionScheduler):  # type: ignore[arg-type]
            raise self._error(
                node, f"{name} needs a function, which cannot be written here; in Python: fastsched.plot({name}(...))"
            )
        raise self._error(node, f"{name} is written with operators: A >> B one after another, A * B both at every step")

    def _teaching(self, name: str) -> str:
        bare = (parameter.replace(annotation=parameter.empty) for parameter in _parameters(name).values())
        return ", ".join(map(str, bare))

    def _call(self, node: ast.Call) -> Expression:
        if not isinstance(node.func, ast.Name):
            raise self._error(node.func, "only schedulers can be called, by their plain names, such as StepLR(30)")
        self._callable(node.func)
        name = node.func.id
        parameters = _parameters(name)
        positional = [p for p in parameters.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        if len(node.args) > len(positional):
            surplus = node.args[len(positional)]
            raise self._error(surplus, f"{name} takes only {name}({self._teaching(name)}); the optimizer is left out")
        args = [self._argument(*pair) for pair in zip(node.args, positional, strict=False)]
        given = {parameter.name for parameter in positional[: len(args)]}
        kwargs = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self._error(keyword, "** is not supported here; write the arguments out")
            if keyword.arg not in parameters:
                near = difflib.get_close_matches(keyword.arg, parameters, 1, 0.5)
                known = f"did you mean {near[0]}?" if near else f"it takes {self._teaching(name)}"
                raise self._error(keyword, f"{name} has no argument {keyword.arg}; {known}")
            if keyword.arg in given:
                raise self._error(keyword, f"{name} is given {keyword.arg} twice")
            given.add(keyword.arg)
            kwargs[keyword.arg] = self._argument(keyword.value, parameters[keyword.arg])
        missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in given]
        if missing:
            raise self._error(node, f"{name} needs {' and '.join(missing)}: {name}({self._teaching(name)})")
        return _Call(*self._place(node), name, args, kwargs)

    def _argument(self, node: ast.expr, parameter: inspect.Parameter) -> Any:
        """A value of the type in torch's annotation, and not zero if the schedule divides by it."""
        value = self._literal(node)
        kind = str(parameter.annotation)
        if parameter.annotation is parameter.empty or (value is None and "None" in kind):
            return value
        if "Callable" in kind:
            raise self._error(node, f"{parameter.name} is a function, which cannot be written here")
        listed = isinstance(value, (list, tuple)) and any(name in kind for name in ("list", "Iterable", "Sequence"))
        if "Iterable" in kind and not listed:
            raise self._error(node, f"{parameter.name} must be a list of numbers, such as [30, 60], not {value!r}")
        types, wanted = next(types for name, types in _KINDS.items() if name in kind)
        for item in value if listed else [value]:
            if not isinstance(item, types):
                raise self._error(
                    node, f"{parameter.name} must {'contain only numbers' if listed else f'be {wanted}'}, not {item!r}"
                )
        if parameter.name in DIVISORS and value == 0:
            raise self._error(node, f"{parameter.name} must be 1 or more, not 0")
        return value

    def _literal(self, node: ast.expr) -> Any:
        if isinstance(node, (ast.List, ast.Tuple)):
            values = [self._literal(item) for item in node.elts]
            return values if isinstance(node, ast.List) else tuple(values)
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str, type(None))):
            return self._bounded(node, node.value)
        if isinstance(node, ast.UnaryOp) and type(node.op) in _SIGNS:
            return _SIGNS[type(node.op)](self._number(node.operand))
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return self._arithmetic(node)
        if isinstance(node, ast.Name) and node.id == "optimizer":
            raise self._error(node, "the optimizer is left out here")
        if isinstance(node, ast.Name):
            raise self._error(node, f"a name is not a value; if this is a string, write '{node.id}'")
        raise self._error(node, "an argument must be a number, a string, a list, a tuple, None, True or False")

    def _number(self, node: ast.expr) -> Any:
        value = self._literal(node)
        if type(value) not in (int, float):
            raise self._error(node, f"arithmetic is for numbers, not {value!r}")
        return value

    def _arithmetic(self, node: ast.BinOp) -> Any:
        left, right = self._number(node.left), self._number(node.right)
        if isinstance(node.op, ast.Pow) and type(left) is type(right) is int and (left.bit_length() - 1) * right > BITS:
            raise self._error(node, f"this is larger than 2**{BITS}")
        try:
            value = _ARITHMETIC[type(node.op)](left, right)
        except ArithmeticError as error:
            raise self._error(node, str(error.args[-1])) from None
        if type(value) not in (int, float):
            raise self._error(node, f"this is {value}, not a real number")
        return self._bounded(node, value)

    def _bounded(self, node: ast.expr, value: Any) -> Any:
        if type(value) is int and value.bit_length() > BITS:
            raise self._error(node, f"this is larger than 2**{BITS}")
        return value


_KINDS: dict[str, tuple[Any, str]] = {  # by what an annotation contains; the first match counts
    "Literal": (str, "a string"),
    "bool": (int, "True or False"),
    "": ((int, float), "a number"),
}
_SIGNS: dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    """What a scheduler takes besides its optimizer."""
    called: Any = CALLABLE[name]
    skipped = 1  # the optimizer
    if isinstance(called, type):
        called, skipped = inspect.getattr_static(called, "__init__"), 2
    parameters = list(inspect.signature(called).parameters.values())[skipped:]
    return {parameter.name: parameter for parameter in parameters}


def build(text: str, optimizer: Optimizer) -> Any:
    """Make a scheduler from one line of text, such as ``"warmup(10) >> cosine(90, min=0.1)"``.

    For configuration files and command lines: the text is never executed.

    Args:
        text: schedulers by their fastsched names, without the optimizer, and the phases ``warmup(steps)``,
            ``stable(steps)``, ``cosine(steps, min=0.0)``, ``linear``, ``rex``, ``exponential``, ``one_minus_sqrt`` and
            ``one_minus_square`` (with the same arguments), ``polynomial(steps, power=1.0, min=0.0)`` and
            ``inverse_sqrt(timescale)``.
            ``A >> B`` is one after another, ``A * B`` both at every step, ``A @ 10`` says that A lasts 10 steps.
        optimizer: any :class:`torch.optim.Optimizer`.

    Returns:
        What the same calls in Python would: one scheduler, a :class:`SequentialLR` or a :class:`ChainedScheduler`.

    Raises:
        ValueError: something in the text is not part of the language, or a scheduler refuses its arguments. The message
            quotes the text and underlines the place. The optimizer's learning rates are unchanged.

    Construction may wait for the device, as for any scheduler on tensor learning rates. Step, sync, capture and compile
    are those of the scheduler.

    Example::

        scheduler = fastsched.parse("warmup(10) >> stable(80) >> one_minus_sqrt(10)", optimizer)
    """
    groups = getattr(optimizer, "param_groups", ())
    before = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    lrs = [lr.clone() if isinstance(lr := group.get("lr"), Tensor) else lr for group in groups]
    try:
        return parse(text).build(optimizer)
    except ExpressionError:
        for group, entries, lr in zip(groups, before, lrs, strict=True):  # undo what earlier parts have written
            if isinstance(entries.get("lr"), Tensor):
                entries["lr"].copy_(lr)
            for key in group.keys() - entries.keys() - {"params"}:
                del group[key]
            group.update({key: value for key, value in entries.items() if group[key] is not value})
        raise
