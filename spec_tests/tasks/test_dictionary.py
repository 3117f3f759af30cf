"""Laws of the word-by-word translation."""

from __future__ import annotations

import math
import re

import numpy
from hypothesis import given
from hypothesis import strategies as st

from refllm.tasks.dictionary import NULL, learn_dictionary, word_by_word
from refllm.unicode_script import words_of
from spec_tests.pairs import PAIRS, WORDS

words = st.lists(st.sampled_from("abc"), min_size=1, max_size=3)


def test_the_words_of_a_language_that_is_a_dictionary_are_found() -> None:
    assert learn_dictionary(PAIRS) == WORDS


def test_a_word_that_stands_beside_another_is_told_from_it() -> None:
    """Counting together cannot: "the" stands with Haus as often as "house" does; the next round explains it."""
    pairs = [("the house", "das Haus"), ("the book", "das Buch"), ("a book", "ein Buch")]
    assert learn_dictionary(pairs) == {"the": "das", "house": "Haus", "book": "Buch", "a": "ein"}


@given(pairs=st.lists(st.tuples(words, words), min_size=1, max_size=5))
def test_a_round_is_that_of_the_formula_on_arrays(pairs: list[tuple[list[str], list[str]]]) -> None:
    sources, t = [NULL, "a", "b", "c"], numpy.ones((4, 3))
    for _ in range(3):
        counts = numpy.zeros((4, 3))
        for source, target in pairs:
            f = [sources.index(word) for word in [NULL, *source]]
            for word in target:
                e = "abc".index(word)
                numpy.add.at(counts[:, e], f, t[f, e] / t[f, e].sum())
        with numpy.errstate(invalid="ignore"):
            t = counts / counts.sum(axis=1, keepdims=True)
    found = learn_dictionary([(" ".join(source), " ".join(target)) for source, target in pairs], rounds=3)
    assert set(found) == {word for source, _ in pairs for word in source}
    for word, best in found.items():
        row = t[sources.index(word)]
        assert math.isclose(row["abc".index(best)], row.max(), rel_tol=1e-9)


@given(text=st.text(alphabet="ab ,.!\n", max_size=20))
def test_what_is_no_known_word_stays(text: str) -> None:
    assert word_by_word(text, {}) == text
    changed = word_by_word(text, {"a": "x"})
    assert re.sub(r"\w+", "", changed) == re.sub(r"\w+", "", text)
    assert words_of(changed) == ["x" if word == "a" else word for word in words_of(text)]


def test_characters_of_a_script_without_spaces_are_words_and_their_translations_get_spaces() -> None:
    pairs = [("我读书", "I read books"), ("我写", "I write"), ("书", "books"), ("写书", "write books"), ("读", "read")]
    dictionary = learn_dictionary(pairs)
    assert dictionary == {"我": "I", "读": "read", "书": "books", "写": "write"}
    assert word_by_word("我写书。", dictionary) == "I write books。"
    assert word_by_word("我写龘", dictionary) == "I write龘"


@given(text=st.text(alphabet="ab 你好กิé\u0301_-.\n", max_size=20))
def test_without_a_dictionary_a_text_of_any_script_stays(text: str) -> None:
    assert word_by_word(text, {}) == text
