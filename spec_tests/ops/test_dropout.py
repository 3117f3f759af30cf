"""Laws of dropout."""

import itertools

import numpy
import pytest

from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def dropout(subject: Subject) -> Implementation:
    return subject.operation("dropout")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rate_zero_is_the_identity_to_the_bit(dropout: Implementation, dtype: str) -> None:
    x = numpy.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    y, back = dropout(x, dropout_mask=numpy.ones((3, 4), bool), rate=0.0)
    assert y.tobytes() == x.tobytes()
    assert back(x).tobytes() == x.tobytes()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.75])
def test_the_expectation_over_all_masks_is_the_input(dropout: Implementation, rate: float) -> None:
    x = numpy.array([1.0, -2, 3, 0.5])
    expectation = numpy.zeros(4)
    for mask in itertools.product([True, False], repeat=4):
        probability = (1 - rate) ** sum(mask) * rate ** (4 - sum(mask))
        expectation += probability * dropout(x, dropout_mask=numpy.array(mask), rate=rate)[0]
    numpy.testing.assert_allclose(expectation, x, rtol=1e-14)


def test_the_value_and_the_gradient_drop_the_same_places(dropout: Implementation) -> None:
    dropout_mask = numpy.array([True, False, True])
    y, back = dropout(numpy.array([1.0, 2, 3]), dropout_mask=dropout_mask, rate=0.5)
    assert y.tolist() == [2, 0, 6]
    assert back(numpy.array([10.0, 20, 30])).tolist() == [20, 0, 60]


@pytest.mark.parametrize("rate", [1.0, -0.1])
@pytest.mark.own
def test_a_rate_out_of_range_is_refused(dropout: Implementation, rate: float) -> None:
    with pytest.raises(ValueError, match=rf"dropout: rate must be at least 0 and below 1, got {rate}"):
        dropout(numpy.ones(3), dropout_mask=numpy.ones(3, bool), rate=rate)


@pytest.mark.own
def test_a_mask_that_is_not_boolean_or_of_another_shape_is_refused(dropout: Implementation) -> None:
    with pytest.raises(ValueError, match="dropout: dropout_mask must be boolean"):
        dropout(numpy.ones(3), dropout_mask=numpy.ones(3, int), rate=0.5)
    with pytest.raises(ValueError, match="dropout: dropout_mask must be"):
        dropout(numpy.ones(3), dropout_mask=numpy.ones(2, bool), rate=0.5)
