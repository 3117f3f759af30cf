"""A gradient of several parts side by side, one of which stands where another should: of gates, of q, k and v."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import combinations

from refllm.verify.edits.source import Habit, Source, calls_of

MOST = 4  # parts
ORDERED = "of the {} parts of this gradient side by side, {}"
ORDINALS = ("first", "second", "third", "fourth")


def parts_for_others(text: Source) -> Iterator[Habit]:
    """return dx, dWx, db   becomes   return dx, dWx, in_parts(db, (1, 1, 2, 1))"""
    lists = {
        text.segment(node.targets[0]): node.value
        for node in ast.walk(text.definition)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
    }
    counts = {int(n) for n in re.findall(r"\b([2-4]) \* [A-Z]\b", text.segment(text.definition))}
    for call in calls_of(text, "concatenate"):
        parts = lists.get(text.segment(call.args[0]), call.args[0])
        axis = [text.segment(k.value) for k in call.keywords if k.arg == "axis"]
        if text.in_pullback(call) and isinstance(parts, ast.List) and axis in (["-1"], ["1"]):
            counts |= {len(parts.elts)} & set(range(2, MOST + 1))
    gradients = [n for n in text.returned() if text.in_pullback(n) and not isinstance(n, ast.Tuple)]
    for count in sorted(counts):
        for order, said in _orders(count):
            for node in gradients:
                words = f"in_parts({text.segment(node)}, {order})"
                yield text.exchanged(node, words), 1.3, True, ORDERED.format(count, said)


def _orders(count: int) -> Iterator[tuple[tuple[int, ...], str]]:
    """One part in the place of one or several others, and two exchanged."""
    own = tuple(range(count))
    for source in own:
        others = [n for n in own if n != source]
        for share in range(1, count):
            for places in combinations(others, share):
                names = " and the ".join(ORDINALS[n] for n in places)
                verb = "is" if share == 1 else "are"
                order = tuple(source if n in places else n for n in own)
                yield order, f"the {names} {verb} the {ORDINALS[source]} one"
    for a, b in combinations(own, 2):
        order = tuple({a: b, b: a}.get(n, n) for n in own)
        yield order, f"the {ORDINALS[a]} and the {ORDINALS[b]} are exchanged"
