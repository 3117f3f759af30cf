"""Where counting begins: in a part or in the whole, at both ends of a ratio, one place before or after for a mask."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import product

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Changes, Habit, Source, calls_of, tight

IN_THE_WHOLE = "places are counted from the beginning of the whole, not from that of the part"
IN_THE_PART = "places are counted from the beginning of the part, not from that of the whole"
OFFSET = "without the offset of the part"


def counted_elsewhere(text: Source) -> Iterator[Habit]:
    """arange(end - first)   becomes   arange(first, end), in one place and in all, with and without offsets that are
    added where such numbers are compared; and the other way round."""
    for length, said in ((1, IN_THE_WHOLE), (2, IN_THE_PART)):
        changes = [
            (call, text.exchanged(call, words)) for call in calls_of(text, "arange")
            if len(call.args) == length and (words := _other_beginning(text, call))
        ]  # fmt: skip
        groups = [tuple(c for _, each in changes for c in each)] if changes[1:] else []
        groups += [each for _, each in changes]
        for group in groups:
            yield group, 1.15, False, said
            for offset in _offsets(text):
                yield (*group, *offset), 1.2, False, f"{said}, {OFFSET}"


def _other_beginning(text: Source, call: ast.Call) -> str:
    first = call.args[0]
    if len(call.args) == 2:
        return f"arange({text.segment(call.args[1])} - {tight(text.segment(first))})"
    if isinstance(first, ast.BinOp) and isinstance(first.op, ast.Sub):
        return f"arange({text.segment(first.right)}, {text.segment(first.left)})"
    return ""


def _offsets(text: Source) -> Iterator[Changes]:
    """a <= b + c - d   becomes   a <= b"""
    for node in text.expressions():
        right = node.comparators[0] if isinstance(node, ast.Compare) else None
        first = right
        while isinstance(first, ast.BinOp) and isinstance(first.op, ast.Add | ast.Sub):
            first = first.left
        if right is not None and first is not right and isinstance(first, ast.Name | ast.Subscript):
            yield text.exchanged(right, text.segment(first))


def both_ends(text: Source) -> Iterator[Habit]:
    """n / N   becomes   (n + 1) / (N + 1), and the like: who counts from 1 counts both ends so."""
    for node in text.expressions():
        ends = _ends(text, node)
        counts = [_count(text, end) for end in ends]
        if len(counts) == 2 and None not in counts:
            for changes in product(("+ 1", "- 1"), repeat=2):
                both = [
                    change for count, sign in zip(counts, changes, strict=True) if count is not None
                    for change in _one_more(text, count, sign)
                ]  # fmt: skip
                yield tuple(both), 1.15, text.in_pullback(node), ""


def _ends(text: Source, node: ast.expr) -> list[ast.expr]:
    """Numerator and denominator."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return [node.left, node.right]
    return node.args if isinstance(node, ast.Call) and text.segment(node.func) == "ratio" else []


def _count(text: Source, end: ast.expr) -> ast.expr | None:
    """What is counted in an end of a ratio: of a product its last whole factor."""
    if isinstance(end, ast.BinOp) and isinstance(end.op, ast.Mult):
        return _count(text, end.right) or _count(text, end.left)
    names = [n.id for n in ast.walk(end) if isinstance(n, ast.Name)]
    return end if any(name in text.whole or (len(name) == 1 and name.isupper()) for name in names) else None


def _one_more(text: Source, count: ast.expr, change: str) -> Changes:
    words = f"{text.segment(count)} {change}"
    alone = isinstance(text.parents.get(count), ast.Call)
    return ((*text.span(count), words if alone else f"({words})"),)


# --- masks, targets and tokens one place off -------------------------------------------------------------------------


def one_place_off(text: Source) -> Iterator[Habit]:
    """A mask, targets or tokens that are shifted by one place, or by one text, round the end or not."""
    for name in _shifted(text):
        for words, cost in _moved(name):
            yield text.with_first_line(f"{name} = {words}"), cost, False, ""
    for statement in statements(text):
        name = _mask_of(statement)
        if name and not text.in_pullback(statement):
            at, lead = text.offsets[statement.end_lineno or statement.lineno], " " * statement.col_offset
            for words, cost in _moved(name):
                yield ((at, at, f"{lead}{name} = {words}\n"),), cost, False, ""


def _moved(name: str) -> Iterator[tuple[str, float]]:
    for places in ("1", "-1"):
        yield f"rolled({name}, {places})", 1.15
        yield f"displaced({name}, {places})", 1.2
    yield f"rolled({name}, 1, 0)", 1.25


def _shifted(text: Source) -> Iterator[str]:
    """The arrays that are given by name: masks, targets, tokens."""
    for argument in text.definition.args.kwonlyargs:
        words = text.segment(argument.annotation) if argument.annotation is not None else ""
        if words in ("Array", "Array | None"):
            yield argument.arg


def _mask_of(statement: ast.stmt) -> str:
    """The name that a statement gives a mask."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    value = statement.value if isinstance(statement, ast.Assign) else None
    value = value.orelse if isinstance(value, ast.IfExp) else value
    is_mask = isinstance(value, ast.Compare) or (
        isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitAnd | ast.BitOr)
    )
    return target.id if is_mask and isinstance(target, ast.Name) else ""
