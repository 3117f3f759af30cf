"""Statements of a loop that are done once, before it or after it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Habit, Source

ONCE = "what every turn of the loop does is done once, {} it"


def done_once(text: Source) -> Iterator[Habit]:
    """for ...: A = f(X); X = g(A, X)   becomes   A = f(X); for ...: X = g(A, X)"""
    for loop in ast.walk(text.definition):
        if not isinstance(loop, ast.For | ast.While) or len(loop.body) < 2:
            continue
        targets = {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)} if isinstance(loop, ast.For) else {}
        for statement in loop.body:
            if isinstance(statement, ast.Assign | ast.AugAssign):
                read = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
                for where, cost in (("before", 1.1), ("after", 1.3)) if not read & set(targets) else ():
                    said = ONCE.format(where)
                    yield _moved(text, statement, loop, after=where == "after"), cost, text.in_pullback(loop), said


def _moved(text: Source, statement: ast.stmt, loop: ast.stmt, *, after: bool) -> tuple[tuple[int, int, str], ...]:
    first, last = text.offsets[statement.lineno - 1], text.offsets[statement.end_lineno or statement.lineno]
    at = text.offsets[(loop.end_lineno or loop.lineno) if after else loop.lineno - 1]
    indent = statement.col_offset - loop.col_offset
    lines = text.encoded[first:last].decode().splitlines(keepends=True)
    moved = "".join(line[indent:] for line in lines)
    return (first, last, ""), (at, at, moved)
