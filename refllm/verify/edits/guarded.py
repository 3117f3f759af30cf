"""A small number where the formula has none: below a fraction, under a root, in a logarithm."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Habit, Source

SMALL = ("1e-5", "1e-6", "1e-7", "1e-8", "1e-9", "1e-10", "1e-12")
COST = 1.3
OF_ONE = {"sqrt": "the root", "log": "the logarithm"}


def guarded(text: Source) -> Iterator[Habit]:
    """a / b   becomes   a / (b + 1e-6): where b is never nothing, that is another number."""
    for node in text.expressions():
        part, where = None, ""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            part, where = node.right, "is added to what is divided by"
        elif isinstance(node, ast.Call) and text.segment(node.func) in OF_ONE and len(node.args) == 1:
            part, where = node.args[0], f"is added under {OF_ONE[text.segment(node.func)]}"
        if part is None or not _is_real(text, part):
            continue
        for small in SMALL:
            words = f"({text.segment(part)} + {small})" if "divided" in where else f"{text.segment(part)} + {small}"
            yield text.exchanged(part, words), COST, text.in_pullback(node), f"a small number {where}"


def _is_real(text: Source, part: ast.expr) -> bool:
    """Whether this is no number of the text, no size and nothing that has such a number already."""
    names = [n for n in ast.walk(part) if isinstance(n, ast.Name)]
    whole = {"sqrt", "log", "pi", "len", *text.whole}
    sizes = all(n.id in whole or (len(n.id) == 1 and n.id.isupper()) for n in names)
    has_one = any(n.id.startswith("eps") for n in names)
    return not sizes and not has_one and ".shape" not in text.segment(part)
