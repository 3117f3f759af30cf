"""Laws of the word tokenizer."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.tokenizers import WordTokenizer
from refllm.tokenizers.vocabulary import SPECIAL, words

TEXT = "the cat sat on the mat, the rat ate the hat."
some_text = st.text(st.sampled_from("ab.é \n中"), max_size=60)


@given(some_text, st.booleans())
def test_known_words_survive_encoding_and_decoding(text: str, lower: bool) -> None:
    if not words(text, lower=lower):
        return
    tokenizer = WordTokenizer.train(text, vocabulary=10**6, lower=lower)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids).split(" ") == words(text, lower=lower)
    assert tokenizer.encode(tokenizer.decode(ids)).tolist() == ids.tolist()
    assert "".join(tokenizer.stream(ids)) == tokenizer.decode(ids)


@given(some_text, st.integers(6, 12))
def test_the_vocabulary_is_the_special_tokens_and_the_most_frequent_words(text: str, size: int) -> None:
    counts = Counter(words(text, lower=False))
    if not counts:
        return
    tokenizer = WordTokenizer.train(text, vocabulary=size, lower=False)
    assert tokenizer.vocabulary[:5] == SPECIAL
    kept = tokenizer.vocabulary[5:]
    assert list(kept) == sorted(kept, key=lambda word: (-counts[word], word))
    assert len(kept) == min(size - 5, len(counts))
    assert min(counts[word] for word in kept) >= max((n for word, n in counts.items() if word not in kept), default=0)


def test_a_word_never_seen_or_too_rare_is_unknown() -> None:
    tokenizer = WordTokenizer.train(TEXT, vocabulary=6, lower=False)
    assert tokenizer.vocabulary == (*SPECIAL, "the")
    assert tokenizer.special.unknown == 1
    assert tokenizer.encode("the dog").tolist() == [5, 1]
    assert tokenizer.decode([5, 1]) == "the [UNK]"


def test_a_special_token_in_a_text_is_text() -> None:
    tokenizer = WordTokenizer.train(TEXT + " [MASK]", vocabulary=100, lower=False)
    ids = tokenizer.encode("[MASK]").tolist()
    assert tokenizer.decode(ids) == "[ MASK ]"
    assert not set(ids) & set(tokenizer.special)


def test_what_cannot_be_learnt_is_refused() -> None:
    with pytest.raises(UserError, match="5 special tokens; ask for more"):
        WordTokenizer.train(TEXT, vocabulary=5, lower=False)
    with pytest.raises(UserError, match="give a text with words"):
        WordTokenizer.train(" \n", vocabulary=9, lower=False)


def test_an_id_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match="token id 6 is not in the vocabulary of 6 tokens"):
        WordTokenizer.train(TEXT, vocabulary=6, lower=False).decode([6])
