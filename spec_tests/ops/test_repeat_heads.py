"""Laws of one head of keys for several heads of queries."""

from __future__ import annotations

import numpy
import pytest

from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def repeat_heads(subject: Subject) -> Implementation:
    return subject.operation("repeat_heads")


def test_head_h_is_the_keys_head_h_over_groups(repeat_heads: Implementation) -> None:
    k = numpy.random.default_rng(0).standard_normal((2, 3, 4, 5))
    y = repeat_heads(k, groups=2)[0]
    for h in range(6):
        assert numpy.array_equal(y[:, h], k[:, h // 2])


def test_the_gradient_of_a_head_sums_over_those_that_used_it(repeat_heads: Implementation) -> None:
    dy = numpy.arange(12.0).reshape(6, 2, 1)
    dk = repeat_heads(numpy.zeros((2, 2, 1)), groups=3)[1](dy)
    assert dk.ravel().tolist() == [0 + 2 + 4, 1 + 3 + 5, 6 + 8 + 10, 7 + 9 + 11]


@pytest.mark.own
def test_no_group_is_refused(repeat_heads: Implementation) -> None:
    with pytest.raises(ValueError, match="repeat_heads: groups must be at least 1, got 0"):
        repeat_heads(numpy.zeros((2, 3, 4)), groups=0)
