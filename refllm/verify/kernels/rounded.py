"""A value of the text that is kept in a narrow type, or a function that is taken of narrow numbers or gives them.

    for cause in roundings("softmax"):     softmax whose exp is rounded to bfloat16 … whose Z is rounded to tf32

Which values there are follows from the lines of the text, whatever the operation is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from refllm.verify.edits.source import Changes, Source
from refllm.verify.kernels.in_text import InText, Lines, in_text

TYPES = ("float16", "bfloat16", "tf32")
OF_NUMBERS = ("exp", "tanh", "sigmoid", "sqrt", "log", "erf", "erfc")  # functions that kernels take from tables


@dataclass(frozen=True, eq=False)
class Rounded(InText):
    narrows: bool = True
    of_digits: bool = True  # it explains nothing but lost digits
    pointwise: bool = True  # each number is rounded for itself, so that errors of the same size are other ones


def roundings(operation: str) -> Iterator[InText]:
    return in_text(operation, _lines, Rounded, in_pullback=False)


def _lines(text: Source) -> Iterator[Lines]:
    for words, name, changes in _of(text):
        yield Lines(f"whose {words}", name, changes)


def _of(text: Source) -> Iterator[tuple[str, str, Changes]]:
    for call in _calls(text):
        name, argument = text.segment(call.func), text.segment(call.args[0])
        for dtype in TYPES:
            taken, given = f'{name}(rounded({argument}, "{dtype}"))', f'rounded({text.segment(call)}, "{dtype}")'
            both = f'rounded({taken}, "{dtype}")'
            argument_words, words = f"{name} is taken of {dtype} numbers", f"rounded to {dtype}"
            yield f"{argument_words} and {words}", f"{name}-of-and-in-{dtype}", text.exchanged(call, both)
            yield f"{name} is {words}", f"{name}-in-{dtype}", text.exchanged(call, given)
            yield argument_words, f"{name}-of-{dtype}", text.exchanged(call, taken)
    for statement, name in _values(text):
        for dtype in TYPES:
            at = text.offsets[statement.end_lineno or statement.lineno]
            line = f'{" " * statement.col_offset}{name} = rounded({name}, "{dtype}")\n'
            yield f"{name} is rounded to {dtype}", f"{name}-in-{dtype}", ((at, at, line),)


def _calls(text: Source) -> Iterator[ast.Call]:
    """Of functions of single numbers, on the way forward."""
    yield from (node for node in text.expressions() if _is_of_numbers(node) and not text.in_pullback(node))  # type: ignore[misc]


def _is_of_numbers(node: ast.expr) -> bool:
    of_one = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1
    return of_one and node.func.id in OF_NUMBERS  # type: ignore[attr-defined]


def _values(text: Source) -> Iterator[tuple[ast.stmt, str]]:
    """What has a name on the way forward, and the statement that gives it, but for what is a call of those."""
    for statement in text.body():
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and not _is_of_numbers(statement.value):
            target = statement.targets[0]
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            yield from (
                (statement, part.id) for part in parts if isinstance(part, ast.Name) and not part.id.endswith("_back")
            )
