"""What the theme leaves undone for people who read without a mouse, without eyes, or on a phone: put right in the built
pages."""

from __future__ import annotations

import re
from pathlib import Path

REPAIRS = (
    (r'<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    (r'<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="All pages">'),
    (r'<aside class="toc-drawer( no-toc)?">', r'<aside class="toc-drawer\1" aria-label="On this page">'),
    (r"<pre>", '<pre tabindex="0">'),  # a long line scrolls: for the keyboard too
    (r'<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
    (r'<span class="pre">(--[a-z][\w-]*,?)</span>', r'<span class="pre book-joined">\1</span>'),  # no line ends in "--"
    (r'(<div id="search-results">)', r"<h1>Search</h1>\n\1"),
)


def repaired(html: str) -> str:
    for old, new in REPAIRS:
        html = re.sub(old, new, html)
    return html


def repair(folder: Path) -> None:
    for path in folder.rglob("*.html"):
        path.write_text(repaired(path.read_text(encoding="utf-8")), encoding="utf-8")
