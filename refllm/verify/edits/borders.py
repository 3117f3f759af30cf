"""Ranges between borders: one more at an end, the last one drawn out, one that is forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import product

from refllm.verify.edits.source import Habit, Source

COST = 1.15
FORGOTTEN = (("{}[:-1]", "the last range is left out"), ("{}[1:]", "the first range is left out"))
OPENED = "[0, *{}]", "what comes before the first border is a range of its own"
CLOSED = (
    ("[*{}, {}]", "what comes after the last border is a range of its own"),
    ("[*{}[:-1], {}]", "the last range goes to the end"),
)


def borders_otherwise(text: Source) -> Iterator[Habit]:
    """for first, end in pairwise(borders)   becomes   pairwise([*borders, T]): a range that nobody speaks of."""
    sizes = _sizes(text)
    for loop in [node for node in ast.walk(text.definition) if isinstance(node, ast.For | ast.comprehension)]:
        lists = [borders for node in ast.walk(loop.iter) if (borders := _borders(text, node)) is not None]
        if not lists:
            continue
        inside = text.in_pullback(loop.iter)
        for words, said in (*FORGOTTEN, OPENED):
            changes = tuple(c for each in lists for c in text.exchanged(each, words.format(text.segment(each))))
            yield changes, COST, inside, said
        for words, said in CLOSED:
            for ends in dict.fromkeys([tuple(sizes[: len(lists)]), *product(sizes, repeat=len(lists))]):
                yield (
                    tuple(
                        c for each, end in zip(lists, ends, strict=True)
                        for c in text.exchanged(each, words.format(text.segment(each), end))
                    ),
                    COST, inside, said,
                )  # fmt: skip


def _borders(text: Source, node: ast.AST) -> ast.expr | None:
    """The list of borders in pairwise(borders), if it was given."""
    if not (isinstance(node, ast.Call) and text.segment(node.func) == "pairwise" and len(node.args) == 1):
        return None
    given = node.args[0]
    return given if isinstance(given, ast.Name) and given.id in text.keywords else None


def _sizes(text: Source) -> list[str]:
    """The names of sizes: dimensions of arrays, and whole numbers that are given."""
    stored = [n.id for n in ast.walk(text.definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return [*dict.fromkeys(name for name in stored if len(name) == 1 and name.isupper()), *sorted(text.whole)]
