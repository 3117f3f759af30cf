"""A mistake of one thought that changes more than an expression: words of the text, and what other code has there."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from refllm.verify.edits import Edit, source_of
from refllm.verify.edits.source import Source

COST = 0.45  # below every edit of the text
Words = str | tuple[str, ...]  # at one place, or at several
Habit = tuple[Callable[..., Any], Words, Words, str]  # a function, its words, the other ones, what that means


def edited(function: FunctionType, old: Words, new: Words, said: str) -> Edit:
    """The function with these words exchanged. ValueError if they do not stand in its statements."""
    text = Source(source_of(function))
    source, begin = text.encoded, text.offsets[text.body()[0].lineno - 1]
    changes = []
    for was, now in zip(_each(old), _each(new), strict=True):
        first = source.index(was.encode(), begin)
        changes.append((first, first + len(was.encode()), now))
    return Edit(function, tuple(changes), COST, in_pullback=False, said=said)


def _each(words: Words) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else words
