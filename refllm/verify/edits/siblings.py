"""Two things of one kind, done otherwise: branches that follow each other and begin at the same input, entries that
are repeated in turn and not each by itself, one of two parts taken twice, and what stands where there is nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise, permutations

from refllm.verify.edits.source import Habit, Source, calls_of, tight

PARALLEL = "both branches begin at the same input, side by side"
TWICE = "`{}` stands in the place of `{}` too"
MOST = 4  # parts side by side, of which one may stand for another
FILLED = "where zeros stand for what is not there, {} stands"


def side_by_side(text: Source) -> Iterator[Habit]:
    """h = x + f(x); y = h + g(h)   becomes   y = x + f(x) + g(x): the second branch does not see the first."""
    for block in text.blocks():
        for one, other in pairwise(block):
            (x, h, _), (between, y, second) = _branch(text, one), _branch(text, other)
            if not x or second is None or between != h:
                continue
            after, lead = text.offsets[other.end_lineno or other.lineno], " " * other.col_offset
            if x != h and y not in (x, h):
                line = f"{lead}{y} = {y} + {h} - {x}\n"
                yield (*text.exchanged(second, x), (after, after, line)), 1.2, False, PARALLEL
                continue
            before, middle = text.offsets[one.lineno - 1], text.offsets[one.end_lineno or one.lineno]
            changes = (
                (before, before, f"{lead}entering = {x}\n"), (middle, middle, f"{lead}half_way = {h}\n"),
                *text.exchanged(second, "entering"), (after, after, f"{lead}{y} = {y} + half_way - entering\n"),
            )  # fmt: skip
            yield changes, 1.2, False, PARALLEL


def _branch(text: Source, statement: ast.stmt) -> tuple[str, str, ast.expr | None]:
    """x, y and the node of x, for "y, y_back = f(x, ...)"."""
    call = statement.value if isinstance(statement, ast.Assign) else None
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    if not (isinstance(call, ast.Call) and call.args and isinstance(target, ast.Tuple) and len(target.elts) == 2):
        return "", "", None
    first, name = call.args[0], target.elts[0]
    if not isinstance(first, ast.Name) or not isinstance(name, ast.Name) or text.in_pullback(statement):
        return "", "", None
    return first.id, name.id, first


def taken_twice(text: Source) -> Iterator[Habit]:
    """concatenate([a, b])   becomes   concatenate([a, a]): one part in the place of another of its shape."""
    for call in calls_of(text, "concatenate", "stack"):
        parts = call.args[0].elts if call.args and isinstance(call.args[0], ast.List) else []
        if not 2 <= len(parts) <= MOST:
            continue
        for part, other in permutations(parts, 2):
            taken, left = text.segment(other), text.segment(part)
            said = TWICE.format(taken, left)
            yield text.exchanged(part, taken), 1.15, text.in_pullback(part), said


def repeated_in_turn(text: Source) -> Iterator[Habit]:
    """arange(n * m) // m, which is 0, 0, 1, 1,   becomes   arange(n * m) % n, which is 0, 1, 0, 1; and so back."""
    for node in text.expressions():
        if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.FloorDiv | ast.Mod):
            continue
        counted, by = node.left, text.segment(node.right)
        if not isinstance(counted, ast.Call) or text.segment(counted.func) != "arange" or len(counted.args) != 1:
            continue
        size = counted.args[0]
        if not isinstance(size, ast.BinOp) or not isinstance(size.op, ast.Mult):
            continue
        parts = [text.segment(size.left), text.segment(size.right)]
        if by in parts:
            other = tight(parts[1 - parts.index(by)])
            sign = "%" if isinstance(node.op, ast.FloorDiv) else "//"
            yield text.exchanged(node, f"{text.segment(counted)} {sign} {other}"), 1.0, text.in_pullback(node), ""


def filled_otherwise(text: Source) -> Iterator[Habit]:
    """zeros(shape, x)   becomes   a row of the table: that of token 0 or of the last, or the first vector again."""
    tables = [text.segment(call.args[0]) for call in calls_of(text, "embedding") if call.args]
    for call in calls_of(text, "zeros"):
        if len(call.args) != 2 or text.in_pullback(call):
            continue
        words, like = text.segment(call), text.segment(call.args[1])
        for table in dict.fromkeys(tables):
            for row, said in (("[0]", "the vector of token 0"), ("[-1]", "the vector of the last token")):
                yield text.exchanged(call, f"{words} + {table}{row}"), 1.15, False, FILLED.format(said)
        if tables:
            said = FILLED.format("the first vector of the text")
            yield text.exchanged(call, f"{words} + {tight(like)}[:, :1]"), 1.2, False, said
