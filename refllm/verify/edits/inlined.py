"""An edit of a helper in one of the places that call it: who writes its line out twice may err in one of the two."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.expressions import alternatives
from refllm.verify.edits.source import Changes, Source, tight

CHEAP = 1.3  # alternatives that are tried in one place
ONE_PLACE = 0.2  # what it costs that the other places are right


def in_one_place(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """slopes(a), slopes(b)   becomes   power(2, -ratio(8 * arange(0, a), a)), slopes(b)"""
    for helper in text.inner:
        calls, value = _calls(text, helper), _value(helper)
        if value is None or len(calls) < 2:
            continue
        for words, cost in _edited(text, value):
            for call in calls:
                given = dict(zip([a.arg for a in helper.args.args], call.args, strict=True))
                inlined = _put(words, given)
                if inlined is not None:
                    yield text.exchanged(call, tight(inlined)), cost + ONE_PLACE, text.in_pullback(call)


def _value(helper: ast.FunctionDef) -> ast.expr | None:
    """What a helper of one line returns."""
    only = helper.body[0]
    return only.value if len(helper.body) == 1 and isinstance(only, ast.Return) else None


def _calls(text: Source, helper: ast.FunctionDef) -> list[ast.Call]:
    return [
        node for node in ast.walk(text.definition)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == helper.name
        and len(node.args) == len(helper.args.args) and not node.keywords
    ]  # fmt: skip


def _edited(text: Source, value: ast.expr) -> Iterator[tuple[str, float]]:
    """The line of a helper with one of its expressions exchanged."""
    whole, (start, _) = text.segment(value).encode(), text.span(value)
    inside = {id(node) for node in ast.walk(value)}
    for node in text.expressions():
        if id(node) not in inside:
            continue
        first, last = text.span(node)
        for new, cost in alternatives(text, node):
            if cost <= CHEAP:
                words = tight(new) if node is not value else new
                yield (whole[: first - start] + words.encode() + whole[last - start :]).decode(), cost


def _put(words: str, given: dict[str, ast.expr]) -> str | None:
    """The line with what is given for its arguments; None if it is not Python."""
    try:
        tree = ast.parse(words, mode="eval")
    except SyntaxError:
        return None
    return ast.unparse(_Given(given).visit(tree)).replace("'", '"')


class _Given(ast.NodeTransformer):
    def __init__(self, given: dict[str, ast.expr]) -> None:
        self.given = given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.given.get(node.id, node)
