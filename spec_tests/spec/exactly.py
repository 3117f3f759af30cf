"""A golden case evaluated by the plain text on exact numbers (golden/evaluate.py), and how it is compared."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy
from mpmath import mp

from golden.evaluate import Answer, furthest
from golden.evaluate import evaluate as asked
from refllm.backend import Array
from refllm.numbers.exact import Exact
from refllm.numbers.nodes import number
from refllm.verify.case import Case, roots

__all__ = ["DIGITS", "evaluate", "furthest", "rounded"]
DIGITS = 400


def evaluate(case: Case, function: Callable[..., Any]) -> Answer:
    """Within `exact.digits`: everything that the case asks for."""
    cotangents = case.cotangents
    return asked(
        function,
        case.inputs,
        case.keywords,
        lambda count: tuple(roots(case.outputs)),
        (lambda name, shape: cotangents[name]) if case.gradients else None,
    )


def rounded(x: Any) -> Array:
    """The float64 nearest to each number, ties to even; what 400 digits cannot tell from zero is zero. Whole numbers
    stay."""
    if not isinstance(x, Exact):
        return numpy.asarray(x)
    y = numpy.empty(x.shape)
    for i in numpy.ndindex(x.shape):
        y[i] = nearest(number(x.nodes[i]))
    return y


def nearest(x: Any) -> float:
    if not mp.isfinite(x) or abs(x) < mp.mpf(10) ** -330:
        return float(x)
    sign, mantissa, exponent, _ = x._mpf_
    value = Fraction(int(mantissa)) * Fraction(2) ** exponent
    return float(-value if sign else value)
