"""Laws of the cross-entropy."""

import math
from typing import Any

import mpmath
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator

from spec_tests.subject import Implementation, Subject

INF = math.inf
E2 = 0.2231435513142098  # -ln 0.8


@pytest.fixture(scope="session")
def cross_entropy(subject: Subject) -> Implementation:
    return subject.operation("cross_entropy")


@pytest.fixture(scope="session")
def soft_cross_entropy(subject: Subject) -> Implementation:
    return subject.operation("soft_cross_entropy")


@pytest.fixture(scope="session")
def smoothed_cross_entropy(subject: Subject) -> Implementation:
    return subject.operation("smoothed_cross_entropy")


@pytest.fixture
def random() -> Generator:
    return numpy.random.default_rng(0)


def _loss(row: list[float], target: int) -> Any:
    with mpmath.workdps(60):
        total = mpmath.fsum(mpmath.exp(mpmath.mpf(z) - row[target]) for z in row if z > -INF)
        return float(mpmath.log(total))


def test_e2_terms_with_a_zero_target_vanish(cross_entropy: Implementation, soft_cross_entropy: Implementation) -> None:
    log_p = numpy.log([[0.1, 0.8, 0.1]])
    loss = cross_entropy(log_p, targets=numpy.array([1]), ignore=None, reduction="mean")[0]
    assert abs(loss - E2) <= 1e-15
    loss = soft_cross_entropy(log_p, numpy.array([[0.0, 1, 0]]), reduction="mean")[0]
    assert abs(loss - E2) <= 1e-15


def test_a_zero_target_vanishes_also_where_the_logit_is_minus_infinity(soft_cross_entropy: Implementation) -> None:
    logits, targets = numpy.array([[0.0, -INF, 0]]), numpy.array([[1.0, 0, 0]])
    loss, back = soft_cross_entropy(logits, targets, reduction="sum")
    assert loss == math.log(2)
    assert back(numpy.array(1.0))[0].tolist() == [[-0.5, 0, 0.5]]


@given(
    row=st.lists(st.floats(-1e4, 1e4) | st.sampled_from([-INF, 1e30, -1e30]), min_size=1, max_size=6),
    choice=st.integers(0, 5),
)
def test_the_loss_agrees_with_mpmath(cross_entropy: Implementation, row: list[float], choice: int) -> None:
    target = choice % len(row)
    row[target] = max(row[target], -1e30)  # a target that is impossible has an infinite loss: the next test
    loss = cross_entropy(numpy.array(row), targets=numpy.array(target), ignore=None, reduction="none")[0]
    expected = _loss(row, target)
    assert abs(loss - expected) <= 1e-15 * (8 + 2 * abs(expected))


def test_an_impossible_target_has_an_infinite_loss(cross_entropy: Implementation) -> None:
    loss = cross_entropy(numpy.array([0.0, -INF]), targets=numpy.array(1), ignore=None, reduction="none")[0]
    assert loss == INF


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_loss_keeps_its_digits(cross_entropy: Implementation, dtype: str) -> None:
    logits = numpy.array([[10000.5, 0, 0]], dtype)
    assert cross_entropy(logits, targets=numpy.array([1]), ignore=None, reduction="sum")[0] == 10000.5


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_soft_targets_that_are_one_hot_give_the_loss_of_the_index(
    cross_entropy: Implementation, soft_cross_entropy: Implementation, random: Generator, reduction: str
) -> None:
    logits, targets = random.normal(size=(4, 3, 5)), random.integers(0, 5, (4, 3))
    dy = random.normal(size=(4, 3) if reduction == "none" else ())
    hard, back = cross_entropy(logits, targets=targets, ignore=None, reduction=reduction)
    soft, back_soft = soft_cross_entropy(logits, numpy.eye(5)[targets], reduction=reduction)
    numpy.testing.assert_allclose(soft, hard, rtol=1e-14)
    numpy.testing.assert_allclose(back_soft(dy)[0], back(dy), atol=1e-15)


@given(ignore=st.sampled_from([None, -100, 2]), seed=st.integers(0, 99))
def test_reductions_are_the_sum_and_the_mean_of_the_counted_places(
    cross_entropy: Implementation, ignore: int | None, seed: int
) -> None:
    random = numpy.random.default_rng(seed)
    logits, targets = random.normal(size=(4, 5)), random.integers(0, 5, 4)
    if ignore is not None:
        targets[random.random(4) < 0.5] = ignore
    each, total, mean = (
        cross_entropy(logits, targets=targets, ignore=ignore, reduction=reduction)[0]
        for reduction in ("none", "sum", "mean")
    )
    counted = targets != ignore
    assert (each[~counted] == 0).all()
    assert total == pytest.approx(math.fsum(each), rel=1e-14)
    assert mean == pytest.approx(math.fsum(each) / max(1, counted.sum()), rel=1e-14)


