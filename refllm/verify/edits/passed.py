"""What passes a step that a mask leaves out, multiplied on its way by what belongs to a step that is taken."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Habit, Source, calls_of, tight

SAID = "what passes a step without a token is multiplied by `{}`, which belongs to a step that is taken"


def scaled_on_its_way(text: Source) -> Iterator[Habit]:
    """kept(mask, t, dnew * f, dc)   becomes   kept(mask, t, dnew * f, dc * f)"""
    for call in calls_of(text, "kept", "where"):
        if len(call.args) < 3:
            continue
        before, inside = call.args[-1], text.in_pullback(call)
        words = text.segment(before)
        if isinstance(before, ast.Constant) or words == "0":
            continue
        for factor in _factors_of(text, call.args[-2], call.lineno):
            if factor != words:
                said = SAID.format(factor)
                yield text.exchanged(before, f"{tight(words)} * {tight(factor)}"), 1.1, inside, said


def _factors_of(text: Source, new: ast.expr, line: int) -> list[str]:
    """The factors of the terms of what is new, or of what it is called by."""
    if isinstance(new, ast.Name):
        defined = [
            s.value for s in statements(text)
            if isinstance(s, ast.Assign) and text.segment(s.targets[0]) == new.id and s.lineno < line
            and text.in_pullback(s) == text.line_in_pullback(line)
        ]  # fmt: skip
        new = defined[-1] if defined else new
    waiting, found = [new], list[str]()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            waiting += [node.left, node.right]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            parts = list[ast.expr]([node])
            while parts:
                part = parts.pop()
                is_product = isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult)
                if is_product:
                    parts += [part.left, part.right]  # type: ignore[attr-defined]
                else:
                    found.append(text.segment(part))
    return list(dict.fromkeys(found))
