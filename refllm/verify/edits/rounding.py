"""Whole numbers that are rounded another way, or not at all: the borders of a range, a share of places, a quotient."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import combinations

from refllm.verify.edits.source import Changes, Habit, Source, tight

ROUNDED = ("rounded_down", "rounded_up", "nearest", "to_zero", "halves_up", "halves_away")
OF_MATH = {"math.floor": ("math.ceil", "round", ""), "math.ceil": ("math.floor", "round", "")}
# ways in which the place is made whole at which falling numbers pass a limit; one of them is what a count of them says
WAYS = {
    "": "not rounded", "nearest": "rounded to the nearest", "rounded_up": "rounded up", "rounded_down": "rounded down",
}  # fmt: skip
COUNTED: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.GtE: ("rounded_down", " + 1"), ast.Gt: ("rounded_up", ""),
}  # fmt: skip
BORDER, RANGE, NARROW = 1.1, 1.15, 0.05  # what it costs: one border, both, and a range that may be narrower than 1


def rounded_otherwise(text: Source, node: ast.expr) -> Iterator[tuple[str, float]]:
    """What may stand in the place of something that gives a whole number."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.FloorDiv):
        quotient = f"{tight(text.segment(node.left))} / {tight(text.segment(node.right))}"
        yield from ((f"{word}({quotient})", 1.25) for word in ("rounded_up", "nearest"))
        yield quotient, 1.3
    if not isinstance(node, ast.Call) or len(node.args) != 1:
        if isinstance(node, ast.Call) and text.segment(node.func) == "ratio":
            yield " // ".join(tight(text.segment(a)) for a in node.args), 1.05
        return
    name, argument = text.segment(node.func), text.segment(node.args[0])
    if name == "nearest":
        yield from ((f"{word}({argument})", 1.05) for word in ROUNDED if word != name)
    yield from ((f"{word}({argument})", 1.05) for word in OF_MATH.get(name, ()))


def ranges(text: Source) -> Iterator[Habit]:
    """int((x >= limit).sum()), the number of entries that do not pass a limit, as people write it: the place where they
    do, from a logarithm, made whole another way; for one border of a range and for both."""
    borders = [(node, limit) for node in text.expressions() if (limit := _limit(node)) is not None]
    for node, limit in borders:
        for way, rounded in WAYS.items():
            if way != COUNTED[type(limit.ops[0])][0]:
                said = f"the place where `{text.segment(limit.left)}` passes `{_border(text, limit)}` is {rounded}"
                yield text.exchanged(node, _place(text, limit, way)), BORDER, text.in_pullback(node), said
    for (one, a), (other, b) in combinations(borders, 2):
        for way, rounded in WAYS.items():
            both = (*text.exchanged(one, _place(text, a, way)), *text.exchanged(other, _place(text, b, way)))
            said = f"the borders `{_border(text, a)}` and `{_border(text, b)}` of the range are {rounded}"
            yield both, RANGE, text.in_pullback(one), said
            for narrow in _of_any_width(text) if not way else ():
                yield (*both, *narrow), RANGE + NARROW, text.in_pullback(one), said


def _limit(node: ast.expr) -> ast.Compare | None:
    """What is counted in int((x >= limit).sum())."""
    call = node.args[0] if isinstance(node, ast.Call) and len(node.args) == 1 else None
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "int"):
        return None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "sum"):
        return None
    counted = call.func.value
    is_one = isinstance(counted, ast.Compare) and len(counted.ops) == 1 and type(counted.ops[0]) in COUNTED
    return counted if is_one else None  # type: ignore[return-value]


def _border(text: Source, limit: ast.Compare) -> str:
    return text.segment(limit.comparators[0])


def _place(text: Source, limit: ast.Compare, way: str) -> str:
    place, (_, further) = f"passing({text.segment(limit.left)}, {_border(text, limit)})", COUNTED[type(limit.ops[0])]
    return f"{way}({place}){further}" if way else f"{place}{further}"


def _of_any_width(text: Source) -> Iterator[Changes]:
    """max(width, 1), where a range between numbers that are not whole may be narrower."""
    for node in text.expressions():
        if isinstance(node, ast.Call) and text.segment(node.func) == "max" and len(node.args) == 2:
            least = node.args[1]
            if isinstance(least, ast.Constant) and least.value == 1 and isinstance(node.args[0], ast.BinOp):
                yield text.exchanged(least, "0.001")
