"""Values that are right where they are made, and are taken for each other where they are used.

A port that gives both on its way shows nothing wrong in them. Which pairs there are follows from the text: two names
that a function gives out and reads later on, and of which neither is made of the other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import permutations
from types import FunctionType

from refllm.verify.edits import Edit, source_of

COST, UNLIKELY = 0.62, 0.76  # just above the weights exchanged, which is likelier where no value is given


def exchanged_values(function: FunctionType) -> Iterator[Edit]:
    """Two values of a function exchanged after both were given out, or one in the place of the other."""
    source = source_of(function)
    given, read = _given(source), _last_read(source)
    made_of = _made_of(source)
    for a, b in permutations(given, 2):
        if a in made_of[b] or b in made_of[a]:
            continue
        after = max(given[a][1], given[b][1])
        if read.get(a, 0) <= after:
            continue
        called, other = given[a][0], given[b][0]
        if a < b and read.get(b, 0) > after:
            said = f"{called} and {other} are right, and are exchanged where they are used"
            yield _inserted(function, source, after, f"{a}, {b} = {b}, {a}", COST, said)
        said = f"{called} and {other} are right, and {other} is used in the place of {called}"
        yield _inserted(function, source, after, f"{a} = {b}", UNLIKELY, said)


def _given(source: str) -> dict[str, tuple[str, int]]:
    """The names that are given out, what they are called, and the line after which they stay what they are."""
    found: dict[str, tuple[str, int]] = {}
    for statement in _body(source):
        match statement:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Name(id="tap"), args=[ast.Constant(value=str(called)), *_]),
            ):
                found[name] = called, statement.end_lineno or statement.lineno
            case ast.Assign(targets=[ast.Name(id=name)]) if name in found:
                found[name] = found[name][0], statement.end_lineno or statement.lineno
    return found


def _made_of(source: str) -> dict[str, set[str]]:
    """The names that each one is made of, at one or more removes."""
    found: dict[str, set[str]] = {}
    for statement in _body(source):
        if isinstance(statement, ast.Assign):
            read = {node.id for node in ast.walk(statement.value) if isinstance(node, ast.Name)}
            every = read.union(*(found.get(name, set()) for name in read))
            for target in statement.targets:
                for node in ast.walk(target):
                    if isinstance(node, ast.Name):
                        found.setdefault(node.id, set()).update(every)
    return found


def _last_read(source: str) -> dict[str, int]:
    """The last line in which each name is read."""
    return {
        node.id: node.lineno for statement in _body(source) for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }  # fmt: skip


def _body(source: str) -> list[ast.stmt]:
    [function] = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    return function.body


def _inserted(function: FunctionType, source: str, line: int, added: str, cost: float, said: str) -> Edit:
    """The function with one more statement after a line."""
    place = sum(len(text.encode()) for text in source.splitlines(keepends=True)[:line])
    return Edit(function, ((place, place, f"    {added}\n"),), cost, in_pullback=False, said=said)
