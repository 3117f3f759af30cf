"""Laws of the biases by distance: T5's buckets and ALiBi."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.ops.relative import _first_distances
from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def causal(subject: Subject) -> Implementation:
    return subject.operation("t5_bias_causal")


@pytest.fixture(scope="session")
def bidirectional(subject: Subject) -> Implementation:
    return subject.operation("t5_bias_bidirectional")


@pytest.fixture(scope="session")
def alibi(subject: Subject) -> Implementation:
    return subject.operation("alibi")


def _bucket(n: int, K: int, farthest: int) -> int:
    """The formula of Raffel et al. for a distance n >= 0, in 60 digits; a border that is hit exactly belongs above."""
    half = K // 2
    if n < half:
        return n
    with mpmath.workdps(60):
        share = mpmath.log(mpmath.mpf(n) / half) / mpmath.log(mpmath.mpf(farthest) / half) * (K - half)
        return min(K - 1, half + int(mpmath.floor(share + mpmath.mpf(10) ** -40)))


def _buckets(bias: Implementation, rows: int, *, queries: int, keys: int, farthest: int) -> list[int]:
    """Which row of the table each entry of r holds."""
    table = numpy.arange(rows, dtype="float64")[:, None]
    return [int(b) for b in bias(table, queries=queries, keys=keys, farthest=farthest)[0][0]]


sizes = {"queries": st.integers(1, 300), "keys": st.integers(1, 300)}


@given(**sizes, K=st.integers(2, 33), farthest=st.sampled_from([17, 64, 128, 200]))
def test_causal_buckets_agree_with_mpmath_at_every_distance(
    causal: Implementation, queries: int, keys: int, K: int, farthest: int
) -> None:
    got = _buckets(causal, K, queries=queries, keys=keys, farthest=farthest)
    assert got == [_bucket(max(0, keys - 1 - i), K, farthest) for i in range(queries + keys - 1)]


@given(**sizes, K=st.integers(2, 33), farthest=st.sampled_from([17, 64, 128, 200]))
def test_bidirectional_buckets_agree_with_mpmath_at_every_distance(
    bidirectional: Implementation, queries: int, keys: int, K: int, farthest: int
) -> None:
    got = _buckets(bidirectional, 2 * K, queries=queries, keys=keys, farthest=farthest)
    distances = [i - (keys - 1) for i in range(queries + keys - 1)]
    assert got == [_bucket(abs(d), K, farthest) + (K if d > 0 else 0) for d in distances]


def test_t5s_own_buckets_double_every_two_where_the_border_is_a_whole_number(bidirectional: Implementation) -> None:
    """32 buckets to 128: 8 of one distance each, then borders at 8 · 16^(j/8), so at 8, 16, 32, 64 exactly."""
    got = _buckets(bidirectional, 32, queries=1, keys=200, farthest=128)[::-1]  # by growing distance
    assert got[:8] == list(range(8))
    assert [got[n] for n in (8, 15, 16, 31, 32, 63, 64, 90, 91, 128, 199)] == [8, 9, 10, 11, 12, 13, 14, 14, 15, 15, 15]


@given(K=st.integers(1, 12), farthest=st.integers(7, 10**40))
def test_the_first_distance_of_a_bucket_is_the_first_whose_power_reaches_the_formulas(K: int, farthest: int) -> None:
    """n^m >= half^(m - j) farthest^j holds for it and not for the one before, however far the farthest is."""
    half = K // 2
    starts = _first_distances(K, farthest)
    assert starts[:half] == tuple(range(half))
    for j, n in enumerate(starts[half:]):
        bound = half ** (K - half - j) * farthest**j
        assert n ** (K - half) >= bound
        assert n in (0, half - 1) or (n - 1) ** (K - half) < bound


@given(K=st.integers(1, 12), H=st.integers(1, 3), keys=st.integers(1, 40), data=st.data())
def test_a_cached_step_has_the_biases_of_the_full_pass(
    causal: Implementation, alibi: Implementation, K: int, H: int, keys: int, data: st.DataObject
) -> None:
    """Entry i is for the distance i - (S - 1), whatever the number of queries."""
    queries = data.draw(st.integers(1, keys))
    E = numpy.random.default_rng(keys).standard_normal((K, H))
    full, part = (causal(E, queries=n, keys=keys, farthest=20)[0] for n in (keys, queries))
    assert numpy.array_equal(part, full[:, : keys + queries - 1])
    full, part = (alibi(E[0], queries=n, keys=keys)[0] for n in (keys, queries))
    assert numpy.array_equal(part, full[:, : keys + queries - 1])


def test_the_gradient_of_a_row_is_the_sum_over_its_distances(
    causal: Implementation, bidirectional: Implementation
) -> None:
    random = numpy.random.default_rng(0)
    for bias in (causal, bidirectional):
        dr = random.standard_normal((3, 70))
        rows = numpy.array(_buckets(bias, 8, queries=31, keys=40, farthest=20))
        dE = bias(random.standard_normal((8, 3)), queries=31, keys=40, farthest=20)[1](dr)
        for row in range(8):
            numpy.testing.assert_allclose(dE[row], dr[:, rows == row].sum(axis=1), rtol=1e-12, atol=1e-13)


@given(**sizes, m=st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_alibi_falls_by_its_slope_at_every_place(
    alibi: Implementation, queries: int, keys: int, m: list[float]
) -> None:
    r = alibi(numpy.array(m), queries=queries, keys=keys)[0]
    for i in range(queries + keys - 1):
        assert r[:, i].tolist() == [-slope * abs(i - (keys - 1)) for slope in m]


@pytest.mark.parametrize(
    ("name", "table", "changes", "says"),
    [
        ("t5_bias_causal", numpy.ones((8, 2)), {"queries": 0}, "queries must be at least 1, got 0"),
        ("t5_bias_causal", numpy.ones((8, 2)), {"farthest": 4}, "farthest must be above 4, half of the buckets; got 4"),
        ("t5_bias_causal", numpy.ones(8), {}, r"E must be \(K, H\)"),
        ("t5_bias_causal", numpy.ones((8, 2), int), {}, "E must be floating-point"),
        ("t5_bias_bidirectional", numpy.ones((7, 2)), {}, r"E must be \(2\*K, H\); got \(7, 2\)"),
        ("t5_bias_bidirectional", numpy.ones((8, 2)), {"farthest": 2}, "farthest must be above 2"),
        ("t5_bias_causal", numpy.ones((8, 2)), {"farthest": math.inf}, "farthest must be a whole number, got inf"),
        ("t5_bias_causal", numpy.ones((8, 2)), {"farthest": math.nan}, "farthest must be a whole number, got nan"),
        ("t5_bias_causal", numpy.ones((8, 2)), {"queries": 4.0}, "queries must be a whole number, got 4.0"),
        ("alibi", numpy.ones(2), {"keys": math.inf}, "keys must be a whole number, got inf"),
        ("alibi", numpy.ones(2), {"keys": 0}, "keys must be at least 1, got 0"),
    ],
)
@pytest.mark.own
def test_what_makes_no_sense_is_refused(
    subject: Subject, name: str, table: Any, changes: dict[str, Any], says: str
) -> None:
    sizes = {"queries": 4, "keys": 5} | ({} if name == "alibi" else {"farthest": 20})
    with pytest.raises((ValueError, TypeError), match=f"{name}: {says}"):
        subject.operation(name)(table, **{**sizes, **changes})
