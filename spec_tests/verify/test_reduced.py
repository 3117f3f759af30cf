"""One number that is made of many is one of them, of those that a mask marks, and the gradient goes to it alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.numbers.traced import differentiated
from refllm.verify import reduced
from refllm.verify.words import WORDS

EXPECTED = {
    "largest": lambda row: row.max(), "smallest": lambda row: row.min(),
    "first_of": lambda row: row[0], "last_of": lambda row: row[-1],
}  # fmt: skip


@pytest.mark.parametrize("word", EXPECTED)
@given(seed=st.integers(0, 2**32 - 1), axis=st.sampled_from([-1, -2]), keepdims=st.booleans())
def test_the_number_is_that_of_the_places_that_are_marked(word: str, seed: int, axis: int, keepdims: bool) -> None:
    draw = np.random.default_rng(seed)
    x, mask = draw.normal(size=(3, 4, 5)), draw.random((3, 4, 5)) < 0.6
    y = WORDS[word](x, mask, axis=axis, keepdims=keepdims)
    assert y.ndim == (3 if keepdims else 2)
    rows, marked = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]), np.moveaxis(mask, axis, -1)
    for row, there, found in zip(rows, marked.reshape(rows.shape), y.reshape(-1), strict=True):
        assert found == (EXPECTED[word](row[there]) if there.any() else 0)


@pytest.mark.parametrize("word", EXPECTED)
def test_the_gradient_goes_to_one_place_of_every_row(word: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5))
    y, back = differentiated(lambda x: WORDS[word](x, None))(x)
    dx = back(np.full((3, 1), 2.0))
    assert ((dx != 0).sum(axis=-1) == 1).all()
    assert dx.sum() == 6
    assert np.array_equal(x[dx != 0], y.reshape(-1))


def test_every_word_is_one_of_edited_text() -> None:
    assert {name: WORDS[name] for name in reduced.WORDS} == reduced.WORDS
