"""Laws of how many byte pairs a text needs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.corpus import python_reference
from refllm.tokenizers import BytePairTokenizer
from refllm.tokenizers.spelling import MOST, SELDOM, has_more_pairs, share_in_pieces, size_for

USUAL = 512


def written_with(characters: int, length: int, *, first: int = 0x4E00) -> str:
    """A text of so many different characters, all equally frequent, with spaces between."""
    return " ".join(random.Random(0).choices([chr(first + i) for i in range(characters)], k=length // 2))


@given(st.text(max_size=40), st.integers(256, 300))
def test_the_share_is_that_of_the_characters_that_no_token_holds_whole(text: str, vocabulary: int) -> None:
    if not text:
        return
    tokenizer = BytePairTokenizer.train(text, vocabulary=vocabulary)
    borders, place = set(), 0
    for i in tokenizer.encode(text):
        place += len(tokenizer.vocabulary[i])
        borders.add(place)
    broken, place = 0, 0
    for character in text:
        size = len(character.encode())
        broken += any(place + k in borders for k in range(1, size))
        place += size
    assert share_in_pieces(text, tokenizer) == broken / len(text)


def test_bytes_alone_leave_every_character_of_two_bytes_or_more_in_pieces() -> None:
    alone = BytePairTokenizer.train("a", vocabulary=256)
    assert share_in_pieces("aé字🙂", alone) == 3 / 4
    assert share_in_pieces("abc", alone) == 0


def test_a_text_of_latin_letters_keeps_the_usual_number() -> None:
    assert size_for(python_reference().text, usual=USUAL) == USUAL
    assert size_for("Größe und Länge der Straße: schön. " * 500, usual=USUAL) == USUAL


@pytest.mark.parametrize("first", [0x4E00, 0x20000, 0xAC00])
def test_a_text_of_many_characters_gets_as_many_as_leave_few_in_pieces(first: int) -> None:
    text = written_with(400, 42_000, first=first)
    size = size_for(text, usual=USUAL)
    assert size > USUAL
    assert share_in_pieces(text, BytePairTokenizer.train(text, vocabulary=size)) <= SELDOM
    assert share_in_pieces(text, BytePairTokenizer.train(text, vocabulary=size // 2)) > SELDOM


def test_there_is_a_bound_and_a_short_text_has_a_lower_one() -> None:
    assert size_for(written_with(5_000, 82_001), usual=USUAL) == MOST
    assert size_for(written_with(400, 9_000), usual=USUAL) == USUAL


def test_whether_more_pairs_can_be_learnt_is_said() -> None:
    assert has_more_pairs("abab", BytePairTokenizer.train("abab", vocabulary=256))
    assert not has_more_pairs("abab", BytePairTokenizer.train("abab", vocabulary=300))
