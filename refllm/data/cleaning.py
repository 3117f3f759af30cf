"""Removing from a text what is not text. (DATA)"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from html.parser import HTMLParser

UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ufffd\ufffe\uffff]")
LINE_ENDS = re.compile("\r\n|[\r\x85\u2028\u2029]")
SPACES = re.compile(r"[^\S\n]+")
BLANK_LINES = re.compile(r"\n{3,}")

NO_TEXT = {"script", "style", "head", "template", "noscript"}
BLOCKS = {
    "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption", "figure", "footer",
    "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section",
    "table", "td", "th", "tr", "ul",
}  # fmt: skip


def clean(text: str, *, html: bool) -> str:
    """The text in one spelling: composed characters (NFC), \\n for every line end, no two spaces or blank lines running

    Dropped are control characters, soft hyphens and other signs that are not seen, and U+FFFD, which stands for what
    could not be decoded. White space at the ends of lines and of the text goes, and so does indentation: this is for
    prose and not for program text. With `html` tags go first (see `without_tags`). A clean text stays as it is.
    Source:  documents 001 ch. 3 sec. 2.2 and Q8, 004 sec. 3.1: noise and what is invalid is taken out.
    """
    if html:
        text = without_tags(text)
    text = UNSEEN.sub("", LINE_ENDS.sub("\n", text))
    text = unicodedata.normalize("NFC", text)
    text = "\n".join(line.strip() for line in SPACES.sub(" ", text).split("\n"))
    return BLANK_LINES.sub("\n\n", text).strip("\n")


def without_tags(page: str) -> str:
    """The text of a page of HTML: entities become their characters, blocks such as <p> and <li> lines of their own, and
    what is never shown (scripts, styles, comments, the head) goes. Broken pages are read as browsers do, as far as the
    parser of the standard library goes."""
    reader = _Page()
    reader.feed(page)
    reader.close()
    return "".join(reader.pieces)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in NO_TEXT:
            self.hidden.append(tag)
        elif tag in BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.hidden:
            del self.hidden[self.hidden.index(tag) :]
        elif tag in BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(data)


def without_repeats(texts: Iterable[str]) -> list[str]:
    """The texts without those that came before, compared by their words: case and white space do not count.

    Source:  documents 001 Q8 (duplicates are taken out).
    """
    seen: dict[str, str] = {}
    for text in texts:
        seen.setdefault(" ".join(text.casefold().split()), text)
    return list(seen.values())
