"""Laws of the WordPiece tokenizer."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.tokenizers.vocabulary import SPECIAL, words
from refllm.tokenizers.wordpiece import LONGEST, WordPieceTokenizer, learn_pieces

any_text = st.text(st.characters(exclude_categories=["Cs"]))
repetitive = st.text("abc ", max_size=60)

TEXT = "the cat sat on the mat, the rat ate the hat. unaffable affable able tables cat cats\n" * 3
TRAINED = WordPieceTokenizer.train(TEXT, vocabulary=70, lower=True)


def of(*pieces: str, lower: bool = False) -> WordPieceTokenizer:
    return WordPieceTokenizer((*SPECIAL, *pieces), lower)


def pieces_of(tokenizer: WordPieceTokenizer, text: str) -> list[str]:
    return [tokenizer.vocabulary[i] for i in tokenizer.encode(text)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("unaffable", ["un", "##aff", "##able"]),  # the example of the published code
        ("unaffableness", ["[UNK]"]),  # the whole word, not its known beginning
        ("un affable", ["un", "[UNK]"]),  # "##aff" cannot begin a word
        ("unun", ["[UNK]"]),  # nor "un" go on with one
        ("un, un!", ["un", ",", "un", "[UNK]"]),
    ],
)
def test_a_word_is_cut_into_the_longest_pieces_from_its_beginning(text: str, pieces: list[str]) -> None:
    assert pieces_of(of("un", "##aff", "##able", "##a", "##ff", "##e", ","), text) == pieces


@settings(max_examples=100)
@given(repetitive, repetitive, st.integers(0, 12))
def test_the_first_piece_is_the_longest_that_begins_the_word_and_so_on(learnt: str, text: str, more: int) -> None:
    if not words(learnt, lower=False):
        return
    alphabet = {c if i == 0 else f"##{c}" for word in learnt.split() for i, c in enumerate(word)}
    tokenizer = WordPieceTokenizer.train(learnt, vocabulary=5 + len(alphabet) + more, lower=False)
    vocabulary = set(tokenizer.vocabulary)
    expected: list[str] = []
    for word in text.split():
        parts, rest, prefix = [], word, ""
        while rest:
            fitting = [n for n in range(1, len(rest) + 1) if prefix + rest[:n] in vocabulary]
            if not fitting:
                parts, rest = ["[UNK]"], ""
                break
            parts.append(prefix + rest[: max(fitting)])
            rest, prefix = rest[max(fitting) :], "##"
        expected += parts
    assert pieces_of(tokenizer, text) == expected


@given(st.text("thecasonmr ,.\n"))
def test_known_words_survive_encoding_and_decoding(text: str) -> None:
    ids = TRAINED.encode(text)
    decoded = TRAINED.decode(ids)
    assert "".join(TRAINED.stream(ids)) == decoded
    if TRAINED.special.unknown not in ids:
        assert decoded == " ".join(words(text, lower=True))
        assert TRAINED.encode(decoded).tolist() == ids.tolist()


def test_every_word_of_the_training_text_is_known() -> None:
    assert TRAINED.special.unknown not in TRAINED.encode(TEXT)


@given(any_text)
def test_any_text_has_ids_and_as_many_unknown_words_as_cannot_be_cut(text: str) -> None:
    ids = TRAINED.encode(text)
    assert ids.dtype.kind == "i"
    alone = [TRAINED.encode(word).tolist() for word in words(text, lower=True)]
    assert ids.tolist() == [i for word in alone for i in word]


def pieces_by_counting_anew(text: str, most: int) -> list[str]:
    """The definition, without an incremental count or a heap, and with exact scores."""
    spelled = [[c if i == 0 else f"##{c}" for i, c in enumerate(word)] for word in text.split()]
    known = {piece for word in spelled for piece in word}
    learnt: list[str] = []
    least = max(Counter(pair for word in spelled for pair in pairwise(word)).values(), default=0)
    while len(learnt) < most and least >= 2:
        pieces = Counter(piece for word in spelled for piece in word)
        pairs = Counter(pair for word in spelled for pair in pairwise(word))
        eligible = [pair for pair, n in pairs.items() if n >= least]
        if not eligible:
            least //= 2
            continue
        scores = {pair: Fraction(pairs[pair], pieces[pair[0]] * pieces[pair[1]]) for pair in eligible}
        best = min(eligible, key=lambda pair: (-scores[pair], -pairs[pair], pair))
        new = best[0] + best[1].removeprefix("##")
        if new not in known:
            known.add(new)
            learnt.append(new)
        spelled = [replaced(word, best, new) for word in spelled]
    return learnt


def replaced(word: list[str], pair: tuple[str, str], new: str) -> list[str]:
    if len(word) < 2:
        return word
    if tuple(word[:2]) == pair:
        return [new, *replaced(word[2:], pair, new)]
    return [word[0], *replaced(word[1:], pair, new)]


@settings(max_examples=100)
@given(repetitive, st.integers(0, 12))
@example("aaaaa aaaa aaa bababab", 12)
@example("abc abc ab bc xabc xabc ab", 12)
def test_training_joins_the_neighbours_of_greatest_score(text: str, most: int) -> None:
    assert learn_pieces(Counter(text.split()), most) == pieces_by_counting_anew(text, most)


@given(st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, unique=True))
def test_pieces_do_not_depend_on_the_order_of_the_words(words_: list[str]) -> None:
    counts = {word: 1 + len(word) for word in words_}
    assert learn_pieces(counts, 9) == learn_pieces(dict(reversed(counts.items())), 9)


def test_a_rare_pair_that_always_stands_together_comes_before_a_frequent_pair_of_frequent_pieces() -> None:
    """6 / (6 · 6) against 7 / (14 · 21): what tells WordPiece from byte-pair merges."""
    counts = Counter({"qu": 6, "ab": 7, "a": 7, "xb": 14})
    assert learn_pieces(counts, 2)[0] == "xb"  # 14 / (14 · 21), alone above half of the most frequent
    counts["xb"] = 11
    assert learn_pieces(counts, 2) == ["xb", "qu"]


def test_the_vocabulary_is_special_tokens_characters_and_pieces_and_no_larger_than_asked() -> None:
    assert TRAINED.vocabulary[:5] == SPECIAL
    alphabet = sorted({c if i == 0 else f"##{c}" for word in words(TEXT, lower=True) for i, c in enumerate(word)})
    assert list(TRAINED.vocabulary[5 : 5 + len(alphabet)]) == alphabet
    assert TRAINED.size <= 70
    smallest = 5 + len(alphabet)
    assert WordPieceTokenizer.train(TEXT, vocabulary=smallest, lower=True).size == smallest
    with pytest.raises(UserError, match=f"vocabulary of {smallest - 1} is too small.*ask for {smallest} or more"):
        WordPieceTokenizer.train(TEXT, vocabulary=smallest - 1, lower=True)


def test_a_text_without_words_teaches_nothing() -> None:
    with pytest.raises(UserError, match="give a text with words"):
        WordPieceTokenizer.train(" \n", vocabulary=100, lower=True)


def test_a_word_too_long_to_be_one_is_unknown() -> None:
    tokenizer = of("a", "##a")
    assert len(tokenizer.encode("a" * LONGEST)) == LONGEST
    assert pieces_of(tokenizer, "a" * (LONGEST + 1)) == ["[UNK]"]


def test_a_stream_gives_each_piece_as_it_comes_with_its_space() -> None:
    tokenizer = of("un", "##able", "##", ".")
    assert list(tokenizer.stream([5, 6, 8, 5])) == ["un", "able", " .", " un"]
    assert tokenizer.decode([6, 5]) == "able un"
    assert tokenizer.decode([5, 7]) == "un ##"
    assert tokenizer.decode([2, 5, 3]) == "[CLS] un [SEP]"


def test_a_published_vocabulary_is_a_piece_a_line(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[unused0]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##able\n", encoding="utf-8")
    tokenizer = WordPieceTokenizer.from_file(path, lower=True)
    assert tokenizer.encode("Unable").tolist() == [6, 7]
    assert tokenizer.special._asdict() == {"pad": 0, "unknown": 2, "cls": 3, "sep": 4, "mask": 5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*vocab.txt: No such file"),
        (b"a\nb\n", r"no \[PAD\]"),
        ("\n".join((*SPECIAL, "", "a")).encode(), "token 5 of the vocabulary is empty"),
        (b"\xff", "not UTF-8 text: byte 0"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused_in_one_line(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        WordPieceTokenizer.from_file(path, lower=True)
    assert len(str(caught.value).splitlines()) == 1


def test_an_id_outside_the_vocabulary_is_refused() -> None:
    for decode in (TRAINED.decode, lambda ids: list(TRAINED.stream(ids))):
        with pytest.raises(UserError, match=f"token id {TRAINED.size} is not in the vocabulary"):
            decode([0, TRAINED.size])
