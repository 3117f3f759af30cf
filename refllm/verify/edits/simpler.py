"""Edited lines as somebody would write them: "w * (1 - 0)" is w."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

_WHOLE: dict[type, Callable[[int, int], int]] = {ast.Add: operator.add, ast.Sub: operator.sub}


def simplified(line: str) -> str:
    """A line of a diff, "+ t = w * (1 - 0)", without what changes no number and parentheses that nobody would write; as
    it is where it is no statement."""
    sign, words = line[:2], line[2:]
    try:
        tree = ast.parse(words)
    except SyntaxError:
        return line
    plainer = _Plainer()
    tree = plainer.visit(tree)
    return sign + _written(tree) if plainer.found or "((" in words else line


def _written(tree: ast.Module) -> str:
    """As the text is written: double quotes, powers without spaces, no parentheses around several values."""
    written, returned = ast.unparse(tree), tree.body[0] if tree.body else None
    if isinstance(returned, ast.Return) and isinstance(returned.value, ast.Tuple):
        written = f"return {', '.join(map(ast.unparse, returned.value.elts))}"
    return written.replace("'", '"').replace(" ** ", "**")


class _Plainer(ast.NodeTransformer):
    """Folds whole numbers, terms of 0 and factors of 1."""

    found = False

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        self.generic_visit(node)
        plainer = self._folded(node)
        self.found |= plainer is not node
        return plainer

    def visit_Slice(self, node: ast.Slice) -> Any:
        self.generic_visit(node)
        lower = node.lower
        if (
            isinstance(lower, ast.BinOp)
            and isinstance(lower.op, ast.Mult)
            and 0 in (_whole(lower.left), _whole(lower.right))
        ):
            self.found, node.lower = True, None
        return node

    def _folded(self, node: ast.BinOp) -> ast.expr:
        left, right, kind = node.left, node.right, type(node.op)
        a, b = _whole(left), _whole(right)
        if kind in _WHOLE and a is not None and b is not None:
            return ast.Constant(_WHOLE[kind](a, b))
        if kind in _WHOLE and b is not None and isinstance(left, ast.BinOp) and type(left.op) in _WHOLE:
            inner = _whole(left.right)
            if inner is not None:
                both = (inner if isinstance(left.op, ast.Add) else -inner) + (b if kind is ast.Add else -b)
                op = ast.Add() if both >= 0 else ast.Sub()
                return ast.BinOp(left.left, op, ast.Constant(abs(both))) if both else left.left
        if (b == 0 and kind in _WHOLE) or (b == 1 and kind in (ast.Mult, ast.Div)):
            return left
        if (a == 1 and kind is ast.Mult) or (a == 0 and kind is ast.Add):
            return right
        if kind in _WHOLE and _is_nothing(right) and a is None:
            return left
        return node


def _whole(node: ast.expr) -> int | None:
    is_whole = isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool)
    return node.value if is_whole else None  # type: ignore[attr-defined]


def _is_nothing(node: ast.expr) -> bool:
    """x * 0, and that times or over something."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult | ast.Div):
        return False
    zero = isinstance(node.op, ast.Mult) and 0 in (_whole(node.left), _whole(node.right))
    return zero or _is_nothing(node.left)
