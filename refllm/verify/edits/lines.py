"""Edits that somebody wrote down: whole lines of a function, and what stands in their place."""

from __future__ import annotations

import re
import textwrap
from functools import cache
from types import FunctionType

from refllm.verify.edits import Edit, source_of
from refllm.verify.edits.source import Changes, Source


def rewritten(original: FunctionType, lines: tuple[str, ...]) -> Edit:
    """A function with some of its lines exchanged: old, new, old, new ... Each old one must occur exactly once."""
    text = _text_of(original)
    changes: Changes = ()
    inside = False
    for old, new in zip(lines[::2], lines[1::2], strict=True):
        first, last = _place(original, text, old)
        indentation = text.lines[first][: len(text.lines[first]) - len(text.lines[first].lstrip())]
        instead = textwrap.indent(f"{new}\n", indentation) if new else ""
        changes += ((text.offsets[first], text.offsets[last], instead),)
        inside = inside or text.line_in_pullback(first + 1) or _is_pullback(new)
    return Edit(original, changes, 0.0, inside)


@cache
def _text_of(original: FunctionType) -> Source:
    return Source(source_of(original))


def _is_pullback(new: str) -> bool:
    """Whether lines are a pullback of their own."""
    return re.search(r"^def \w+_back\(", new, re.MULTILINE) is not None


def _place(original: FunctionType, text: Source, old: str) -> tuple[int, int]:
    """The first of these lines, and the one behind the last."""
    wanted, found = [line.strip() for line in old.splitlines()], [line.strip() for line in text.lines]
    places = [n for n in range(len(found)) if found[n : n + len(wanted)] == wanted] if wanted else []
    if len(places) != 1:
        near = "once, with the lines around it, to be told which" if places else "as it stands there now"
        raise LookupError(
            f"the line {old!r} occurs {len(places)} times in {original.__module__}.{original.__name__}: write it {near}"
        )
    return places[0], places[0] + len(wanted)
