"""A factor that depends on the number of the layer: 1 / (n + 1) of the scores, of a branch, of what a layer gives."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Changes, Source, tight

WORD = "layer_number()"
FACTORS = {
    f"/ {WORD}": 1.1, f"/ sqrt({WORD})": 1.1, f"/ sqrt(2 * {WORD})": 1.2, f"* {WORD}": 1.3, f"* sqrt({WORD})": 1.3,
}  # fmt: skip


def scaled_by_layer(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """x + a   becomes   x + a / layer_number(), counted from 1; the same of what is divided by a root."""
    for node in text.expressions():
        if text.in_pullback(node) or not _may_be_scaled(text, node):
            continue
        for factor, cost in FACTORS.items():
            yield text.exchanged(node, f"{tight(text.segment(node))} {factor}"), cost, False


def _may_be_scaled(text: Source, node: ast.expr) -> bool:
    """Whether this is a branch of a sum of two tensors, their sum, something by a root, or a value with a name."""
    parent = text.parents.get(node)
    if isinstance(node, ast.Name) and isinstance(parent, ast.Call) and text.segment(parent.func) == "tap":
        return node is parent.args[-1]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return text.segment(node.right).startswith("sqrt(")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _is_residual(node)
    return isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Add) and _is_residual(parent)


def _is_residual(node: ast.BinOp) -> bool:
    """x + f, x + tap(name, f): nothing in it is a product."""
    return all(isinstance(part, ast.Name | ast.Call) for part in (node.left, node.right)) and isinstance(
        node.left, ast.Name
    )
