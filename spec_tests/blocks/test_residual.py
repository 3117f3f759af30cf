"""Laws of the residual connections."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.blocks.residual import post_norm, pre_norm
from refllm.ops.layer_norm import layer_norm

X = numpy.random.default_rng(0).standard_normal((2, 3, 4))
NORM = {"g": numpy.linspace(0.5, 2, 4), "b": numpy.linspace(-1, 1, 4)}


def nothing(z: Any) -> Any:
    return numpy.zeros_like(z), lambda dy: (numpy.zeros_like(dy), {})


def itself(z: Any) -> Any:
    return z.copy(), lambda dy: (dy.copy(), {})


def test_pre_norm_passes_its_input_through_a_sublayer_that_gives_nothing() -> None:
    y, back = pre_norm(X, NORM, nothing, eps=1e-5, dropout_mask=None, rate=0.5)
    assert numpy.array_equal(y, X)
    assert numpy.array_equal(back(X)[0], X)


def test_pre_norm_adds_the_sublayer_of_the_normalised_input() -> None:
    y, _ = pre_norm(X, NORM, itself, eps=1e-5, dropout_mask=None, rate=0.5)
    assert numpy.array_equal(y, X + layer_norm(X, NORM["g"], NORM["b"], eps=1e-5)[0])


def test_post_norm_normalises_the_sum() -> None:
    y, _ = post_norm(X, NORM, itself, eps=1e-5, dropout_mask=None, rate=0.5)
    assert numpy.array_equal(y, layer_norm(2 * X, NORM["g"], NORM["b"], eps=1e-5)[0])


@pytest.mark.parametrize("residual", [pre_norm, post_norm])
def test_dropout_acts_on_the_sublayer_and_never_on_the_residual_path(residual: Any) -> None:
    dropped, _ = residual(X, NORM, itself, eps=1e-5, dropout_mask=numpy.zeros(X.shape, bool), rate=0.5)
    without, _ = residual(X, NORM, nothing, eps=1e-5, dropout_mask=None, rate=0.5)
    assert numpy.array_equal(dropped, without)


@pytest.mark.parametrize("residual", [pre_norm, post_norm])
def test_what_a_sublayer_shares_with_others_gets_its_gradient_through_the_residual(residual: Any) -> None:
    """The gradients after that of the input come out as they are, in their order, after that of the norm."""

    def sharing(z: Any) -> Any:
        return 2 * z, lambda dy: (2 * dy, "of a bias", None, {"W": "of a weight"})

    y, back = residual(X, NORM, sharing, eps=1e-5, dropout_mask=None, rate=0.5)
    dx, dnorm, *others = back(numpy.ones_like(y))
    assert dx.shape == X.shape
    assert set(dnorm) == {"g", "b"}
    assert others == ["of a bias", None, {"W": "of a weight"}]
