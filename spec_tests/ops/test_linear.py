"""Laws of the affine maps."""

import re

import numpy
import pytest
from numpy.random import Generator

from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def matmul(subject: Subject) -> Implementation:
    return subject.operation("matmul")


@pytest.fixture(scope="session")
def linear(subject: Subject) -> Implementation:
    return subject.operation("linear")


@pytest.fixture(scope="session")
def heads(subject: Subject) -> Implementation:
    return subject.operation("heads")


@pytest.fixture
def random() -> Generator:
    return numpy.random.default_rng(0)


def test_an_entry_is_the_sum_of_products_plus_the_bias(linear: Implementation) -> None:
    x, W = numpy.array([[1.0, 2, 3], [4, 5, 6]]), numpy.array([[1.0, 0], [0, 10], [100, 1000]])
    y, back = linear(x, W, numpy.array([7.0, 8]))
    assert y.tolist() == [[308, 3028], [611, 6058]]
    dx, dW, db = back(numpy.array([[1.0, 0], [0, 1]]))
    assert dx.tolist() == [[1, 0, 100], [0, 10, 1000]]
    assert dW.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert db.tolist() == [1, 1]


def test_without_a_bias_linear_is_matmul(linear: Implementation, matmul: Implementation, random: Generator) -> None:
    x, W, dy = random.normal(size=(3, 4, 5)), random.normal(size=(5, 2)), random.normal(size=(3, 4, 2))
    y, back = linear(x, W, numpy.zeros(2))
    z, back_product = matmul(x, W)
    assert (y == z).all()
    for a, b in zip(back(dy)[:2], back_product(dy), strict=True):
        assert (a == b).all()


def test_a_row_alone_gives_what_it_gives_in_a_batch(linear: Implementation, random: Generator) -> None:
    x, W, b = random.normal(size=(4, 3, 5)), random.normal(size=(5, 2)), random.normal(size=2)
    batch = linear(x, W, b)[0]
    alone = numpy.stack([linear(x[i], W, b)[0] for i in range(4)])
    numpy.testing.assert_allclose(alone, batch, rtol=1e-13, atol=1e-13)


def test_gradients_of_micro_batches_add_up_to_that_of_the_batch(linear: Implementation, random: Generator) -> None:
    x, W, b, dy = (random.normal(size=shape) for shape in ((6, 3, 5), (5, 2), (2,), (6, 3, 2)))
    _, dW, db = linear(x, W, b)[1](dy)
    parts = [linear(x[i : i + 2], W, b)[1](dy[i : i + 2]) for i in (0, 2, 4)]
    numpy.testing.assert_allclose(sum(p[1] for p in parts), dW, rtol=1e-12)
    numpy.testing.assert_allclose(sum(p[2] for p in parts), db, rtol=1e-12)


def test_column_p_h_d_is_entry_d_of_head_h_of_part_p(heads: Implementation) -> None:
    parts, H, D, T = 3, 2, 4, 5
    columns = numpy.arange(parts * H * D, dtype=float)
    x, W = numpy.arange(T, dtype=float)[:, None] * 100, numpy.ones((1, parts * H * D))
    y, back = heads(x, W, columns, heads=H, parts=parts)
    for p in range(parts):
        for h in range(H):
            for d in range(D):
                assert (y[p][h, :, d] == 100 * numpy.arange(T) + p * H * D + h * D + d).all()
    dy = tuple(numpy.zeros((H, T, D)) for _ in range(parts))
    dy[1][1, 3, 2] = 1
    db = back(*dy)[2]
    assert numpy.flatnonzero(db).tolist() == [1 * H * D + 1 * D + 2]


@pytest.mark.own
def test_the_error_names_the_argument_the_shapes_and_the_letters(
    linear: Implementation, matmul: Implementation
) -> None:
    x = numpy.ones((2, 3))
    with pytest.raises(ValueError, match=re.escape("matmul: W must be (I, O) = (3, O) to match x (..., I) = (2, 3)")):
        matmul(x, numpy.ones((4, 5)))
    message = "linear: b must be (O,) = (5,) to match W (I, O) = (3, 5); got (4,)"
    with pytest.raises(ValueError, match=re.escape(message)):
        linear(x, numpy.ones((3, 5)), numpy.ones(4))


@pytest.mark.own
def test_two_float_dtypes_are_refused(linear: Implementation) -> None:
    with pytest.raises(ValueError, match="linear: b is float32 but x is float64; give both the same dtype"):
        linear(numpy.ones((2, 3)), numpy.ones((3, 5)), numpy.ones(5, "float32"))


@pytest.mark.own
def test_heads_that_do_not_divide_the_width_are_refused(heads: Implementation) -> None:
    with pytest.raises(ValueError, match=r"heads: W must be .* = \(2, 3\*2\*D\) to match x .*; got \(2, 8\)"):
        heads(numpy.ones((4, 2)), numpy.ones((2, 8)), numpy.ones(8), heads=2, parts=3)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("inner", "outer"), [(0, 3), (3, 0), (0, 0)])
def test_a_map_from_nothing_or_to_nothing_is_its_bias_or_empty(
    inner: int, outer: int, dtype: str, linear: Implementation
) -> None:
    x, W, b = numpy.ones((2, 4, inner), dtype), numpy.ones((inner, outer), dtype), numpy.full(outer, 2, dtype)
    y, back = linear(x, W, b)
    numpy.testing.assert_array_equal(y, numpy.full((2, 4, outer), 2, dtype))
    dx, dW, db = back(numpy.ones((2, 4, outer), dtype))
    assert (dx.shape, dW.shape) == (x.shape, W.shape)
    numpy.testing.assert_array_equal(dx, numpy.full(x.shape, outer, dtype))
    numpy.testing.assert_array_equal(db, numpy.full(outer, 8, dtype))
