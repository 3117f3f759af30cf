"""The tape of floats: its gradients are difference quotients, and a constant has none."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest

from refllm.numbers.traced import Traced, differentiated
from refllm.spec.array import constant, exp, log, sigmoid, sqrt, sum, swap, tanh, top, total, where

EXPRESSIONS: dict[str, Callable[[Traced, Traced], Traced]] = {
    "sum": lambda x, y: x + 2.0 - y + (1.0 - x),
    "product": lambda x, y: x * y * 3.0 * numpy.arange(3.0),
    "quotient": lambda x, y: x / (y * y + 1.0) + 1.0 / (x * x + 2.0),
    "power": lambda x, y: (x * x + 1.0) ** 1.5 + y,
    "matrix product": lambda x, y: x @ swap(y) @ x,
    "vector times matrix": lambda x, y: x[0] @ swap(y) + sum(x),
    "functions": lambda x, y: exp(x) * tanh(y) + log(x * x + 1.0) * sigmoid(y) - sqrt(y * y + 1.0),
    "row picked twice": lambda x, y: x[numpy.array([0, 0, 1])] + y[numpy.array([1])],
    "reductions": lambda x, y: total(x) * sum(y, axis=0) + sum(x) - sum(y) / 3.0,
    "where": lambda x, y: where(x > 0, x * y, 2.0 * y),
    "reshaped": lambda x, y: x.reshape(3, 2) @ y.swapaxes(0, 1).reshape(2, 3),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_gradient_is_that_of_difference_quotients(name: str) -> None:
    generator = numpy.random.default_rng(3)
    operation = differentiated(EXPRESSIONS[name])
    x, y = generator.standard_normal((2, 2, 3))
    value, back = operation(x, y)
    dvalue = generator.standard_normal(value.shape)
    for number, gradient in enumerate(back(dvalue)):
        expected = numpy.empty_like(x)
        for i in numpy.ndindex(x.shape):
            step = numpy.zeros_like(x)
            step[i] = 1e-6
            above, below = ([x, y] for _ in range(2))
            above[number], below[number] = above[number] + step, below[number] - step
            expected[i] = ((operation(*above)[0] - operation(*below)[0]) * dvalue).sum() / 2e-6
        numpy.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


def test_a_constant_has_no_gradient_and_keeps_its_value() -> None:
    operation = differentiated(lambda x: x * constant(x) + top(x))
    y, back = operation(numpy.array([[1.0, 3.0]]))
    numpy.testing.assert_array_equal(y, [[4.0, 12.0]])
    numpy.testing.assert_array_equal(back(numpy.ones((1, 2))), [[1.0, 3.0]])
