"""Laws of long texts: they are encoded piece by piece, and what a part of their tokens holds is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refllm.tokenizers import (
    BytePairTokenizer,
    CharacterTokenizer,
    WordPieceTokenizer,
    WordTokenizer,
    borders,
    character_starts,
    encode_long,
)
from refllm.tokenizers.bpe import LONGEST

texts = st.text(
    st.one_of(st.sampled_from("ab  \n\n\t.,_1é中🐈Σ\u0301\u00a0"), st.characters(exclude_categories=["Cs"]))
)
SAMPLE = "the cat sat on the mat, the rat ate the hat.\n大语言模型是语言的模型。🐈🐈\n\n  ab ab  \t é\u0301 _1" * 3
LEARNT: dict[str, Any] = {
    "byte_pair": BytePairTokenizer.train(SAMPLE, vocabulary=290),
    "word": WordTokenizer.train(SAMPLE, vocabulary=30, lower=True),
    "wordpiece": WordPieceTokenizer.train(SAMPLE, vocabulary=200, lower=True),
}
every_kind = pytest.mark.parametrize("kind", [*LEARNT, "character"])


def of_kind(kind: str, text: str) -> Any:
    return CharacterTokenizer.train(text) if kind == "character" else LEARNT[kind]


@every_kind
@pytest.mark.parametrize("piece", [1, 2, 5])
@given(text=texts)
@example("a" * (2 * LONGEST + 3) + " " * (LONGEST + 2) + "\n" * (LONGEST + 2) + "\t x\t\t y e\u0301 \u0301z")
@example("")
def test_a_text_that_is_encoded_in_pieces_has_the_ids_of_the_whole(kind: str, piece: int, text: str) -> None:
    tokenizer = of_kind(kind, text or "a")
    ids = encode_long(tokenizer, text, piece=piece)
    assert ids.dtype == np.min_scalar_type(tokenizer.size - 1)
    np.testing.assert_array_equal(ids, tokenizer.encode(text))


@given(text=texts, piece=st.integers(1, 9))
def test_the_pieces_are_a_partition_and_no_shorter_than_asked_but_for_the_last(text: str, piece: int) -> None:
    cuts = list(borders(text, piece=piece))
    assert "".join(text[start:end] for start, end in cuts) == text
    assert all(end - start >= piece for start, end in cuts[:-1])


@pytest.mark.parametrize("kind", ["byte_pair", "character"])
@given(text=texts.filter(bool))
def test_a_character_begins_in_the_first_token_that_spells_it(kind: str, text: str) -> None:
    """Against the text that the tokens before complete: U+FFFD stands for a character that was begun."""
    tokenizer = of_kind(kind, text)
    ids = tokenizer.encode(text)
    starts = character_starts(tokenizer, ids)
    assert (starts[0], starts[-1]) == (0, len(text))
    for place in range(len(ids) + 1):
        before = tokenizer.decode(ids[:place])
        whole = next((i for i, pair in enumerate(zip(before, text, strict=False)) if pair[0] != pair[1]), len(before))
        assert starts[place] == whole + (whole < len(before))


def test_words_beyond_the_memory_of_the_tokenizer_are_spelled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refllm.tokenizers.bpe.MOST_KNOWN", 2)
    tokenizer = BytePairTokenizer.train(SAMPLE, vocabulary=290)
    pieces = [tokenizer.encode(part) for part in ("the cat", " sat on", " the mat")]
    np.testing.assert_array_equal(np.concatenate(pieces), tokenizer.encode("the cat sat on the mat"))
    assert len(tokenizer._known) <= 7
