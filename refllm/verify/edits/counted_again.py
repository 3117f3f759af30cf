"""What every row has once beside its keys, counted once for each block of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Habit, Source, calls_of

BLOCKS = (1, 2, 3, 4, 8, 16, 32, 64, 128)
SAID = "`{}` counts once for every {} of the others of its row"


def once_for_each_block(text: Source) -> Iterator[Habit]:
    """softmax(concatenate([s, nothing]))   becomes   one of   [s, once_for_each_block(nothing, s, 4)]"""
    for call in calls_of(text, "concatenate"):
        parts = call.args[0].elts if call.args and isinstance(call.args[0], ast.List) else []
        parent = text.parents.get(call)
        weighed = isinstance(parent, ast.Call) and text.segment(parent.func) in (
            "softmax",
            "log_softmax",
            "log_sum_exp",
        )
        if len(parts) != 2 or not weighed or text.in_pullback(call):
            continue
        for part, others in ((parts[1], parts[0]), (parts[0], parts[1])):
            for size in BLOCKS:
                name, rest = text.segment(part), text.segment(others)
                said = SAID.format(name, "one" if size == 1 else f"block of {size}")
                for word in ("once_for_each_block", "once_for_each_seen_block"):
                    yield text.exchanged(part, f"{word}({name}, {rest}, {size})"), 1.2, False, said
