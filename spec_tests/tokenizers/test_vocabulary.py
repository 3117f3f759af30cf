"""Laws of cutting a text into words, and of a list of words as a vocabulary."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.tokenizers.vocabulary import SPECIAL, is_punctuation, refuse_damaged, special_ids, words

any_text = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("text", "lower", "expected"),
    [
        ("The cat (aged 12) isn't here.", False, ["The", "cat", "(", "aged", "12", ")", "isn", "'", "t", "here", "."]),
        ("Naïve CAFÉ — ΣΟΦΟΣ", True, ["naive", "cafe", "—", "σοφοσ"]),
        ("Naïve CAFÉ", False, ["Naïve", "CAFÉ"]),
        ("İstanbul", True, ["istanbul"]),
        ("大语言模型 GPT-4。", True, ["大", "语", "言", "模", "型", "gpt", "-", "4", "。"]),
        ("ひらがな 한글", False, ["ひらがな", "한글"]),
        ("a\tb\nc\u00a0d\u2028e", False, ["a", "b", "c", "d", "e"]),
        ("soft\u00adhyphen zero\u200bwidth nul\x00 bad\ufffd", False, ["softhyphen", "zerowidth", "nul", "bad"]),
        ("$5+2<9 `x` ^~|", False, ["$", "5", "+", "2", "<", "9", "`", "x", "`", "^", "~", "|"]),
        (" \n ", False, []),
    ],
)
def test_words_are_cut_at_white_space_punctuation_and_chinese_characters(
    text: str, lower: bool, expected: list[str]
) -> None:
    assert words(text, lower=lower) == expected


@given(any_text, st.booleans())
@example("ǅ İ ﬁ Ω K", True)
def test_words_of_words_are_the_same_words(text: str, lower: bool) -> None:
    found = words(text, lower=lower)
    assert words(" ".join(found), lower=lower) == found


@given(any_text, st.booleans())
def test_no_word_holds_white_space_and_punctuation_stands_alone(text: str, lower: bool) -> None:
    for word in words(text, lower=lower):
        assert word
        assert not any(character.isspace() for character in word)
        assert len(word) == 1 or not any(is_punctuation(character) for character in word)


@given(any_text)
def test_lower_case_words_have_no_capitals_and_no_accents(text: str) -> None:
    for character in "".join(words(text, lower=True)):
        assert character.lower() == character
        assert unicodedata.category(character) != "Mn"


def test_ascii_punctuation_is_what_is_neither_letter_digit_nor_space() -> None:
    found = [chr(code) for code in range(128) if is_punctuation(chr(code))]
    assert "".join(found) == "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def test_special_tokens_are_found_wherever_they_stand() -> None:
    assert special_ids(SPECIAL) == (0, 1, 2, 3, 4)
    found = special_ids(("a", "[MASK]", "[SEP]", "b", "[CLS]", "[UNK]", "[PAD]"))
    assert found._asdict() == {"pad": 6, "unknown": 5, "cls": 4, "sep": 2, "mask": 1}


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (("a", "b"), r"no \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"),
        ((*SPECIAL[:4], "a"), r"no \[MASK\]"),
        ((*SPECIAL, "a", "b", "a"), "holds 'a' twice"),
        ((*SPECIAL, "a", ""), "token 6 of the vocabulary is empty"),
        ((*SPECIAL, "a\ud800"), "lone surrogate"),
    ],
)
def test_a_damaged_vocabulary_is_refused_in_one_line(vocabulary: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        refuse_damaged(vocabulary)
    assert len(str(caught.value).splitlines()) == 1


def test_a_lone_surrogate_is_no_text() -> None:
    with pytest.raises(UserError, match=r"U\+D800\) at position 1"):
        words("a\ud800", lower=True)
