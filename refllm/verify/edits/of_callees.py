"""A result taken as it is before the function that makes it has finished: an intermediate of a callee in its place."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from types import FunctionType

from refllm.verify.edits.source import Habit, Source, tight, without_docstring

MOST, LONG = 16, 140  # intermediates of a callee, and the letters of one
UNFINISHED = "for `{}` stands what `{}` has on its way, not its result"


def taken_unfinished(text: Source, function: FunctionType) -> Iterator[Habit]:
    """l, l_back = log_sum_exp(z) ... 2 * l   becomes, in the pullback,   2 * log(sum(exp(z - top(z))))[..., 0]"""
    for node in ast.walk(text.definition):
        target, call = _of_call(node)
        if target is None or call is None or text.in_pullback(node):
            continue
        other = function.__globals__.get(call.func.id) if isinstance(call.func, ast.Name) else None
        if not isinstance(other, FunctionType) or not other.__module__.startswith("refllm.spec"):
            continue
        given = {a: text.segment(x) for a, x in zip(_arguments(other), call.args, strict=False)}
        given |= {k.arg: text.segment(k.value) for k in call.keywords if k.arg}
        uses = [n for n in ast.walk(text.definition) if isinstance(n, ast.Name) and n.id == target
                and isinstance(n.ctx, ast.Load) and text.in_pullback(n)]  # fmt: skip
        for words in _parts(other, tuple(sorted(given.items()))) if uses else ():
            said = UNFINISHED.format(target, other.__name__)
            yield text.all_exchanged(list(uses), words), 1.2, True, said


def _of_call(node: ast.AST) -> tuple[str | None, ast.Call | None]:
    """The name that gets the value of a call, and the call."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
        return None, None
    target = node.targets[0]
    first = target.elts[0] if isinstance(target, ast.Tuple) and len(target.elts) == 2 else target
    return (first.id, node.value) if isinstance(first, ast.Name) else (None, None)


def _arguments(function: FunctionType) -> list[str]:
    code = function.__code__
    return list(code.co_varnames[: code.co_argcount])


@cache
def _parts(function: FunctionType, given: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The steps of its value, in the words of the caller: no whole one, and none of one word."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    known, found = dict(given), list[str]()
    for statement in without_docstring(tree.body):
        if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
            continue
        value = _Put(known).visit(ast.parse(ast.unparse(statement.value), mode="eval")).body
        found += _steps(value)
        known[statement.targets[0].id] = ast.unparse(value)
    words = (w.replace("'", '"') for w in dict.fromkeys(reversed(found)) if len(w) < LONG)
    return tuple(w for w in words if any(name in w for name in dict(given).values()))[:MOST]


def _steps(value: ast.expr) -> list[str]:
    """The parts of an expression; those of what is indexed are indexed as well."""
    index = ast.unparse(value)[len(ast.unparse(value.value)) :] if isinstance(value, ast.Subscript) else ""
    parts = [n for n in ast.walk(value) if isinstance(n, ast.BinOp | ast.Call)]
    return [tight(ast.unparse(n)) + index if index else ast.unparse(n) for n in parts]


class _Put(ast.NodeTransformer):
    """The names that are known in their place."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        words = self.known.get(node.id)
        return node if words is None else ast.parse(tight(words), mode="eval").body
