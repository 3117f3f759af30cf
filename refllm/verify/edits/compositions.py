"""Edits of how the parts of a function are put together: what is done to a sum instead of a term, in another order, to
one half of a pair, or to all places of a statement at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from refllm.verify.edits.source import Changes, Source, tight

SLICES = (":", ":-1", "1:", "::2", "1::2", "::-1")
NEUTRAL = ("0", "1")


def composed_otherwise(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """Changes, cost, and whether they are in the pullback."""
    for statement in statements(text):
        inside = text.in_pullback(statement)
        for changes, cost in _throughout(text, statement):
            yield changes, cost, inside
    for block in text.blocks():
        for changes, cost in (*_calls_in_another_order(text, block), *_done_to_the_result(text, block)):
            yield changes, cost, False
    yield from ((changes, cost, text.in_pullback(node)) for node, changes, cost in _sliced_otherwise(text))
    yield from _factors_moved(text)


def statements(text: Source) -> Iterator[ast.stmt]:
    """The statements that hold no others."""
    for node in ast.walk(text.definition):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.Return | ast.Expr):
            yield node


# --- all places of a statement ---------------------------------------------------------------------------------------


def _throughout(text: Source, statement: ast.stmt) -> Iterator[tuple[Changes, float]]:
    """A name that a statement reads twice, exchanged at every place: for a neutral number, for what it was made of, or
    for another name."""
    value = getattr(statement, "value", None)
    if value is None:
        return
    places: dict[str, list[ast.expr]] = {}
    for node in ast.walk(value):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            places.setdefault(node.id, []).append(node)
    made = _made_of(text, statement)
    for name, nodes in places.items():
        if any(_is_called(text, node) for node in nodes):
            continue
        for words in made.get(name, ()):
            yield text.all_exchanged(list(nodes), words), 1.2
        if len(nodes) < 2:
            continue
        for words in NEUTRAL:
            yield text.all_exchanged(list(nodes), words), 1.2
        first = nodes[0]
        assert isinstance(first, ast.Name)
        yield from ((text.all_exchanged(list(nodes), other), 1.3) for other in text.in_scope(first) if other != name)
        for group in _products(nodes, text):
            yield from ((text.all_exchanged(group, words), 1.2) for words in made.get(name, ()))
            others = [other for other in text.in_scope(first) if other != name]
            yield from ((text.all_exchanged(group, other), 1.3) for other in others)


def _products(nodes: list[ast.expr], text: Source) -> Iterator[list[ast.expr]]:
    """x * x: both at once, where the statement has x elsewhere too."""
    for a, b in pairwise(nodes):
        parent = text.parents.get(a)
        if isinstance(parent, ast.BinOp) and text.parents.get(b) is parent and isinstance(parent.op, ast.Mult):
            yield [a, b]


def _is_called(text: Source, node: ast.AST) -> bool:
    parent = text.parents.get(node)
    return isinstance(parent, ast.Call) and parent.func is node


def _made_of(text: Source, statement: ast.stmt) -> dict[str, list[str]]:
    """For every name that a statement before assigns: what it was computed from by one call, or one operation."""
    found: dict[str, list[str]] = {}
    for node in statements(text):
        if not isinstance(node, ast.Assign) or node.lineno >= statement.lineno:
            continue
        target = node.targets[0]
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        if not isinstance(names[0], ast.Name) or (names[1:] and not text.segment(names[1]).endswith(("_back", "_"))):
            continue
        value, parts = node.value, list[ast.expr]()
        if isinstance(value, ast.Call) and value.args:
            parts = [value.args[0]]
        elif isinstance(value, ast.BinOp):
            parts = [value.left, value.right]
        words = [text.segment(part) for part in parts if not isinstance(part, ast.Constant | ast.Starred)]
        words += _of_a_part(text, value, pair=bool(names[1:]))
        found[names[0].id] = [w for w in words if w != names[0].id]
    return found


def _of_a_part(text: Source, value: ast.expr, *, pair: bool) -> Iterator[str]:
    """f(a / b) with a alone, and with b: what a value would be without a step before it."""
    if not isinstance(value, ast.Call) or not value.args or not isinstance(value.args[0], ast.BinOp):
        return
    for part in (value.args[0].left, value.args[0].right):
        if not isinstance(part, ast.Constant):
            rest = ", ".join([text.segment(part), *_rest(text, value)])
            yield f"{text.segment(value.func)}({rest}){'[0]' if pair else ''}"


# --- calls -----------------------------------------------------------------------------------------------------------


def _calls_in_another_order(text: Source, block: list[ast.stmt]) -> Iterator[tuple[Changes, float]]:
    """a, _ = f(x, k);  b, _ = g(a, l)   becomes   a, _ = g(x, l);  b, _ = f(a, k)"""
    for one, other in pairwise(block):
        first, second = _call_of(one), _call_of(other)
        if first is None or second is None or not first.args or not second.args:
            continue
        if not _feeds(text, one, text.segment(second.args[0])):
            continue
        heads = [text.segment(call.func) for call in (first, second)]
        rest = [_rest(text, call) for call in (first, second)]
        inputs = [text.segment(call.args[0]) for call in (first, second)]
        if heads[0] == heads[1]:
            continue
        changes = (
            *text.exchanged(first, f"{heads[1]}({', '.join([inputs[0], *rest[1]])})"),
            *text.exchanged(second, f"{heads[0]}({', '.join([inputs[1], *rest[0]])})"),
        )
        yield changes, 1.2


def _rest(text: Source, call: ast.Call) -> list[str]:
    keywords = [f"{k.arg}={text.segment(k.value)}" if k.arg else f"**{text.segment(k.value)}" for k in call.keywords]
    return [*(text.segment(a) for a in call.args[1:]), *keywords]


def _call_of(statement: ast.stmt) -> ast.Call | None:
    value = statement.value if isinstance(statement, ast.Assign) else None
    return value if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else None


def _feeds(text: Source, statement: ast.stmt, argument: str) -> bool:
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    names = target.elts if isinstance(target, ast.Tuple) else [target]
    return isinstance(names[0], ast.Name) and (argument == names[0].id or argument.endswith(f", {names[0].id})"))


def _done_to_the_result(text: Source, block: list[ast.stmt]) -> Iterator[tuple[Changes, float]]:
    """y, _ = f(E(x), ...)   becomes   y, _ = f(x, ...);  y = E(y): done to what comes out instead of what goes in."""
    for statement in block:
        call = _call_of(statement)
        if call is None or not isinstance(statement, ast.Assign):
            continue
        target = statement.targets[0]
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        if not isinstance(names[0], ast.Name):
            continue
        for argument in call.args:
            if not isinstance(argument, ast.BinOp | ast.IfExp | ast.Call):
                continue
            inner = {n.id: n for n in ast.walk(argument) if isinstance(n, ast.Name) and not _is_called(text, n)}
            for name in inner:
                whole = text.segment(argument)
                if len(inner) > 4:
                    continue
                after = _renamed(argument, name, names[0].id)
                line = f"{' ' * statement.col_offset}{names[0].id} = {after}\n"
                at = text.offsets[statement.end_lineno or statement.lineno]
                if whole != name:
                    yield (*text.exchanged(argument, name), (at, at, line)), 1.3


def _renamed(node: ast.expr, name: str, other: str) -> str:
    tree = ast.parse(ast.unparse(node), mode="eval")
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Name) and inner.id == name:
            inner.id = other
    return ast.unparse(tree).replace("'", '"')


# --- factors ---------------------------------------------------------------------------------------------------------


def _factors_moved(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """n = a * b;  return f(n)   becomes   n = a;  return f(n) * b: multiplied after instead of before."""
    for statement in statements(text):
        value = getattr(statement, "value", None)
        parts = [value, *value.elts] if isinstance(value, ast.Tuple) else [value]
        if not isinstance(statement, ast.Assign):
            continue
        for part in parts:
            if not (isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult | ast.Div)):
                continue
            sign = "*" if isinstance(part.op, ast.Mult) else "/"
            left, factor = text.segment(part.left), tight(text.segment(part.right))
            for later in statements(text):
                if later.lineno <= statement.lineno or text.in_pullback(later) != text.in_pullback(statement):
                    continue
                whole = getattr(later, "value", None)
                targets = [whole, *whole.elts] if isinstance(whole, ast.Tuple) else [whole]
                for target in targets:
                    if isinstance(target, ast.BinOp | ast.Name | ast.Call) and isinstance(
                        later, ast.Assign | ast.Return
                    ):
                        moved = f"{tight(text.segment(target))} {sign} {factor}"
                        changes = (*text.exchanged(part, left), (*text.span(target), moved))
                        yield changes, 1.3, text.in_pullback(statement)


# --- slices ----------------------------------------------------------------------------------------------------------


def _sliced_otherwise(text: Source) -> Iterator[tuple[ast.AST, Changes, float]]:
    """Other parts of an axis: all but the last for all but the first, from the end, every other."""
    for node in text.expressions():
        if not isinstance(node, ast.Subscript):
            continue
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if not any(isinstance(part, ast.Slice) for part in parts) or isinstance(node.ctx, ast.Store):
            continue
        words = [text.segment(part) for part in parts]
        for n, part in enumerate(parts):
            if isinstance(part, ast.Slice) and words[n] != ":":
                others = [*SLICES, *_other_side(text, part)]
                for other in others:
                    if other != words[n]:
                        yield node, ((*text.span(part), other),), 1.15
        if len(words) > 1:
            for i, j in pairwise(range(len(words))):
                swapped = [*words]
                swapped[i], swapped[j] = swapped[j], swapped[i]
                if swapped != words:
                    yield node, ((*text.span(node.slice), ", ".join(swapped)),), 1.4


def _other_side(text: Source, part: ast.Slice) -> Iterator[str]:
    """:n for n:, and the last n."""
    lower, upper = (None if x is None else text.segment(x) for x in (part.lower, part.upper))
    if lower and not upper:
        yield from (f":{lower}", f":-{tight(lower)}", f"-{tight(lower)}:")
    if upper and not lower:
        yield from (f"{upper}:", f"-{tight(upper)}:", f":-{tight(upper)}")
