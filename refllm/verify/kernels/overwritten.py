"""A value that the gradient needs and that was overwritten by another before: the gate by its activation, a softmax by
its gradient, x by the normalised one. What the pullback then reads is the other.

    for cause in overwritten("gated_feed_forward"):      … in whose gradient f stands where g did, which was overwritten

Which values are kept, and what may stand in their place, follows from the lines of the text.
"""

from __future__ import annotations

from collections.abc import Iterator

from refllm.verify.edits.overwritten import kept_and_overwritten
from refllm.verify.edits.source import Source
from refllm.verify.kernels.in_text import InText, Lines, OfGradient, in_text


def overwritten(operation: str) -> Iterator[InText]:
    return in_text(operation, _lines, OfGradient, in_pullback=True)


def _lines(text: Source) -> Iterator[Lines]:
    for name, other, changes in kept_and_overwritten(text):
        words = f"in whose gradient {other} stands where {name} did, which was overwritten"
        yield Lines(words, f"{name}-overwritten", changes)
