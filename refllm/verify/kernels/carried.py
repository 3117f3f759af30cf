"""A gradient that goes through time in chunks of steps, and loses what is carried from one to the next, counts it
twice, or carries it over the border without a factor.

for cause in carried("lstm"):     … loses dc at the borders of chunks of 8 steps, from the last step on
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Source
from refllm.verify.kernels.in_text import InText, Lines, OfGradient, in_text

CHUNKS = (8, 16, 32, 64, 4, 128, 2, 256)
BORDERS = {"from the last step on": "(T - 1 - t) % {n} == 0", "from the first step on": "(t + 1) % {n} == 0"}
LEFT = {"from the last step on": "(T - t) % {n} == 0", "from the first step on": "t % {n} == 0"}  # before the next step
TAKEN = (("loses", "chunks-lose", "0 * {name}"), ("doubles", "chunks-double", "2 * {name}"))


def carried(operation: str) -> Iterator[InText]:
    return in_text(operation, _lines, OfGradient, in_pullback=True)


def _lines(text: Source) -> Iterator[Lines]:
    for loop in [node for node in ast.walk(text.definition) if isinstance(node, ast.For)]:
        if text.segment(loop.iter) != "reversed(range(T))" or text.segment(loop.target) != "t":
            continue
        names = _carried(loop)
        at, indent = text.offsets[loop.body[0].lineno - 1], " " * loop.body[0].col_offset
        for does, id, new in TAKEN:
            for n in CHUNKS:
                for of in dict.fromkeys((tuple(names), *((name,) for name in names))):
                    for words, border in BORDERS.items():
                        lines = "".join(f"{indent}    {name} = {new.format(name=name)}\n" for name in of)
                        line = f"{indent}if t < T - 1 and {border.format(n=n)}:\n{lines}"
                        about = (
                            f"whose gradient {does} {' and '.join(of)} at the borders of chunks of {n} steps, {words}"
                        )
                        yield Lines(about, f"{id}-{'-'.join(of)}", ((at, at, line),))
        yield from _without_factors(text, loop, names)


def _without_factors(text: Source, loop: ast.For, names: list[str]) -> Iterator[Lines]:
    """What is carried over a border without one of the factors that it has elsewhere."""
    for statement in loop.body:
        given = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        if not isinstance(statement, ast.Assign) or not given & set(names) or statement.lineno != statement.end_lineno:
            continue
        begin, _ = text.span(statement)
        line, indent = text.segment(statement).encode(), " " * statement.col_offset
        for node in ast.walk(statement.value):
            if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult):
                continue
            for lost, left in ((node.right, node.left), (node.left, node.right)):
                first, last = text.span(node)
                other = (line[: first - begin] + text.segment(left).encode() + line[last - begin :]).decode()
                for n in CHUNKS:
                    for words, border in LEFT.items():
                        at_border = f"if t > 0 and {border.format(n=n)}:\n{indent}    {other}\n"
                        new = f"{at_border}{indent}else:\n{indent}    {line.decode()}"
                        about = (
                            f"whose gradient carries {text.segment(left)}, not times {text.segment(lost)}, over the "
                            f"borders of chunks of {n} steps, {words}"
                        )
                        yield Lines(about, "chunks-lose-factor", ((*text.span(statement), new),))


def _carried(loop: ast.For) -> list[str]:
    """The names that a turn reads before it gives them a value."""
    given, found = set[str](), dict[str, None]()
    later = {n.id for n in ast.walk(loop) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for statement in loop.body:
        names = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
        found |= {n.id: None for n in names if isinstance(n.ctx, ast.Load) and n.id in later - given}
        given |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
    return [name for name in found if name.startswith("d")]
