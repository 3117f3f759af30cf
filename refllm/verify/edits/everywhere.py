"""A word of the text that is taken for another, or of whose result something is made, wherever it is called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import combinations

from refllm.verify.edits.source import Changes, Source, apart, tight
from refllm.verify.edits.vocabulary import alike

DONE = ("{} * {}", "sqrt({})", "2 * {}", "{} / 2")  # to a result
OF_NUMBERS = ("total", "sum", "mean", "sqrt", "exp", "log", "softmax")


def word_everywhere(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """total(a * a) ... + total(b * b)   becomes   total(a * a) ** 2 ... + total(b * b) ** 2"""
    calls: dict[tuple[str, bool], list[ast.Call]] = {}
    for node in text.expressions():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OF_NUMBERS:
            calls.setdefault((node.func.id, text.in_pullback(node)), []).append(node)
    for (word, inside), nodes in calls.items():
        differ = len({text.segment(node) for node in nodes}) > 1  # equal ones are changed together anyhow
        if not differ or not all(_are_apart(text, a, b) for a, b in combinations(nodes, 2)):
            continue
        for form in DONE:
            changes = tuple(c for node in nodes for c in text.exchanged(node, tight(_put(form, text.segment(node)))))
            yield changes, 1.35, inside
        for other in alike(word):
            yield tuple(c for node in nodes for c in text.exchanged(node.func, other)), 1.25, inside


def _are_apart(text: Source, one: ast.Call, other: ast.Call) -> bool:
    return apart(text.exchanged(one, ""), text.exchanged(other, ""))


def _put(form: str, words: str) -> str:
    return form.replace("{}", words)
