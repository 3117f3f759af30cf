"""Factors of one term of a gradient, masks that a pullback forgets, parts of what goes back, one count for all."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Changes, Habit, Source, calls_of, tight

OF_SUMS = ("sum", "rows", "total", "mean")
UNMASKED = "the gradient also goes to places that `{}` leaves out"
OVER_ALL = "the sum over all stands for `{}`, the sum of each"
ONE_FOR_ALL = "the mean of `{}` over all stands for that of each"


def scaled_by_numbers(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """dB = scale * u   becomes   dB = scale * u * scale: a number of the text once more, or once too few."""
    numbers = text.numbers()
    real = [f"(1 - {name})" for name in numbers if name in text.real]
    for node in text.expressions() if numbers else ():
        parent = text.parents.get(node)
        is_gradient = isinstance(parent, ast.Assign) and text.in_pullback(node)
        if isinstance(node, ast.Tuple) or not (is_gradient or node in text.returned()):
            continue
        for name in (*numbers, *real):
            words = tight(text.segment(node))
            yield text.exchanged(node, f"{words} * {name}"), 1.3, text.in_pullback(node)
            yield text.exchanged(node, f"{words} / {name}"), 1.35, text.in_pullback(node)


def terms_scaled(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """a + b   becomes   a + b * sqrt(D), in a pullback: the root of a size belongs to one of two terms alone."""
    roots = [text.segment(c) for c in calls_of(text, "sqrt") if len(c.args) == 1 and isinstance(c.args[0], ast.Name)]
    for node in text.expressions():
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and text.in_pullback(node)):
            continue
        for term in (node.left, node.right):
            for root in dict.fromkeys(roots):
                for sign in "*/":
                    yield text.exchanged(term, f"{tight(text.segment(term))} {sign} {root}"), 1.25, True


def summands_scaled(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """sum(ds)   becomes   sum(ds / P), in a pullback, for what has a name before it."""
    forward = {
        name.id: None
        for s in statements(text)
        if isinstance(s, ast.Assign) and not text.in_pullback(s)
        for name in ast.walk(s.targets[0])
        if isinstance(name, ast.Name) and not name.id.endswith("_back") and name.id not in text.sizes()
    }
    for call in calls_of(text, *OF_SUMS):
        first = call.args[0] if call.args and text.in_pullback(call) else None
        base = first.value if isinstance(first, ast.Subscript) else first
        if first is None or not isinstance(base, ast.Name):
            continue
        words = text.segment(first)
        for name in (*forward, *text.arrays[:3]):
            if name != base.id:
                other = name + words.removeprefix(base.id)
                yield from ((text.exchanged(first, f"{words} {sign} {other}"), 1.35, True) for sign in "*/")


def parts_that_go_back(text: Source) -> Iterator[Habit]:
    """dx, dp = f_back(dq, dk)   and then   dx, _ = f_back(dq, 0 * dk): one of the results is made of a part of what the
    others are made of; the same where the parts stand in one list, side by side."""
    for statement in statements(text):
        call = statement.value if isinstance(statement, ast.Assign) and text.in_pullback(statement) else None
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if not isinstance(call, ast.Call) or not isinstance(target, ast.Tuple):
            continue
        given = _side_by_side(text, call)
        at, lead = text.offsets[statement.end_lineno or statement.lineno], " " * statement.col_offset
        parts = [text.segment(part) for part in given]
        for kept in _shares(len(parts)):
            one = text.segment(call)
            for n, part in enumerate(parts):
                one = one if n in kept else one.replace(part, f"0 * {tight(part)}")
            for n, name in enumerate(target.elts):
                targets = ["_"] * n + [text.segment(name)] + ["_"] * (len(target.elts) - n - 1)
                made_of = " and ".join(f"`{parts[m]}`" for m in sorted(kept))
                said = f"`{targets[n]}` is made of {made_of} alone"
                yield ((at, at, f"{lead}{', '.join(targets)} = {one}\n"),), 1.15, True, said


def _side_by_side(text: Source, call: ast.Call) -> list[ast.expr]:
    """The arguments of a call, or what its one argument is put together from."""
    if len(call.args) > 1 and text.segment(call.func).endswith("_back"):
        return call.args
    inner = call.args[0] if len(call.args) == 1 else None
    together = isinstance(inner, ast.Call) and text.segment(inner.func) == "concatenate"
    first = inner.args[0] if isinstance(inner, ast.Call) and together else None
    return first.elts if isinstance(first, ast.List) else []


def _shares(count: int) -> list[frozenset[int]]:
    """One of so many, or all but one."""
    every = frozenset(range(count))
    alone = [frozenset({n}) for n in range(count)] if count > 1 else []
    return list(dict.fromkeys([*alone, *(every - {n} for n in every if count > 1)]))


def masks_forgotten_going_back(text: Source) -> Iterator[Habit]:
    """where(counted, dl, 0) ... where(counted[..., None], dx, 0)   becomes   dl ... dx, in the whole pullback."""
    masks: dict[str, list[ast.Call]] = {}
    for call in calls_of(text, "where"):
        mask = call.args[0] if len(call.args) == 3 and text.in_pullback(call) else None
        base = mask.value if isinstance(mask, ast.Subscript) else mask
        if isinstance(base, ast.Name):
            masks.setdefault(base.id, []).append(call)
    for name, calls in masks.items():
        if len(calls) > 1 and not any(a is not b and a in ast.walk(b) for a in calls for b in calls):
            changes = tuple(c for call in calls for c in text.exchanged(call, text.segment(call.args[1])))
            yield changes, 1.05, True, UNMASKED.format(name)


def one_count_for_all(text: Source) -> Iterator[Habit]:
    """mask.sum(axis=-2)   becomes   mean_of_all(mask.sum(axis=-2)): as if all texts had as many tokens."""
    for node in text.expressions():
        counts = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sum"
        if isinstance(node, ast.Call) and counts and [k.arg for k in node.keywords] == ["axis"]:
            words = text.segment(node)
            yield text.exchanged(node, f"mean_of_all({words})"), 1.2, text.in_pullback(node), ONE_FOR_ALL.format(words)
            everything = f"{text.segment(node.func)}()"
            yield text.exchanged(node, everything), 1.1, text.in_pullback(node), OVER_ALL.format(words)
