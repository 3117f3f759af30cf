"""The comparison of gradients with differences: along a few directions it notices what it would in every element."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_tests import gradients
from spec_tests.gradients import assert_gradients_agree, directions


def squares(wrong: Any) -> Any:
    """Σ c x² for every leaf, its gradient changed by `wrong`."""

    def f(p: Any) -> Any:
        y = numpy.array([float((leaf**2).sum()) for leaf in p.values()])
        return y, lambda dy: {name: wrong(2 * d * leaf) for (name, leaf), d in zip(p.items(), dy, strict=True)}

    return f


def leaf(size: int) -> dict[str, Any]:
    return {"W": numpy.random.default_rng(3).uniform(0.5, 1.5, size)}


@given(size=st.integers(1, 60), data=st.data())
def test_a_mistake_in_one_element_is_noticed_and_rounding_is_not(size: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, size - 1))

    def wrong(g: Any) -> Any:
        g[at] *= 1 + 1e-4
        return g

    assert_gradients_agree(squares(lambda g: g), leaf(size))
    with pytest.raises(AssertionError, match="the gradient of W is off"):
        assert_gradients_agree(squares(wrong), leaf(size))


@given(size=st.integers(2, 60), data=st.data())
def test_two_elements_that_are_exchanged_are_noticed(size: int, data: st.DataObject) -> None:
    one = data.draw(st.integers(0, size - 2))
    other = data.draw(st.integers(one + 1, size - 1))

    def wrong(g: Any) -> Any:
        g[[one, other]] = g[[other, one]]
        return g

    with pytest.raises(AssertionError, match="the gradient of W is off"):
        assert_gradients_agree(squares(wrong), leaf(size))


def test_every_element_is_compared_with_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "EVERY_ELEMENT", True)
    numpy.testing.assert_array_equal(directions(50), numpy.eye(50))


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_small_gradient_is_compared_in_every_element(size: int) -> None:
    numpy.testing.assert_array_equal(directions(size), numpy.eye(size))
