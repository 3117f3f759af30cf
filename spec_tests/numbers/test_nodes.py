"""The derivatives of exact numbers against central differences at 60 digits, and their conditions against what these
are defined as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp, mpf

from refllm.numbers import exact, nodes
from refllm.numbers.nodes import Entry, Node, NodeMathematics, conditions, constant, entry, gradients, total
from refllm.spec.array import cos, like, power, scalars, sin
from refllm.spec.softmax import softmax

H = mpf(10) ** -20  # central differences err by H^2 = 1e-40, of the 60 digits the division by H leaves 40


def by_differences(f: Callable[..., Any], x: list[Any], i: int) -> Any:
    shifted = [[a + side * H * (i == n) for n, a in enumerate(x)] for side in (1, -1)]
    up, down = (f(*[Node(a) for a in point]).value for point in shifted)
    return (up - down) / (2 * H)


def check_gradient(f: Callable[..., Any], x: list[float]) -> None:
    with exact.digits(60):
        point = [mpf(a) for a in x]
        inputs = [Node(a) for a in point]
        found = gradients([f(*inputs)], [constant(1)], inputs)
        for i, slope in enumerate(found):
            assert abs(slope.value - by_differences(f, point, i)) < mpf(10) ** -30 * (1 + abs(slope.value))


M = NodeMathematics
FUNCTIONS: dict[str, tuple[Callable[..., Any], list[float]]] = {
    "sum": (lambda a, b, c: total([a, b, c, a]), [0.3, -1.25, 2.0]),
    "difference": (lambda a, b: 3 - (a - b) - 2, [0.3, -1.25]),
    "product": (lambda a, b: 2 * a * b * a, [0.3, -1.25]),
    "quotient": (lambda a, b: a / b + 2 / a, [0.3, -1.25]),
    "negation": (lambda a: -(a * a), [0.3]),
    "exp": (lambda a: M.exp(-a * a), [0.7]),
    "log": (lambda a: M.log(a * 3), [0.7]),
    "sqrt": (lambda a: M.sqrt(a + 1), [0.7]),
    "tanh": (lambda a: M.tanh(a * a), [0.7]),
    "erf": (lambda a: M.erf(a * 2), [0.7]),
    "erfc": (lambda a: M.erfc(a * 2), [0.7]),
    "sigmoid": (lambda a: M.sigmoid(a * a), [0.7]),
    "power": (lambda a: M.power(a, 3) + a**2, [0.7]),
    "sin": (lambda a: M.sin(a * a), [1.7]),
    "cos": (lambda a: M.cos(a * a), [1.7]),
    "shared": (lambda a, b: M.exp(a) * M.exp(a) / (M.exp(a) + b), [0.5, 1.5]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_derivative_is_the_limit_of_differences(name: str) -> None:
    check_gradient(*FUNCTIONS[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_gradient_is_a_formula_with_a_gradient_of_its_own(name: str) -> None:
    f, x = FUNCTIONS[name]

    def slope(*inputs: Node) -> Node:
        return total(g * (n + 1) for n, g in enumerate(gradients([f(*inputs)], [constant(1)], inputs)))

    check_gradient(slope, x)


def test_a_cotangent_weighs_its_output() -> None:
    a, b = Node(mpf(2)), Node(mpf(5))
    found = gradients([a * b, a + b], [constant(3), constant(-1)], [a, b])
    assert [g.value for g in found] == [3 * 5 - 1, 3 * 2 - 1]


def test_an_input_that_the_output_does_not_use_has_gradient_zero() -> None:
    a, b = Node(mpf(2)), Node(mpf(5))
    assert gradients([a * a], [constant(1)], [b])[0].value == 0


def test_the_condition_sums_effect_times_size_over_every_node() -> None:
    """t = (a - b) c: inputs a, b, c, the difference and the product itself."""
    a, b, c = Node(mpf(10)), Node(mpf(9)), Node(mpf(3))
    assert conditions([(a - b) * c])[0].tolist() == [10 * 3 + 9 * 3 + 3 * 1 + 1 * 3 + 3]


def test_what_is_wide_has_a_condition_of_its_own() -> None:
    a, b, c = Node(mpf(10)), Node(mpf(9), wide=True), Node(mpf(3))
    difference = Node(a.value - b.value, (a, b), lambda a, b, y: (1, -1), wide=True)
    narrow, wide = conditions([difference * c])
    assert narrow.tolist() == [10 * 3 + 3 * 1 + 3]
    assert wide.tolist() == [9 * 3 + 1 * 3]


def turned(positions: Any, other: Any) -> tuple[Any, Any]:
    """The two conditions of cos(p / 2) for every position p, as it enters another array."""
    angle = positions[..., None] * power(2, numpy.array([-1]))
    return conditions([node for x in (like(cos(angle), other), like(sin(angle), other)) for node in x.nodes.flat])


def test_a_large_angle_of_plain_numbers_is_wide_and_a_small_one_is_not() -> None:
    with exact.digits(40):
        narrow, wide = turned(numpy.array([3, 128, 130]), exact.lift(numpy.zeros(2)))
        assert [n % 3 for n in numpy.flatnonzero(wide)] == [2, 2]  # of 1.5, 64 and 65 radians
        small, _ = turned(numpy.array([3]), exact.lift(numpy.zeros(2)))
        assert narrow[[0, 3]].tolist() == small.tolist()  # the rate, which all positions share, stays narrow there
        cosine = abs(mp.cos(65))
        assert narrow[2] == pytest.approx(float(cosine))
        # the position, the rate, the base that it is a power of, and the angle
        assert wide[2] == pytest.approx(float(4 * 65 * abs(mp.sin(65))))


def test_an_angle_of_an_array_is_narrow_however_large_it_is() -> None:
    with exact.digits(40):
        given = exact.lift(numpy.array([130.0]))
        _, wide = turned(given, given)
        assert not wide.any()
        _, wide = turned(like(numpy.array([130]), given), given)
        assert not wide.any()


def test_the_condition_of_many_outputs_is_the_condition_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = list(softmax(exact.Exact([Node(mpf(n) / 7) for n in range(1, 6)]))[0].nodes)
    together = conditions(outputs)[0]
    assert together.tolist() == [conditions([y])[0].item() for y in outputs]
    monkeypatch.setattr(nodes, "CHUNK", 2)
    assert conditions(outputs)[0].tolist() == together.tolist()


def test_a_cancelled_gradient_keeps_a_condition() -> None:
    """The gradient of a shift of softmax is exactly 0, but no implementation computes an exact 0."""
    with exact.digits(50):
        x, shift = exact.Exact([Node(mpf(n) / 3) for n in range(3)]), Node(mpf(1))
        y, _ = softmax(x + shift)
        (slope,) = gradients(list(y.nodes), [constant(n) for n in (1, -2, 5)], [shift])
        assert abs(slope.value) < mpf(10) ** -45
        assert conditions([slope])[0][0] > 0.1


@given(st.lists(st.sampled_from([0.0, -1.5, 2.25]), min_size=3, max_size=3))
def test_a_zero_in_an_array_has_a_gradient_and_one_that_was_put_there_has_none(values: list[float]) -> None:
    """A product with a zero that stands for a forbidden place is this zero; an input that happens to be 0 is not."""
    a, b, c = (entry(x) for x in values)
    nothing = constant(0)
    y = a * b + nothing * c + nothing / (c * c + 1)
    found = gradients([y], [constant(1)], [a, b, c])
    assert [g.value for g in found] == [b.value, a.value, 0]
    assert all(isinstance(x, Entry) for x in (a, b, c))
    assert nothing * a is nothing


def test_a_sum_of_one_number_is_that_number() -> None:
    x = entry(2.5)
    assert total([x]) is x
    assert conditions([total([x])])[0].tolist() == [2.5]


def test_a_number_that_is_not_finite_adds_no_condition() -> None:
    with exact.digits(30):
        x = exact.lift(numpy.array([1.0, float("-inf"), 0.5]))
        y, _ = softmax(x)
        narrow, wide = conditions(list(y.nodes))
        assert numpy.isfinite(narrow).all()
        assert narrow[1] == 0
        assert not wide.any()
        infinite = [exact.lift(numpy.array([value])).nodes[0] * 2 for value in (float("inf"), float("nan"))]
        assert conditions(infinite)[0].tolist() == [0, 0]


def test_a_function_of_a_plain_number_is_exact_where_numbers_are() -> None:
    with exact.digits(50), scalars(exact.ExactMathematics):
        assert abs(number_of(power(2, 0.5)) - mp.sqrt(2)) < mpf(10) ** -48


def number_of(x: Any) -> Any:
    return nodes.number(x)
