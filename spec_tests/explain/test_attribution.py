"""Laws of the attribution of an answer to tokens. (EXPLAIN)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.explain.attribution import FIRST, POINTS, gauss_legendre, gradient_times_input, integrated_gradients

Answer = Callable[[Any], Any]
RANDOM = numpy.random.default_rng(5)
X, B = RANDOM.standard_normal((4, 3)), RANDOM.standard_normal((4, 3))
W = RANDOM.standard_normal((4, 3))


def of(g: Callable[[Any], Any], slope: Callable[[Any], Any]) -> Answer:
    """F = Σ g(x), of which `slope` is the derivative by each entry."""
    return lambda x: (g(x).sum(axis=(1, 2)), lambda dy: slope(x) * dy[:, None, None])


def step(sharpness: float) -> Answer:
    """F = sigmoid(sharpness (Σ W x - a place on the way)): flat, then nearly a jump, then flat."""
    place = 0.37 * (W * X).sum() + 0.63 * (W * B).sum()

    def f(x: Any) -> Any:
        y = 1 / (1 + numpy.exp(-numpy.clip(sharpness * ((W * x).sum(axis=(1, 2)) - place), -700, 700)))
        return y, lambda dy: (dy * sharpness * y * (1 - y))[:, None, None] * W

    return f


@given(st.integers(1, 40))
def test_gauss_and_legendre_integrate_polynomials_exactly(n: int) -> None:
    nodes, weights = gauss_legendre(n)
    assert nodes == sorted(nodes)
    assert 0 < nodes[0] <= nodes[-1] < 1
    for degree in {0, 1, n, 2 * n - 1}:
        found = sum(w * a**degree for a, w in zip(nodes, weights, strict=True))
        assert found == pytest.approx(1 / (degree + 1), rel=1e-12)


@pytest.mark.parametrize("sharpness", [1.0, 10.0, 300.0, 10000.0])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_the_tokens_add_up_to_the_change_to_the_tolerance(sharpness: float, tolerance: float) -> None:
    f = step(sharpness)
    found = integrated_gradients(f, X, B, tolerance=tolerance, steps=4096)
    value, baseline = f(numpy.stack([X, B]))[0]
    assert (found.value, found.baseline_value) == (value, baseline)
    assert found.missing == value - baseline - found.scores.sum()
    assert abs(found.missing) <= tolerance * abs(value - baseline)
    assert found.steps <= 1024


def test_a_jump_that_fixed_steps_pass_over_is_found() -> None:
    """The right-hand sum of the source at 300 points, against as many by panels."""
    f = step(20000.0)
    found = integrated_gradients(f, X, B, tolerance=1e-6, steps=300)
    _, back = f(numpy.stack([B + a * (X - B) for a in numpy.arange(1, 301) / 300]))
    summed = ((X - B) * back(numpy.full(300, 1 / 300)).sum(axis=0)).sum()
    change = found.value - found.baseline_value
    assert abs(found.missing) < 1e-6 * abs(change) < 0.1 * abs(change) < abs(change - summed)


def test_more_steps_miss_less() -> None:
    missed = [
        abs(integrated_gradients(step(1000.0), X, B, tolerance=1e-15, steps=steps).missing)
        for steps in (32, 64, 96, 160)
    ]
    assert missed == sorted(missed, reverse=True)
    assert missed[-1] < 1e-3 * missed[0]


def test_no_more_steps_than_allowed_are_taken_and_what_is_missing_is_said() -> None:
    f, counted = step(1e6), []

    def count(x: Any) -> Any:
        counted.append(len(x) - 2)
        return f(x)

    found = integrated_gradients(count, X, B, tolerance=1e-12, steps=50)
    assert found.steps == 48
    assert max(counted) == POINTS
    assert abs(found.missing) > 1e-3


def test_each_entry_gets_its_own_part_of_a_separable_function() -> None:
    """F = Σ g(x): the scores are Σ_c g(x_tc) - g(b_tc), in closed form."""
    found = integrated_gradients(of(numpy.sinh, numpy.cosh), X, B, tolerance=1e-10, steps=256)
    numpy.testing.assert_allclose(found.scores, (numpy.sinh(X) - numpy.sinh(B)).sum(axis=1), rtol=1e-9)


def test_a_token_that_is_its_own_baseline_gets_nothing() -> None:
    x = X.copy()
    x[2] = B[2]
    for found in (
        integrated_gradients(step(10.0), x, B, tolerance=1e-3, steps=64),
        gradient_times_input(step(10.0), x, B),
    ):
        assert found.scores[2] == 0
        assert numpy.count_nonzero(found.scores) == 3


def test_a_linear_answer_is_its_gradient_times_the_input() -> None:
    """Both methods, completely; with b = 0 the product of weights and input."""

    def linear(x: Any) -> Any:
        return (W * x).sum(axis=(1, 2)), lambda dy: dy[:, None, None] * W

    for baseline in (B, 0 * B):
        path = integrated_gradients(linear, X, baseline, tolerance=1e-9, steps=FIRST * POINTS)
        point = gradient_times_input(linear, X, baseline)
        for found in (path, point):
            numpy.testing.assert_allclose(found.scores, (W * (X - baseline)).sum(axis=1), rtol=1e-12)
            assert abs(found.missing) < 1e-12
        assert (path.steps, point.steps) == (FIRST * POINTS, 1)


def test_a_sure_answer_has_no_slope_left_to_explain_it() -> None:
    """Saturation (sec. 1 of the source): the gradient at x says nothing where integrated gradients say all."""
    f = step(300.0)
    assert abs(gradient_times_input(f, X, B).scores).max() < 1e-6
    path = integrated_gradients(f, X, B, tolerance=1e-4, steps=1024)
    assert path.scores.sum() == pytest.approx(path.value - path.baseline_value, rel=1e-4)


def test_equal_answers_have_equal_attributions_and_sums_add() -> None:
    """Implementation invariance and linearity (sec. 2.2 and 3 of the source), for answers without a narrow part."""
    g, h = of(numpy.sin, numpy.cos), of(lambda x: x**3, lambda x: 3 * x**2)

    def both(x: Any) -> Any:
        (y, back_y), (z, back_z) = g(x), h(x)
        return 2 * y - z, lambda dy: 2 * back_y(dy) - back_z(dy)

    a, b, c = (integrated_gradients(f, X, B, tolerance=1e-9, steps=1024).scores for f in (g, h, both))
    numpy.testing.assert_allclose(c, 2 * a - b, atol=1e-8)


@pytest.mark.parametrize(("steps", "tolerance"), [(31, 1e-3), (64, 0.0), (64, float("nan"))])
def test_a_path_without_points_is_refused(steps: int, tolerance: float) -> None:
    with pytest.raises(UserError, match="give more"):
        integrated_gradients(step(1.0), X, B, tolerance=tolerance, steps=steps)
