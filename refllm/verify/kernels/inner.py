"""A nonlinearity inside another operation, or by itself, that is an approximation of it or whose derivative is another
one: in the gradient alone where the value is right.

    for cause in inner("gated_feed_forward"):       … whose gradient is that of x σ(1.702 x), in the place of gelu_tanh
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy

from refllm.backend import Array
from refllm.spec import array
from refllm.verify import plain
from refllm.verify.kernels.formulas import CUBE, ROOT, Of, formulas
from refllm.verify.kernels.siblings import Sibling

NAMES = ("gelu_tanh", "gelu_erf", "silu", "relu", "tanh")
STEP = 1e-4  # of differences of the fourth order, which are right to eleven digits in double precision

HARD_SILU, HARD_TANH = "x clip(x / 6 + 1/2, 0, 1)", "clip(x, -1, 1)"
HARD: dict[str, Of] = {  # the slopes of what has corners, at which it is that of the outer part
    HARD_SILU: lambda x: numpy.where(abs(x) < 3, x / 3 + 0.5, 1.0 * (x > 0)),
    HARD_TANH: lambda x: 1.0 * (abs(x) < 1),
}


def inner(operation: str) -> Iterator[Sibling]:
    called = plain.called(operation) if operation in plain.operations() else ()
    for function in (f for f in called if f.__name__ in NAMES):
        name, it = function.__name__, "" if function.__name__ == operation else f" of {function.__name__}"
        for id, words, slope in _slopes(name):
            about = f"{operation} whose gradient{it} is {words}"
            yield Sibling(f"{operation}/{id}", about, {function: _with(function, None, slope)}, gradients_alone=True)
        for id, words, of in _forms(name):
            slope = HARD.get(words) or _slope_of(of)
            about = f"{operation} whose gradient{it} is that of {words}"
            yield Sibling(
                f"{operation}/gradient-{id}", about, {function: _with(function, None, slope)}, gradients_alone=True
            )
            if operation != name:
                about = f"{operation} whose {name} is {words}, with the right gradient"
                yield Sibling(f"{operation}/value-{id}", about, {function: _with(function, of, None)}, False)
            about = f"{operation} whose {name if it else 'value'} is {words}, and whose gradient is that of it"
            yield Sibling(f"{operation}/{id}", about, {function: _with(function, of, slope)}, gradients_alone=False)


def _with(function: plain.Function, of: Of | None, slope: Of | None) -> plain.Function:
    """An elementwise operation with another value, or with another derivative."""

    def exchanged(x: Array) -> tuple[Array, plain.Function]:
        y, back = function(x)

        def exchanged_back(dy: Array) -> Array:
            return back(dy) if slope is None else dy * slope(x).astype(dy.dtype)

        with numpy.errstate(all="ignore"):
            return y if of is None else of(x), exchanged_back

    return exchanged


def _slope_of(of: Of) -> Of:
    def slope(x: Array) -> Array:
        wide = x.astype("float64")
        h = STEP * numpy.maximum(1, abs(wide))
        with numpy.errstate(all="ignore"):
            near, far = of(wide + h) - of(wide - h), of(wide + 2 * h) - of(wide - 2 * h)
            return (8 * near - far) / (12 * h)

    return slope


def _forms(name: str) -> Iterator[tuple[str, str, Of]]:
    """Functions that take its place; those that are operations themselves are `siblings`."""
    if name in ("gelu_tanh", "gelu_erf"):
        yield "sigmoid-of-1.702", "x σ(1.702 x)", _sigmoid_form(1.702)
        for factor in (1.7, 1.6, 1.595769, 1.0):
            yield "sigmoid-form", f"x σ({factor:g} x)", _sigmoid_form(factor)
    if name == "silu":
        for factor in (1.702, 1.7, 2.0):
            yield "sigmoid-form", f"x σ({factor:g} x)", _sigmoid_form(factor)
    if name in ("silu", "gelu_tanh", "gelu_erf"):
        yield "hard-form", HARD_SILU, lambda x: x * numpy.clip(x / 6 + 0.5, 0, 1)
    if name == "tanh":
        yield "hard-form", HARD_TANH, lambda x: numpy.clip(x, -1, 1)
        yield "sigmoid-form", "σ(x)", _sigmoid
    for formula in formulas(name):
        words = formula.about.removeprefix(f"{name} ")
        if formula.id.rpartition("/")[2] not in ("sigmoid-of-1.702", "hard-sigmoid", "other-gelu"):
            yield formula.id.rpartition("/")[2], f"one {words}", formula.function


def _slopes(name: str) -> Iterator[tuple[str, str, Of]]:
    """Derivatives that lack a part, or have one too many."""
    if name == "silu":
        yield "slope-of-gate", "σ alone, without x σ (1 - σ)", _sigmoid
        yield "slope-of-rest", "x σ (1 - σ) alone, without σ", lambda x: x * _sigmoid(x) * _sigmoid(-x)
        yield "slope-of-sigmoid", "σ (1 - σ), that of the sigmoid", lambda x: _sigmoid(x) * _sigmoid(-x)
        yield "slope-of-square", "σ + x σ²", lambda x: _sigmoid(x) * (1 + x * _sigmoid(x))
        yield "slope-other-sign", "σ - x σ (1 - σ)", lambda x: _sigmoid(x) * (1 - x * _sigmoid(-x))
        yield "slope-without-x", "σ + σ (1 - σ)", lambda x: _sigmoid(x) * (1 + _sigmoid(-x))
        yield "slope-of-output", "y + y (1 - y), of the output for σ", lambda x: _of_output(x * _sigmoid(x), x)
    if name == "gelu_erf":
        yield "slope-of-gate", "Φ alone, without x φ", _Phi
        yield "slope-of-rest", "x φ alone, without Φ", lambda x: x * _phi(x)
        yield "slope-other-sign", "Φ - x φ", lambda x: _Phi(x) - x * _phi(x)
        yield "slope-without-x", "Φ + φ", lambda x: _Phi(x) + _phi(x)
        yield "slope-unscaled", "Φ + x e^(-x²/2), without 1 / √(2π)", lambda x: _Phi(x) + x * numpy.exp(-x * x / 2)
        yield (
            "slope-of-square",
            "Φ + x φ with e^(-x²), not e^(-x²/2)",
            lambda x: _Phi(x) + x * numpy.exp(-x * x) / math.sqrt(2 * math.pi),
        )
    if name == "gelu_tanh":
        yield "slope-of-gate", "s alone, without x ds/dx", lambda x: (1 + _t(x)) / 2
        yield "slope-of-rest", "x ds/dx alone, without s", lambda x: x * (1 - _t(x) ** 2) / 2 * _du(x)
        for words, du in (
            ("with 0.044715 x² in du/dx, not three times that", lambda x: ROOT * (1 + CUBE * x * x)),
            ("with du/dx = √(2/π), without the cube", lambda x: ROOT + 0 * x),
            ("with 3 · 0.044715 x in du/dx, not x²", lambda x: ROOT * (1 + 3 * CUBE * x)),
            ("without √(2/π) in du/dx", lambda x: 1 + 3 * CUBE * x * x),
            ("without du/dx", lambda x: 1 + 0 * x),
        ):
            yield "slope-of-inner", f"one {words}", _tanh_slope(du)
        yield (
            "slope-not-halved",
            "one with x (1 - tanh² u) du/dx, not half of it",
            lambda x: (1 + _t(x)) / 2 + x * (1 - _t(x) ** 2) * _du(x),
        )
        yield (
            "slope-not-squared",
            "one with 1 - tanh u, not tanh² u",
            lambda x: (1 + _t(x)) / 2 + x * (1 - _t(x)) / 2 * _du(x),
        )
    if name == "tanh":
        yield "slope-of-input", "1 - x²", lambda x: 1 - x * x
        yield "slope-not-squared", "1 - y", lambda x: 1 - numpy.tanh(x)
        yield "slope-of-sigmoid", "y (1 - y), that of the sigmoid", lambda x: numpy.tanh(x) * (1 - numpy.tanh(x))
        yield "slope-twice", "1 - tanh² y, of the output once more", lambda x: 1 - numpy.tanh(numpy.tanh(x)) ** 2
    if name == "relu":
        yield "slope-at-zero", "one that is 1 at 0 too", lambda x: x >= 0
        yield "slope-leaky", "one that is 0.01 below 0", lambda x: numpy.where(x > 0, 1, 0.01)
    yield "slope-unread", "1 everywhere", lambda x: 1 + 0 * x


def _sigmoid_form(factor: float) -> Of:
    return lambda x: x * _sigmoid(factor * x)


def _sigmoid(x: Array) -> Array:
    found: Array = array.sigmoid(x)
    return found


def _of_output(y: Array, x: Array) -> Array:
    return y + y * (1 - y) + 0 * x


def _Phi(x: Array) -> Array:  # noqa: N802
    found: Array = array.erfc(-x / math.sqrt(2)) / 2
    return found


def _phi(x: Array) -> Array:
    return numpy.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _t(x: Array) -> Array:
    return numpy.tanh(ROOT * (x + CUBE * x * x * x))


def _du(x: Array) -> Array:
    return ROOT * (1 + 3 * CUBE * x * x)


def _tanh_slope(du: Of) -> Of:
    return lambda x: (1 + _t(x)) / 2 + x * (1 - _t(x) ** 2) / 2 * du(x)
