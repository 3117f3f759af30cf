"""Laws of saving and loading, whichever the tokenizer; the JSON may come from anywhere."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.tokenizers import (
    BytePairTokenizer,
    CharacterTokenizer,
    MarkedTokenizer,
    Tokenizer,
    WordPieceTokenizer,
    WordTokenizer,
    default_start,
    gives_back,
    load,
    unknown_share,
)
from refllm.tokenizers.vocabulary import SPECIAL

TEXT = "one two one two 中文中文 one"
TOKENIZERS: list[Tokenizer] = [
    CharacterTokenizer.train(TEXT),
    BytePairTokenizer.train(TEXT, vocabulary=262),
    WordTokenizer.train(TEXT, vocabulary=8, lower=True),
    WordPieceTokenizer.train(TEXT, vocabulary=16, lower=False),
    MarkedTokenizer.train(TEXT, vocabulary=266),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda one: one.kind)
def test_saving_and_loading_gives_an_equal_tokenizer(tokenizer: Tokenizer) -> None:
    loaded = load(json.loads(json.dumps(tokenizer.to_json())))
    assert loaded == tokenizer
    assert loaded.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


@given(
    json_values
    | st.fixed_dictionaries(
        {"kind": json_values | st.sampled_from(["character", "byte_pair", "word", "word_piece"])}, optional={}
    )
    | st.fixed_dictionaries({"kind": st.just("character"), "vocabulary": json_values})
    | st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["word", "word_piece"]),
            "vocabulary": json_values | st.lists(st.sampled_from([*SPECIAL, "a", ""]) | st.none()),
            "lower": json_values,
        }
    )
    | st.fixed_dictionaries({"kind": st.just("byte_pair"), "merges": json_values | st.lists(st.lists(st.integers()))})
)
def test_whatever_json_holds_loads_as_it_was_or_is_refused_in_one_line(saved: Any) -> None:
    try:
        tokenizer = load(saved)
    except UserError as refusal:
        message = str(refusal)
    else:
        message = "not refused"
        assert tokenizer.to_json() == saved
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ([], "`kind` is one of character, byte_pair, word, word_piece"),
        ({"kind": "sentence"}, "`kind` is one of"),
        ({"kind": "word"}, "kind word needs a list of strings `vocabulary` and a boolean `lower`"),
        ({"kind": "word", "vocabulary": [*SPECIAL, 7], "lower": True}, "a list of strings `vocabulary`"),
        ({"kind": "word", "vocabulary": [*SPECIAL, "a"], "lower": 1}, "a boolean `lower`"),
        ({"kind": "word_piece", "vocabulary": ["a"], "lower": True}, r"no \[PAD\], \[UNK\]"),
        ({"kind": "word_piece", "vocabulary": [*SPECIAL, "a", "a"], "lower": True}, "'a' twice"),
        ({"kind": ["character"]}, "`kind` is one of"),
        ({"kind": "character"}, "needs `kind` and a string `vocabulary`"),
        ({"kind": "character", "vocabulary": ["a"]}, "needs `kind` and a string `vocabulary`"),
        ({"kind": "character", "vocabulary": "a", "more": 1}, "nothing else"),
        ({"kind": "character", "vocabulary": ""}, "cannot be empty"),
        ({"kind": "character", "vocabulary": "ba"}, "sorted by code point"),
        ({"kind": "character", "vocabulary": "aa"}, "without repeats"),
        ({"kind": "character", "vocabulary": "a\ud800"}, "lone surrogate"),
        ({"kind": "byte_pair", "merges": {}}, "a list `merges`"),
        ({"kind": "byte_pair", "merges": [[1, 2], [3]]}, "merge 1 .* two integers"),
        ({"kind": "byte_pair", "merges": [[1, True]]}, "merge 0 .* two integers"),
        ({"kind": "byte_pair", "merges": [[1, 2.0]]}, "merge 0 .* two integers"),
        ({"kind": "byte_pair", "merges": [[1, 2], [257, 3]]}, "merge 1 .* only ids 0 to 256 exist"),
        ({"kind": "byte_pair", "merges": [[-1, 2]]}, "merge 0 .* only ids 0 to 255 exist"),
        ({"kind": "byte_pair", "merges": [[1, 2], [1, 2]]}, "same merge twice"),
    ],
)
def test_a_damaged_tokenizer_is_refused_with_the_reason(saved: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(saved)


def test_merges_that_double_without_end_are_refused_before_they_fill_the_memory() -> None:
    doubling = [[97, 97], *([token, token] for token in range(256, 300))]
    with pytest.raises(UserError, match="no word is longer"):
        load({"kind": "byte_pair", "merges": doubling})


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda one: one.kind)
def test_only_words_lose_some_of_a_text_and_only_they_have_unknown_ones(tokenizer: Tokenizer) -> None:
    words = isinstance(tokenizer, WordTokenizer | WordPieceTokenizer)
    for text in ("one two", "one  two"):
        tokens = tokenizer.encode(text)
        assert gives_back(tokenizer, tokens, text) == (not words or text == "one two")
        assert unknown_share(tokenizer, tokens) == 0
    if words:
        tokens = tokenizer.encode("[]")
        assert not gives_back(tokenizer, tokens, "[]")
        assert unknown_share(tokenizer, tokens) == 1


@pytest.mark.parametrize(
    ("tokenizer", "start"),
    [
        (CharacterTokenizer.train("one.\n"), "\n"),
        (CharacterTokenizer.train("one."), "."),
        (CharacterTokenizer.train("one"), "e"),
        (BytePairTokenizer.train("one\n\none\n\n", vocabulary=260), "\n"),
        (WordTokenizer.train("two one one.\n", vocabulary=20, lower=True), "."),
        (WordTokenizer.train("two one one.\n", vocabulary=6, lower=True), "one"),
        (WordPieceTokenizer.train("(one) two.\n", vocabulary=30, lower=True), "."),
        (WordPieceTokenizer.train("一二。\n", vocabulary=30, lower=True), "。"),
        (MarkedTokenizer.train("one\n", vocabulary=266), "\n"),
    ],
)
def test_every_tokenizer_has_a_token_to_start_from_that_is_not_special(tokenizer: Tokenizer, start: str) -> None:
    tokens = default_start(tokenizer)
    assert tokens.shape == (1,)
    assert tokenizer.decode(tokens) == start
