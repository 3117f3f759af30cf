"""Masks that are the other way round, added as numbers, or laid over another place.

A mask that is true at what is hidden, as some libraries have it, is taken for one that is true at what is seen. What
becomes of a query that then sees nothing depends on what is written over the hidden scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType

from refllm.verify.edits import Edit
from refllm.verify.ports.mistakes.habit import Habit, edited
from refllm.verify.ports.published import parts

PADDING, CAUSAL = "seen = seen & attention_mask[:, None, None, :]", "seen = seen & (distance >= 0)"
HIDDEN = 's = where(seen, tap("scores", s), float("-inf"))'
INVERTED = [
    (PADDING, "seen = seen & ~attention_mask[:, None, None, :]", "the mask of padding is inverted: what is padded is "
     "seen, the text is hidden"),
    (CAUSAL, "seen = seen & (distance < 0)", "the causal mask is inverted: a query sees the keys after it alone"),
    ("return seen", "return ~seen", "the mask is inverted: a query sees what it must not see, and nothing else"),
]  # fmt: skip
# what a query that sees nothing makes of its values, where a finite number stands for infinity
FILLS = [
    ('s = where(seen, tap("scores", s), -1e30)', "a query that sees nothing takes the mean of all values"),
    ('s = where(seen, tap("scores", s), s - 1e4)', "a query that sees nothing weighs all keys as if none were hidden"),
]


def masks_otherwise() -> Iterator[Habit]:
    for old, new, said in INVERTED:
        yield parts.visible, old, new, said
    yield (
        parts.visible,
        CAUSAL,
        "seen = seen & (distance <= 0)",
        ("the causal mask is the upper triangle: a query sees its own key and those after it"),
    )
    for further, which in ((1, "before"), (-1, "after")):
        said = f"the mask of padding is one place off: it says of each key what holds for the one {which} it"
        moved = f"seen = seen & attention_mask[:, arange(keys) - {further}][:, None, None, :]"
        if further < 0:
            moved = "seen = seen & attention_mask[:, (arange(keys) + 1) % keys][:, None, None, :]"
        yield parts.visible, PADDING, moved, said
    said = "the mask of the first text is laid over all texts"
    yield parts.visible, PADDING, "seen = seen & attention_mask[:1, None, None, :]", said
    said = "the mask is added to the scores as 1 where they are hidden, and 0 elsewhere: it hides nothing"
    yield parts.attended, HIDDEN, 's = tap("scores", s) + like(~seen, s)', said
    said = "what is added where scores are hidden has the wrong sign: a query sees what it must not see"
    yield parts.attended, HIDDEN, 's = where(seen, tap("scores", s), s + 1e4)', said


def inverted_and_finite() -> Iterator[tuple[str, list[Edit]]]:
    """A mask that is inverted, with a finite number over the scores that it hides."""
    visible, attended = parts.visible, parts.attended
    assert isinstance(visible, FunctionType)
    assert isinstance(attended, FunctionType)
    for old, new, said in INVERTED:
        for fill, more in FILLS:
            told = f"{said}; {more}"
            yield told, [edited(visible, old, new, told), edited(attended, HIDDEN, fill, told)]
