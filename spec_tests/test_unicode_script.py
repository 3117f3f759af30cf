"""Laws of scripts and words."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.unicode_script import is_spaceless, main_script, script_of, word_places, words_of

LATIN = st.text(alphabet="abzéß_09 .,-'\n\t")


@pytest.mark.parametrize(
    ("characters", "script"),
    [
        ("你龘々〇ㄅ𠀀\U000323af豈", "Han"),
        ("あアｱーゝヶ", "Kana"), ("한ᄀㅏ", "Hangul"), ("กิ๑", "Thai"), ("ກ", "Lao"),
        ("ក", "Khmer"), ("က", "Myanmar"), ("ཀ", "Tibetan"), ("aéя٣ש1_。，. \n☃🙂", ""),
    ],
)  # fmt: skip
def test_a_character_has_the_script_of_unicode(characters: str, script: str) -> None:
    assert {script_of(character) for character in characters} == {script}


@given(LATIN)
def test_words_of_scripts_with_spaces_are_runs_of_letters_and_digits(text: str) -> None:
    assert words_of(text) == re.findall(r"\w+", text)


@given(st.text(alphabet="a9 你好กิも́.é\u200d한"))
def test_words_stand_in_the_text_one_after_the_other_and_all_letters_are_in_one(text: str) -> None:
    places = word_places(text)
    assert [text[place] for place in places] == words_of(text)
    assert all(a.stop <= b.start for a, b in pairwise(places))
    inside = {i for place in places for i in range(place.start, place.stop)}
    assert all(i in inside for i, character in enumerate(text) if character.isalnum())
    assert not any(character.isspace() for place in places for character in text[place])


@given(st.text(alphabet="你好กも"))
def test_of_a_script_without_spaces_every_character_is_a_word(text: str) -> None:
    assert words_of(text) == list(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我读了two本书。", ["我", "读", "了", "two", "本", "书"]),
        ("น้ำดี", ["น้", "ำ", "ดี"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("می‌خواهم", ["می‌خواهم"]),
        (unicodedata.normalize("NFD", "café là"), [unicodedata.normalize("NFD", word) for word in ("café", "là")]),
        ("한국어 문장", ["한국어", "문장"]),
        ("́a", ["a"]),
    ],
)
def test_marks_stay_on_their_letters(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("texts", "script"),
    [
        (["你好，世界"], "Han"), (["日本語の文です"], "Japanese"), (["カタカナ"], "Japanese"),
        (["한국어 문장"], "Hangul"),
        (["Two words", "два слова"], ""), (["ไทย"], "Thai"), ([], ""), (["..."], ""),
        (["Two words and a sign 好"], ""), (["选择 SUMPRODUCT(a; b) 函数。"], "Han"),
    ],
)  # fmt: skip
def test_the_script_of_texts_is_that_of_most_of_their_words(texts: list[str], script: str) -> None:
    assert main_script(texts) == script


def test_a_script_with_spaces_between_words_is_not_cut_into_characters() -> None:
    assert not any(map(is_spaceless, "aя한ש"))
