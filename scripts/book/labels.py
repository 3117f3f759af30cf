"""The words in a drawn figure, in Chinese: docs/zh/figures.toml has them by the name of the figure."""

from __future__ import annotations

import re
import tomllib
from html import escape, unescape
from pathlib import Path

from book import languages

_TEXT = re.compile(r"(<text\b[^>]*>)([^<]+)(?=</text>)")
_WORD = re.compile(r"[A-Za-z]{3,}")


def of(name: str, docs: Path) -> dict[str, str]:
    """The words of a figure, in Chinese."""
    known = tomllib.loads((docs / languages.FOLDER / "figures.toml").read_text(encoding="utf-8"))
    found: dict[str, str] = known.get(name, {})
    return found


def translated(svg: str, words: dict[str, str]) -> str:
    """The picture with its words in Chinese. LookupError if one has no translation, or a translation has no place."""
    shown = {unescape(found[2]) for found in _TEXT.finditer(svg)}
    if unknown := sorted(word for word in shown if _WORD.search(word) and word not in words):
        raise LookupError(f"docs/zh/figures.toml has no words for {', '.join(unknown)}")
    if unused := sorted(words.keys() - shown):
        raise LookupError(f"docs/zh/figures.toml: the figure does not say {', '.join(unused)}")
    return _TEXT.sub(lambda found: found[1] + escape(words.get(unescape(found[2]), unescape(found[2]))), svg)
