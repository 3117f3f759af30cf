"""Heads are cut and put side by side in one place, as the text does, whatever the layout of memory."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import heads
from refllm.spec import heads as text

SIZES = st.integers(0, 3)


@given(leading=st.lists(SIZES, max_size=2), T=SIZES, parts=st.integers(1, 3), H=st.integers(1, 3), D=SIZES)
def test_what_is_cut_is_that_of_the_text_and_put_together_again_is_the_same(
    leading: list[int], T: int, parts: int, H: int, D: int
) -> None:
    y = numpy.random.default_rng(0).standard_normal((*leading, T, parts * H * D))
    pieces = heads.cut(y, heads=H, parts=parts)
    for part, piece in enumerate(pieces):
        columns = y[..., part * H * D : (part + 1) * H * D]
        if columns.size:
            numpy.testing.assert_array_equal(piece, text.cut(columns, H))
            numpy.testing.assert_array_equal(heads.side_by_side([piece]), text.joined(piece))
        assert piece.shape == (*leading, H, T, D)
    for given_pieces in (pieces, [piece.copy() for piece in pieces], [numpy.asfortranarray(piece) for piece in pieces]):
        numpy.testing.assert_array_equal(heads.side_by_side(given_pieces), y)


@pytest.mark.parametrize("room", ["blocks", "models", "generation", "explain"])
def test_no_other_file_cuts_heads(room: str) -> None:
    """Of a cut the sign is that the axes of places and heads are exchanged."""
    package = Path(heads.__file__).parent
    found = [p.name for p in (package / room).rglob("*.py") if "swapaxes(-2, -3)" in p.read_text(encoding="utf-8")]
    assert found == []
