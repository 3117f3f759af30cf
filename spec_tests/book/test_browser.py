"""Laws of the built pages in a browser: no rule of axe is broken, nothing is wider than a phone, no formula is cut off,
a page loads from disk within a second.

    apt-get install chromium
    npm install --prefix build/browser axe-core@4.14.1 puppeteer-core@24.43.1
    ./scripts/docs
    ./scripts/test spec_tests/book/test_browser.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/book/browser/check.js"
PLACE = ROOT / "build/browser"
SITE = ROOT / "build/docs"


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def missing() -> str:
    """What is missing to look at a page, "" if nothing is."""
    if chromium() is None:
        return "there is no chromium"
    if shutil.which("node") is None:
        return "there is no node"
    if not (PLACE / "node_modules/axe-core").is_dir():
        return "axe is not installed: see the head of spec_tests/book/test_browser.py"
    return ""


def lacking() -> str:
    """What is missing for these tests, "" if nothing is."""
    if missing():
        return missing()
    return "" if (SITE / "index.html").is_file() else "the book is not built: ./scripts/docs"


def told(*pages: Path) -> list[dict[str, str]]:
    """The faults of pages; the script has looked at all of them."""
    done = subprocess.run(
        ["node", str(SCRIPT), str(chromium()), *map(str, pages)],
        capture_output=True, text=True, timeout=1800, check=True,
        env={**os.environ, "NODE_PATH": str(PLACE / "node_modules")},
    )  # fmt: skip
    *faults, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last == {"looked": len(pages)}
    return faults


pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(lacking()), reason=lacking())]


def test_every_page_of_the_book_is_accessible() -> None:
    """The pages of the text's files are of one form: two stand for them."""
    pages = sorted(path for path in SITE.rglob("*.html") if path.parent != SITE / "text")
    assert len(pages) > 30
    assert told(*pages, SITE / "text/attention.html", SITE / "text/array.html") == []


def test_a_page_that_is_not_is_told(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    formula = f"<div style='width: 9em; overflow: hidden'><math><mi>{'long' * 20}</mi></math></div>"
    formula = f"<div style='width: 9em; overflow-x: auto'>{formula}</div>"
    page.write_text(f"<title>x</title><h1>x</h1><img src='x.png'><div style='width: 2000px'>wide</div>{formula}")
    wanted = {"image-alt", "html-has-lang", "wider than the window", "cut off"}
    assert wanted <= {fault["fault"] for fault in told(page)}