def test_an_ignored_place_has_no_loss_and_no_gradient(cross_entropy: Implementation, random: Generator) -> None:
    logits, dy = random.normal(size=(3, 5)), random.normal(size=3)
    y, back = cross_entropy(logits, targets=numpy.array([1, -100, 3]), ignore=-100, reduction="none")
    assert y[1] == 0
    assert (back(dy)[1] == 0).all()
    assert (back(dy)[[0, 2]] != 0).all()


@pytest.mark.parametrize("targets", [[-100, -100], []])
def test_the_mean_over_no_place_is_zero(cross_entropy: Implementation, targets: Any) -> None:
    logits = numpy.ones((len(targets), 5))
    y, back = cross_entropy(logits, targets=numpy.array(targets, dtype=int), ignore=-100, reduction="mean")
    assert y == 0
    assert (back(numpy.array(2.0)) == 0).all()


@given(seed=st.integers(0, 99), scale=st.sampled_from([1, 100, 1e30]))
def test_a_row_of_the_logit_gradient_sums_to_zero(
    cross_entropy: Implementation, soft_cross_entropy: Implementation, seed: int, scale: float
) -> None:
    random = numpy.random.default_rng(seed)
    logits, dy = random.normal(size=(4, 7)) * scale, random.normal(size=4)
    back = cross_entropy(logits, targets=random.integers(0, 7, 4), ignore=None, reduction="none")[1]
    assert abs(back(dy).sum(axis=-1)).max() <= 1e-14
    back = soft_cross_entropy(logits, random.random((4, 7)), reduction="none")[1]
    assert abs(back(dy)[0].sum(axis=-1)).max() <= 1e-13


def test_gradients_of_micro_batches_add_up_to_that_of_the_batch(
    cross_entropy: Implementation, random: Generator
) -> None:
    """With sums, whatever is ignored; and with means, weighted by the counted places."""
    logits, targets = random.normal(size=(6, 3, 5)), random.integers(0, 5, (6, 3))
    targets[0, :] = targets[3, 1] = -1
    parts = [slice(0, 2), slice(2, 6)]
    for reduction in ("sum", "mean"):
        whole, back = cross_entropy(logits, targets=targets, ignore=-1, reduction=reduction)
        losses, gradients = 0.0, []
        for part in parts:
            counted = (targets[part] != -1).sum() / (targets != -1).sum() if reduction == "mean" else 1.0
            y, back_part = cross_entropy(logits[part], targets=targets[part], ignore=-1, reduction=reduction)
            losses += counted * y
            gradients.append(back_part(numpy.array(counted)))
        assert losses == pytest.approx(whole, rel=1e-14)
        numpy.testing.assert_allclose(numpy.concatenate(gradients), back(numpy.array(1.0)), atol=1e-16, rtol=1e-13)


@pytest.mark.host
@pytest.mark.parametrize("wrong", [-1, 5])
@pytest.mark.own
def test_a_target_out_of_range_is_refused(cross_entropy: Implementation, wrong: int) -> None:
    with pytest.raises(IndexError, match=rf"cross_entropy: targets must be in \[0, 5\); got {wrong}"):
        cross_entropy(numpy.zeros((1, 5)), targets=numpy.array([wrong]), ignore=-100, reduction="sum")


@pytest.mark.own
def test_an_unknown_reduction_is_refused(cross_entropy: Implementation, soft_cross_entropy: Implementation) -> None:
    with pytest.raises(ValueError, match="cross_entropy: reduction must be one of mean, sum, none; got 'average'"):
        cross_entropy(numpy.zeros((1, 5)), targets=numpy.array([0]), ignore=None, reduction="average")
    with pytest.raises(ValueError, match="soft_cross_entropy: reduction must be one of"):
        soft_cross_entropy(numpy.zeros((1, 5)), numpy.zeros((1, 5)), reduction="average")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@given(smoothing=st.floats(0.01, 0.99), seed=st.integers(0, 99), ignore=st.sampled_from([None, -100, 2]))
