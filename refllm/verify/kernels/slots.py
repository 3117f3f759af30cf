"""Slots of experts that are read or written wrongly: a token without one that takes the last one, or the first of the
next group, one place too few or too many, places and experts exchanged.

    for cause in slots("combine"):      … whose gradient reads taken as if a token without a slot has the last one

Each is made wherever the text reads the index of a slot, or in one of these places alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Changes, Source
from refllm.verify.kernels.in_text import InText, Lines, OfGradient, in_text

INDEX = "_through_all_groups"  # what makes the index of the slots
OTHERS = (
    ("dropped-to-last", "that a token without a slot has the last one of its text", "last"),
    ("dropped-to-first", "that a token without a slot has the first one of its text", "first"),
    ("dropped-to-last-of-all", "that a token without a slot has the last one of all texts", "last of all"),
    ("dropped-to-next-text", "that a token without a slot has the first one of the next text", "next"),
    ("last-place-lost", "that a token in the last place of an expert has no slot", "less"),
    ("first-place-lost", "that a token in the first place of an expert has no slot", "first place"),
    ("place-late", "that each token has the slot after its own", "after"),
    ("place-early", "that each token has the slot before its own", "before"),
    ("last-expert-lost", "that a token of the last expert has no slot", "last expert"),
    ("text-forgotten", "that the slots of all texts are those of the first one", "first text"),
    ("places-first", "that slots are numbered by place before expert", "places first"),
    ("experts-first", "that numbers by place before expert are read as slots", "experts first"),
)  # fmt: skip


def slots(operation: str) -> Iterator[InText]:
    yield from in_text(operation, lambda text: _lines(text, in_pullback=True), OfGradient, in_pullback=True)
    yield from in_text(operation, lambda text: _lines(text, in_pullback=False), InText, in_pullback=False)


def _lines(text: Source, *, in_pullback: bool) -> Iterator[Lines]:
    assigned = [s for s in text.body() if isinstance(s, ast.Assign) and _is_index(text, s.value)]
    for statement in assigned:
        name = text.segment(statement.targets[0])
        given, size = (text.segment(x) for x in statement.value.args)  # type: ignore[attr-defined]
        places = _places(text)
        reads = [n for n in text.expressions() if isinstance(n, ast.Name) and n.id == name]
        read_back = [n for n in reads if text.in_pullback(n)]
        kept = _kept(text, reads)
        for id, words, kind in OTHERS:
            other = f'other_slots({given}, {size}, {places}, "{kind}")'
            if not in_pullback:
                yield Lines(f"in which it is as if {words[5:]}", id, text.exchanged(statement.value, other))
                for node in reads:
                    if node not in read_back:
                        about = f"that takes {text.segment(_call(text, node))} as if {words[5:]}"
                        yield Lines(about, id, text.exchanged(node, other))
                continue
            for node in read_back:
                about = f"whose gradient takes {text.segment(_call(text, node))} as if {words[5:]}"
                yield Lines(about, f"gradient-{id}", text.exchanged(node, other))
            for value, call, again in kept:
                new = text.segment(call).replace(name, other)
                changes: Changes = tuple((*text.span(n), new) for n in again)
                yield Lines(f"whose gradient reads {value} as if {words[5:]}", f"gradient-{id}", changes)
            everywhere = [(*text.span(n), other) for n in read_back]
            everywhere += [(*text.span(n), text.segment(c).replace(name, other)) for _, c, ns in kept for n in ns]
            if len(everywhere) > 1:
                yield Lines(f"whose gradient is as if {words[5:]}", f"gradient-{id}", tuple(everywhere))


def _is_index(text: Source, node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and text.segment(node.func) == INDEX


def _places(text: Source) -> str:
    """How many places an expert has, as the text says it."""
    return "capacity" if "capacity" in text.keywords else "z.shape[-2]"


def _call(text: Source, node: ast.AST) -> ast.AST:
    while not isinstance(node, ast.Call):
        node = text.parents[node]
    return node


def _kept(text: Source, reads: list[ast.Name]) -> list[tuple[str, ast.Call, list[ast.Name]]]:
    """Values that are made by the index and that the gradient reads: their name, their call and where they are read."""
    found = []
    for node in reads:
        call = _call(text, node)
        statement = text.parents[call]
        if (
            isinstance(statement, ast.Assign)
            and isinstance(call, ast.Call)
            and isinstance(statement.targets[0], ast.Name)
        ):
            value = statement.targets[0].id
            again = [n for n in text.expressions() if isinstance(n, ast.Name) and n.id == value and text.in_pullback(n)]
            again = [n for n in again if not isinstance(text.parents[n], ast.Attribute)]
            found += [(value, call, again)] if again else []
    return found
