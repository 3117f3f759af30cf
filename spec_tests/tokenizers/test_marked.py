"""Laws of the special tokens behind another tokenizer's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.tokenizers import BytePairTokenizer, CharacterTokenizer, WordPieceTokenizer, load
from refllm.tokenizers.marked import MarkedTokenizer, with_marks
from refllm.tokenizers.vocabulary import SPECIAL

TEXT = "one two one two 中文中文 one"
INNER = BytePairTokenizer.train(TEXT, vocabulary=262)
MARKED = MarkedTokenizer(INNER)
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)


def test_the_special_ids_come_after_those_of_the_text() -> None:
    assert MARKED.size == INNER.size + len(SPECIAL)
    assert list(MARKED.special) == list(range(INNER.size, MARKED.size))


@given(text=texts, places=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(MARKED.special)), max_size=6))
def test_special_ids_anywhere_leave_the_text_as_it_is(text: str, places: list[tuple[int, int]]) -> None:
    ids = MARKED.encode(text).tolist()
    assert ids == INNER.encode(text).tolist()
    for place, one in places:
        ids.insert(place, one)
    assert MARKED.decode(ids) == text
    assert "".join(MARKED.stream(ids)) == text


def test_the_name_of_a_special_token_in_a_text_is_text() -> None:
    ids = MARKED.encode(" ".join(SPECIAL))
    assert not set(ids.tolist()) & set(MARKED.special)
    assert MARKED.decode(ids) == " ".join(SPECIAL)


def test_the_room_for_byte_pairs_is_what_the_special_tokens_leave() -> None:
    assert MarkedTokenizer.train(TEXT, vocabulary=264).inner == BytePairTokenizer.train(TEXT, vocabulary=259)
    assert MarkedTokenizer.train(TEXT, vocabulary=261).size == 261
    with pytest.raises(UserError, match="no room for the 256 bytes and 5 special tokens; ask for 261"):
        MarkedTokenizer.train(TEXT, vocabulary=260)


def test_a_tokenizer_with_special_tokens_gets_no_others() -> None:
    pieces = WordPieceTokenizer.train(TEXT, vocabulary=16, lower=False)
    assert with_marks(pieces) is pieces
    assert with_marks(MARKED) is MARKED
    characters = CharacterTokenizer.train(TEXT)
    assert with_marks(characters) == MarkedTokenizer(characters)
    for one in (pieces, MARKED):
        with pytest.raises(UserError, match="has its special tokens already"):
            MarkedTokenizer(one)


@pytest.mark.parametrize("ids", [[MARKED.size], [-1], [0, 10**6]])
def test_an_id_outside_the_vocabulary_is_refused(ids: list[int]) -> None:
    with pytest.raises(UserError, match="not in the vocabulary of 267 tokens"):
        MARKED.decode(ids)
    with pytest.raises(UserError, match="not in the vocabulary of 267 tokens"):
        list(MARKED.stream(ids))


@pytest.mark.parametrize(
    "saved",
    [
        {"kind": "marked"},
        {"kind": "marked", "inner": None},
        {"kind": "marked", "inner": {"kind": "unknown"}},
        {"kind": "marked", "inner": MARKED.to_json()},
        {"kind": "marked", "inner": WordPieceTokenizer.train(TEXT, vocabulary=16, lower=True).to_json()},
        {"kind": "marked", "inner": INNER.to_json(), "more": 1},
    ],
)
def test_what_is_no_saved_marked_tokenizer_is_refused(saved: Any) -> None:
    with pytest.raises(UserError):
        load(saved)
