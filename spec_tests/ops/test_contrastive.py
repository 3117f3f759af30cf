"""Laws of the contrastive loss and of the vectors that it compares. (CTR)"""

import math
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def info_nce(subject: Subject) -> Implementation:
    return subject.operation("info_nce")


@pytest.fixture(scope="session")
def mean_pool(subject: Subject) -> Implementation:
    return subject.operation("mean_pool")


def vectors(N: int, C: int, seed: int = 0) -> tuple[Any, Any]:
    a, b = numpy.random.default_rng(seed).standard_normal((2, N, C))
    return a, b


@given(N=st.integers(1, 5), C=st.integers(1, 4), seed=st.integers(0, 99), temperature=st.sampled_from([0.1, 1.0]))
def test_the_loss_is_the_formula(info_nce: Implementation, N: int, C: int, seed: int, temperature: float) -> None:
    a, b = vectors(N, C, seed)
    y, _ = info_nce(a, b, temperature=temperature)

    def similarity(i: int, j: int) -> float:
        dot = math.fsum(float(x) * float(z) for x, z in zip(a[i], b[j], strict=True))
        return dot / math.hypot(*a[i]) / math.hypot(*b[j]) / temperature

    total = sum(
        math.log(sum(math.exp(similarity(i, j)) for j in range(N))) - similarity(i, i) for i in range(N)
    )  # fmt: skip
    assert y == pytest.approx(total / N, rel=1e-11, abs=1e-13)


@given(N=st.integers(1, 6), seed=st.integers(0, 99))
def test_vectors_that_are_all_the_same_leave_a_guess_among_n(info_nce: Implementation, N: int, seed: int) -> None:
    row, _ = vectors(1, 4, seed)
    y, _ = info_nce(numpy.repeat(row, N, axis=0), numpy.repeat(row, N, axis=0), temperature=0.1)
    assert y == pytest.approx(math.log(N), abs=1e-12)


def test_pairs_alike_and_far_from_the_others_have_no_loss(info_nce: Implementation) -> None:
    y, _ = info_nce(numpy.eye(4), 3 * numpy.eye(4), temperature=0.01)
    assert y == pytest.approx(0, abs=1e-12)
    wrong, _ = info_nce(numpy.eye(4), numpy.roll(numpy.eye(4), 1, axis=0), temperature=0.01)
    assert wrong == pytest.approx(1 / 0.01, rel=1e-12)


@given(seed=st.integers(0, 99), i=st.integers(0, 3), factor=st.floats(1e-3, 1e3))
def test_the_length_of_a_vector_does_not_matter(
    info_nce: Implementation, seed: int, i: int, factor: float
) -> None:  # fmt: skip
    """So the gradient is at a right angle to the vector."""
    a, b = vectors(4, 3, seed)
    longer = a.copy()
    longer[i] *= factor
    y, back = info_nce(a, b, temperature=0.2)
    assert info_nce(longer, b, temperature=0.2)[0] == pytest.approx(y, rel=1e-12)
    da, db = back(numpy.array(1.0))
    numpy.testing.assert_allclose((da * a).sum(axis=1), 0, atol=1e-12 * (1 + abs(da).max()))
    numpy.testing.assert_allclose((db * b).sum(axis=1), 0, atol=1e-12 * (1 + abs(db).max()))


@given(seed=st.integers(0, 99))
def test_the_order_of_the_pairs_does_not_matter(info_nce: Implementation, seed: int) -> None:
    a, b = vectors(5, 3, seed)
    order = numpy.random.default_rng(seed).permutation(5)
    assert info_nce(a[order], b[order], temperature=0.2)[0] == pytest.approx(
        info_nce(a, b, temperature=0.2)[0], rel=1e-12
    )


def test_only_the_first_of_a_pair_asks(info_nce: Implementation) -> None:
    """One direction: with the two exchanged the loss is another."""
    a, b = numpy.array([[1.0, 0], [0, 1]]), numpy.array([[1.0, 0], [1, 0]])
    asked, answered = math.log(2), math.log(1 + math.e) - 0.5
    assert info_nce(a, b, temperature=1.0)[0] == pytest.approx(asked)
    assert info_nce(b, a, temperature=1.0)[0] == pytest.approx(answered)


def test_a_row_of_zeros_has_no_direction(info_nce: Implementation) -> None:
    a, b = vectors(3, 2)
    a[1] = 0
    y, back = info_nce(a, b, temperature=0.5)
    da, db = back(numpy.array(1.0))
    assert math.isfinite(y)
    assert not da[1].any()
    assert da[0].any()
    assert numpy.isfinite(db).all()


@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_the_mean_is_over_the_valid_tokens(mean_pool: Implementation, lengths: list[int], seed: int) -> None:
    h = numpy.random.default_rng(seed).standard_normal((len(lengths), 4, 3))
    token_mask = numpy.arange(4) < numpy.array(lengths)[:, None]
    y, back = mean_pool(h, token_mask=token_mask)
    dh = back(numpy.ones((len(lengths), 3)))
    for row, n in enumerate(lengths):
        numpy.testing.assert_allclose(y[row], h[row, :n].mean(axis=0) if n else numpy.zeros(3), rtol=1e-12, atol=1e-14)
        numpy.testing.assert_allclose(dh[row, :n], 1 / max(n, 1))
        assert not dh[row, n:].any()


@pytest.mark.own
@pytest.mark.parametrize(("N", "temperature"), [(0, 1.0), (2, 0.0), (2, -1.0), (2, math.nan)])
def test_no_pair_and_no_temperature_are_refused(info_nce: Implementation, N: int, temperature: float) -> None:
    with pytest.raises(ValueError, match="info_nce: needs a pair and a temperature above 0; got"):
        info_nce(numpy.ones((N, 2)), numpy.ones((N, 2)), temperature=temperature)


@pytest.mark.own
def test_rows_without_a_partner_are_refused(info_nce: Implementation) -> None:
    with pytest.raises(ValueError, match=r"info_nce: b must be \(N, C\) = \(3, 2\)"):
        info_nce(numpy.ones((3, 2)), numpy.ones((2, 2)), temperature=1.0)
