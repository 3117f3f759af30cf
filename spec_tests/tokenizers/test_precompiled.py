"""The tables of replacements of SentencePiece: whole clusters where they are short, else character by character."""

from __future__ import annotations

import pytest

from refllm.tokenizers.published.precompiled import Precompiled
from refllm.tokenizers.published.traced_text import Traced
from spec_tests.tokenizers.charsmap import REPLACED, coded


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("", ""),
        ("plain", "plain"),
        *REPLACED.items(),
        ("\uff21\u00bd\x7f.", "A1\u20442."),
        ("caf\u0065\u0301", "caf\u00e9"),
        ("\uff21\u0319", "A"),  # a short cluster goes as a whole, the mark with it
        ("\uff21\u0319\U0001f3fd", "A\u0319\U0001f3fd"),  # and a long one does not: a skin tone is part of it
    ],
)
def test_characters_and_short_clusters_are_replaced(text: str, normalised: str) -> None:
    table = Precompiled.of(coded(REPLACED))
    assert table.plain(text) == normalised
    assert table.traced(Traced.of(text)).text == normalised


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("\u00bd.", [(0, 1), (0, 1), (0, 1), (1, 2)]),
        ("a\x7fb", [(0, 1), (2, 3)]),
        ("\u00bd\x7f.", [(0, 1), (0, 1), (1, 2), (2, 3)]),  # what is new takes the place of what goes
        ("\x7fab", [(0, 1), (1, 2)]),  # as the library has it
    ],
)
def test_what_is_new_and_what_goes_have_places(text: str, spans: list[tuple[int, int]]) -> None:
    assert list(Precompiled.of(coded(REPLACED)).traced(Traced.of(text)).spans) == spans
