"""Scores as they are printed: with as many digits as show the largest of them, so that no explanation is all zeros."""

from __future__ import annotations

import math
from collections.abc import Sequence

from refllm.explain.explanation import LabelScores

MOST = 8  # decimals; smaller numbers are written with an exponent
DIGITS = 3  # of the largest score


def signed(scores: Sequence[float], *, fewest: int, like: Sequence[float] | None = None) -> list[str]:
    """The scores with their signs and the same number of decimals, at least the `fewest`, and as many as show the
    largest of them (of those that they are `like`) with three digits."""
    largest = max(map(abs, scores if like is None else like), default=0.0)
    decimals = max(fewest, decimals_of(largest))
    if decimals > MOST:
        return [f"{x:+.2e}" for x in scores]
    return [f"{x:+.{decimals}f}" for x in scores]


def decimals_of(x: float) -> int:
    """The decimals that show three digits of x; 0 for 0."""
    return max(0, DIGITS - 1 - math.floor(math.log10(x))) if x > 0 else 0


def told_change(s: LabelScores) -> str:
    """What is explained: the answer for the baseline and for the text; with enough digits to tell them apart."""
    change, label = abs(s.value - s.baseline_value), " ".join(s.label.split())
    if change == 0:
        return f"{s.answer} of {label}: {s.value:.4f} for the baseline and for the text: there is nothing to explain"
    decimals = min(16, max(4, decimals_of(change)))
    before, after = (f"{x:.{decimals}f}" for x in (s.baseline_value, s.value))
    return f"{s.answer} of {label}: {before} for the baseline, {after} for the text"


def told_missing(s: LabelScores) -> str:
    """By how much the scores miss the change; nothing is said in shares of a change that is 0."""
    change = s.value - s.baseline_value
    if s.missing == 0:
        return "the sum is the change"
    share = f" ({100 * abs(s.missing / change):.2g} % of it)" if change else ""
    return f"the sum misses {s.missing:+.2g} of the change{share}"
