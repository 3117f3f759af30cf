"""One number made of many in another way: the largest, the smallest, the first or the last, where a mean is meant."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Changes, Source

OTHERS = ("largest", "smallest", "first_of", "last_of")
COST = 1.15


def reduced_otherwise(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """sum(where(mask, x, 0), axis=-2) / count   becomes   largest(x, mask, axis=-2); so do `mean` and `sum`."""
    for node in text.expressions():
        if text.in_pullback(node):
            continue
        call = node.left if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) else node
        name = text.segment(call.func) if isinstance(call, ast.Call) else ""
        if not isinstance(call, ast.Call) or name not in (("sum",) if call is not node else ("sum", "mean")):
            continue
        if len(call.args) != 1 or (call is node and _is_mean(text, node)):
            continue
        x, mask = _masked(text, call.args[0])
        how = "".join(f", {k.arg}={text.segment(k.value)}" for k in call.keywords)
        for word in OTHERS:
            for given in dict.fromkeys((mask, "None")):
                yield text.exchanged(node, f"{word}({x}, {given}{how})"), COST + 0.1 * (given != mask), False


def _is_mean(text: Source, node: ast.AST) -> bool:
    """Whether this is a sum that is divided by something."""
    parent = text.parents.get(node)
    return isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Div) and parent.left is node


def _masked(text: Source, node: ast.expr) -> tuple[str, str]:
    """x and mask of where(mask, x, 0)"""
    if isinstance(node, ast.Call) and text.segment(node.func) == "where" and len(node.args) == 3:
        mask, x, other = (text.segment(a) for a in node.args)
        if other == "0":
            return x, mask
    return text.segment(node), "None"
