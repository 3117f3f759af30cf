"""A name taken for what is made from it elsewhere, and one of several uses of a name made otherwise than the others."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.expressions import alternatives
from refllm.verify.edits.source import Changes, Source, tight
from refllm.verify.edits.vocabulary import MASKED

LONGEST = 48  # characters of an expression that is written out once more
CHEAP = 1.25  # edits that are made in one of several uses
ONE_USE = 0.25  # what it costs that the other uses are right
ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
USES = 3  # of a name, each of which may be made otherwise


def taken_for_what_is_made_from_it(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """counted   becomes   one_hot(chosen, E) & counted, which stands elsewhere in the function."""
    larger = _larger(text)
    for node in text.expressions():
        if not isinstance(node, ast.Name) or node.id not in larger or _is_bound(text, node):
            continue
        known, around = {*text.in_scope(node), node.id}, _around(text, node)
        for words, (value, read) in larger[node.id].items():
            fits = _is_mask(text, node) is _gives_a_mask(value)
            if fits and read <= known and value not in around and words not in map(text.segment, around):
                yield text.exchanged(node, tight(words)), 1.25, text.in_pullback(node)


def _larger(text: Source) -> dict[str, dict[str, tuple[ast.expr, set[str]]]]:
    """For every name: the expressions of some words that are made from it, and the names that each reads."""
    found: dict[str, dict[str, tuple[ast.expr, set[str]]]] = {}
    for node in text.expressions():
        words = text.segment(node)
        if not isinstance(node, ast.BinOp | ast.Compare | ast.UnaryOp) or len(words) > LONGEST or "\n" in words:
            continue
        if isinstance(node, ast.Compare) and not isinstance(node.ops[0], ORDER):
            continue
        called = {n.func.id for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - called
        for name in read:
            found.setdefault(name, {}).setdefault(words, (node, read))
    return found


def _gives_a_mask(value: ast.expr) -> bool:
    is_joined = isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitAnd | ast.BitOr)
    return (
        is_joined
        or isinstance(value, ast.Compare)
        or (isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Invert))
    )


def _is_mask(text: Source, node: ast.Name) -> bool:
    """Whether a name stands where a mask belongs: what is chosen by, and what is joined with another mask."""
    parent = text.parents.get(node)
    if isinstance(parent, ast.BinOp):
        return isinstance(parent.op, ast.BitAnd | ast.BitOr)
    return isinstance(parent, ast.Call) and node in parent.args[:1] and text.segment(parent.func) in MASKED


def _around(text: Source, node: ast.AST) -> list[ast.AST]:
    """The expressions that a name stands in."""
    found = list[ast.AST]()
    while isinstance(above := text.parents.get(node), ast.expr):
        found.append(node := above)
    return found


def _is_bound(text: Source, node: ast.AST) -> bool:
    """Whether a name is called, or something of it is read: `x.shape`."""
    parent = text.parents.get(node)
    return isinstance(parent, ast.Attribute) or (isinstance(parent, ast.Call) and parent.func is node)


def of_one_use(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """distance = a - b; f(distance), g(distance)   becomes   f(distance), g(b - a): who writes it out twice may err in
    one of the two."""
    for block in text.blocks():
        for statement in block:
            name, value = _defined(text, statement)
            uses = _uses(text, name) if name else []
            if value is None or not 2 <= len(uses) <= USES:
                continue
            for words, cost in _edited(text, value):
                for use in uses:
                    yield text.exchanged(use, tight(words)), cost + ONE_USE, text.in_pullback(use)


def _defined(text: Source, statement: ast.stmt) -> tuple[str, ast.expr | None]:
    """name = a short expression, once in the function."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    if not isinstance(statement, ast.Assign) or not isinstance(target, ast.Name):
        return "", None
    words = text.segment(statement.value)
    stored = [n for n in ast.walk(text.definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    once = [n.id for n in stored].count(target.id) == 1
    short = len(words) <= LONGEST and isinstance(statement.value, ast.BinOp | ast.Compare | ast.Call)
    return (target.id, statement.value) if once and short and "\n" not in words else ("", None)


def _uses(text: Source, name: str) -> list[ast.Name]:
    return [n for n in text.expressions() if isinstance(n, ast.Name) and n.id == name]


def _edited(text: Source, value: ast.expr) -> Iterator[tuple[str, float]]:
    """A short expression with one of its parts exchanged."""
    whole, (start, _) = text.segment(value).encode(), text.span(value)
    inside, seen = {id(node) for node in ast.walk(value)}, set[str]()
    for node in text.expressions():
        if id(node) not in inside:
            continue
        first, last = text.span(node)
        for new, cost in alternatives(text, node):
            if cost <= CHEAP and "rounded(" not in new and "digits(" not in new:
                words = new if node is value else tight(new)
                other = (whole[: first - start] + words.encode() + whole[last - start :]).decode()
                if other not in seen:
                    seen.add(other)
                    yield other, cost
