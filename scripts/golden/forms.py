"""Customary forms of a formula: the same number, formed in other steps, and so rounded otherwise.

Where a formula has several, none is more right than another. A formula asks which one it is to take:

    if form("attention") == "divided last": ...

The truth of a case takes each reading in turn: in reading n every formula takes its n-th form, or its last. All must
give the same value to every digit; how near an answer must be is decided by the form that errs most.

A form that loses digits which another keeps is not customary but wrong: 1 + erf(x) far on the left, log(softmax(x)),
E[x^2] - E[x]^2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FORMS = {
    # exp(x - max) / sum · exp(x - logsumexp(x)) · the same, and probabilities formed so again for the gradient
    "softmax": ("divided by the sum", "by logsumexp", "recomputed"),
    # (x - max) - log sum exp(x - max) · x - logsumexp(x) · the same, and its gradient by exp(x - logsumexp(x))
    "log_softmax": ("shifted", "by logsumexp", "recomputed"),
    # sum_s (e_s / Z) v_s, whose gradient needs sum_s P_s dP_s · (sum_s e_s v_s) / Z, whose gradient needs
    # sum_e y_e dy_e · with weights exp(s - logsumexp(s)), also in the gradient (Dao 2022, algorithm 4)
    "attention": ("weights first", "divided last", "weights first"),
    # (a / |a|) . (b / |b|) · a . b / (|a| |b|)
    "cosine": ("of directions", "divided by both norms"),
    # d (1 / root) · d / root
    "norm": ("times 1 / root", "divided by the root"),
    # x/2 erfc(-x / sqrt 2) · x/2 (1 + erf(x / sqrt 2)), inside a block alone: by itself it is wrong far on the left
    "gelu": ("by erfc", "1 + erf"),
    # the printed lines · m + (1 - beta1) (g - m), and the corrections folded into the rate and eps (Kingma 2015, 2)
    "adam": ("as printed", "folded"),
}

_reading = ContextVar("_reading", default=0)
_asked: ContextVar[set[str]] = ContextVar("_asked")


def form(formula: str) -> str:
    """The form that this reading takes."""
    _asked.get(set()).add(formula)
    own = FORMS[formula]
    return own[min(_reading.get(), len(own) - 1)]


@contextmanager
def reading(number: int) -> Iterator[set[str]]:
    """In this context every formula takes its form of that number; the set grows by the formulas that were asked."""
    asked: set[str] = set()
    tokens = _reading.set(number), _asked.set(asked)
    try:
        yield asked
    finally:
        _reading.reset(tokens[0])
        _asked.reset(tokens[1])


def readings(asked: set[str]) -> int:
    """How many readings differ, if only these formulas are asked; at least two, so that two precisions are compared."""
    return max([2, *(len(FORMS[formula]) for formula in asked)])
