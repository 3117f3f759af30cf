"""Laws of the embedding."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def embedding(subject: Subject) -> Implementation:
    return subject.operation("embedding")


@given(ids=st.lists(st.integers(0, 4), max_size=12), seed=st.integers(0, 99))
def test_e7_embedding_is_the_product_with_the_one_hot_vector(
    embedding: Implementation, ids: list[int], seed: int
) -> None:
    random = numpy.random.default_rng(seed)
    E, dy = random.normal(size=(5, 3)), random.normal(size=(len(ids), 3))
    onehot = numpy.eye(5)[ids].reshape(len(ids), 5)
    y, back = embedding(E, ids=numpy.array(ids, dtype=int))
    assert (y == onehot @ E).all()
    numpy.testing.assert_allclose(back(dy), onehot.T @ dy, rtol=1e-13, atol=1e-13)


def test_e7_a_product_with_the_index_is_something_else(embedding: Implementation) -> None:
    E = numpy.array([[1.0, 2], [3, 4], [5, 6]])
    assert embedding(E, ids=numpy.array(2))[0].tolist() == [5, 6]
    assert (E * 2)[0].tolist() != [5, 6]


def test_a_repeated_id_collects_every_gradient_and_an_unused_row_none(embedding: Implementation) -> None:
    back = embedding(numpy.zeros((4, 1)), ids=numpy.array([[2, 0], [2, 2]]))[1]
    assert back(numpy.array([[[1.0], [10]], [[100], [1000]]])).ravel().tolist() == [10, 0, 1101, 0]


@pytest.mark.host
@pytest.mark.parametrize("wrong", [-1, 4])
@pytest.mark.own
def test_an_id_out_of_range_is_refused(embedding: Implementation, wrong: int) -> None:
    with pytest.raises(IndexError, match=rf"embedding: ids must be in \[0, 4\); got {wrong}"):
        embedding(numpy.zeros((4, 2)), ids=numpy.array([0, wrong]))


@pytest.mark.own
def test_ids_that_are_not_integers_are_refused(embedding: Implementation) -> None:
    with pytest.raises(ValueError, match="embedding: ids must be integers, got float64"):
        embedding(numpy.zeros((4, 2)), ids=numpy.array([0.0]))
