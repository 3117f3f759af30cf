"""Laws of the pages of results: what is shown cannot become markup, and a report replaces nothing but a report."""

from __future__ import annotations

import errno
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.page import code, escaped, page, replace_page, table

VOID = {"meta", "br"}


class Read(HTMLParser):
    """What a page consists of: its elements in their order, its text, and the places that it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.places: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        found = dict(attrs)
        self.places += [value for name in ("href", "src", "action") if (value := found.get(name)) is not None]
        self.ids += [found["id"] or ""] if "id" in found else []
        assert not any(name.startswith("on") for name in found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.said.append(data)


def require_standalone(text: str) -> Read:
    """The page is well-formed, asks for nothing from elsewhere, runs no script, and its inner links lead somewhere."""
    read = Read(text)
    assert read.open == []
    assert not {"script", "link", "iframe", "img", "object", "form"} & set(read.elements)
    assert "@import" not in text
    assert "url(" not in text
    assert all(place[1:] in read.ids for place in read.places if place.startswith("#"))
    assert len(read.ids) == len(set(read.ids))
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    return read


TEXTS = st.text() | st.sampled_from(
    ["</pre><script>", "\" onload='x'", "&lt;", "]]>", "<!--", "模型写的句子", "\ud800", "\0"]
)


@given(TEXTS, TEXTS, TEXTS)
def test_no_text_becomes_markup(title: str, cell: str, sample: str) -> None:
    plain = require_standalone(page("t", [table(["head"], [["c"]], about="a"), code("s", about="b")]))
    read = require_standalone(
        page(title, [table([cell], [[escaped(cell)]], about=title), code(sample, about=sample)], style="")
    )
    assert read.elements == plain.elements


@given(st.text(st.characters(exclude_categories=("Cc", "Cs"))))
def test_text_is_shown_as_it_is(text: str) -> None:
    assert "".join(Read(code(text, about="x")).said) == "\n" + text


def test_a_page_replaces_a_page_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    replace_page(place, page("1", []))
    replace_page(place, page("2", []))
    assert "<title>2" in place.read_text(encoding="utf-8")
    place.write_text("mine")
    with pytest.raises(UserError, match="is there already and is no report"):
        replace_page(place, page("3", []))
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="is there already and is no report"):
        replace_page(tmp_path / "folder", page("3", []))
    assert place.read_text() == "mine"


def test_a_full_disk_leaves_the_page_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "page.html"
    replace_page(place, page("1", []))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        replace_page(place, page("2", []))
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert "<title>1" in place.read_text(encoding="utf-8")
