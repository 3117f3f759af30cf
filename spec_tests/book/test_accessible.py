"""Laws of the repairs of built pages: what scrolls can be reached, and a flag stays in one line."""

from __future__ import annotations

import pytest

from book.accessible import repaired


@pytest.mark.parametrize(
    ("built", "wanted"),
    [
        ("<pre>x</pre>", '<pre tabindex="0">x</pre>'),
        ('<div class="table-wrapper docutils">', '<div tabindex="0" class="table-wrapper docutils">'),
        ('<span class="pre">--tf32,</span>', '<span class="pre book-joined">--tf32,</span>'),
        ('<span class="pre">a--b</span>', '<span class="pre">a--b</span>'),
        ('<span class="pre">a/long/path.py</span>', '<span class="pre">a/long/path.py</span>'),
    ],
)
def test_a_page_is_repaired(built: str, wanted: str) -> None:
    assert repaired(built) == wanted
