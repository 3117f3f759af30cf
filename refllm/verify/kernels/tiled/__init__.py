"""Mistakes of attention in tiles that are no rows of the bank: families of edits of its text.

edits()     every one, as a mistake, those first that people make more often
"""

from __future__ import annotations

import re
from functools import cache

from refllm.verify.kernels import flash
from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.tiled import backward, forward, gradients, lines, masks


@cache
def edits() -> tuple[Mistake, ...]:
    return (
        *gradients.of_shared(), *backward.of_widths(),
        *masks.mistakes(), *masks.skipped(), *masks.bounded(), *masks.skipped_before_windows(),
        *backward.mistakes(), *gradients.mistakes(), *forward.mistakes(),
    )  # fmt: skip


@cache
def single() -> tuple[Mistake, ...]:
    """Single edits of lines, each of which says nothing but what stands in whose place."""
    return tuple(lines.mistakes())


TILED = re.compile(
    r"\b(rows|keys)\.st(art|op)|TILE|ROWS|\b(before|first)\(|\brescale\b|\b(top|shift|old|carried|last)\b"
)
PLACES = re.compile(r"\b(rows|keys)\.st(art|op)")
BOTH = re.compile(r"\brows\.st.*\bkeys\.st|\bkeys\.st.*\brows\.st|ROWS.*TILE|TILE.*ROWS")


@cache
def is_by_tile(mistake: Mistake) -> bool:
    """Whether it reads where a tile of attention begins or ends, whose size its own lines need not name."""
    return any(
        each.original in (flash.forward, flash.backward, flash.scores) and PLACES.search(new)
        for each in mistake.rewritten
        for new in each.lines[1::2]
    )


@cache
def depends(mistake: Mistake, *, on_both: bool = False) -> bool:
    """Whether a mistake gives other answers in tiles of other sizes, and in tiles of queries of another size than
    those of keys."""
    pattern = BOTH if on_both else TILED
    return any(pattern.search(new) for each in mistake.rewritten for new in each.lines[1::2])
