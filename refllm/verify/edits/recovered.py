"""A quantity of the forward pass that a pullback recovers from the output, instead of keeping it: n as (y - b) / g, a
mask as y != 0. Equal almost everywhere, and lost where the step cannot be undone."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Changes, Habit, Source, is_atom, tight

COST = 1.1
DEPTH = 4  # steps that are undone, one after the other
OPPOSITE = {"exp": "log({})", "log": "exp({})", "sqrt": "{0} * {0}"}


def recovered_from_the_output(text: Source) -> Iterator[Habit]:
    """y = g * n + b; ... mean(dn * n)   becomes   mean(dn * ((y - b) / g)) in the pullback."""
    for value, pullback, output in _values(text):
        made = _made(text, pullback)
        kept: Changes = ()
        name = output.id if isinstance(output, ast.Name) else "y"
        if not isinstance(output, ast.Name):
            at = text.offsets[pullback.lineno - 1]
            kept = ((at, at, f"{' ' * pullback.col_offset}{name} = {text.segment(output)}\n"),)
        found = dict[str, str]()
        for words, undone in _undone(text, value, name, made, DEPTH):
            found.setdefault(words, undone)
        for words, undone in found.items():
            places = [
                node for node in ast.walk(pullback)
                if isinstance(node, ast.expr) and text.segment(node) == words and not _is_stored(node)
            ]  # fmt: skip
            if places and undone != words and not _is_a_number(text, words, undone):
                said = f"the pullback does not keep `{words}`, but takes `{undone}` for it"
                changes = tuple(c for node in places for c in text.exchanged(node, undone))
                yield (*kept, *changes), COST, True, said


def _values(text: Source) -> Iterator[tuple[ast.expr, ast.FunctionDef, ast.expr]]:
    """What is returned, the pullback beside it, and the words for the value, a name where it has one."""
    inner = {f.name: f for f in text.inner}
    for node in text.body():
        pair = node.value if isinstance(node, ast.Return) else None
        if not isinstance(pair, ast.Tuple) or len(pair.elts) != 2 or not isinstance(pair.elts[1], ast.Name):
            continue
        pullback, output = inner.get(pair.elts[1].id), pair.elts[0]
        if pullback is not None:
            value = _made(text, pullback).get(output.id) if isinstance(output, ast.Name) else output
            if value is not None:
                yield value, pullback, output


def _made(text: Source, pullback: ast.FunctionDef) -> dict[str, ast.expr]:
    """What the names stand for that are given a value once, before the pullback."""
    found, times = dict[str, ast.expr](), dict[str, int]()
    for node in statements(text):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Assign) and isinstance(target, ast.Name) and node.lineno < pullback.lineno:
            found[target.id] = node.value
            times[target.id] = times.get(target.id, 0) + 1
    return {name: value for name, value in found.items() if times[name] == 1}


def _undone(text: Source, node: ast.expr, is_: str, made: dict[str, ast.expr], depth: int) -> Iterator[tuple[str, str]]:
    """For every part of an expression that has the value `is_`: its words, and what it must be."""
    if depth < 0:
        return

    def step(part: ast.expr, words: str) -> Iterator[tuple[str, str]]:
        return _undone(text, part, words, made, depth - 1)

    if isinstance(node, ast.Name):
        if node.id != is_:
            yield node.id, is_
        if node.id in made:
            yield from _undone(text, made[node.id], is_, made, depth - 1)
    elif isinstance(node, ast.BinOp):
        left, right, by = node.left, node.right, tight(is_)
        a, b = tight(text.segment(left)), tight(text.segment(right))
        if isinstance(node.op, ast.Add):
            yield from (*step(left, f"{by} - {b}"), *step(right, f"{by} - {a}"))
        elif isinstance(node.op, ast.Sub):
            yield from (*step(left, f"{by} + {b}"), *step(right, f"{a} - {by}"))
        elif isinstance(node.op, ast.Mult):
            yield from (*step(left, f"{by} / {b}"), *step(right, f"{by} / {a}"))
        elif isinstance(node.op, ast.Div):
            yield from (*step(left, f"{by} * {b}"), *step(right, f"{a} / {by}"))
    elif isinstance(node, ast.Call):
        word, arguments = text.segment(node.func), node.args
        if word == "where" and len(arguments) == 3:
            mask, x, other = arguments
            yield text.segment(mask), f"{is_ if is_atom(is_) else tight(is_)} != {tight(text.segment(other))}"
            yield from step(x, is_)
        elif word in OPPOSITE and len(arguments) == 1:
            yield from step(arguments[0], OPPOSITE[word].format(tight(is_)))


def _is_a_number(text: Source, words: str, undone: str) -> bool:
    """Whether this is one number, which nobody would save: given as such, a size, or taken from what is added up."""
    name = words in text.real | text.whole or (len(words) == 1 and words.isupper())
    return name or "sum(" in undone or "total(" in undone or words.endswith("count")


def _is_stored(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store)
