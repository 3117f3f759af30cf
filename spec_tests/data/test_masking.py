"""Laws of the corruption for the masked language model. (MLM)"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.masking import MaskingDraws, draw_masking, mask_words, ordinary_ids
from refllm.errors import UserError

SPECIAL, MASK, SIZE = (0, 1, 2, 3, 4), 4, 40
ORDINARY = ordinary_ids(SIZE, special=SPECIAL)


def texts(seed: int, B: int = 4, T: int = 30) -> Any:
    """[CLS] words [SEP] padding, of several lengths."""
    random = np.random.default_rng(seed)
    ids = random.integers(5, SIZE, (B, T))
    for row, length in zip(ids, random.integers(3, T + 1, B), strict=True):
        row[0], row[length - 1], row[length:] = 2, 3, 0
    return ids


def draws(ids: Any, seed: int = 0) -> MaskingDraws:
    return draw_masking(ids.shape, ordinary=ORDINARY, generator=np.random.default_rng(seed))


def masked(ids: Any, seed: int = 0, share: float = 0.15) -> Any:
    return mask_words(ids, draws(ids, seed), special=SPECIAL, mask=MASK, share=share)


@given(st.integers(0, 999), st.sampled_from([0.01, 0.15, 0.5, 1.0]))
def test_each_text_has_its_share_of_selected_words_and_at_least_one(seed: int, share: float) -> None:
    ids = texts(seed)
    m = masked(ids, seed, share)
    words = (ids >= 5).sum(axis=1)
    counts = (m.targets >= 0).sum(axis=1)
    assert counts.tolist() == [max(1, round(n * share)) for n in words.tolist()]
    assert m.positions.shape == m.targets.shape == (len(ids), counts.max())


@given(st.integers(0, 999))
def test_targets_are_the_words_that_stood_at_the_positions_and_nothing_else_changed(seed: int) -> None:
    ids = texts(seed)
    m = masked(ids, seed)
    restored = m.ids.copy()
    for row, (positions, targets) in enumerate(zip(m.positions.tolist(), m.targets.tolist(), strict=True)):
        used = [p for p, t in zip(positions, targets, strict=True) if t >= 0]
        assert used == sorted(set(used))
        for position, target in zip(positions, targets, strict=True):
            if target >= 0:
                restored[row, position] = target
    assert np.array_equal(restored, ids)


@given(st.integers(0, 999))
def test_special_tokens_and_padding_are_never_selected_and_never_put_in(seed: int) -> None:
    ids = texts(seed)
    m = masked(ids, seed)
    assert (m.targets[m.targets >= 0] >= 5).all()
    assert np.array_equal(m.ids[ids < 5], ids[ids < 5])
    assert set(m.ids[ids >= 5].tolist()) <= {MASK, *range(5, SIZE)}


def test_of_the_selected_words_eight_tenths_become_mask_one_tenth_another_word_one_tenth_stays() -> None:
    ids = np.full((400, 100), 7)
    m = masked(ids, share=0.5)
    selected = np.take_along_axis(m.ids, m.positions, axis=1)
    n = selected.size
    assert n == 20000
    shares = [(selected == MASK).mean(), ((selected != MASK) & (selected != 7)).mean(), (selected == 7).mean()]
    for share, wanted in zip(shares, (0.8, 0.1 * 34 / 35, 0.1 + 0.1 / 35), strict=True):
        assert share == pytest.approx(wanted, abs=4 * (wanted * (1 - wanted) / n) ** 0.5)
    replaced = selected[(selected != MASK) & (selected != 7)]
    assert set(replaced.tolist()) == set(range(5, SIZE)) - {7}


def test_every_place_is_as_likely_to_be_selected_as_another() -> None:
    ids = np.full((2000, 20), 9)
    counts = np.bincount(masked(ids).positions.ravel(), minlength=20)
    assert counts.sum() == 6000
    assert abs(counts - 300).max() < 5 * 300**0.5


def test_the_corruption_is_a_function_of_the_ids_and_the_draws_alone() -> None:
    """By hand: three of six words; the smallest of `which` at places 4, 1, 2; 0.79 hides, 0.85 replaces, 0.95 keeps."""
    ids = np.array([[2, 11, 12, 13, 14, 15, 16, 3]])
    given_draws = MaskingDraws(
        which=np.array([[0.0, 0.2, 0.3, 0.9, 0.1, 0.8, 0.7, 0.0]]),
        how=np.array([[0.0, 0.85, 0.95, 0.0, 0.79, 0.0, 0.0, 0.0]]),
        words=np.array([[30, 31, 32, 33, 34, 35, 36, 37]]),
    )
    before = ids.copy()
    for _ in range(2):
        m = mask_words(ids, given_draws, special=SPECIAL, mask=MASK, share=0.5)
        assert m.ids.tolist() == [[2, 31, 12, 13, MASK, 15, 16, 3]]
        assert m.positions.tolist() == [[1, 2, 4]]
        assert m.targets.tolist() == [[11, 12, 14]]
    assert np.array_equal(ids, before)


def test_a_text_without_words_has_unused_slots_beside_one_that_has_some() -> None:
    ids = np.array([[2, 3, 0, 0], [2, 8, 9, 3]])
    m = masked(ids)
    assert (m.targets >= 0).sum(axis=1).tolist() == [0, 1]
    assert m.positions[0].tolist() == [0]


def test_a_batch_without_words_is_refused_in_one_line() -> None:
    for ids in (np.array([[2, 3, 0]]), np.zeros((0, 5), int), np.zeros((2, 0), int)):
        with pytest.raises(UserError, match="no masked position: none of its texts has a word") as caught:
            masked(ids)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="share of masked words must be above 0"):
        masked(texts(0), share=share)


def test_a_vocabulary_of_special_tokens_alone_is_refused() -> None:
    assert ordinary_ids(7, special={1, 3}).tolist() == [0, 2, 4, 5, 6]
    with pytest.raises(UserError, match="all 5 tokens of the vocabulary are special"):
        ordinary_ids(5, special=SPECIAL)
