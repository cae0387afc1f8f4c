"""What torch.compile does not trace: steps that only Python can make, and looks at Python objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])

_dynamo: Any = torch._C._dynamo.eval_frame  # the compiled part of dynamo, which is there without importing the rest
_skipped = _dynamo._FrameExecStrategy(_dynamo._FrameAction.SKIP, _dynamo._FrameAction.SKIP)


def untraced(reason: str) -> Callable[[F], F]:
    """Have torch.compile break its graph where the function is called, and leave alone what the function calls.

    What ``torch.compiler.disable`` does, which imports dynamo and puts a frame around each call.

    Args:
        reason: why, for whoever asked for ``fullgraph=True``, and what helps.
    """

    def mark(function: F) -> F:
        function._torchdynamo_disable = True  # type: ignore[attr-defined]
        function._torchdynamo_disable_msg = reason  # type: ignore[attr-defined]
        _dynamo.set_code_exec_strategy(function.__code__, _skipped)
        return function

    return mark


def compiler_looks_on() -> bool:
    """Whether torch.compile looks at objects just now, for what it calls without tracing it: the getters of properties.

    To torch 2.13 and newer that is ``torch.compiler.is_compiling()`` too; to 2.11 only what is traced is.
    """
    return torch.compiler.is_compiling() or torch._guards.CompileContext.try_get() is not None


# What a compiled step is told of a step that is not.
OFF_PATH = (
    "this step has to be taken by Python: it is the first one, or something changed that it has to look at, or its "
    "compiled code cannot step these learning rates or settings; without fullgraph=True it is taken between two "
    "graphs, and with it one eager step helps where something changed"
)
