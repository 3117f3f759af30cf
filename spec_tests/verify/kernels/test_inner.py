"""A nonlinearity of a fused operation whose derivative is that of another form, or lacks a part, is named: the value is
right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.kernels.inner import NAMES, inner
from spec_tests.verify.kernels.noted import Noted

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


def sigmoid(x: Array) -> Array:
    found: Array = 1 / (1 + numpy.exp(-x.astype("float64")))
    return found


def fused(x: Array, p: Any, activation: str, name: str, slope: Callable[[Array], Array]) -> Any:
    """A feed-forward layer with another derivative of one of its activations."""
    y, right = TEXT["feed_forward"](x, p, activation=activation)
    h = x @ p["W1"] + p.get("b1", 0)

    def back(dy: Array) -> Any:
        dx, dp = right(dy)
        if activation != name:
            return dx, dp
        dh = (dy @ p["W2"].T) * slope(h).astype(dy.dtype)
        flat = dh.reshape(-1, dh.shape[-1])
        dp["W1"] = x.reshape(-1, x.shape[-1]).T @ flat
        if "b1" in p:
            dp["b1"] = flat.sum(axis=0)
        return dh @ p["W1"].T, dp

    return y, back


@wrong("feed_forward", "feed_forward whose gradient of gelu_tanh is that of x σ(1.6 x)")
def sigmoid_form_in_the_gradient(x: Array, p: Any, *, activation: str) -> Any:
    def slope(h: Array) -> Array:
        s = sigmoid(1.6 * h)
        found: Array = s * (1 + 1.6 * h * (1 - s))
        return found

    return fused(x, p, activation, "gelu_tanh", slope)


@wrong("feed_forward", "whose gradient of gelu_tanh is one with 0.044715 x² in du/dx, not three times that")
def cube_not_differentiated(x: Array, p: Any, *, activation: str) -> Any:
    def slope(h: Array) -> Array:
        k = (2 / numpy.pi) ** 0.5
        h = h.astype("float64")
        t = numpy.tanh(k * (h + 0.044715 * h**3))
        found: Array = (1 + t) / 2 + h * (1 - t * t) / 2 * k * (1 + 0.044715 * h * h)
        return found

    return fused(x, p, activation, "gelu_tanh", slope)


@wrong("gelu_erf", "gelu_erf whose gradient is that of x σ(1.702 x)")
def by_itself(x: Array) -> Any:
    s = sigmoid(1.702 * x)
    return TEXT["gelu_erf"](x)[0], lambda dy: dy * (s * (1 + 1.702 * x * (1 - s))).astype(dy.dtype)


@wrong("silu", "silu whose gradient is that of x clip(x / 6 + 1/2, 0, 1)")
def hard_slope(x: Array) -> Any:
    slope = numpy.where(abs(x) < 3, x / 3 + 0.5, (x > 0).astype("float64"))
    return TEXT["silu"](x)[0], lambda dy: dy * slope.astype(dy.dtype)


@pytest.mark.parametrize("name", KERNELS)
def test_derivative_of_another_form_is_named(name: str) -> None:
    KERNELS.is_named(name)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_another_function_than_the_right_one(name: str) -> None:
    """A mistake that gives the right answer would be said of right ones."""
    x = numpy.array([-3.0, -1.3, -0.4, 0.0, 0.3, 1.1, 2.7])
    y, back = TEXT[name](x)
    right = back(numpy.ones_like(x))
    for cause in inner(name):
        [function] = cause.functions.values()
        value, its_back = function(x)
        gradient = its_back(numpy.ones_like(x))
        assert abs(value - y).max() > 1e-9 or abs(gradient - right).max() > 1e-9, cause.about
        assert not cause.gradients_alone or numpy.array_equal(value, y)
