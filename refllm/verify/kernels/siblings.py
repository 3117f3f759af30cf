"""An operation whose place another one of its kind takes: in the whole answer, or on one path alone, as that of the
numbers that are left after whole vectors.

    for cause in siblings("gelu_erf"):      … by what gelu_tanh, silu, relu or tanh gives
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.case import Case, Response

KINDS = (("gelu_erf", "gelu_tanh", "silu", "relu", "tanh"), ("softmax", "log_softmax"), ("layer_norm", "rms_norm"))
WAYS = {"": "", "value": " in its value alone", "gradient": " in its gradient alone"}


@dataclass(frozen=True, eq=False)
class Sibling:
    id: str
    about: str
    functions: dict[Any, Callable[..., Any]]
    gradients_alone: bool
    issue: str | None = None
    diff: list[tuple[str, list[str]]] = field(default_factory=list)

    def answer(self, case: Case, dtype: str) -> Response | None:
        return plain.answer(case, dtype, self.functions, traced=False, values=not case.cotangents)


def siblings(operation: str) -> Iterator[Sibling]:
    """Those of what an operation is, or calls."""
    called = plain.called(operation) if operation in plain.operations() else ()
    for function in called:
        name = function.__name__
        for other in next((kind for kind in KINDS if name in kind), ()):
            for way, words in WAYS.items() if other != name else ():
                it = "" if name == operation else f" for {name}"
                about = f"{operation} with what {other} gives{it}{words}"
                exchanged = {function: _as(function, plain.text()[other], way)}
                id = f"{operation}/as-{other.replace('_', '-')}{f'-in-{way}' if way else ''}"
                yield Sibling(id, about, exchanged, way == "gradient")


def _as(own: Callable[..., Any], other: Callable[..., Any], way: str) -> Callable[..., Any]:
    """The other operation, of the arguments that it has, or one of its two ways."""

    def exchanged(*arguments: Any, **keywords: Any) -> Any:
        y, back = _of(other, arguments, keywords)
        if not way:
            return y, back
        right, right_back = own(*arguments, **keywords)
        return (y, right_back) if way == "value" else (right, back)

    return exchanged


def _of(other: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    if other.__name__ == "rms_norm" and len(arguments) == 3:
        x, g, b = arguments
        y, back = other(x, g, **keywords)

        def with_shift_back(dy: Array) -> tuple[Array, ...]:
            return (*back(dy), dy.reshape(-1, dy.shape[-1]).sum(axis=0))

        return y + b, with_shift_back
    if other.__name__ == "layer_norm" and len(arguments) == 2:
        x, g = arguments
        y, back = other(x, g, 0 * g, **keywords)
        return y, lambda dy: back(dy)[:2]
    return other(*arguments, **keywords)
