"""Laws of formulas in the text: the mark behind one stays with it, and no word is lost."""

from __future__ import annotations

import pytest

nodes = pytest.importorskip("docutils.nodes", reason="the book's own environment has docutils")
utils = pytest.importorskip("docutils.utils", reason="the book's own environment has docutils")


@pytest.mark.parametrize(
    ("behind", "joined"),
    [("，其中", "x，"), (", and", "x,"), (". The", "x."), ("): so", "x):"), (" and", None), ("-th", None), ("", None)],
)
def test_the_mark_behind_a_formula_stays_with_it(behind: str, joined: str | None) -> None:
    from book.punctuation import keep_together

    document = utils.new_document("page")
    document += nodes.paragraph("", "", nodes.Text("where "), nodes.math("x", "x"), nodes.Text(behind))
    keep_together(None, document)
    assert document.astext() == f"where x{behind}"
    assert [node.astext() for node in document.findall(nodes.inline)] == ([joined] if joined else [])


def test_a_formula_at_the_end_of_a_paragraph_is_left_alone() -> None:
    from book.punctuation import keep_together

    document = utils.new_document("page")
    document += nodes.paragraph("", "", nodes.math("x", "x"), nodes.math("y", "y"), nodes.Text("."))
    keep_together(None, document)
    assert document.astext() == "xy."
    assert [node.astext() for node in document.findall(nodes.inline)] == ["y."]
