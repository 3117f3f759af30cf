#!/usr/bin/env python3
"""Two parallel files of short sentences from the help pages of LibreOffice, as Debian packages them.

    apt download libreoffice-help-en-us libreoffice-help-de
    for package in libreoffice-help-*.deb; do dpkg-deb -x $package help; done
    scripts/data/libreoffice_pairs.py help en-US de help.en help.de

The paragraphs of a page carry the same ids in every language. A source has 3 to 12 words, its target at most 15
and differs from it; each pair comes once. The texts are under the Mozilla Public License 2.0.
"""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

PARAGRAPH = re.compile(r"<(p|h[1-6])\b[^>]*\bid=\"([a-z]+_id\d+)\"[^>]*>(.*?)</\1>", re.DOTALL)
TAG = re.compile(r"<[^>]+>")
FEWEST, MOST, MOST_OF_TARGET = 3, 12, 15  # words


def paragraphs(page: Path) -> dict[str, str]:
    """The paragraphs of a page by id, without tags, with single spaces."""
    found: dict[str, str] = {}
    for _, name, body in PARAGRAPH.findall(page.read_text(encoding="utf-8")):
        found.setdefault(name, " ".join(html.unescape(TAG.sub("", body)).split()))
    return found


def pairs(root: Path, source: str, target: str) -> list[tuple[str, str]]:
    """The short pairs of all pages that both languages have, in the order of the pages."""
    [texts] = root.glob(f"**/help/{source}/text")
    [others] = root.glob(f"**/help/{target}/text")
    found: dict[tuple[str, str], None] = {}
    for page in sorted(texts.rglob("*.html")):
        other = others / page.relative_to(texts)
        if other.exists():
            theirs = paragraphs(other)
            for name, text in paragraphs(page).items():
                found[text, theirs.get(name, "")] = None
    return [(a, b) for a, b in found if a != b and is_short(a, b)]


def is_short(text: str, other: str) -> bool:
    return FEWEST <= len(text.split()) <= MOST and 1 <= len(other.split()) <= MOST_OF_TARGET


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print((__doc__ or "").strip())
        return
    if len(sys.argv) != 6:
        sys.exit(f"usage: {sys.argv[0]} FOLDER SOURCE TARGET SOURCE_FILE TARGET_FILE")
    folder, source, target, *files = sys.argv[1:]
    made = pairs(Path(folder), source, target)
    for side, file in enumerate(files):
        Path(file).write_text("".join(f"{pair[side]}\n" for pair in made), encoding="utf-8")
    print(f"{len(made):,} pairs")


if __name__ == "__main__":
    main()
