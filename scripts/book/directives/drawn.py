"""`{drawn} masks`: a figure that is drawn while the book is built, once for a light page and once for a dark one."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import ClassVar

from docutils import nodes

from book import figures, labels, languages
from book.directives.directive import Directive, PageError, way_up


class Drawn(Directive):
    """The figure of this name; `:alt:` says what it shows to those who do not see it, the content is its caption."""

    has_content = True
    required_arguments = 1
    option_spec: ClassVar = {"alt": lambda given: (given or "").strip()}

    def made(self) -> list[nodes.Node]:
        name, words = self.arguments[0], self.options.get("alt", "")
        if len(re.findall(r"[\u4e00-\u9fff]", words)) < 10 and len(words.split()) < 5:
            raise PageError(f"the figure {name} needs `:alt:`, a sentence that says what it shows")
        ending = f"-{languages.FOLDER}" if self.translated else ""
        for theme in figures.THEMES:
            self._draw(name, theme, Path(self.config.book_figures) / f"{name}-{theme}{ending}.svg")
        # two pictures, of which the theme shows one; the other is hidden from everybody
        folder, alt = f"{way_up(self.page)}figures", escape(words)
        inside = "".join(
            f'<img class="only-{theme}" src="{folder}/{name}-{theme}{ending}.svg" alt="{alt}">'
            for theme in figures.THEMES
        )
        caption = [nodes.caption("", "", *self.words(" ".join(self.content)))] if self.content else []
        self.record.add("figure", self.page)
        drawing = f'<div class="book-drawing" tabindex="0">{inside}</div>'  # scrolls where the page is narrow
        return [nodes.figure("", nodes.raw("", drawing, format="html"), *caption, classes=["book-figure"])]

    def _draw(self, name: str, theme: str, path: Path) -> None:
        figures.draw(name, theme, path)
        if self.translated:
            words = labels.of(name, Path(self.env.srcdir))
            path.write_text(labels.translated(path.read_text(encoding="utf-8"), words), encoding="utf-8")
