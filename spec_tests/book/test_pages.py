"""Laws of the check of what was built."""

from __future__ import annotations

from pathlib import Path

import pytest

from book import pages

RIGHT = '<a href="other.html#there">x</a><img src="a.svg" alt="a line that rises"><a href="https://example.org">y</a>'
OTHER = '<p id="there">x</p>'


def faults(folder: Path, page: str) -> list[str]:
    (folder / "index.html").write_text(page)
    (folder / "other.html").write_text(OTHER)
    (folder / "a.svg").write_text("<svg/>")
    return list(pages.faults(folder))


def test_a_right_page_has_no_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, RIGHT) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("other.html", "another.html", "no such file"),
        ("#there", "#here", "no place here"),
        ('alt="a line that rises"', "", "no alternative text"),
        ('alt="a line that rises"', 'alt=" "', "no alternative text"),
        ('src="a.svg"', 'src="https://example.org/a.svg"', "fetched from elsewhere"),
        ('src="a.svg"', 'src="b.svg"', "no such file"),
        ("<a href", "<script src='//example.org/x.js'></script><a href", "fetched from elsewhere"),
        ("<a href", "<table><tr><th>size<th> </th></tr></table><a href", "no words at its head"),
        ("<a href", "<p>a `b` c</p><a href", "as it was written: a `b` c"),
        ("<a href", "<p>[a](b)</p><a href", "as it was written"),
        ("<a href", "<p>by {value}<code>x</code></p><a href", "as it was written"),
        ("<a href", "<link rel='stylesheet' href='https://example.org/x.css'><a href", "fetched from elsewhere"),
    ],
)
def test_a_wrong_one_is_told(tmp_path: Path, old: str, new: str, says: str) -> None:
    (fault,) = faults(tmp_path, RIGHT.replace(old, new, 1))
    assert says in fault
    assert fault.startswith("index.html:1: ")


def test_code_may_look_like_markdown(tmp_path: Path) -> None:
    code = "<p><code>a `b` **c</code></p><pre>[a](b)</pre>"
    assert faults(tmp_path, code + RIGHT) == []


def test_a_folder_without_pages_is_a_fault(tmp_path: Path) -> None:
    assert list(pages.faults(tmp_path)) != []
