"""`{drawn} masks`: a figure that is drawn while the book is built, once for a light page and once for a dark one."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import ClassVar

from docutils import nodes

from book import figures
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
        folder = Path(self.config.book_figures)
        for theme in figures.THEMES:
            figures.draw(name, theme, folder / f"{name}-{theme}.svg")
        # two pictures, of which the theme shows one; the other is hidden from everybody
        inside = "".join(
            f'<img class="only-{theme}" src="{way_up(self.page)}figures/{name}-{theme}.svg" alt="{escape(words)}">'
            for theme in figures.THEMES
        )
        caption = [nodes.caption("", "", *self.words(" ".join(self.content)))] if self.content else []
        self.record.add("figure", self.page)
        return [nodes.figure("", nodes.raw("", inside, format="html"), *caption, classes=["book-figure"])]
