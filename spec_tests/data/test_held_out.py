"""Laws of the windows of a held-out text: all of them, or a sample that is the same every time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.batching import IGNORED, evenly, held_out_windows, some_batches
from refllm.data.held_out import HeldOutWindows

sizes = st.tuples(st.integers(1, 12), st.integers(0, 80), st.integers(1, 5))  # context, more tokens, batch


def windows_of(size: tuple[int, int, int]) -> tuple[HeldOutWindows, np.ndarray]:
    context, more, batch = size
    tokens = np.arange(1, context + more + 1, dtype=np.uint16)
    return HeldOutWindows(np.array([7, 0], np.uint16), tokens, context=context, batch=batch), tokens


@given(sizes)
def test_all_of_them_are_those_of_the_whole_text(size: tuple[int, int, int]) -> None:
    made, tokens = windows_of(size)
    pieces = list(made.pieces(None))
    ids, targets = held_out_windows(np.array([0]), tokens, context=size[0], stride=max(1, size[0] // 2))
    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in pieces]), ids)
    np.testing.assert_array_equal(np.concatenate([piece[1] for piece in pieces]), targets)
    assert len(ids) == made.count
    assert all(len(piece[0]) == size[2] for piece in pieces[:-1])
    assert made.spans(None) == [(0, len(tokens))]


@given(sizes, st.integers(1, 40))
def test_a_sample_counts_each_token_of_its_spans_once_and_no_other(size: tuple[int, int, int], most: int) -> None:
    made, tokens = windows_of(size)
    pieces = made.pieces(most)
    counted = np.concatenate([targets[targets != IGNORED] for _, targets in pieces])
    spans = made.spans(most)
    np.testing.assert_array_equal(counted, np.concatenate([tokens[start:end] for start, end in spans]))
    assert all(end < start for (_, end), (start, _) in pairwise(spans))  # apart: joined else
    assert sum(len(targets) for _, targets in pieces) == min(most, made.count)


@given(st.integers(1, 10**6), st.integers(1, 1000))
def test_a_sample_is_in_order_evenly_spread_and_the_same_every_time(total: int, most: int) -> None:
    chosen = evenly(total, most)
    np.testing.assert_array_equal(chosen, evenly(total, most))
    assert len(chosen) == min(total, most)
    assert 0 <= chosen[0] <= chosen[-1] < total
    gaps = np.diff(chosen)
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)
    assert abs((total - 1 - chosen[-1]) - chosen[0]) <= 1  # no end is favoured


@pytest.mark.parametrize(("most", "number"), [(None, 7), (1, 1), (4, 1), (5, 2), (28, 7), (99, 7)])
def test_batches_are_taken_that_hold_as_many_examples(most: int | None, number: int) -> None:
    assert len(some_batches(list(range(7)), most, batch=4)) == number
