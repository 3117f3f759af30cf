"""Laws of tables with many words: what a narrow page must not make narrow is marked, and nothing else."""

from __future__ import annotations

import pytest

nodes = pytest.importorskip("docutils.nodes", reason="the book's own environment has docutils")
utils = pytest.importorskip("docutils.utils", reason="the book's own environment has docutils")


@pytest.mark.parametrize(
    ("cells", "marked"),
    [
        (["a", "b", "words " * 9], [2]),
        (["words " * 9, "b", "c"], [0]),
        (["a", "b", "c"], []),
        (["a", "words " * 9], []),
    ],
)
def test_a_cell_of_many_words_is_marked_where_others_press_it(cells: list[str], marked: list[int]) -> None:
    from book.directives.directive import table
    from book.long_cells import mark

    document = utils.new_document("page")
    document += table(["head"] * len(cells), [cells], [1] * len(cells))
    mark(None, document, "page")
    found = [*document.findall(nodes.entry)][len(cells) :]
    assert [n for n, cell in enumerate(found) if "book-long" in cell["classes"]] == marked


def test_names_in_backquotes_are_code_in_a_cell() -> None:
    from book.directives.directive import table

    made = table(["a", "b"], [["as `x --y` says", "z"]], [1, 1])
    assert [node.astext() for node in made.findall(nodes.literal)] == ["x --y"]
    assert "`" not in made.astext()
