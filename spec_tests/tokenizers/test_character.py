"""Laws of the character tokenizer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.tokenizers import CharacterTokenizer

some_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(some_text)
def test_decoding_gives_back_the_text_one_id_a_character(text: str) -> None:
    tokenizer = CharacterTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert ids.dtype.kind == "i"
    assert tokenizer.decode(ids) == "".join(tokenizer.stream(ids)) == text


@given(some_text)
def test_ids_count_the_characters_in_the_order_of_their_code_points(text: str) -> None:
    tokenizer = CharacterTokenizer.train(text)
    assert tokenizer.vocabulary == "".join(sorted(set(text)))
    assert tokenizer.encode(tokenizer.vocabulary).tolist() == list(range(tokenizer.size))


@given(some_text, some_text)
def test_a_character_never_seen_is_named_with_its_place(seen: str, text: str) -> None:
    tokenizer = CharacterTokenizer.train(seen)
    strangers = [place for place, character in enumerate(text) if character not in seen]
    if not strangers:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        return
    with pytest.raises(UserError) as caught:
        tokenizer.encode(text)
    place = strangers[0]
    assert f"{text[place]!r} (U+{ord(text[place]):04X}) at position {place} " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_empty_text_has_no_ids_but_cannot_be_trained_on() -> None:
    tokenizer = CharacterTokenizer.train("ab")
    assert tokenizer.encode("").tolist() == []
    assert tokenizer.decode([]) == ""
    with pytest.raises(UserError, match="cannot be empty"):
        CharacterTokenizer.train("")


def test_a_lone_surrogate_is_no_character() -> None:
    with pytest.raises(UserError, match=r"U\+D800\) at position 1 .*UTF-8"):
        CharacterTokenizer.train("a\ud800")
    with pytest.raises(UserError, match=r"U\+D800\) at position 1 "):
        CharacterTokenizer.train("a").encode("a\ud800")


@pytest.mark.parametrize("ids", [[2], [-1], np.array([0, 9])])
def test_an_id_outside_the_vocabulary_is_refused(ids: list[int]) -> None:
    with pytest.raises(UserError, match="not in the vocabulary of 2 tokens"):
        CharacterTokenizer.train("ab").decode(ids)


def test_ids_that_are_no_integers_are_refused() -> None:
    with pytest.raises(UserError, match="must be integers, got float64"):
        CharacterTokenizer.train("ab").decode([0.5])  # type: ignore[list-item]
