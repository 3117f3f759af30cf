"""Laws of the L2 penalty. (L2)"""

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.optim.update import adam, adamw
from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def l2_penalty(subject: Subject) -> Implementation:
    return subject.operation("l2_penalty")


def test_the_penalty_is_half_the_strength_times_the_sum_of_squares(l2_penalty: Implementation) -> None:
    y, back = l2_penalty(numpy.array([[3.0, 0], [-4, 1]]), strength=0.5)
    assert y == 0.5 / 2 * (9 + 16 + 1)
    assert back(numpy.array(2.0)).tolist() == [[3, 0], [-4, 1]]


@given(a=st.floats(-10, 10), strength=st.floats(0, 3))
def test_weights_twice_as_large_cost_four_times_as_much(l2_penalty: Implementation, a: float, strength: float) -> None:
    w = numpy.array([a, 1.0])
    assert l2_penalty(2 * w, strength=strength)[0] == 4 * l2_penalty(w, strength=strength)[0]


def test_its_gradient_is_adams_decay_and_not_that_of_adamw(l2_penalty: Implementation) -> None:
    random = numpy.random.default_rng(0)
    p, g, m, v = random.standard_normal((3, 5)), random.standard_normal((3, 5)), numpy.zeros((3, 5)), numpy.ones((3, 5))
    how: dict[str, Any] = {"step": 2, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    penalised = adam(p, g + l2_penalty(p, strength=0.3)[1](numpy.array(1.0)), m, v, decay=0.0, **how)
    numpy.testing.assert_allclose(penalised[0], adam(p, g, m, v, decay=0.3, **how)[0], rtol=1e-14)
    assert not numpy.allclose(penalised[0], adamw(p, g, m, v, decay=0.3, **how)[0], rtol=1e-4)


@pytest.mark.own
@pytest.mark.parametrize("strength", [-0.1, float("nan")])
def test_a_negative_strength_is_refused(l2_penalty: Implementation, strength: float) -> None:
    with pytest.raises(ValueError, match="l2_penalty: strength must be at least 0"):
        l2_penalty(numpy.ones(3), strength=strength)
