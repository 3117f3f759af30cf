"""Laws of the batches of a classifier, and of what a language model reads to label. (CLS, DATA)"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.classification import ClassBatches, balanced_weights, by_length, continued, marked_texts
from refllm.errors import UserError
from refllm.tokenizers.wordpiece import WordPieceTokenizer

TOKENIZER = WordPieceTokenizer.train("a b c d e f", vocabulary=20, lower=True)
SPECIAL = TOKENIZER.special
WORDS = st.lists(st.sampled_from("abcdef"), max_size=12).map(" ".join)


@given(texts=st.lists(WORDS, min_size=1, max_size=6), context=st.integers(3, 16))
def test_a_text_is_marked_and_cut_at_its_end(texts: list[str], context: int) -> None:
    marked, cut = marked_texts(texts, tokenizer=TOKENIZER, context=context)
    assert cut == sum(len(text.split()) > context - 2 for text in texts)
    for text, (ids, segments) in zip(texts, marked, strict=True):
        kept = " ".join(text.split()[: context - 2])
        assert ids.tolist() == [SPECIAL.cls, *TOKENIZER.encode(kept), SPECIAL.sep]
        assert not segments.any()


def test_a_context_without_room_is_refused() -> None:
    with pytest.raises(UserError, match="a context of 2 has no room for a text"):
        marked_texts(["a"], tokenizer=TOKENIZER, context=2)


@given(st.lists(st.sampled_from("abc"), min_size=3, max_size=30).filter(lambda labels: len(set(labels)) == 3))
def test_balanced_weights_make_labels_count_alike_and_add_up_to_the_texts(labels: list[str]) -> None:
    weights = dict(zip("abc", balanced_weights(labels, of="abc"), strict=True))
    for label in "abc":
        assert weights[label] * labels.count(label) == pytest.approx(len(labels) / 3)
    assert sum(weights[label] for label in labels) == pytest.approx(len(labels))


def test_a_label_without_a_text_has_no_weight() -> None:
    with pytest.raises(UserError, match="no training text has the label 'b'"):
        balanced_weights(["a"], of="ab")


def batches(state: object = None, weights: list[float] | None = None) -> ClassBatches:
    texts, _ = marked_texts(["a", "b c", "d", "a b c d", "e f"], tokenizer=TOKENIZER, context=8)
    return ClassBatches.of(
        texts, [0, 1, 0, 2, 1], weights=weights, special=SPECIAL, batch=2, order=np.random.default_rng(3),
        state=state,  # type: ignore[arg-type]
    )  # fmt: skip


def test_an_epoch_has_every_text_once_with_its_target_and_the_weight_of_its_label() -> None:
    made = batches(weights=[0.5, 1.5, 3.0])
    seen = []
    for _ in range(3):
        batch = made.next_batch()
        assert batch["weights"].tolist() == [[0.5, 1.5, 3.0][target] for target in batch["targets"]]
        assert (
            batch["attention_mask"].sum(axis=(1, 2, 3)).tolist() == (batch["ids"] != SPECIAL.pad).sum(axis=1).tolist()
        )
        for row, target in zip(batch["ids"], batch["targets"], strict=True):
            seen.append((TOKENIZER.decode(row[row > SPECIAL.mask]), int(target)))
    assert sorted(seen) == [("a", 0), ("a b c d", 2), ("b c", 1), ("d", 0), ("e f", 1)]
    assert "weights" not in batches().next_batch()


def test_the_order_goes_on_where_it_was() -> None:
    whole = batches()
    for _ in range(4):
        whole.next_batch()
    again = batches(whole.state())
    for _ in range(5):
        one, other = whole.next_batch(), again.next_batch()
        assert all((one[name] == other[name]).all() for name in one)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 5))
def test_reading_by_length_reads_every_text_once_and_pads_little(lengths: list[int], batch: int) -> None:
    texts = [(np.arange(1, n + 1), np.zeros(n, np.int64)) for n in lengths]
    pieces = by_length(texts, pad=0, batch=batch)
    assert sorted(number for numbers, _ in pieces for number in numbers) == list(range(len(lengths)))
    for numbers, made in pieces:
        assert made["attention_mask"].sum(axis=(1, 2, 3)).tolist() == [lengths[number] for number in numbers]
    longest = [made["ids"].shape[1] for _, made in pieces]
    assert longest == sorted(longest)


def test_answers_stand_after_the_prompt_and_alone_are_targets() -> None:
    ids, targets = continued(np.array([7, 8]), [np.array([1]), np.array([2, 3, 4])], ignore=-1)
    assert ids.tolist() == [[7, 8, 1, 0], [7, 8, 2, 3]]
    assert targets.tolist() == [[-1, 1, -1, -1], [-1, 2, 3, 4]]
