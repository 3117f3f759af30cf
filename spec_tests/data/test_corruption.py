"""Laws of the corruption of texts. (DAE)"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.corruption import (
    denoising_batch,
    draw_infilling,
    draw_places,
    draw_spans,
    gap_sentences,
    principal_sentences,
    span_corruption,
    text_infilling,
    token_deletion,
    token_masking,
)
from refllm.errors import UserError

MASK, SENTINELS = 99, list(range(199, 149, -1))
lengths, shares, seeds = st.integers(2, 60), st.sampled_from([0.01, 0.15, 0.3, 0.5, 1.0]), st.integers(0, 999)


def text(length: int) -> Any:
    return numpy.arange(length) + 1


def wanted(length: int, share: float) -> int:
    return max(1, int(length * share + 0.5))


@given(length=lengths, share=shares, seed=seeds)
def test_exactly_the_share_of_the_places_is_chosen(length: int, share: float, seed: int) -> None:
    chosen = draw_places(length, share=share, generator=numpy.random.default_rng(seed))
    assert chosen.shape == (length,)
    assert chosen.sum() == wanted(length, share)


def test_every_place_is_chosen_equally_often() -> None:
    generator = numpy.random.default_rng(0)
    often = sum(draw_places(10, share=0.3, generator=generator).astype(int) for _ in range(2000))
    assert (abs(often - 600) <= 5 * numpy.sqrt(2000 * 0.3 * 0.7)).all()


@given(length=lengths, share=shares, seed=seeds)
def test_infilled_spans_hold_the_share_in_order_and_without_overlap(length: int, share: float, seed: int) -> None:
    spans = draw_infilling(length, share=share, mean=3.0, generator=numpy.random.default_rng(seed))
    assert spans[:, 1].sum() == wanted(length, share)
    assert (spans[:, 0] >= 0).all()
    assert (spans[1:, 0] >= spans[:-1].sum(axis=1)).all()
    assert spans[-1].sum() <= length


def test_infilled_spans_have_poisson_lengths_and_stand_anywhere() -> None:
    """Also none, 5 % of them. Near the ends fewer spans can cover a token, as with any spans that do not wrap."""
    generator = numpy.random.default_rng(0)
    lengths, covered = Counter[int](), numpy.zeros(100)
    for _ in range(500):
        spans = draw_infilling(100, share=0.3, mean=3.0, generator=generator)
        lengths.update(spans[:-1, 1].tolist())  # the last is cut to fit
        for start, length in spans:
            covered[start : start + length] += 1
    total = lengths.total()
    for n, probability in {0: 0.0498, 1: 0.1494, 2: 0.2240, 3: 0.2240, 4: 0.1680, 5: 0.1008}.items():
        assert abs(lengths[n] / total - probability) < 0.02
    assert (abs(covered[6:-6] / 500 - 0.3) < 5 * numpy.sqrt(0.3 * 0.7 / 500)).all()
    assert (abs(covered[:6] - covered[:-7:-1]) / 500 < 0.1).all()


@given(length=lengths, share=shares, seed=seeds, mean=st.sampled_from([0.5, 1.0, 3.0, 10.0]))
def test_spans_have_a_token_each_and_tokens_between_them(length: int, share: float, seed: int, mean: float) -> None:
    spans = draw_spans(length, share=share, mean=mean, generator=numpy.random.default_rng(seed))
    corrupted = min(wanted(length, share), length - 1)
    assert spans[:, 1].sum() == corrupted
    assert len(spans) == max(1, min(round(corrupted / mean), corrupted, length - corrupted))
    assert (spans[:, 1] >= 1).all()
    assert spans[0, 0] >= 1
    assert (spans[1:, 0] > spans[:-1].sum(axis=1)).all()
    assert spans[-1].sum() == length


def test_every_cut_into_spans_is_equally_probable() -> None:
    """5 corrupted tokens in 2 spans: lengths 1+4, 2+3, 3+2, 4+1."""
    generator = numpy.random.default_rng(0)
    drawn = Counter(
        tuple(draw_spans(20, share=0.25, mean=2.5, generator=generator)[:, 1].tolist()) for _ in range(2000)
    )
    assert set(drawn) == {(1, 4), (2, 3), (3, 2), (4, 1)}
    assert all(abs(n - 500) <= 5 * numpy.sqrt(2000 / 4 * 3 / 4) for n in drawn.values())


def test_masking_replaces_the_chosen_tokens_and_no_other() -> None:
    source, target = token_masking(text(5), chosen=numpy.array([False, True, False, False, True]), mask=MASK)
    assert source.tolist() == [1, MASK, 3, 4, MASK]
    assert target.tolist() == [1, 2, 3, 4, 5]


def test_deletion_takes_the_chosen_tokens_out() -> None:
    source, target = token_deletion(text(5), chosen=numpy.array([False, True, False, False, True]))
    assert source.tolist() == [1, 3, 4]
    assert target.tolist() == [1, 2, 3, 4, 5]


def test_infilling_puts_one_mask_for_a_span_of_any_length_none_too() -> None:
    source, target = text_infilling(text(6), spans=numpy.array([[0, 2], [3, 0], [5, 1]]), mask=MASK)
    assert source.tolist() == [MASK, 3, MASK, 4, 5, MASK]
    assert target.tolist() == [1, 2, 3, 4, 5, 6]


def test_the_example_of_the_t5_paper() -> None:
    """Thank you <X> me to your party <Y> week.  ->  <X> for inviting <Y> last <Z>"""
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week", "."]
    spans = numpy.array([[2, 2], [8, 1]])
    source, target = span_corruption(text(len(words)), spans=spans, sentinels=[101, 102, 103])
    named = {101: "<X>", 102: "<Y>", 103: "<Z>"} | dict(enumerate(words, start=1))
    assert " ".join(named[i] for i in source.tolist()) == "Thank you <X> me to your party <Y> week ."
    assert " ".join(named[i] for i in target.tolist()) == "<X> for inviting <Y> last <Z>"


@given(length=lengths, share=shares, seed=seeds)
def test_source_and_target_together_hold_the_whole_text(length: int, share: float, seed: int) -> None:
    """Each sentinel of the source replaced by what follows it in the target."""
    spans = draw_spans(length, share=share, mean=3.0, generator=numpy.random.default_rng(seed))
    source, target = span_corruption(text(length), spans=spans, sentinels=SENTINELS)
    ends = [i for i, token in enumerate(target.tolist()) if token in SENTINELS]
    taken = {target[a]: target[a + 1 : b].tolist() for a, b in itertools.pairwise(ends)}
    restored = [piece for token in source.tolist() for piece in taken.get(token, [token])]
    assert restored == text(length).tolist()
    assert target[ends].tolist() == SENTINELS[: len(spans) + 1]
    assert ends[-1] == len(target) - 1


SENTENCES = [numpy.array(s) for s in ([1, 2, 3], [4, 1, 5, 2], [6, 7], [1, 2, 8, 9])]


def test_gap_sentences_leave_a_mask_and_are_the_target_in_their_order() -> None:
    source, target = gap_sentences(SENTENCES, chosen=numpy.array([False, True, False, True]), mask=MASK)
    assert source.tolist() == [1, 2, 3, MASK, 6, 7, MASK]
    assert target.tolist() == [4, 1, 5, 2, 1, 2, 8, 9]


@given(sentences=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=2, max_size=6), data=st.data())
def test_principal_sentences_have_the_highest_rouge(sentences: list[list[int]], data: Any) -> None:
    """ROUGE-1 F1 by its definition, of each sentence against all the others."""
    count = data.draw(st.integers(1, len(sentences) - 1))
    scores = []
    for i, sentence in enumerate(sentences):
        own, others = Counter(sentence), Counter(itertools.chain(*sentences[:i], *sentences[i + 1 :]))
        overlap = sum(min(n, others[token]) for token, n in own.items())
        precision, recall = overlap / own.total(), overlap / others.total()
        scores.append(2 * precision * recall / (precision + recall) if overlap else 0.0)
    chosen = principal_sentences([numpy.array(s) for s in sentences], count=count)
    assert chosen.sum() == count
    worst = min(score for score, gap in zip(scores, chosen, strict=True) if gap)
    assert all(score <= worst + 1e-12 for score, gap in zip(scores, chosen, strict=True) if not gap)


def test_a_batch_pads_both_sides_and_counts_no_padding() -> None:
    pairs = [(numpy.array([1, 2]), numpy.array([3])), (numpy.array([4]), numpy.array([5, 6, 7]))]
    batch = denoising_batch(pairs, pad=0)
    assert {name: array.tolist() for name, array in batch.items()} == {
        "source": [[1, 2], [4, 0]],
        "attention_mask": [[True, True], [True, False]],
        "ids": [[3, 0, 0], [5, 6, 7]],
        "counted": [[True, False, False], [True, True, True]],
    }
    places = [numpy.array([False]), numpy.array([True, False, True])]
    counted = denoising_batch(pairs, pad=0, counted=places)["counted"]
    assert counted.tolist() == [[False, False, False], [True, False, True]]


def test_the_ids_that_are_given_stay_as_they_are() -> None:
    ids, chosen, spans = text(6), numpy.array([True, False] * 3), numpy.array([[1, 2]])
    for array in (ids, chosen, spans):
        array.setflags(write=False)
    for source, target in (
        token_masking(ids, chosen=chosen, mask=MASK),
        token_deletion(ids, chosen=chosen),
        text_infilling(ids, spans=spans, mask=MASK),
        span_corruption(ids, spans=spans, sentinels=SENTINELS),
    ):
        source[...], target[...] = 0, 0


@pytest.mark.parametrize("spans", [[[1, 3], [2, 1]], [[3, 1], [1, 1]], [[4, 3]], [[-1, 2]], [[2, -1]]])
def test_spans_that_overlap_or_leave_the_text_are_refused(spans: Any) -> None:
    with pytest.raises(ValueError, match="spans must be in order, without overlap and inside a text of 6"):
        text_infilling(text(6), spans=numpy.array(spans), mask=MASK)


def test_what_cannot_be_corrupted_is_refused_in_one_line() -> None:
    generator = numpy.random.default_rng(0)
    with pytest.raises(UserError, match="nothing to corrupt in an empty text"):
        draw_places(0, share=0.5, generator=generator)
    for share in (0.0, 1.5, -0.1):
        with pytest.raises(UserError, match="the share that is corrupted must be above 0 and at most 1"):
            draw_places(4, share=share, generator=generator)
    for draw in (draw_infilling, draw_spans):
        with pytest.raises(UserError, match="the mean length of the spans must be above 0"):
            draw(4, share=0.5, mean=0.0, generator=generator)
    with pytest.raises(UserError, match="a text of at least 2 tokens"):
        draw_spans(1, share=0.5, mean=3.0, generator=generator)
    with pytest.raises(UserError, match="2 spans need 3 sentinels, there are 2"):
        span_corruption(text(6), spans=numpy.array([[1, 1], [3, 1]]), sentinels=[7, 8])
    for count in (0, 4):
        with pytest.raises(UserError, match="of 4 sentences, 1 to 3 can go"):
            principal_sentences(SENTENCES, count=count)
