"""A gradient that goes through time in chunks of steps, and loses what is carried from one to the next.

for cause in carried("lstm"):     … loses dc at the borders of chunks of 8 steps, from the last step on
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Source
from refllm.verify.kernels.in_text import InText, Lines, OfGradient, in_text

CHUNKS = (8, 16, 32, 64, 4, 128, 2, 256)
BORDERS = {"from the last step on": "(T - 1 - t) % {n} == 0", "from the first step on": "(t + 1) % {n} == 0"}


def carried(operation: str) -> Iterator[InText]:
    return in_text(operation, _lines, OfGradient, in_pullback=True)


def _lines(text: Source) -> Iterator[Lines]:
    for loop in [node for node in ast.walk(text.definition) if isinstance(node, ast.For)]:
        if text.segment(loop.iter) != "reversed(range(T))" or text.segment(loop.target) != "t":
            continue
        names = _carried(loop)
        at, indent = text.offsets[loop.body[0].lineno - 1], " " * loop.body[0].col_offset
        for n in CHUNKS:
            for of in dict.fromkeys((tuple(names), *((name,) for name in names))):
                for words, border in BORDERS.items():
                    lost = "".join(f"{indent}    {name} = 0 * {name}\n" for name in of)
                    line = f"{indent}if t < T - 1 and {border.format(n=n)}:\n{lost}"
                    about = f"whose gradient loses {' and '.join(of)} at the borders of chunks of {n} steps, {words}"
                    yield Lines(about, f"chunks-lose-{'-'.join(of)}", ((at, at, line),))


def _carried(loop: ast.For) -> list[str]:
    """The names that a turn reads before it gives them a value."""
    given, found = set[str](), dict[str, None]()
    later = {n.id for n in ast.walk(loop) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for statement in loop.body:
        names = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
        found |= {n.id: None for n in names if isinstance(n.ctx, ast.Load) and n.id in later - given}
        given |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
    return [name for name in found if name.startswith("d")]
