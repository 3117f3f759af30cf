"""Layers one after the other: the chain rule, and the sum of what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.blocks.layers import through

DRAWN = st.integers(0, 2**32)


def shearing(r: Any) -> Callable[..., tuple[Any, Callable[[Any], tuple[Any, ...]]]]:
    """x W + n r, of which the layers share r."""

    def layer(x: Any, p: dict[str, Any], n: int) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        return x @ p["W"] + n * r, lambda dy: (dy @ p["W"].T, n * dy, {"W": x.T @ dy})

    return layer


@given(seed=DRAWN, count=st.integers(1, 4))
def test_each_layer_reads_the_one_before_and_knows_its_number(seed: int, count: int) -> None:
    random = numpy.random.default_rng(seed)
    x, r, *weights = random.standard_normal((2 + count, 3, 3))
    y, back = through(x, [{"W": W} for W in weights], shearing(r))
    value = x
    for n, W in enumerate(weights):
        value = value @ W + n * r
    numpy.testing.assert_array_equal(y, value)
    dy, h = random.standard_normal((2, 3, 3))
    dx, dr, dlayers = back(dy)

    def along(t: float) -> float:
        moved = through(x + t * h, [{"W": W + t * h} for W in weights], shearing(r + t * h))[0]
        return float((dy * moved).sum())

    slope = (along(1e-6) - along(-1e-6)) / 2e-6
    size = float(sum(abs(d * h).sum() for d in (dx, dr, *(layer["W"] for layer in dlayers))))
    assert (dx * h).sum() + (dr * h).sum() + sum((d["W"] * h).sum() for d in dlayers) == pytest.approx(
        slope, abs=1e-7 * max(1.0, size)
    )


def test_what_layers_share_is_summed_in_an_array_of_its_own() -> None:
    """Twice the same, and the gradients that the layers gave are as they gave them."""
    given_out = [numpy.full(2, 1.0), numpy.full(2, 2.0), numpy.full(2, 4.0)]

    def layer(x: Any, p: int, n: int) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        return x, lambda dy: (dy, given_out[p], None, p)

    _, back = through(numpy.zeros(2), [0, 1, 2], layer)
    for _ in range(2):
        _, shared, nothing, numbers = back(numpy.ones(2))
        assert shared.tolist() == [7.0, 7.0]
        assert nothing is None
        assert numbers == [0, 1, 2]
    assert [each.tolist() for each in given_out] == [[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]
