"""Laws of the message of an error that is the user's to mend."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.examples import read_pairs
from refllm.errors import UserError


@given(st.text(st.characters(), max_size=20))
def test_a_message_is_one_line_whatever_the_user_has_named(name: str) -> None:
    message = str(UserError(f"the column {name} is missing; add it"))
    assert len(message.splitlines()) == 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in message)


@pytest.mark.parametrize("name", ["größer 🐈 文", "a b", "\udcff", "50 %"])
def test_what_can_be_read_is_left_as_it_is(name: str) -> None:
    assert str(UserError(name)) == name


def test_a_line_break_in_a_header_is_shown_as_one(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text('"a\nb",target\nx,y\n')
    with pytest.raises(UserError, match=r"not among a\\nb, target; correct"):
        read_pairs([table], source="source", target="target")
