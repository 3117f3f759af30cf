"""T5's buckets as the text counts them, against the published formula in floating point."""

from __future__ import annotations

import math

import pytest

from refllm.spec.relative import bucket, distances

SIZES = [(32, 128), (16, 128), (4, 6), (8, 16), (16, 40), (3, 7)]


@pytest.mark.parametrize(("buckets", "farthest"), SIZES)
def test_a_bucket_is_that_of_the_published_formula(buckets: int, farthest: int) -> None:
    """Away from the borders, where a rounded logarithm may fall on either side."""
    exact, compared = buckets // 2, 0
    for n in range(exact, 4 * farthest):
        place = math.log(n / exact) / math.log(farthest / exact) * (buckets - exact)
        if abs(place - round(place)) > 1e-9:
            assert bucket(n, buckets, farthest) == min(exact + math.floor(place), buckets - 1)
            compared += 1
    assert compared > farthest


@pytest.mark.parametrize(("buckets", "farthest"), SIZES)
def test_near_distances_have_a_bucket_each_and_far_ones_the_last(buckets: int, farthest: int) -> None:
    found = [bucket(n, buckets, farthest) for n in range(3 * farthest)]
    assert found[: buckets // 2] == list(range(buckets // 2))
    assert found == sorted(found)
    assert set(found[farthest:]) == {buckets - 1}
    assert found[buckets // 2] == buckets // 2


def test_a_border_that_is_reached_exactly_begins_the_next_bucket() -> None:
    """16 rows and 128: the distances 8 sqrt(2)^j, of which 16, 32, 64 and 128 are whole."""
    assert [bucket(n, 16, 128) for n in (15, 16, 31, 32, 63, 64, 127, 128)] == [9, 10, 11, 12, 13, 14, 15, 15]


def test_the_last_query_stands_at_the_last_key() -> None:
    assert distances(2, 3) == [-2, -1, 0, 1]
    assert distances(1, 4) == [-3, -2, -1, 0]
