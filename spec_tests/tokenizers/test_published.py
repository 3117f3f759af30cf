"""Published tokenizers without the library: what their files say, what is refused, what they promise like others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import tokenizers
from refllm.errors import UserError
from refllm.tokenizers.published.tokenizer import PublishedTokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def byte_level(**changes: Any) -> dict[str, Any]:
    """All bytes, a few merges and a special token."""
    from refllm.tokenizers.published.spelling import character_of_byte

    letters = list(character_of_byte())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "a"), ("aa", "aa")]
    vocabulary = {token: i for i, token in enumerate([*letters, *(left + right for left, right in merges)])}
    return {
        "added_tokens": [{"id": len(vocabulary), "content": "<|end|>", "special": True, "normalized": False}],
        "normalizer": None, "pre_tokenizer": BYTE_LEVEL, "post_processor": None, "decoder": BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [list(pair) for pair in merges]}, **changes,
    }  # fmt: skip


def made(**changes: Any) -> PublishedTokenizer:
    return PublishedTokenizer({"tokenizer.json": json.dumps(byte_level(**changes))})


@given(text=st.text())
def test_a_byte_level_text_comes_back_and_its_offsets_cover_it(text: str) -> None:
    tokenizer = made()
    ids = tokenizer.encode(text)
    if "<|end|>" not in text:
        assert tokenizer.decode(ids) == text
        assert "".join(tokenizer.stream(ids.tolist())) == text
    placed = tokenizer.encode_with_offsets(text)
    assert placed.ids.tolist() == ids.tolist()
    covered = {place for start, end in placed.offsets for place in range(start, end)}
    assert covered == set(range(len(text)))


def test_the_pair_that_was_learnt_first_is_joined_first_the_leftmost_of_several() -> None:
    tokenizer = made()
    assert [tokenizer.tokens[i] for i in tokenizer.encode(" the aaaaa")] == ["Ġthe", "Ġ", "aaaa", "a"]


@given(word=st.text("the a", min_size=1, max_size=40))
def test_a_long_word_is_cut_as_a_short_one(word: str) -> None:
    model: Any = made().model
    ids, ends = model._letters(word.replace(" ", "Ġ"))
    assert model._joined([*ids], [*ends]) == model._joined_long([*ids], [*ends])


def test_an_added_token_is_found_in_the_text_and_gives_none() -> None:
    tokenizer = made()
    ids = tokenizer.encode("a<|end|>the").tolist()
    assert ids[1] == tokenizer.ids["<|end|>"]
    assert tokenizer.decode(ids) == "athe"


def test_it_is_saved_and_loaded_with_its_files_as_they_are() -> None:
    tokenizer = made()
    again = tokenizers.load(json.loads(json.dumps(tokenizer.to_json())))
    assert isinstance(again, PublishedTokenizer)
    assert again.files == tokenizer.files
    assert again.encode("the <|end|>").tolist() == tokenizer.encode("the <|end|>").tolist()


def test_a_vocabulary_may_be_larger_than_the_tokens_and_not_smaller() -> None:
    files = {"tokenizer.json": json.dumps(byte_level())}
    assert PublishedTokenizer(files, size=300).decode([299, 0]) == "\x00"
    assert PublishedTokenizer(files, size=300).size == 300
    with pytest.raises(UserError, match="a vocabulary of 100"):
        PublishedTokenizer(files, size=100)


def test_vocab_and_merges_are_gpt2s() -> None:
    saved = byte_level()["model"]
    merges = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in saved["merges"]) + "\n"
    files = {"vocab.json": json.dumps(saved["vocab"]), "merges.txt": merges}
    assert PublishedTokenizer(files).encode(" the a1").tolist() == made().encode(" the a1").tolist()


def test_vocab_txt_is_berts() -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##re", "cafe", "!"]
    files = {"vocab.txt": "\n".join(pieces) + "\n"}
    tokenizer = PublishedTokenizer(files)
    assert tokenizer.encode("There! CAFÉ x [MASK]").tolist() == [5, 6, 8, 7, 1, 4]
    assert tokenizer.marked("there").tolist() == [2, 5, 6, 3]
    assert tokenizer.decode([2, 5, 6, 8, 3]) == "there!"
    assert tokenizer.special == (0, 1, 2, 3, 4)
    cased = PublishedTokenizer({**files, "tokenizer_config.json": '{"do_lower_case": false}'})
    assert cased.encode("There the").tolist() == [1, 5]


REFUSED: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "cannot be read as JSON"),
    "deep nesting": ("[" * 500_000, "deeply|JSON"),
    "nested objects": ('{"a":' * 100 + "1" + "}" * 100, "values within each other"),
    "a list": ("[]", "must hold an object"),
    "no model": ("{}", "lack something"),
    "an unknown model": ('{"model": {"type": "Hash"}}', "'Hash'"),
    "a model that is a number": ('{"model": 3}', "is not supported"),
    "an id that is a word": ('{"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}', "an id"),
    "an id beyond all": ('{"model": {"type": "BPE", "vocab": {"a": 99999999999}, "merges": []}}', "an id"),
    "a merge of three": ('{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a a"]}}', "not two tokens"),
    "a merge of nothing": ('{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}', "not in its vocabulary"),
    "no unknown": ('{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', "lacks"),
    "a score that is a word": ('{"model": {"type": "Unigram", "vocab": [["a", "b"]]}}', "scores"),
    "an unknown normalizer": (json.dumps(byte_level(normalizer={"type": "Magic"})), "'Magic'"),
    "an unknown pre_tokenizer": (json.dumps(byte_level(pre_tokenizer={"type": "Magic"})), "'Magic'"),
    "an unknown decoder": (json.dumps(byte_level(decoder={"type": "Magic"})), "'Magic'"),
    "an unknown processor": (json.dumps(byte_level(post_processor={"type": "Magic"})), "'Magic'"),
    "a pattern that does not end": (
        json.dumps(byte_level(normalizer={"type": "Replace", "pattern": {"Regex": "(a"}, "content": ""})), "pattern",
    ),
    "a class that there is not": (
        json.dumps(byte_level(normalizer={"type": "Replace", "pattern": {"Regex": r"\p{Klingon}"}, "content": ""})),
        "Klingon",
    ),
    "a dropout": (
        json.dumps(byte_level(model={"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1})), "dropout",
    ),
    "an added token without an id": (json.dumps(byte_level(added_tokens=[{"content": "x"}])), "added token"),
    "a damaged table": (
        json.dumps(byte_level(normalizer={"type": "Precompiled", "precompiled_charsmap": "////"})), "charsmap",
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", REFUSED)
def test_a_file_that_is_damaged_or_not_supported_is_one_line(which: str) -> None:
    text, message = REFUSED[which]
    with pytest.raises(UserError, match=message) as refused:
        PublishedTokenizer({"tokenizer.json": text})
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.slow
def test_a_million_merges_are_refused_before_one_is_made() -> None:
    saved = byte_level()
    saved["model"]["merges"] = [["a", "a"]] * 1_000_000
    with pytest.raises(UserError, match="at most 600,000"):
        PublishedTokenizer({"tokenizer.json": json.dumps(saved)})


def test_without_files_it_says_which_are_needed() -> None:
    with pytest.raises(UserError, match=r"vocab\.json with merges\.txt"):
        PublishedTokenizer({})
