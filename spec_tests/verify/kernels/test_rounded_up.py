"""A count that is rounded up without a mask is named with what it is rounded to."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.kernels.rounded_up import pairs
from spec_tests.verify.kernels.noted import Noted

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


@wrong("sliding_window_attention", "whose window is rounded up to a multiple of 16")
def window_of_whole_tiles(q: Array, k: Array, v: Array, *, window: int, allowed: Array | None) -> Any:
    return TEXT["sliding_window_attention"](q, k, v, window=-(-window // 16) * 16, attention_mask=allowed)


@wrong("top_experts", "whose k is rounded up to a power of two")
def experts_by_powers(scores: Array, *, k: int, renormalise: bool) -> Any:
    return TEXT["top_experts"](scores, k=min(1 << (k - 1).bit_length(), scores.shape[-1]), renormalise=renormalise)


@wrong("partial_rotary", "partial_rotary that turns a multiple of 32 of pairs, by the frequencies that would follow, "
       "in the gradient alone")  # fmt: skip
def gradient_of_whole_vectors(x: Array, *, positions: Array, base: float, turned: int, layout: str) -> Any:
    y, _ = TEXT["partial_rotary"](x, positions=positions, base=base, turned=turned, layout=layout)
    D, half = x.shape[-1], turned // 2
    n = min(-(-half // 32) * 32, D // 2 if layout == "interleaved" else D - half)
    one, two = numpy.arange(n), numpy.arange(n) + half
    if layout == "interleaved":
        one, two = 2 * numpy.arange(n), 2 * numpy.arange(n) + 1
    angle = positions[..., None] * base ** (-2 * numpy.arange(n) / turned)
    c, s = numpy.cos(angle), numpy.sin(angle)
    units = numpy.repeat(numpy.eye(D)[:, None], x.shape[-2], axis=1)
    made = units.copy()
    made[..., one] = units[..., one] * c - units[..., two] * s
    made[..., two] = units[..., one] * s + units[..., two] * c
    return y, lambda dy: numpy.einsum("...tj,itj->...ti", dy, made).astype(dy.dtype)


@pytest.mark.parametrize("name", KERNELS)
def test_count_that_is_rounded_up_is_named(name: str) -> None:
    KERNELS.is_named(name)


@pytest.mark.parametrize("layout", ["halves", "interleaved"])
def test_gradient_of_more_pairs_is_that_of_its_value(layout: str) -> None:
    """The map is linear: <dy, y(x)> = <dx(dy), x>, also where the pairs overlap."""
    generator = numpy.random.default_rng(3)
    x, dy = generator.standard_normal((2, 3, 40))
    how = {"positions": numpy.arange(3), "base": 100.0, "turned": 24, "layout": layout}
    for cause in pairs("partial_rotary"):
        if not cause.gradients_alone and "value" not in cause.about:
            y, back = cause._partial_rotary(x, **how)  # type: ignore[arg-type]
            assert numpy.isclose((dy * y).sum(), (back(dy) * x).sum()), cause.about
