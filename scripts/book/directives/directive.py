"""What the directives share: the record of the build, links within the book, tables, and how a fault is told."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from book import languages, text
from book.coverage import Place, Record
from book.examples import Session

LOG = logging.getLogger(__name__)
Cell = Any  # a text, a node, or several nodes


class PageError(ValueError):
    """A fault of a page: the build tells it with its place."""


class Details(nodes.General, nodes.Element):
    """What a reader opens; `summary` says what is in it."""


def visit_details(self: Any, node: Details) -> None:
    self.body.append(f"<details><summary>{self.encode(node['summary'])}</summary>\n")


def depart_details(self: Any, node: Details) -> None:
    self.body.append("</details>\n")


class Spoken(nodes.Inline, nodes.TextElement):
    """Words in another language, `lang`."""


class Foreign(nodes.General, nodes.Element):
    """Paragraphs in another language, `lang`."""


def visit_foreign(self: Any, node: Foreign) -> None:
    self.body.append(f'<div lang="{node["lang"]}">')


def depart_foreign(self: Any, node: Foreign) -> None:
    self.body.append("</div>\n")


def visit_spoken(self: Any, node: Spoken) -> None:
    self.body.append(f'<span lang="{node["lang"]}">')


def depart_spoken(self: Any, node: Spoken) -> None:
    self.body.append("</span>")


@cache
def chinese_words() -> dict[str, str]:
    """What the directives say, and the names of IDs, in Chinese."""
    file = Path(__file__).resolve().parents[3] / "docs" / languages.FOLDER / "words.toml"
    found: dict[str, str] = tomllib.loads(file.read_text(encoding="utf-8"))
    return found


def chinese(words: str) -> Spoken:
    return Spoken(words, words, lang="zh")


def record(env: Any) -> Record:
    if not hasattr(env, "book_record"):
        env.book_record = Record()
    return env.book_record


def session(env: Any) -> Session:
    """That of the page which is being read."""
    sessions = env.temp_data
    if "book_session" not in sessions:
        sessions["book_session"] = Session()
    return sessions["book_session"]


def way_up(page: str) -> str:
    return "../" * page.count("/")


def link(words: str | nodes.Node, address: str) -> nodes.reference:
    shown = nodes.Text(words) if isinstance(words, str) else words
    return nodes.reference("", "", shown, refuri=address, internal=not address.startswith("http"))


def coded(words: str) -> list[nodes.Node]:
    """Words in which `names` in backquotes are code."""
    parts = re.split(r"`([^`]+)`", words)
    return [nodes.literal("", part) if i % 2 else nodes.Text(part) for i, part in enumerate(parts) if part]


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], widths: Sequence[int]) -> nodes.table:
    """A table; a text in a cell is a paragraph, in which `names` in backquotes are code."""
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=width) for width in widths]
    group += nodes.thead("", _row(head))
    group += nodes.tbody("", *[_row(row) for row in rows])
    return nodes.table("", group, classes=["book-table"])


def _row(cells: Sequence[Cell]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", *_inside(cell)) for cell in cells])


def _inside(cell: Cell) -> list[nodes.Node]:
    if isinstance(cell, str):
        return [nodes.paragraph("", "", *coded(cell))] if cell else []
    inside = [cell] if isinstance(cell, nodes.Node) else list(cell)
    if all(isinstance(each, nodes.Inline | nodes.Text | nodes.math) for each in inside):
        return [nodes.paragraph("", "", *inside)]
    return inside


class Directive(SphinxDirective):
    """A directive of the book: `made` gives its nodes, or raises `PageError`."""

    has_content = False
    required_arguments = 0
    optional_arguments = 100

    def run(self) -> list[nodes.Node]:
        try:
            return self.made()
        except (PageError, LookupError, ValueError, SyntaxError) as fault:
            self.tell(str(fault))
            return []

    def made(self) -> list[nodes.Node]:
        raise NotImplementedError

    def tell(self, fault: str) -> None:
        LOG.warning("%s", fault, location=self.get_location(), type="book", subtype=self.name)

    @property
    def page(self) -> str:
        return self.env.docname

    @property
    def record(self) -> Record:
        return record(self.env)

    @property
    def translated(self) -> bool:
        """Whether the page is one in Chinese: the places of the register are those of the English pages."""
        return self.page.startswith(f"{languages.FOLDER}/")

    def said(self, words: str) -> str:
        """Words of a directive in the language of the page."""
        return chinese_words()[words] if self.translated else words

    def place(self, anchor: str, title: str) -> Place:
        return Place(self.page, anchor, title)

    def text_link(self, function: text.Function) -> nodes.reference:
        """To the lines of a function of the text."""
        where = f"refllm/spec/{function.module}.py"
        words = f"{where}, {self.said('lines {}–{}').format(function.first, function.last)}"
        return link(words, f"{way_up(self.page)}text/{function.module}.html#line-{function.first}")

    def markdown(self, words: str) -> list[nodes.Node]:
        box = nodes.Element()
        self.state.nested_parse(StringList(words.splitlines(), source=self.page), 0, box)
        return list(box.children)

    def words(self, words: str) -> list[nodes.Node]:
        """A line with Markdown in it."""
        paragraphs = self.markdown(words)
        if len(paragraphs) != 1 or not isinstance(paragraphs[0], nodes.paragraph):
            raise PageError(f"one line of words is wanted, not {words!r}")
        return list(paragraphs[0].children)

    def functions(self, name: str) -> list[text.Function]:
        """Of an operation, or of an ID."""
        if name.isupper() or "-" in name:
            return text.operations_of(name)
        return [text.find(name)]
