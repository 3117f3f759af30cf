"""A size that is taken from a tensor of the caller: the width of the model where that of a head is meant.

    for edit in sizes_read(called, calls_of): edit.diff()         + sqrt(of_call("grouped_attention", "x").shape[-1])

Only functions that others call have them: what a function takes of its own tensors is among its other edits.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import FunctionType

from refllm.verify.edits import Edit, source_of
from refllm.verify.edits.source import Source

WIDTH, COUNT = 1.15, 1.3  # what it costs: the last axis of a tensor, a number that the caller is given
CALCULATES = {"ratio", "power", "sqrt", "log"}  # words to whose arguments a size is a number, and no shape


def sizes_read(
    functions: Sequence[FunctionType], calls_of: Callable[[FunctionType], list[FunctionType]]
) -> Iterator[Edit]:
    """Edits of what is called, by which a size is that of a tensor of who calls it."""
    for function in functions:
        for caller in functions:
            if function is not caller and function in _below(caller, calls_of):
                yield from _sizes_from(function, caller)


def _below(function: FunctionType, calls_of: Callable[[FunctionType], list[FunctionType]]) -> set[FunctionType]:
    """All functions that one of them is made of."""
    found, waiting = set[FunctionType](), [function]
    while waiting:
        for other in calls_of(waiting.pop()):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


@cache
def _sizes_from(function: FunctionType, caller: FunctionType) -> tuple[Edit, ...]:
    return tuple(_made(function, caller))


def _made(function: FunctionType, caller: FunctionType) -> Iterator[Edit]:
    text, of = Source(source_of(function)), Source(source_of(caller))
    given = [(name, f'of_call("{caller.__name__}", "{name}").shape[-1]', WIDTH) for name in _tensors(of)[:1]]
    given += [(name, f'of_call("{caller.__name__}", "{name}")', COUNT) for name in sorted(of.whole)]
    alike: dict[str, list[ast.expr]] = {}
    for node in text.expressions():
        if _is_size(text, node) and not text.in_pullback(node):
            alike.setdefault(text.segment(node), []).append(node)
    for old, nodes in alike.items():
        for name, words, cost in given:
            said = f"`{old}` is {'the width of ' if cost == WIDTH else ''}`{name}` of `{caller.__name__}`"
            for node in nodes:
                yield Edit(function, text.exchanged(node, words), cost, False, said=said)
            if nodes[1:]:
                yield Edit(function, text.all_exchanged(nodes, words), cost + 0.1, False, said=said)


def _tensors(text: Source) -> list[str]:
    """The arrays that are given first."""
    found = []
    for argument in text.definition.args.args:
        words = text.segment(argument.annotation) if argument.annotation is not None else ""
        if words == "Array":
            found.append(argument.arg)
    return found


def _is_size(text: Source, node: ast.expr) -> bool:
    """Whether this is a size with which something is calculated."""
    is_dimension = isinstance(node, ast.Name) and len(node.id) == 1 and node.id.isupper()
    is_axis = isinstance(node, ast.Subscript) and text.segment(node.value).endswith(".shape")
    parent = text.parents.get(node)
    if not (is_dimension or is_axis) or isinstance(getattr(node, "ctx", None), ast.Store):
        return False
    if isinstance(parent, ast.BinOp):
        return isinstance(parent.op, ast.Div | ast.Mult)
    return isinstance(parent, ast.Call) and text.segment(parent.func) in CALCULATES
