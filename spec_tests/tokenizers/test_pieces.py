"""Laws of what single tokens are shown as."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizers import BytePairTokenizer, CharacterTokenizer, WordTokenizer
from refllm.tokenizers.marked import MarkedTokenizer
from refllm.tokenizers.pieces import completed, named_bytes, piece_of

BYTES = BytePairTokenizer.train("a", vocabulary=256)


@given(st.text())
def test_whole_characters_are_shown_as_they_are(text: str) -> None:
    assert named_bytes(text.encode()) == text


@given(st.integers(0x80, 0xFF))
def test_every_byte_that_is_no_character_has_a_name_of_its_own(byte: int) -> None:
    assert named_bytes(bytes([byte])) == f"<{byte:02X}>"
    assert piece_of(byte, BYTES) == piece_of(byte, MarkedTokenizer(BYTES)) == f"<{byte:02X}>"


def test_the_bytes_of_a_character_are_told_apart() -> None:
    assert [piece_of(i, BYTES) for i in BYTES.encode("a龘").tolist()] == ["a", "<E9>", "<BE>", "<98>"]


def test_a_token_that_ends_inside_a_character_shows_what_is_whole() -> None:
    assert named_bytes(" é\n".encode()[:2]) == " <C3>"
    assert named_bytes("字".encode()[1:] + b"x") == "<AD><97>x"


def test_tokens_of_characters_and_words_are_their_text() -> None:
    characters = CharacterTokenizer.train("ab龘")
    assert [piece_of(i, characters) for i in characters.encode("龘a").tolist()] == ["龘", "a"]
    words = WordTokenizer.train("pear plum", vocabulary=7, lower=True)
    assert [piece_of(i, words) for i in words.encode("plum pear").tolist()] == ["plum", "pear"]


@given(st.text(max_size=8), st.integers(0, 30))
def test_what_is_completed_is_the_longest_beginning_of_whole_characters(text: str, tokens: int) -> None:
    ids = BYTES.encode(text).tolist()[:tokens]
    said = completed(ids, BYTES)
    assert text.startswith(said)
    assert len(said.encode()) <= len(ids)
    assert said == text or len((said + text[len(said)]).encode()) > len(ids)
