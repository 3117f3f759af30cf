"""Laws of the normalisation by the root of the mean square."""

from __future__ import annotations

import re

import mpmath
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.spec import layer_norm as text
from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def rms_norm(subject: Subject) -> Implementation:
    return subject.operation("rms_norm")


@given(
    row=st.lists(st.floats(-10, 10, width=32) | st.sampled_from([1e30, -1e30, 1e-30, 3e29]), min_size=1, max_size=7),
    eps=st.sampled_from([1e-12, 1e-5, 0.1]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_rows_agree_with_mpmath_at_any_scale(
    rms_norm: Implementation, row: list[float], eps: float, dtype: str
) -> None:
    x = numpy.array([row], dtype)
    y = rms_norm(x, numpy.ones(len(row), dtype), eps=eps)[0][0]
    with mpmath.workdps(120):
        numbers = [mpmath.mpf(float(v)) for v in x[0]]
        root = mpmath.sqrt(mpmath.fsum(v * v for v in numbers) / len(row) + mpmath.mpf(eps))
        exact = [float(v / root) for v in numbers]
    unit = float(numpy.finfo(dtype).eps)
    numpy.testing.assert_allclose(y, exact, rtol=8 * unit * len(row), atol=float(numpy.finfo(dtype).tiny))


@given(seed=st.integers(0, 99), width=st.integers(1, 9), scale=st.sampled_from([1e-2, 1, 1e30]))
def test_rows_have_a_mean_square_of_one(rms_norm: Implementation, seed: int, width: int, scale: float) -> None:
    x = numpy.random.default_rng(seed).normal(size=(3, width)) * scale
    y = rms_norm(x, numpy.ones(width), eps=1e-300)[0]
    numpy.testing.assert_allclose((y * y).mean(axis=-1), 1, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_of_zeros_gives_zeros_and_its_gradient_is_finite(rms_norm: Implementation, dtype: str) -> None:
    y, back = rms_norm(numpy.zeros((2, 3), dtype), numpy.array([2, 3, 4], dtype), eps=1e-5)
    assert not y.any()
    assert all(numpy.isfinite(d).all() for d in back(numpy.array([[1, -2, 3], [0, 1, 7]], dtype)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_scaled_row_has_the_same_value_and_a_gradient_as_much_smaller(rms_norm: Implementation, dtype: str) -> None:
    """Up to 2^100, whose square is no float32; eps does not matter beside these squares."""
    random, scale = numpy.random.default_rng(0), numpy.asarray(2.0**100, dtype)
    x, dy = random.normal(size=(2, 3, 5)).astype(dtype)
    g = random.normal(size=5).astype(dtype)
    (y, back), (z, back_scaled) = (rms_norm(x * s, g, eps=1e-25) for s in (numpy.ones_like(scale), scale))
    rtol = 64 * float(numpy.finfo(dtype).eps)
    numpy.testing.assert_allclose(z, y, rtol=0, atol=rtol)
    numpy.testing.assert_allclose(back_scaled(dy)[0] * scale, back(dy)[0], rtol=0, atol=rtol * abs(back(dy)[0]).max())


def test_the_gradient_is_orthogonal_to_the_row(rms_norm: Implementation) -> None:
    """Making a row longer changes nothing, but for eps."""
    random = numpy.random.default_rng(0)
    x, g, dy = random.normal(size=(4, 6)), random.normal(size=6), random.normal(size=(4, 6))
    dx = rms_norm(x, g, eps=1e-200)[1](dy)[0]
    numpy.testing.assert_allclose((dx * x).sum(axis=-1), 0, atol=1e-13)


def test_eps_stands_inside_the_root_and_no_mean_is_taken_off(rms_norm: Implementation) -> None:
    """x = (1, 1): the mean square is 1, and with eps = 3 the root is 2. Layer norm would give 0."""
    y = rms_norm(numpy.ones(2), numpy.ones(2), eps=3.0)[0]
    assert y.tolist() == [0.5, 0.5]


def test_a_row_alone_gives_what_it_gives_in_a_batch(rms_norm: Implementation) -> None:
    """In a batch whose other rows need scaling, too."""
    random = numpy.random.default_rng(0)
    x, g = random.normal(size=(4, 6)), random.normal(size=6)
    x[2] *= 1e200
    alone = numpy.stack([rms_norm(row, g, eps=1e-5)[0] for row in x])
    numpy.testing.assert_allclose(rms_norm(x, g, eps=1e-5)[0], alone, rtol=1e-13, atol=1e-13)


def test_many_rows_are_treated_as_few(rms_norm: Implementation) -> None:
    """More numbers than are worked on at once."""
    random = numpy.random.default_rng(0)
    x, g, dy = (random.normal(size=shape) for shape in ((700, 200), 200, (700, 200)))
    y, back = rms_norm(x, g, eps=1e-5)
    expected, text_back = text.rms_norm(x, g, eps=1e-5)
    numpy.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(back(dy), text_back(dy), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.own
def test_the_error_names_the_argument_the_shapes_and_the_letters(rms_norm: Implementation) -> None:
    message = "rms_norm: g must be (C,) = (768,) to match x (..., C) = (8, 128, 768); got (512,)"
    with pytest.raises(ValueError, match=re.escape(message)):
        rms_norm(numpy.zeros((8, 128, 768)), numpy.ones(512), eps=1e-5)


@pytest.mark.parametrize(("width", "eps"), [(0, 1e-5), (3, 0.0), (3, -1e-5)])
@pytest.mark.own
def test_no_channel_and_no_eps_are_refused(rms_norm: Implementation, width: int, eps: float) -> None:
    with pytest.raises(ValueError, match="rms_norm: needs C >= 1 and eps > 0"):
        rms_norm(numpy.zeros((2, width)), numpy.ones(width), eps=eps)
