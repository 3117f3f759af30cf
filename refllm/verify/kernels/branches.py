"""A choice of the text that is not made: what it is where a condition holds stands everywhere, or what it is elsewhere.

    for cause in branches_of_gradients("lstm"):     … takes dnew * f where dc should stand (by token_mask)

Steps without a token, targets that do not count, scores that a mask forbids: each has a line that says so, which the
way there may have and the way back lack.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Source, calls_of
from refllm.verify.kernels.in_text import InText, Lines, OfGradient, in_text

CHOICES = ("where", "kept")  # words of the text of which the last two arguments are chosen from


def branches(operation: str) -> Iterator[InText]:
    """Those of values."""
    yield from in_text(operation, lambda text: _lines(text, in_pullback=False), InText, in_pullback=False)


def branches_of_gradients(operation: str) -> Iterator[InText]:
    yield from in_text(operation, lambda text: _lines(text, in_pullback=True), OfGradient, in_pullback=True)


def _lines(text: Source, *, in_pullback: bool) -> Iterator[Lines]:
    whose = "whose gradient takes" if in_pullback else "that takes"
    for call in calls_of(text, *CHOICES):
        if text.in_pullback(call) is in_pullback and len(call.args) > 2 and not call.keywords:
            one, other = call.args[-2:]
            for kept, lost in ((one, other), (other, one)):
                by = text.segment(call.args[0])
                words = f"{whose} {text.segment(kept)} where {text.segment(lost)} should stand (by {by})"
                yield Lines(words, "one-branch", text.exchanged(call, _of_its_shape(text, kept, lost)))
            for factor in _factors(text, one):
                words = (
                    f"{whose} {text.segment(other)} times {factor} where {text.segment(other)} should stand (by {by})"
                )
                yield Lines(
                    words, "other-branch-scaled", text.exchanged(other, f"{_tight(text.segment(other))} * {factor}")
                )


def _factors(text: Source, branch: ast.expr) -> Iterator[str]:
    """By what the terms of a branch are multiplied, which the other one passes unchanged."""
    if isinstance(branch, ast.BinOp) and isinstance(branch.op, ast.Add):
        yield from (*_factors(text, branch.left), *_factors(text, branch.right))
    elif isinstance(branch, ast.BinOp) and isinstance(branch.op, ast.Mult):
        yield from (text.segment(x) for x in (branch.left, branch.right) if isinstance(x, ast.Name))


def _of_its_shape(text: Source, kept: ast.expr, lost: ast.expr) -> str:
    """A number takes the shape of the array in whose place it stands."""
    words = text.segment(kept)
    return f"0 * {_tight(text.segment(lost))} + {words}" if isinstance(kept, ast.Constant) else words


def _tight(words: str) -> str:
    return words if words.isidentifier() else f"({words})"
