"""A golden case evaluated by the plain text on exact numbers: values, the gradients of its hand-written pullback, and
those of the tape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy
from mpmath import mp

from refllm.backend import Array
from refllm.numbers import exact
from refllm.numbers.exact import Exact
from refllm.numbers.nodes import Node, number
from refllm.parameters import named_leaves
from refllm.spec.array import tapped
from refllm.verify.case import Case

DIGITS = 400


@dataclass(frozen=True)
class Evaluated:
    outputs: dict[str, Any]
    by_hand: dict[str, Any]  # empty without a gradient
    by_tape: dict[str, Any]
    taps: dict[str, Any]


def evaluate(case: Case, function: Callable[..., Any]) -> Evaluated:
    """Within `exact.digits`: everything that the case asks for. A config stays as it is: its numbers become exact where
    they meet such ones."""
    arguments = [exact.lift(x) for x in case.arguments("float64")]
    keywords = {n: x if n == "config" else exact.lift(x) for n, x in case.keyword_arguments().items()}
    with tapped() as taps:
        found = function(*arguments, **keywords)
    has_back = isinstance(found, tuple) and len(found) == 2 and callable(found[1])
    y, back = found if has_back else (found, None)
    outputs = {name: as_exact(x) for name, x in case.flat_outputs(y).items()}
    if not case.gradients or back is None:
        return Evaluated(outputs, {}, {}, taps)
    cotangents = [exact.lift(d) for d in case.pull("float64")]
    by_hand = {name: as_exact(x) for name, x in case.flat_gradients(back(*cotangents)).items()}
    inputs = dict(leaf for name, x in zip(case.order, arguments, strict=True) for leaf in named_leaves(x, name))
    flat = [leaf for d in cotangents for _, leaf in named_leaves(d)]
    slopes = exact.gradients(list(outputs.values()), flat, list(inputs.values()))
    return Evaluated(outputs, by_hand, dict(zip(inputs, slopes, strict=True)), taps)


def as_exact(x: Any) -> Any:
    """A number that is no array as an array without axes, floats as the numbers that they are; whole numbers stay."""
    if isinstance(x, Node | float):
        return Exact(x)
    return exact.lift(x)


def rounded(x: Exact) -> Array:
    """The float64 nearest to each number, ties to even; what 400 digits cannot tell from zero is zero."""
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


def furthest(a: Exact, b: Exact) -> float:
    """The decimal logarithm of the largest difference, as a share of the largest number of b or of 1."""
    size = max((abs(number(n)) for n in b.nodes.flat if mp.isfinite(number(n))), default=mp.mpf(1))
    pairs = zip(a.nodes.flat, b.nodes.flat, strict=True)
    worst = max((abs(number(m) - number(n)) for m, n in pairs), default=mp.mpf(0))
    return float(mp.log10(worst / max(size, mp.mpf(1)))) if worst else -mp.inf
