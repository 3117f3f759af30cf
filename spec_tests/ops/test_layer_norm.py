"""Laws of layer normalisation."""

import re
from typing import Any

import mpmath
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.spec import layer_norm as text
from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def layer_norm(subject: Subject) -> Implementation:
    return subject.operation("layer_norm")


def _normalised(row: list[float], eps: float) -> Any:
    with mpmath.workdps(120):
        x = [mpmath.mpf(float(v)) for v in row]
        mean = mpmath.fsum(x) / len(x)
        variance = mpmath.fsum((v - mean) ** 2 for v in x) / len(x)
        return [float((v - mean) / mpmath.sqrt(variance + mpmath.mpf(eps))) for v in x]


@given(
    row=st.lists(st.floats(-10, 10, width=32) | st.sampled_from([1e30, -1e30, 3e29]), min_size=1, max_size=7),
    eps=st.sampled_from([1e-12, 1e-5, 0.1]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_rows_agree_with_mpmath_at_any_scale(
    layer_norm: Implementation, row: list[float], eps: float, dtype: str
) -> None:
    x = numpy.array([row], dtype)
    y = layer_norm(x, numpy.ones(len(row), dtype), numpy.zeros(len(row), dtype), eps=eps)[0]
    expected = numpy.array(_normalised(x[0], eps))
    # Deviations are differences of entries: their error is an ulp of the largest entry, over the deviation's root.
    unit = numpy.finfo(dtype).eps
    spread = float(numpy.sqrt(x[0].astype("float64").var() + eps))
    allowed = 8 * unit * (len(row) + float(abs(x[0].astype("float64")).max()) / spread)
    assert abs(y[0] - expected).max() <= allowed


@given(seed=st.integers(0, 99), width=st.integers(2, 9), scale=st.sampled_from([1e-2, 1, 1e30]))
def test_rows_have_mean_zero_and_variance_one(layer_norm: Implementation, seed: int, width: int, scale: float) -> None:
    x = numpy.random.default_rng(seed).normal(size=(3, width)) * scale
    y = layer_norm(x, numpy.ones(width), numpy.zeros(width), eps=1e-300)[0]
    numpy.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-13)
    numpy.testing.assert_allclose(y.var(axis=-1), 1, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("constant", [0, 0.1, 1e30, -1e30])
def test_a_constant_row_gives_b(layer_norm: Implementation, constant: float, dtype: str) -> None:
    g, b = numpy.array([2, 3, 4], dtype), numpy.array([5, -6, 0.1], dtype)
    y, back = layer_norm(numpy.full((2, 3), constant, dtype), g, b, eps=1e-5)
    assert (y == b).all()
    assert all(numpy.isfinite(d).all() for d in back(numpy.array([[1, -2, 3], [0, 1, 7]], dtype)))


def test_a_single_channel_gives_b_and_takes_no_gradient(layer_norm: Implementation) -> None:
    x, dy = numpy.array([[3.0], [1e30]]), numpy.array([[1.0], [10]])
    y, back = layer_norm(x, numpy.array([2.0]), numpy.array([7.0]), eps=1e-5)
    dx, dg, db = back(dy)
    assert y.ravel().tolist() == [7, 7]
    assert (dx.ravel().tolist(), dg.tolist(), db.tolist()) == ([0, 0], [0], [11])


@given(seed=st.integers(0, 99))
def test_a_shift_of_a_row_changes_nothing_so_its_gradient_sums_to_zero(layer_norm: Implementation, seed: int) -> None:
    random = numpy.random.default_rng(seed)
    x, g, b, dy = (random.normal(size=shape) for shape in ((4, 6), 6, 6, (4, 6)))
    y, back = layer_norm(x, g, b, eps=1e-5)
    numpy.testing.assert_allclose(layer_norm(x + 3, g, b, eps=1e-5)[0], y, atol=1e-13)
    numpy.testing.assert_allclose(back(dy)[0].sum(axis=-1), 0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_scaled_row_has_the_same_value_and_a_gradient_as_much_smaller(layer_norm: Implementation, dtype: str) -> None:
    """Up to 2^100, whose square is no float32; eps does not matter beside these variances."""
    random, scale = numpy.random.default_rng(0), numpy.asarray(2.0**100, dtype)
    x, dy = random.normal(size=(2, 3, 5)).astype(dtype)
    g, b = random.normal(size=(2, 5)).astype(dtype)
    (y, back), (z, back_scaled) = (layer_norm(x * s, g, b, eps=1e-25) for s in (numpy.ones_like(scale), scale))
    rtol = 64 * float(numpy.finfo(dtype).eps)
    numpy.testing.assert_allclose(z, y, rtol=0, atol=rtol)
    numpy.testing.assert_allclose(back_scaled(dy)[0] * scale, back(dy)[0], rtol=0, atol=rtol * abs(back(dy)[0]).max())


def test_eps_stands_inside_the_root_and_the_variance_is_biased(layer_norm: Implementation) -> None:
    """x = (-1, 1): the biased variance is 1, and with eps = 3 the root is 2."""
    y = layer_norm(numpy.array([-1.0, 1]), numpy.ones(2), numpy.zeros(2), eps=3.0)[0]
    assert y.tolist() == [-0.5, 0.5]


def test_a_row_alone_gives_what_it_gives_in_a_batch(layer_norm: Implementation) -> None:
    """In a batch whose other rows need scaling, too."""
    random = numpy.random.default_rng(0)
    x, g, b = random.normal(size=(4, 6)), random.normal(size=6), random.normal(size=6)
    x[2] *= 1e200
    alone = numpy.stack([layer_norm(row, g, b, eps=1e-5)[0] for row in x])
    numpy.testing.assert_allclose(layer_norm(x, g, b, eps=1e-5)[0], alone, rtol=1e-13, atol=1e-13)


def test_rows_far_from_their_first_number_are_as_exact_beside_others_as_alone(layer_norm: Implementation) -> None:
    random = numpy.random.default_rng(0)
    x, g, b = (random.normal(size=shape).astype("float32") for shape in ((5, 500), 500, 500))
    x[1, 0], x[3, 0], x[4] = 1e4, 1e25, x[4] * numpy.float32(1e25)
    x[2] += 1e4
    x[2, 0] = 0
    exact = text.layer_norm(*(z.astype("float64") for z in (x, g, b)), eps=1e-5)[0]
    for few in (slice(0, 1), slice(1, 2), slice(2, 3), slice(0, 3), slice(3, 4), slice(0, 5)):
        numpy.testing.assert_allclose(layer_norm(x[few], g, b, eps=1e-5)[0], exact[few], rtol=2e-6, atol=2e-6)


def test_gradients_of_micro_batches_add_up_to_that_of_the_batch(layer_norm: Implementation) -> None:
    random = numpy.random.default_rng(0)
    x, g, b, dy = (random.normal(size=shape) for shape in ((6, 2, 5), 5, 5, (6, 2, 5)))
    _, dg, db = layer_norm(x, g, b, eps=1e-5)[1](dy)
    parts = [layer_norm(x[i : i + 3], g, b, eps=1e-5)[1](dy[i : i + 3]) for i in (0, 3)]
    numpy.testing.assert_allclose(sum(p[1] for p in parts), dg, rtol=1e-13)
    numpy.testing.assert_allclose(sum(p[2] for p in parts), db, rtol=1e-13)


def test_many_rows_are_treated_as_few(layer_norm: Implementation) -> None:
    """More numbers than are worked on at once."""
    random = numpy.random.default_rng(0)
    x, g, b, dy = (random.normal(size=shape) for shape in ((700, 200), 200, 200, (700, 200)))
    y, back = layer_norm(x, g, b, eps=1e-5)
    expected, text_back = text.layer_norm(x, g, b, eps=1e-5)
    numpy.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(back(dy), text_back(dy), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.own
def test_the_error_names_the_argument_the_shapes_and_the_letters(layer_norm: Implementation) -> None:
    message = "layer_norm: g must be (C,) = (768,) to match x (..., C) = (8, 128, 768); got (512,)"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer_norm(numpy.zeros((8, 128, 768)), numpy.ones(512), numpy.ones(768), eps=1e-5)


@pytest.mark.parametrize(("width", "eps"), [(0, 1e-5), (3, 0.0), (3, -1e-5)])
@pytest.mark.own
def test_no_channel_and_no_eps_are_refused(layer_norm: Implementation, width: int, eps: float) -> None:
    with pytest.raises(ValueError, match="layer_norm: needs C >= 1 and eps > 0"):
        layer_norm(numpy.zeros((2, width)), numpy.ones(width), numpy.ones(width), eps=eps)
