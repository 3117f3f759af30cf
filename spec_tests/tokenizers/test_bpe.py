"""Laws of the byte-pair tokenizer."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.tokenizers.bpe import LONGEST, WORD, BytePairTokenizer, learn_merges

any_text = st.text(st.characters(exclude_categories=["Cs"]))
# Few letters and long texts, so that merges build on merges and pairs overlap themselves.
repetitive = st.text("ab \n中", min_size=1, max_size=60)

TRAINED = BytePairTokenizer.train(
    "the cat sat on the mat, the rat ate the hat.\n大语言模型是语言的模型。语言模型预测下一个词。 🐈🐈🐈\n" * 3,
    vocabulary=320,
)


@settings(max_examples=200)
@given(any_text)
@example("大规模语言模型的发展历程可以追溯到2000年代初")
@example("👩‍👩‍👧‍👦 \u0000\u0085\u2028\ufeff\r\n\t \x1c  e\u0301 ٣٤٥ __x__")
@example("a" * (3 * LONGEST + 1) + "\n" * (2 * LONGEST + 1) + " " * (LONGEST + 2) + "x")
def test_every_unicode_text_survives_encoding_and_decoding(text: str) -> None:
    ids = TRAINED.encode(text)
    assert TRAINED.decode(ids, errors="strict") == text
    assert TRAINED.decode(ids) == text


@given(any_text)
def test_words_are_a_partition_of_the_text_and_short(text: str) -> None:
    words = WORD.findall(text)
    assert "".join(words) == text
    assert all(1 <= len(word) <= 1 + LONGEST for word in words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat, 12345 cats.", ["The", " cat", ",", " 123", "45", " cats", "."]),
        ("def f(x):\n\n    return x_1", ["def", " f", "(", "x", "):", "\n\n", "   ", " return", " x", "_", "1"]),
        ("end  \n\tx", ["end", "  ", "\n", "\t", "x"]),
        ("模型 模型。", ["模型", " 模型", "。"]),
    ],
)
def test_a_space_goes_with_the_word_after_it_and_newlines_stand_alone(text: str, words: list[str]) -> None:
    assert WORD.findall(text) == words


@given(st.lists(st.integers(0, TRAINED.size - 1)))
def test_streamed_pieces_join_to_the_decoded_text_even_where_characters_are_cut(ids: list[int]) -> None:
    assert "".join(TRAINED.stream(ids)) == TRAINED.decode(ids)


def test_a_stream_gives_a_character_only_when_it_is_whole() -> None:
    bytes_alone = BytePairTokenizer(())
    ids = bytes_alone.encode("a中!").tolist()
    assert list(bytes_alone.stream(ids)) == ["a", "", "", "中", "!", ""]
    assert list(bytes_alone.stream(ids[:3])) == ["a", "", "", "\ufffd"]
    assert bytes_alone.decode(ids[:3]) == "a\ufffd"
    with pytest.raises(UnicodeDecodeError):
        bytes_alone.decode(ids[:3], errors="strict")


def test_a_stream_takes_ids_only_as_they_are_asked_for() -> None:
    ids = iter(TRAINED.encode("the cat").tolist())
    first = next(TRAINED.stream(ids))
    assert first + TRAINED.decode(list(ids)) == "the cat"


def merges_by_counting_anew(text: str, most: int) -> list[tuple[int, int]]:
    """The definition, without an incremental count or a heap."""
    words = [list(word.encode()) for word in WORD.findall(text)]
    merges: list[tuple[int, int]] = []
    while len(merges) < most:
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts or max(counts.values()) < 2:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        words = [merged(word, best, 255 + len(merges)) for word in words]
    return merges


def merged(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    if len(word) < 2:
        return word
    if tuple(word[:2]) == pair:
        return [new, *merged(word[2:], pair, new)]
    return [word[0], *merged(word[1:], pair, new)]


@settings(max_examples=100)
@given(repetitive, st.integers(0, 12))
@example("aaaaa aaaa aaa bababab", 12)
def test_training_joins_the_most_frequent_pair_and_the_smaller_of_two_equals(text: str, most: int) -> None:
    assert list(BytePairTokenizer.train(text, vocabulary=256 + most).merges) == merges_by_counting_anew(text, most)


@settings(max_examples=100)
@given(repetitive, repetitive, st.integers(0, 12))
@example("ba\nba\nba\nab\nab", "aba", 12)  # "ba" was learnt first: a + ba, not ab + a
def test_encoding_applies_the_merges_in_the_order_learnt(learnt: str, text: str, most: int) -> None:
    tokenizer = BytePairTokenizer.train(learnt, vocabulary=256 + most)
    ids: list[int] = []
    for word in WORD.findall(text):
        spelled = list(word.encode())
        for new, pair in enumerate(tokenizer.merges, start=256):
            spelled = merged(spelled, pair, new)
        ids += spelled
    assert tokenizer.encode(text).tolist() == ids


@given(st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, unique=True))
def test_merges_do_not_depend_on_the_order_of_the_words(words: list[str]) -> None:
    counts = {word: 1 + len(word) for word in words}
    assert learn_merges(counts, 9) == learn_merges(dict(reversed(counts.items())), 9)


def test_training_stops_when_no_pair_is_left_that_occurs_twice() -> None:
    tokenizer = BytePairTokenizer.train("abab abab", vocabulary=1000)
    assert tokenizer.size < 260
    assert tokenizer.decode(tokenizer.encode("abab abab")) == "abab abab"


def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(TRAINED.to_json()))
    assert BytePairTokenizer.from_json(json.loads(path.read_text())) == TRAINED


def test_a_lone_surrogate_is_named() -> None:
    for work in (TRAINED.encode, lambda text: BytePairTokenizer.train(text, vocabulary=300)):
        with pytest.raises(UserError, match=r"U\+DC80\) at position 2 is a lone surrogate"):
            work("ab\udc80")


@pytest.mark.parametrize("vocabulary", [255, 0, -1, 2**21])
def test_a_vocabulary_that_cannot_be_is_refused(vocabulary: int) -> None:
    with pytest.raises(UserError, match="256 bytes"):
        BytePairTokenizer.train("text", vocabulary=vocabulary)


def test_an_empty_text_teaches_nothing() -> None:
    assert TRAINED.encode("").tolist() == []
    with pytest.raises(UserError, match="empty text"):
        BytePairTokenizer.train("", vocabulary=300)


def test_an_id_outside_the_vocabulary_is_refused() -> None:
    for decode in (TRAINED.decode, lambda ids: list(TRAINED.stream(ids))):
        with pytest.raises(UserError, match=f"token id {TRAINED.size} is not in the vocabulary"):
            decode([0, TRAINED.size])
