"""Statements that are dropped, moved or added."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.expressions import FIXED, alike, pairs
from refllm.verify.edits.source import Source, without_docstring


def statements_changed(text: Source) -> Iterator[tuple[str, float, bool]]:
    """One statement dropped, moved to another place of its block, or its branch always or never taken."""
    for block in _blocks(text):
        for n, statement in enumerate(block):
            if isinstance(statement, ast.Return | ast.FunctionDef):
                continue
            inside = text.in_pullback(statement)
            yield text.exchanged(statement, "pass"), 1.3, inside
            for other in range(len(block)):
                if other not in (n, n + 1) and not isinstance(block[other], ast.FunctionDef):
                    yield _moved(text, statement, block[other]), 1.8, inside
            if isinstance(statement, ast.If):
                for value in ("True", "False"):
                    yield text.exchanged(statement.test, value), 1.1, inside
                yield text.exchanged(statement.test, f"not ({text.segment(statement.test)})"), 1.2, inside


def _blocks(text: Source) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(text.definition):
        for field in ("body", "orelse"):
            block = getattr(node, field, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield without_docstring(block)


def _moved(text: Source, statement: ast.stmt, before: ast.stmt) -> str:
    lines = [*text.lines]
    first, last = statement.lineno - 1, statement.end_lineno or statement.lineno
    taken = lines[first:last]
    place = before.lineno - 1
    if place > first:
        lines[place:place] = taken
        del lines[first:last]
    else:
        del lines[first:last]
        lines[place:place] = taken
    return "".join(lines)


def fixed_arguments(text: Source) -> Iterator[tuple[str, float]]:
    """A first line that changes what was given, or takes another operation for this one."""
    for name in text.keywords:
        anything = ("0", "1", f"{name} + 1", f"{name} - 1", f"-{name}", f"2 * {name}")
        yield from ((f"{name} = {value}", 1.0) for value in FIXED.get(name, ()))
        yield from ((f"{name} = {value}", 1.4) for value in anything)
    for name in text.positional:
        others = (f"{name} + 1", f"{name} - 1", f"-{name}", f"2 * {name}", f"{name} * 0", f"swap({name})")
        yield from ((f"{name} = {value}", 1.4) for value in others)
    if len(text.positional) == 1 and not text.keywords:
        yield f"return columns({text.definition.name})({text.positional[0]})", 1.0
    arguments = ", ".join([*text.positional, *(f"{name}={name}" for name in text.keywords)])
    for other in alike(text.definition.name):
        yield f"return {other}({arguments})", 1.0
    for i, j in pairs(len(text.positional)):
        a, b = text.positional[i], text.positional[j]
        yield f"{a}, {b} = {b}, {a}", 1.3


def with_first_line(text: Source, line: str) -> str:
    first = text.body()[0]
    indent = " " * first.col_offset
    at = first.lineno - 1
    return "".join([*text.lines[:at], f"{indent}{line}\n", *text.lines[at:]])
