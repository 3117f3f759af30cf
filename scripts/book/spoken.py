"""Chinese words on an English page say that they are Chinese: for those who are read to, and for the font."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

from book.directives.directive import Spoken, chinese

WORDS = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]+")


def mark(app: Any, doctree: nodes.document) -> None:
    """Wraps every run of Chinese in the text of a page that is not Chinese itself."""
    if app.env.metadata.get(app.env.docname, {}).get("lang") == "zh":
        return
    for text in list(doctree.findall(nodes.Text)):
        around: Any = text.parent
        if WORDS.search(text) and not isinstance(around, Spoken | nodes.literal_block | nodes.title | nodes.math):
            place = around.index(text)
            around[place : place + 1] = parts(text.astext())


def parts(text: str) -> list[nodes.Node]:
    """The text in pieces, those in Chinese marked."""
    made: list[nodes.Node] = []
    end = 0
    for found in WORDS.finditer(text):
        made += [nodes.Text(text[end : found.start()])] if found.start() > end else []
        made.append(chinese(found[0]))
        end = found.end()
    return [*made, nodes.Text(text[end:])] if end < len(text) else made
