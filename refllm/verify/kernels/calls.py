"""A map that one line of the text takes over some of its inner width alone: the share of one of several maps in a
gradient is that of its last tile, where those of all tiles are to be added up.

    for cause in calls_of_gradients("gated_feed_forward"):      … takes dx_gate from gate_back of the last 128 alone

Products that stand in the text itself are those of `partial_products`; here it is the call of a map, each for itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Source, tight
from refllm.verify.kernels.in_text import InText, Lines, OfGradient, in_text
from refllm.verify.kernels.partial_sums import CHUNKS, LANES

MAPS = ("affine", "linear", "matmul", "expert_matmul", "expert_linear")
KINDS = (
    ("last-part-alone", "of the last part of {n} columns alone", "last_part_alone({x}, {n})", CHUNKS),
    ("first-part-alone", "of the first {n} columns alone", "first_alone({x}, {n})", CHUNKS),
    ("last-part-lost", "without the last part of {n} columns, whole or not", "without_last_part({x}, {n})", CHUNKS),
    ("first-part-lost", "without the first {n} columns", "{x} - first_alone({x}, {n})", CHUNKS),
    ("tail-lost", "without the columns after whole parts of {n}", "without_tail({x}, {n})", LANES),
    ("later-parts-twice", "with all parts of {n} columns but the first counted twice",
     "2 * {x} - first_alone({x}, {n})", CHUNKS),
    ("tail-twice", "with the columns after whole parts of {n} counted twice",
     "2 * {x} - without_tail({x}, {n})", LANES),
    ("moved-tail-twice", "with a last part of {n} columns that is moved back so that it is whole, "
     "and counts again what is in the one before", "with_stale_tail({x}, {n})", CHUNKS),
)  # fmt: skip


def calls_of_gradients(operation: str) -> Iterator[InText]:
    return in_text(operation, _of_gradients, OfGradient, in_pullback=True)


def calls_of_values(operation: str) -> Iterator[InText]:
    return in_text(operation, _of_values, InText, in_pullback=False)


def _of_gradients(text: Source) -> Iterator[Lines]:
    maps = {back for _, back, _ in _maps(text)}
    for statement, call in _calls(text):
        if text.segment(call.func) in maps and text.in_pullback(statement):
            for place, name in enumerate(_names(statement)):
                yield from _otherwise(text, statement, call, name, place, "whose gradient takes")


def _of_values(text: Source) -> Iterator[Lines]:
    for statement, _, call in _maps(text):
        yield from _otherwise(text, statement, call, _names(statement)[0], 0, "that takes")


def _otherwise(
    text: Source, statement: ast.Assign, call: ast.Call, name: str, place: int, whose: str
) -> Iterator[Lines]:
    """One more line, which gives one of the results another value."""
    x, said = tight(text.segment(call.args[0])), text.segment(call)
    at, indent = text.offsets[statement.end_lineno or statement.lineno], " " * statement.col_offset
    begin, first = text.span(call)[0], text.span(call.args[0])
    words = said.encode()
    for kind, about, new, sizes in KINDS:
        for n in sizes:
            other = words[: first[0] - begin] + new.format(x=x, n=n).encode() + words[first[1] - begin :]
            line = f"{indent}{name} = {other.decode()}[{place}]\n"
            yield Lines(f"{whose} {name} from {said} {about.format(n=f'{n:,}')}", f"{name}-{kind}", ((at, at, line),))


def _calls(text: Source) -> Iterator[tuple[ast.Assign, ast.Call]]:
    for node in ast.walk(text.definition):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value.args and _names(node):
            yield node, node.value


def _names(statement: ast.Assign) -> list[str]:
    """Of several results."""
    target = statement.targets[0]
    parts = target.elts if isinstance(target, ast.Tuple) else []
    return [part.id for part in parts if isinstance(part, ast.Name)] if parts else []


def _maps(text: Source) -> Iterator[tuple[ast.Assign, str, ast.Call]]:
    """The lines that call a map, and what its pullback is called."""
    for statement, call in _calls(text):
        names = _names(statement)
        if text.segment(call.func) in MAPS and names[-1].endswith("_back"):
            yield statement, names[-1], call
