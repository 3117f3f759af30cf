"""Gradients that are cut off in one use of a tensor: of a whole input, of one place where a name is read, of the
targets alone or of all but the targets."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import combinations

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Changes, Habit, Source, calls_of

WHOLE, ONE_USE, TARGETS = 1.1, 1.3, 1.15
OF_TARGETS = {"cross_entropy", "smoothed_cross_entropy", "pick"}
APART = "{} get{} no gradient through {}"


def detached(text: Source) -> Iterator[tuple[Changes, float, bool] | Habit]:
    """constant(b) for b: everywhere, in one of its uses, in the scores of targets or of the others."""
    for name in text.arrays:
        yield text.with_first_line(f"{name} = constant({name})"), WHOLE, False
    for nodes in _uses(text).values():
        for node in nodes if len(nodes) > 1 else ():
            yield text.exchanged(node, f"constant({node.id})"), ONE_USE, False
    yield from _by_target(text)


def _uses(text: Source) -> dict[str, list[ast.Name]]:
    """The places in which the value is made of an array or a state."""
    found: dict[str, list[ast.Name]] = {}
    for node in text.expressions():
        if isinstance(node, ast.Name) and not text.in_pullback(node) and _is_calculated_with(text, node):
            found.setdefault(node.id, []).append(node)
    return found


def _is_calculated_with(text: Source, node: ast.Name) -> bool:
    parent = text.parents.get(node)
    single = node.id in text.real or node.id in text.whole or (len(node.id) == 1 and node.id.isupper())
    if single and node.id in text.sizes():
        return False
    if isinstance(parent, ast.BinOp):
        return isinstance(parent.op, ast.Add | ast.Sub | ast.Mult | ast.Div | ast.MatMult) and node.id in _tensors(text)
    return isinstance(parent, ast.Call) and node in parent.args[:1] and text.segment(parent.func) in ("swap", "sum")


def _tensors(text: Source) -> set[str]:
    """What is no single number: arrays that are given, and what a statement makes."""
    made = {
        n.id for s in statements(text) if isinstance(s, ast.Assign) and not text.in_pullback(s)
        for n in ast.walk(s.targets[0]) if isinstance(n, ast.Name) and not n.id.endswith("_back")
    }  # fmt: skip
    return ({*text.arrays} | made) - {*text.sizes(), "count", *text.real, *text.whole}


def _by_target(text: Source) -> Iterator[Habit]:
    """s = n @ swap(m); cross_entropy(s, targets=t)   becomes   s with n @ swap(constant(m)) where it is not the
    target: at_targets(t, s, c) is s there and c elsewhere."""
    made = {
        text.segment(s.targets[0]): s.value for s in statements(text)
        if isinstance(s, ast.Assign) and not text.in_pullback(s)
    }  # fmt: skip
    for call in calls_of(text, *OF_TARGETS):
        targets = [text.segment(k.value) for k in call.keywords if k.arg == "targets"] + [
            text.segment(a) for a in call.args[1:2]
        ]
        scores = call.args[0] if call.args else None
        value = made.get(text.segment(scores)) if scores is not None else None
        if value is None or not targets or not isinstance(value, ast.BinOp):
            continue
        names = list(dict.fromkeys(n.id for n in ast.walk(value) if isinstance(n, ast.Name) and n.id in _tensors(text)))
        words = text.segment(value)
        for few in (f for n in (1, 2) for f in combinations(names, n)):
            cut = _cut(text, value, few)
            which, s = " and ".join(f"`{n}`" for n in few), "s" * (len(few) == 1)
            for a, b, place in ((words, cut, "the scores of what is no target"), (cut, words, "that of the target")):
                new = f"at_targets({targets[0]}, {a}, {b})"
                yield text.exchanged(value, new), TARGETS, False, APART.format(which, s, place)


def _cut(text: Source, value: ast.expr, names: tuple[str, ...]) -> str:
    """The words of a value with some of its names as constants."""
    whole, start = text.segment(value).encode(), text.span(value)[0]
    places = [text.span(n) for n in ast.walk(value) if isinstance(n, ast.Name) and n.id in names]
    for first, last in sorted(places, reverse=True):
        word = whole[first - start : last - start]
        whole = whole[: first - start] + b"constant(" + word + b")" + whole[last - start :]
    return whole.decode()
