"""A size that is taken from a tensor of the caller: the width of the model where that of a head is meant.

    for edit in sizes_read(functions, called): edit.diff()         + sqrt(of_call("grouped_attention", "x").shape[-1])

Only functions that others call have them: what a function takes of its own tensors is among its other edits.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import FunctionType

from refllm.verify.edits import Edit, source_of
from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Source, calls_of

WIDTH, COUNT = 1.15, 1.3  # what it costs: the last axis of a tensor, a number that the caller is given
CALCULATES = {"ratio", "power", "sqrt", "log"}  # words to whose arguments a size is a number, and no shape


def sizes_read(
    functions: Sequence[FunctionType], called: Callable[[FunctionType], list[FunctionType]]
) -> Iterator[Edit]:
    """Edits of what is called, by which a size is that of a tensor of who calls it, or an argument what that was given.

    `called` tells what a function calls.
    """
    for function in functions:
        for caller in functions:
            if function is not caller and function in _below(caller, called):
                yield from _sizes_from(function, caller)
                yield from _arguments_from(function, caller)


def _below(function: FunctionType, called: Callable[[FunctionType], list[FunctionType]]) -> set[FunctionType]:
    """All functions that one of them is made of."""
    found, waiting = set[FunctionType](), [function]
    while waiting:
        for other in called(waiting.pop()):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


@cache
def _sizes_from(function: FunctionType, caller: FunctionType) -> tuple[Edit, ...]:
    return tuple(_made(function, caller))


@cache
def _arguments_from(function: FunctionType, caller: FunctionType) -> tuple[Edit, ...]:
    return tuple(_as_given(function, caller))


def _as_given(function: FunctionType, caller: FunctionType) -> Iterator[Edit]:
    """_adam(g + decay * p, ...): in one statement of `_adam` g is that of `adam`, without what was added."""
    text, of = Source(source_of(function)), Source(source_of(caller))
    for call in calls_of(of, function.__name__):
        for name, argument in zip(text.positional, call.args, strict=False):
            parts = [argument.left, argument.right] if isinstance(argument, ast.BinOp) else []
            for part in [x for x in parts if isinstance(x, ast.Name) and x.id in of.positional]:
                words = f'of_call("{caller.__name__}", "{part.id}")'
                said = f"in one place `{name}` is what is given for `{part.id}` of `{caller.__name__}`"
                for nodes in _of_statements(text, name):
                    yield Edit(function, text.all_exchanged(nodes, words), WIDTH, text.in_pullback(nodes[0]), said=said)


def _of_statements(text: Source, name: str) -> list[list[ast.expr]]:
    """What reads a name, by statement; nothing where one alone does."""
    found = [
        [n for n in ast.walk(s) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)]
        for s in statements(text)
    ]
    read = [list[ast.expr](nodes) for nodes in found if nodes]
    return read if len(read) > 1 else []


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
