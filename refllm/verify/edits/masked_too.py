"""A mask, or a factor, of one place that is put to another as well: the gradient of what a mask leaves out is lost with
that of what it should leave out, and a sum is over products with what stands before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Changes, Habit, Source, calls_of, tight

MASKED = "`{}` is put to this gradient too, which it should pass"
SUMS = ("sum", "mean", "total")


def masked_too(text: Source) -> Iterator[Habit]:
    """return of_sum + of_target   becomes   return where(here[..., None], of_sum + of_target, 0), in a pullback"""
    masks = _masks(text)
    for node in text.expressions() if masks else ():
        parent = text.parents.get(node)
        is_term = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Add | ast.Sub)
        is_given = (
            isinstance(parent, ast.Call) and text.segment(parent.func) == "among_zeros" and node is parent.args[0]
        )
        named = isinstance(parent, ast.Assign) or node in text.returned() or is_term or is_given
        if not named or not text.in_pullback(node) or isinstance(node, ast.Tuple | ast.Constant):
            continue
        words = text.segment(node)
        for mask in masks:
            for index in ("", "[..., None]"):
                if not words.startswith(f"where({mask}{index},"):
                    yield text.exchanged(node, f"where({mask}{index}, {words}, 0)"), 1.25, True, MASKED.format(mask)


def _masks(text: Source) -> list[str]:
    """The names of what is true or false at each place."""
    found = []
    for statement in statements(text):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(target, ast.Name) and isinstance(statement, ast.Assign) and not text.in_pullback(statement):
            value = statement.value
            value = value.body if isinstance(value, ast.IfExp) else value
            compared = isinstance(value, ast.Compare) or (
                isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitAnd | ast.BitOr))  # fmt: skip
            if compared or text.segment(value).startswith("everywhere("):
                found.append(target.id)
    return list(dict.fromkeys(found))


def summed_with_its_factor(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """dy - p * sum(dy)   becomes   dy - p * sum(p * dy), and the other way round elsewhere (expressions)."""
    for call in calls_of(text, *SUMS):
        parent = text.parents.get(call)
        if not (isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mult) and call.args):
            continue
        other = parent.left if parent.right is call else parent.right
        factor, first = tight(text.segment(other)), call.args[0]
        if factor not in text.segment(first):
            yield text.exchanged(first, f"{factor} * {tight(text.segment(first))}"), 1.15, text.in_pullback(call)
