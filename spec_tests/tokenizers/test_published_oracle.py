"""Published tokenizers give the ids, the offsets and the texts of the library `tokenizers`."""

from __future__ import annotations

import json
from functools import cache
from random import Random
from typing import Any

import pytest

pytest.importorskip("tokenizers")

from refllm.tokenizers.published.precompiled import Precompiled
from refllm.tokenizers.published.tokenizer import PublishedTokenizer
from spec_tests.tokenizers.charsmap import REPLACED, charsmap, coded
from spec_tests.tokenizers.published_oracle import MADE, ROWS, library, random_texts
from spec_tests.tokenizers.test_published import byte_level

pytestmark = pytest.mark.oracle
every_tokenizer = pytest.mark.parametrize("which", MADE)


@cache
def both(which: str) -> tuple[Any, PublishedTokenizer]:
    theirs = MADE[which]()
    return theirs, PublishedTokenizer({"tokenizer.json": theirs.to_str()})


def assert_same(which: str, texts: list[str]) -> None:
    theirs, ours = both(which)
    for text in texts:
        wanted = theirs.encode(text, add_special_tokens=False)
        ids = ours.encode(text).tolist()
        assert ids == wanted.ids, f"{text!r}: {[ours.tokens[i] for i in ids][:40]}, should be {wanted.tokens[:40]}"
        placed = ours.encode_with_offsets(text)
        assert placed.ids.tolist() == wanted.ids, f"{text!r} with offsets"
        assert placed.offsets == wanted.offsets, f"{text!r}: {placed.offsets[:30]}, should be {wanted.offsets[:30]}"


@every_tokenizer
def test_ids_and_offsets_are_those_of_the_library(which: str) -> None:
    assert_same(which, ROWS)


@every_tokenizer
def test_ids_and_offsets_of_random_texts_are_those_of_the_library(which: str, request: pytest.FixtureRequest) -> None:
    assert_same(which, random_texts(10_000 if request.config.getoption("--slow") else 700, seed=len(which)))


@every_tokenizer
def test_a_text_between_its_special_tokens_is_that_of_the_library(which: str) -> None:
    theirs, ours = both(which)
    for text in ROWS[:30]:
        wanted = theirs.encode(text)
        assert ours.marked(text).tolist() == wanted.ids
        found = ours.encode_with_offsets(text, marked=True)
        assert (found.ids.tolist(), found.offsets) == (wanted.ids, wanted.offsets)


@every_tokenizer
def test_texts_of_ids_are_those_of_the_library_at_once_and_piece_by_piece(which: str) -> None:
    theirs, ours = both(which)
    for text in [*ROWS, *random_texts(150, seed=3)]:
        ids = theirs.encode(text).ids
        wanted = theirs.decode(ids)
        assert ours.decode(ids) == wanted, text
        assert "".join(ours.stream(ids[:400])) == ours.decode(ids[:400]), text


def test_precompiled_replacements_and_their_places_are_those_of_the_library() -> None:
    table = charsmap(REPLACED)
    saved = byte_level(normalizer={"type": "Precompiled", "precompiled_charsmap": coded(REPLACED)}, added_tokens=[])
    theirs, ours = (
        library.Tokenizer.from_str(json.dumps(saved)),
        PublishedTokenizer({"tokenizer.json": json.dumps(saved)}),
    )
    random = Random(0)
    pool = [*REPLACED, *"ab .\n", "\u0301", "\u0319", "\u200d", "\U0001f3fd", "\U0001f642", "\ufe0f", "\u0e33", "\x85"]
    for _ in range(2000):
        text = "".join(random.choice(pool) for _ in range(random.randrange(12)))
        assert Precompiled.of(coded(REPLACED)).plain(text) == library.normalizers.Precompiled(table).normalize_str(text)
        found, wanted = ours.encode_with_offsets(text), theirs.encode(text, add_special_tokens=False)
        assert (found.ids.tolist(), found.offsets) == (wanted.ids, [tuple(span) for span in wanted.offsets]), repr(text)
