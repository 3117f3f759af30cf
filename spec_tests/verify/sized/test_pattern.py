"""Where wrong elements are is said in words: every usual place of a kernel's mistake has its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refllm.verify.sized.pattern import in_words

AXES = ("axis 0, index", "head", "row", "column")


def wrong(shape: tuple[int, ...], where: Callable[..., Any]) -> np.ndarray:
    return np.broadcast_to(where(*np.indices(shape)), shape)


@pytest.mark.parametrize(
    ("shape", "where", "words"),
    [
        ((3, 1025), lambda r, c: c >= 1024, "all of column 1,024 of 1,025 (the tail after whole tiles of 4 to 1,024)"),
        ((3, 1031), lambda r, c: c > 1023, (
            "all of columns ≥ 1,024 of 1,031 (the tail after whole tiles of 8 to 1,024)"
        )),
        ((65, 7), lambda r, c: r >= 64, "all of row 64 of 65 (the tail after whole tiles of 4 to 64)"),
        ((4, 96), lambda r, c: c >= 64, "all of columns ≥ 64 of 96 (the tail after whole tiles of 64)"),
        ((8, 9), lambda r, c: r % 2 == 1, "all of every second row, from 1 on"),
        ((3, 7, 5, 4), lambda b, h, r, c: h == 6, "all of head 6 of 7"),
        ((3, 7, 5, 4), lambda b, h, r, c: (h >= 5) & (c >= 2),
         "all of heads ≥ 5 of 7, columns ≥ 2 of 4"),
        ((5, 9), lambda r, c: c < 3, "all of columns < 3 of 9"),
        ((3, 128), lambda r, c: c % 32 == 31, "all of every 32nd column, from 31 on"),
        ((3, 100), lambda r, c: c % 32 == 31, "all of every 32nd column, from 31 on"),
        ((3, 256), lambda r, c: c % 64 >= 32, "all of the upper half of each tile of 64 columns"),
        ((33, 4), lambda r, c: np.isin(r, (0, 3, 8, 17, 18, 26, 27)), ""),  # no tile of 8 has all of its lower half
        ((65, 4), lambda r, c: np.isin(r, (7, 40)), "all of rows 7, 40 of 65"),
        ((4, 9), lambda r, c: (r == 2) & (c % 3 > 0), "all in row 2 of 4"),
        ((4, 9), lambda r, c: r >= 0, ""),
        ((4, 9), lambda r, c: r < 0, ""),
    ],
)  # fmt: skip
def test_the_place_has_words(shape: tuple[int, ...], where: Callable[..., Any], words: str) -> None:
    assert in_words(wrong(shape, where), AXES[-len(shape) :]) == words


def test_scattered_elements_have_no_pattern() -> None:
    found = np.random.default_rng(1).random((64, 65)) < 0.5
    assert in_words(found, ("row", "column")) == ""
