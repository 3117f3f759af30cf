"""Indices and counts of the text as kernels form them: contributions to one index that meet in a chunk and are lost,
flat addresses and counts in numbers of 8 and 16 bits.

    for cause in scatters("embedding"):     … of 2 rows of places at once, in which the last alone counts of one index
    for cause in narrow("cross_entropy"):   … whose flat address row · columns + index is an unsigned 16-bit number

Which there are follows from the lines of the text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from refllm.verify.edits.source import Changes, Source, calls_of
from refllm.verify.kernels.in_text import InText, Lines, OfGradient, in_text

CHUNKS = (2, 4, 8, 16, 32, 64, 128, 256, 1024, 3)
TILES = (256, 128, 64, 32, 16, 8, 512, 1024)  # of places whose sum by index is stored, not added
BY = {"places": "places", "rows": "rows of places", "columns": "columns of places"}
TYPES = {
    "uint16": "an unsigned 16-bit number", "int16": "a 16-bit number",
    "uint8": "an unsigned 8-bit number", "int8": "an 8-bit number",
}  # fmt: skip
LARGEST = {  # where counts stop that are no whole numbers, or whose additions saturate
    256: "stops at 256, as one of bfloat16 does", 2048: "stops at 2,048, as one of float16 does",
    127: "stops at 127", 255: "stops at 255",
}  # fmt: skip
WIDE = tuple(name for name in TYPES if name.endswith("16"))  # those of addresses


def scatters(operation: str) -> Iterator[InText]:
    """Sums by index of which contributions are lost."""
    yield from in_text(operation, lambda text: _chunks(text, in_pullback=True), OfGradient, in_pullback=True)
    yield from in_text(operation, lambda text: _chunks(text, in_pullback=False), InText, in_pullback=False)


def narrow(operation: str) -> Iterator[InText]:
    """Addresses and counts of few bits."""
    yield from in_text(operation, lambda text: _narrow(text, in_pullback=False), InText, in_pullback=False)
    yield from in_text(operation, lambda text: _narrow(text, in_pullback=True), OfGradient, in_pullback=True)


def _chunks(text: Source, *, in_pullback: bool) -> Iterator[Lines]:
    whose = "whose gradient takes" if in_pullback else "that takes"
    for call in calls_of(text, "scatter_add"):
        if text.in_pullback(call) is not in_pullback:
            continue
        said, arguments = text.segment(call), ", ".join(text.segment(a) for a in call.args)
        for n in CHUNKS:
            for by, words in BY.items():
                about = f"{whose} {said} of {n:,} {words} at once, in which the last alone counts of one index"
                new = f'scatter_in_chunks({arguments}, {n}, "{by}")'
                yield Lines(about, "scatter-loses-those-of-one-index", text.exchanged(call, new))
        for n in TILES:
            for which in ("last", "first"):
                about = (
                    f"{whose} {said}, in which of the tiles of {n:,} places that have an index the {which} alone counts"
                )
                new = f'scatter_of_one_chunk({arguments}, {n}, "{which}")'
                yield Lines(about, f"scatter-of-{which}-tile", text.exchanged(call, new))


def _narrow(text: Source, *, in_pullback: bool) -> Iterator[Lines]:
    whose = "whose gradient has" if in_pullback else "that has"
    for name, old, exchange in _addresses(text, in_pullback=in_pullback):
        for dtype in WIDE:
            about = f"{whose} {old} with a flat address, row by row, that is {TYPES[dtype]}"
            yield Lines(about, f"{name}-address-overflow", exchange(dtype))
    counts = [node for node in _counts(text) if text.in_pullback(node) is in_pullback]
    for several in (*([node] for node in counts), *([counts] if counts[1:] else [])):
        said = " and ".join(dict.fromkeys(text.segment(node) for node in several))
        for dtype, words in TYPES.items():
            changes = tuple(
                c for node in several for c in text.exchanged(node, f'in_bits({text.segment(node)}, "{dtype}")')
            )
            yield Lines(f"{whose} {said} as {words}, which begins again below", "count-overflow", changes)
        for largest, words in LARGEST.items():
            changes = tuple(
                c for node in several for c in text.exchanged(node, f"at_most({text.segment(node)}, {largest})")
            )
            yield Lines(f"{whose} {said} as a count that {words}", "count-stops", changes)


def _counts(text: Source) -> list[ast.Call]:
    """How many places of a mask are true: x.sum() and x.cumsum() of what is no number of the model."""
    return [
        node
        for node in text.expressions()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("sum", "cumsum")
    ]


Exchange = Callable[[str], Changes]


def _addresses(text: Source, *, in_pullback: bool) -> Iterator[tuple[str, str, Exchange]]:
    """A name, the words of the text, and what stands there in few bits."""
    for call in calls_of(text, "pick", "one_hot", "scatter_add"):
        if text.in_pullback(call) is not in_pullback:
            continue
        word, arguments = text.segment(call.func), ", ".join(text.segment(a) for a in call.args)
        old = text.segment(call)
        if word == "pick" and (logits := _log_softmax_of(text, call.args[0])):
            index, log_p = text.segment(call.args[1]), text.segment(call.args[0])
            new = f'(pick_in_bits({logits}, {index}, "{{0}}") + (top({log_p}) - top({logits}))[..., 0])'
            yield "gather", f"{old}, whose numbers come from {logits},", _exchange(text, call, new)
        short = {"pick": "pick_in_bits", "one_hot": "one_hot_in_bits", "scatter_add": "scatter_in_bits"}[word]
        kind = "scatter" if word == "scatter_add" else "gather"
        yield kind, old, _exchange(text, call, f'{short}({arguments}, "{{0}}")')
    for node in text.expressions():
        if isinstance(node, ast.Subscript) and text.in_pullback(node) is in_pullback and _is_of_rows(text, node):
            table, index = text.segment(node.value), text.segment(node.slice)
            yield "gather", text.segment(node), _exchange(text, node, f'rows_in_bits({table}, {index}, "{{0}}")')


def _exchange(text: Source, node: ast.AST, new: str) -> Exchange:
    return lambda dtype: text.exchanged(node, new.format(dtype))


def _is_of_rows(text: Source, node: ast.Subscript) -> bool:
    """Whether rows of a table are read by an array of indices."""
    return (
        isinstance(node.value, ast.Name)
        and isinstance(node.slice, ast.Name)
        and (node.slice.id in text.keywords or node.slice.id == "index")
        and node.value.id in text.positional
    )


def _log_softmax_of(text: Source, node: ast.expr) -> str:
    """Of what these are the logarithms of the softmax; "" if of nothing that has a name."""
    for statement in ast.walk(text.definition):
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Call):
            continue
        target = statement.targets[0]
        first = target.elts[0] if isinstance(target, ast.Tuple) else target
        if text.segment(first) == text.segment(node) and text.segment(statement.value.func) == "log_softmax":
            return text.segment(statement.value.args[0])
    return ""