def test_smoothing_is_the_cross_entropy_against_the_smoothed_distribution(
    smoothed_cross_entropy: Implementation,
    soft_cross_entropy: Implementation,
    reduction: str,
    smoothing: float,
    seed: int,
    ignore: int | None,
) -> None:
    """(1 - ε) of the target and ε / V of every class, the target too; a place that is ignored has neither."""
    random = numpy.random.default_rng(seed)
    logits, targets = random.normal(size=(4, 5)), random.integers(0, 5, 4)
    if ignore is not None:
        targets[random.random(4) < 0.5] = ignore
    counted = targets != ignore
    t = ((1 - smoothing) * numpy.eye(5)[numpy.where(counted, targets, 0)] + smoothing / 5) * counted[:, None]
    dy = random.normal(size=4 if reduction == "none" else ())
    y, back = smoothed_cross_entropy(logits, targets=targets, ignore=ignore, smoothing=smoothing, reduction=reduction)
    share = 4 / max(1, counted.sum()) if reduction == "mean" else 1
    soft, back_soft = soft_cross_entropy(logits, t, reduction=reduction)
    numpy.testing.assert_allclose(y, soft * share, rtol=1e-13, atol=1e-15)
    numpy.testing.assert_allclose(back(dy), back_soft(dy * share)[0], atol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_without_smoothing_it_is_the_cross_entropy_to_the_bit(
    smoothed_cross_entropy: Implementation, cross_entropy: Implementation, random: Generator, reduction: str
) -> None:
    logits, targets = random.normal(size=(4, 5)), numpy.array([0, -1, 3, 4])
    logits[0, 1] = -INF  # of which 0 times is not 0
    dy = random.normal(size=4 if reduction == "none" else ())
    hard, back_hard = cross_entropy(logits, targets=targets, ignore=-1, reduction=reduction)
    y, back = smoothed_cross_entropy(logits, targets=targets, ignore=-1, smoothing=0.0, reduction=reduction)
    assert numpy.array_equal(y, hard)
    assert numpy.array_equal(back(dy), back_hard(dy))


def test_the_best_logits_under_smoothing_are_finite_and_known(smoothed_cross_entropy: Implementation) -> None:
    """The loss is least where p = t: the slope is zero there. Without smoothing the best logit is infinite."""
    t = numpy.array([0.92, 0.02, 0.02, 0.02, 0.02])
    y, back = smoothed_cross_entropy(
        numpy.log(t)[None], targets=numpy.array([0]), ignore=None, smoothing=0.1, reduction="sum"
    )
    assert y == pytest.approx(-(t * numpy.log(t)).sum(), rel=1e-14)
    assert abs(back(numpy.array(1.0))).max() <= 1e-15


@pytest.mark.own
@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_a_smoothing_that_is_no_share_is_refused(smoothed_cross_entropy: Implementation, smoothing: float) -> None:
    with pytest.raises(ValueError, match="smoothing must be at least 0 and below 1"):
        smoothed_cross_entropy(
            numpy.zeros((1, 5)), targets=numpy.array([0]), ignore=None, smoothing=smoothing, reduction="sum"
        )


@pytest.mark.own
@pytest.mark.host
def test_a_target_out_of_range_is_refused_with_smoothing_too(smoothed_cross_entropy: Implementation) -> None:
    with pytest.raises(IndexError, match=r"smoothed_cross_entropy: targets must be in \[0, 5\); got 7"):
        smoothed_cross_entropy(
            numpy.zeros((1, 5)), targets=numpy.array([7]), ignore=None, smoothing=0.1, reduction="sum"
        )


@pytest.mark.parametrize("name", ["cross_entropy", "smoothed_cross_entropy"])
@pytest.mark.parametrize("logit", [-INF, math.nan, INF])
def test_an_ignored_place_costs_nothing_whatever_its_logits_are(subject: Subject, name: str, logit: float) -> None:
    """Also where class 0, which an ignored target is read as, is forbidden, and where every class is."""
    smoothing = {"smoothing": 0.1} if name == "smoothed_cross_entropy" else {}
    logits = numpy.random.default_rng(0).normal(size=(4, 5))
    targets = numpy.array([2, -1, -1, 3])
    spoiled = logits.copy()
    spoiled[1, 0], spoiled[2] = logit, logit
    for reduction in ("mean", "sum", "none"):
        with numpy.errstate(all="ignore"):
            y, back = subject.operation(name)(spoiled, targets=targets, ignore=-1, reduction=reduction, **smoothing)
            dlogits = back(numpy.ones(y.shape))
        clean, back = subject.operation(name)(logits, targets=targets, ignore=-1, reduction=reduction, **smoothing)
        assert numpy.array_equal(y, clean)
        assert numpy.array_equal(dlogits, back(numpy.ones(y.shape)))
        assert not dlogits[1:3].any()


def test_a_target_that_is_forbidden_costs_infinity(cross_entropy: Implementation) -> None:
    logits = numpy.array([[-INF, -INF, -INF], [-INF, 0.0, 1.0]])
    with numpy.errstate(all="ignore"):
        y, _ = cross_entropy(logits, targets=numpy.array([1, 0]), ignore=None, reduction="none")
    assert (y == INF).all()
