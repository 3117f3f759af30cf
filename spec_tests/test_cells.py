"""Laws of the width of text on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.cells import cells, cut, padded, widest

ANY = st.text(alphabet=st.sampled_from("ab 你한ｱé́ก็🙂👍🏽\u200d❤\ufe0f🇩🇪＋"), max_size=12)


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0), ("abc", 3), ("你好", 4), ("，。", 4), ("ｱ", 1), ("Ａ", 2), ("한글", 4), ("한", 2), ("e\u0301", 1),
        ("ก็", 1), ("🙂", 2), ("👨\u200d👩\u200d👧", 2), ("👍🏽", 2), ("❤", 1), ("❤\ufe0f", 2), ("🇩🇪", 2), ("🇩🇪🇫🇷", 4),
        ("क्\u200dष", 2), ("\u200b", 0), ("a\xad", 2), ("…", 1), ("𠀀", 2),
    ],
)  # fmt: skip
def test_a_text_takes_the_cells_of_its_signs(text: str, width: int) -> None:
    assert cells(text) == width


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_ascii_takes_a_cell_a_character(text: str) -> None:
    assert cells(text) == len(text)


@given(ANY, st.integers(0, 30))
def test_a_padded_text_has_the_width_or_is_wider_by_itself(text: str, width: int) -> None:
    for right in (False, True):
        wide = padded(text, width, right=right)
        assert cells(wide) == max(width, cells(text))
        space = wide[: len(wide) - len(text)] if right else wide[len(text) :]
        assert wide == (space + text if right else text + space)
        assert space == " " * len(space)


@given(ANY, st.integers(1, 20))
def test_a_cut_text_fits_and_is_cut_between_signs(text: str, width: int) -> None:
    short = cut(text, width)
    assert cells(short) <= width
    if cells(text) <= width:
        assert short == text
    else:
        assert short.endswith("…")
        assert text.startswith(short[:-1])
        assert cells(short) >= width - 2  # a sign of two cells and the dots did not fit


def test_the_widest_of_none_is_0() -> None:
    assert widest([]) == 0
    assert widest(["abc", "你好"]) == 4
