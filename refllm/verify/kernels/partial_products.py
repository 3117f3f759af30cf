"""A matrix product of the text that is added up over some of its terms alone: the tail after whole tiles is lost, or
everything behind a limit.

    for cause in tails_of_products("lstm"):     … takes h @ Wh without the terms after whole parts of 64

Which products there are follows from the lines of the text; those of a step of a recurrence are among them. Several are
taken alike where one routine forms them all.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Source, tight
from refllm.verify.kernels.in_text import InText, Lines, OfGradient, in_text
from refllm.verify.kernels.partial_sums import CHUNKS, LANES, LIMITS

TAILS = (
    ("tail-of-long-lost", "without the terms after whole parts of {n}, where there is such a part",
     "without_tail_of_long({x}, {n})", LANES),
    ("tail-lost", "without the terms after whole parts of {n}", "without_tail({x}, {n})", LANES),
)  # fmt: skip
OTHERS = (
    ("first-alone", "of the first {n} terms alone", "first_alone({x}, {n})", LIMITS),
    ("last-part-lost", "without its last part of {n} terms, whole or not", "without_last_part({x}, {n})", CHUNKS),
    ("last-part-alone", "of the last part of {n} terms alone", "last_part_alone({x}, {n})", CHUNKS),
    ("moved-tail-twice", "with a last part of {n} terms that is moved back so that it is whole, "
     "and counts again what is in the one before", "with_stale_tail({x}, {n})", CHUNKS),
    ("half-of-lanes", "of the first half of each {n} terms", "half_of_lanes({x}, {n})", (32, 2, 64, 8, 4, 16)),
)  # fmt: skip
Kinds = tuple[tuple[str, str, str, tuple[int, ...]], ...]


def tails_of_products(operation: str) -> Iterator[InText]:
    yield from _products(operation, TAILS)


def parts_of_products(operation: str) -> Iterator[InText]:
    yield from _products(operation, OTHERS)


def _products(operation: str, kinds: Kinds) -> Iterator[InText]:
    yield from in_text(operation, lambda text: _lines(text, kinds, in_pullback=False), InText, in_pullback=False)
    yield from in_text(operation, lambda text: _lines(text, kinds, in_pullback=True), OfGradient, in_pullback=True)


def _lines(text: Source, kinds: Kinds, *, in_pullback: bool) -> Iterator[Lines]:
    whose = "whose gradient takes" if in_pullback else "that takes"
    found = [node for node in _matrix_products(text) if text.in_pullback(node) is in_pullback]
    for kind, words, new, sizes in kinds:
        for several in (*([node] for node in found), *([found] if found[1:] else [])):
            said = " and ".join(dict.fromkeys(text.segment(node) for node in several))
            for n in sizes:
                changes = tuple(
                    (*text.span(node.left), tight(new.format(x=text.segment(node.left), n=n))) for node in several
                )
                yield Lines(f"{whose} {said} {words.format(n=f'{n:,}')}", f"product-{kind}", changes)


def _matrix_products(text: Source) -> list[ast.BinOp]:
    """The products of matrices, but for one inside another."""
    nodes = [n for n in text.expressions() if isinstance(n, ast.BinOp) and isinstance(n.op, ast.MatMult)]
    inner = {id(n) for node in nodes for n in ast.walk(node.left) if n is not node.left or n in nodes}
    return [node for node in nodes if id(node) not in inner]
