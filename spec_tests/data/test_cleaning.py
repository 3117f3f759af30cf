"""Laws of cleaning. (DATA)"""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refllm.data.cleaning import clean, without_repeats, without_tags

any_text = st.text(st.characters(exclude_categories=["Cs"])) | st.text("a \t\n\r\u0085\u00a0\u0301e\x07\u200b")


@given(any_text)
@example("e\u200b\u0301")
@example("a\n\u200b\n\n\nb")
@example("\u0958 \u1e9b\u0323")
def test_a_clean_text_stays_as_it_is(text: str) -> None:
    once = clean(text, html=False)
    assert clean(once, html=False) == once


@given(any_text)
def test_a_clean_text_has_one_spelling(text: str) -> None:
    found = clean(text, html=False)
    assert unicodedata.is_normalized("NFC", found)
    assert not any(unicodedata.category(c) == "Cc" for c in found.replace("\n", ""))
    assert "  " not in found
    assert "\n\n\n" not in found
    assert all(line == line.strip() for line in found.split("\n"))


@given(any_text, st.integers(0, 2))
def test_what_can_be_seen_stays_in_its_order(text: str, form: int) -> None:
    """Composed or not, the same text gives the same clean text."""
    spelled = unicodedata.normalize(("NFC", "NFD", "NFC")[form], text)
    assert clean(spelled, html=False) == clean(text, html=False) or any(c in text for c in "\u200b\u00ad\u2060\ufeff")
    letters = [c for c in unicodedata.normalize("NFC", text) if c.isalnum()]
    assert [c for c in clean(unicodedata.normalize("NFC", text), html=False) if c.isalnum()] == letters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cafe\u0301  au\tlait \r\n\r\n\r\n\r\n  now\u00a0!\ufeff", "café au lait\n\nnow !"),
        ("bell\x07 soft\u00adhyphen zero\u200bwidth\ufffd", "bell softhyphen zerowidth"),
        ("a\u2028b\u2029c\u0085d\re", "a\nb\nc\nd\ne"),
        ("ﬁ x² Ⅷ", "ﬁ x² Ⅷ"),  # NFC, not NFKC: these are other characters
        ("&amp; <b>", "&amp; <b>"),
        (" \n \n", ""),
    ],
)
def test_examples_of_clean_text(text: str, expected: str) -> None:
    assert clean(text, html=False) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<p>One &amp; two&nbsp;&lt;3</p><p>Caf&eacute; &#x4e2d;", "One & two <3\n\nCafé 中"),
        ("<head><title>T</title></head><body>a<script>if (a < b) {}</script>b<style>p{}</style>c", "abc"),
        ("line<br>break <b>bold</b>er<!-- no --> end", "line\nbreak bolder end"),
        ("<ul><li>one<li>two</ul>", "one\ntwo"),
        ("a < b and c > d", "a < b and c > d"),
        ("plain", "plain"),
    ],
)
def test_a_page_keeps_its_text_and_its_blocks(page: str, expected: str) -> None:
    assert clean(page, html=True) == expected


@given(st.text("<>&;/!-ab \"'="))
def test_a_broken_page_raises_nothing(page: str) -> None:
    assert isinstance(without_tags(page), str)


def test_repeats_are_taken_out_whatever_their_case_and_spaces_and_the_first_stays() -> None:
    assert without_repeats(["One  two", "three", "one two\n", "Three!", "three"]) == ["One  two", "three", "Three!"]
