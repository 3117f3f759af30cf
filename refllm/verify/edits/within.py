"""A factor inside of what it is applied to: c f(x) as f(c x), a factor of the base for one of the power."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Changes, Source, tight

SIZES = {"len", "range", "arange", "zeros", "max", "min", "int", "list", "integers", "sum", "total", "rows", "flat"}
COST = 1.2


def factors_within(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """r * f(b) / c   becomes   r * f(c * b), and r * f(b / c); the same where f(b) has a name."""
    made = _made_by_calls(text)
    for node in text.expressions():
        if not _is_product(node) or _is_product(text.parents.get(node)):
            continue
        factors = list(_factors(node))
        for one, (_, scalar) in enumerate(factors):
            for other, (_, value) in enumerate(factors):
                call = value if isinstance(value, ast.Call) else made.get(text.segment(value))
                if one == other or call is None or not _is_scalar(text, scalar):
                    continue
                for inside in _with_factor(text, call, text.segment(scalar)):
                    product = [
                        (sign, inside if n == other else text.segment(factor))
                        for n, (sign, factor) in enumerate(factors) if n != one
                    ]  # fmt: skip
                    words = _written(product)
                    outside = text.parents.get(node)
                    is_term = isinstance(outside, ast.BinOp) and isinstance(outside.op, ast.Add)
                    changes = ((*text.span(node), words),) if is_term else text.exchanged(node, words)
                    yield changes, COST, text.in_pullback(node)


def _is_product(node: ast.AST | None) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div)


def _factors(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """("*", a), ("*", b), ("/", c) of a * b / c"""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        yield from _factors(node.left)
        yield "*" if isinstance(node.op, ast.Mult) else "/", node.right
    else:
        yield "*", node


def _written(factors: list[tuple[str, str]]) -> str:
    first = next((n for n, (sign, _) in enumerate(factors) if sign == "*"), None)
    if first is None:
        return "1" + "".join(f" / {tight(words)}" for _, words in factors)
    rest = factors[:first] + factors[first + 1 :]
    lead = factors[first][1] if not rest else tight(factors[first][1])
    return lead + "".join(f" {sign} {tight(words)}" for sign, words in rest)


def _is_scalar(text: Source, node: ast.expr) -> bool:
    """Whether this is a single number that the function is given."""
    return isinstance(node, ast.Name) and node.id in text.real | text.whole


def _made_by_calls(text: Source) -> dict[str, ast.Call]:
    """The names that are assigned once, and by a call."""
    stored = [n.id for n in ast.walk(text.definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return {
        node.targets[0].id: node.value
        for node in text.body()
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call)
        and stored.count(node.targets[0].id) == 1
    }  # fmt: skip


def _with_factor(text: Source, call: ast.Call, factor: str) -> Iterator[str]:
    """The call with one of its numbers, or its first argument, multiplied or divided by the factor."""
    name = text.segment(call.func)
    if not isinstance(call.func, ast.Name) or name in SIZES:
        return
    arguments = [*call.args, *(k.value for k in call.keywords)]
    numbers = [a for a in arguments if isinstance(a, ast.Name) and a.id in text.real and a.id != factor]
    chosen = numbers or (call.args[:1] if len(arguments) < 3 else [])
    for argument in chosen:
        (start, _), (first, last), whole = text.span(call), text.span(argument), text.segment(call).encode()
        for sign in "*/":
            words = f"{tight(text.segment(argument))} {sign} {factor}"
            yield (whole[: first - start] + words.encode() + whole[last - start :]).decode()
