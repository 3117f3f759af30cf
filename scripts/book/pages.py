"""What was built: every link leads somewhere, every picture and every column has words, no Markdown is left over, and
nothing is fetched from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
_LOADED = {"stylesheet", "preload", "icon", "shortcut icon", "prefetch", "preconnect", "modulepreload"}
_CODE = {"pre", "code", "script", "style", "math", "title"}  # what stands in these may look like Markdown
_MARKDOWN = re.compile(r"`|\]\(|\*\*|\{value\}")


@dataclass
class Page:
    """What a page has: anchors, links with their line, pictures and columns without words, Markdown that is shown as it
    was written, and what it fetches from elsewhere."""

    anchors: set[str] = field(default_factory=set)
    links: list[tuple[int, str]] = field(default_factory=list)
    wordless: list[tuple[int, str]] = field(default_factory=list)
    foreign: list[tuple[int, str]] = field(default_factory=list)
    unnamed: list[int] = field(default_factory=list)  # lines of heads of columns without words
    markdown: list[tuple[int, str]] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self.head: tuple[int, str] | None = None  # the line of a column's head that is being read, and its words
        self.code = 0  # how many elements of code are open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attributes}
        line = self.getpos()[0]
        self.code += tag in _CODE
        if tag == "th":
            self.head = (line, "")
        self.page.anchors |= {has[name] for name in ("id", "name") if name in has}
        if tag == "a" and has.get("href"):
            self.page.links.append((line, has["href"]))
        if tag == "img" and not has.get("alt", "").strip() and has.get("role") != "presentation":
            self.page.wordless.append((line, has.get("src", "")))
        fetched = has.get(_FETCHED.get(tag, ""), "")
        if tag == "link" and has.get("rel", "").lower() in _LOADED:
            fetched = has.get("href", "")
        if fetched and not fetched.startswith("data:"):
            if urlsplit(fetched).scheme or fetched.startswith("//"):
                self.page.foreign.append((line, fetched))
            else:
                self.page.links.append((line, fetched))

    def handle_data(self, data: str) -> None:
        if not self.code and _MARKDOWN.search(data):
            self.page.markdown.append((self.getpos()[0], " ".join(data.split())[:80]))
        if self.head is not None:
            self.head = (self.head[0], self.head[1] + data.strip())

    def handle_endtag(self, tag: str) -> None:
        self.code -= tag in _CODE
        if tag == "th" and self.head is not None:
            if not self.head[1]:
                self.page.unnamed.append(self.head[0])
            self.head = None


def read(html: str) -> Page:
    reader = _Reader()
    reader.feed(html)
    return reader.page


def faults(folder: Path) -> Iterator[str]:
    """All that is wrong with the pages of a folder."""
    folder = folder.resolve()
    pages = {path: read(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        yield f"{folder} has no page"
    for path, page in pages.items():
        name = path.relative_to(folder).as_posix()
        for line, picture in page.wordless:
            yield f"{name}:{line}: the picture {picture} has no alternative text"
        for line in page.unnamed:
            yield f"{name}:{line}: a column of this table has no words at its head"
        for line, words in page.markdown:
            yield f"{name}:{line}: Markdown is shown as it was written: {words}"
        for line, address in page.foreign:
            yield f"{name}:{line}: {address} is fetched from elsewhere"
        for line, link in page.links:
            if says := _broken(link, path, pages):
                yield f"{name}:{line}: {link}: {says}"


def _broken(link: str, path: Path, pages: dict[Path, Page]) -> str:
    parts = urlsplit(link)
    if parts.scheme or link.startswith("//"):
        return ""
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
    if not target.exists():
        return "there is no such file"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return f"the page has no place {anchor}"
    return ""
