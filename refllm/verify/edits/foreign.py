"""Numbers that belong to another part: a mask for them that is forgotten, so that the nearest of one's own is taken."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Habit, Source, calls_of

SAID = "what `{}` leaves out is not left out: {} stands for it"
# how an index outside of a part is brought into it, and what is taken then
BROUGHT = {
    "({x}).clip(0, max(0, {n} - 1))": "the nearest of the own",
    "({x}) % max(1, {n})": "the one at the same place of the own part",
    "where({m}, {x}, 0)": "the first of the own",
}


def nearest_of_the_own(text: Source) -> Iterator[Habit]:
    """here = (i >= a) & (i < b); where(here, f(where(here, i - a, 0)), 0)   becomes   f((i - a).clip(0, b - a - 1))"""
    for name, first, behind in _ranges(text):
        choices = [c for c in calls_of(text, "where") if len(c.args) == 3 and _reads(text, c.args[0], name)]
        forward = [c for c in choices if not text.in_pullback(c) and text.segment(c.args[2]) == "0"]
        indices = [c for c in forward if isinstance(c.args[1], ast.BinOp) and f"- {first}" in text.segment(c.args[1])]
        values = [c for c in forward if c not in indices and not any(c in ast.walk(i) for i in indices)]
        for call in indices:
            x = text.segment(call.args[1])
            for form, what in BROUGHT.items():
                index = form.format(x=x, n=f"({behind} - {first})", m=name)
                unmasked = tuple(change for c in values for change in _without_choice(text, c))
                changes = (*(() if index == text.segment(call) else text.exchanged(call, index)), *unmasked)
                if changes:
                    yield changes, 1.1, False, SAID.format(name, what)


def _ranges(text: Source) -> Iterator[tuple[str, str, str]]:
    """name, a, b of   name = (x >= a) & (x < b)"""
    for statement in statements(text):
        value = statement.value if isinstance(statement, ast.Assign) else None
        if not isinstance(statement, ast.Assign) or not isinstance(value, ast.BinOp):
            continue
        parts = [value.left, value.right]
        if isinstance(value.op, ast.BitAnd) and all(isinstance(p, ast.Compare) for p in parts):
            first, behind = (text.segment(p.comparators[0]) for p in parts if isinstance(p, ast.Compare))
            yield text.segment(statement.targets[0]), first, behind


def _reads(text: Source, mask: ast.expr, name: str) -> bool:
    return text.segment(mask).partition("[")[0] == name


def _without_choice(text: Source, call: ast.Call) -> Iterator[tuple[int, int, str]]:
    """x for where(mask, x, 0), as two changes that leave x to others."""
    (first, last), (begin, end), parent = text.span(call), text.span(call.args[1]), text.parents.get(call)
    apart = isinstance(parent, ast.BinOp | ast.UnaryOp | ast.Subscript | ast.Attribute)
    yield first, begin, "(" * apart
    yield end, last, ")" * apart
