"""A pullback that is taken at another value: the derivative of f at u, where f was applied to g."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Habit, Source


def taken_at_another_value(text: Source) -> Iterator[Habit]:
    """a, f_back = f(g); ... f_back(dy)   becomes   f(u)[1](dy)"""
    made = {
        node.targets[0].elts[1].id: node.value
        for node in statements(text)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and len(node.targets[0].elts) == 2
        if isinstance(node.targets[0].elts[1], ast.Name) and isinstance(node.value, ast.Call)
    }
    for node in ast.walk(text.definition):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not text.in_pullback(node):
            continue
        call = made.get(node.func.id)
        if call is None or not call.args or not isinstance(call.args[0], ast.Name):
            continue
        rest = text.segment(call)[len(text.segment(call.func)) + 1 + len(call.args[0].id) :]
        for other in text.in_scope(node.func):
            if other != call.args[0].id:
                said = (
                    f"the derivative of `{text.segment(call.func)}` is taken at `{other}`, not at `{call.args[0].id}`"
                )
                yield text.exchanged(node.func, f"{text.segment(call.func)}({other}{rest}[1]"), 1.2, True, said
