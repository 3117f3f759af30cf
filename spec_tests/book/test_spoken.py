"""Laws of Chinese words on an English page: each run is marked as Chinese, and no sign is lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

nodes = pytest.importorskip("docutils.nodes", reason="the book's own environment has docutils")
utils = pytest.importorskip("docutils.utils", reason="the book's own environment has docutils")
pytest.importorskip("sphinx", reason="the book's own environment has Sphinx")


def marked(text: str, language: str | None) -> list[str]:
    """What is marked as Chinese in a paragraph with this text."""
    from book.directives.directive import Spoken
    from book.spoken import mark

    document = utils.new_document("page")
    document += nodes.paragraph("", "", nodes.Text(text))
    metadata = {"page": {"lang": language} if language else {}}
    mark(SimpleNamespace(env=SimpleNamespace(docname="page", metadata=metadata)), document)
    assert document.astext() == text
    return [node.astext() for node in document.findall(Spoken)]


@pytest.mark.parametrize(
    ("text", "chinese"),
    [
        ("no Chinese", []),
        ("词元", ["词元"]),
        ("a 词元, and 头。", ["词元", "头。"]),
        ("softmax，归一化", ["，归一化"]),
    ],
)
def test_every_run_of_chinese_is_marked_on_an_english_page(text: str, chinese: list[str]) -> None:
    assert marked(text, None) == chinese


def test_nothing_is_marked_on_a_chinese_page() -> None:
    assert marked("词元 and 头", "zh") == []
