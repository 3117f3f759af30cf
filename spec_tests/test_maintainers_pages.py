"""The pages for maintainers and implementers have what they promise: a section a level, a record a decision."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEVELS = (ROOT / "docs/levels.md").read_text(encoding="utf-8")
RECORDS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
INDEX = (ROOT / "docs/decisions/index.md").read_text(encoding="utf-8")


def test_every_level_of_the_golden_files_has_its_format_and_its_condition() -> None:
    manifest = json.loads((ROOT / "golden/MANIFEST.json").read_text(encoding="utf-8"))
    sections = dict(re.findall(r"^## L(\d+): .*?$(.*?)(?=^## )", LEVELS, re.MULTILINE | re.DOTALL))
    assert {str(entry["level"]) for entry in manifest["files"]} == set(sections)
    for level, text in sections.items():
        for part in ("**Asks:**", "**Format.**", "**Passes when**", "**Does not show**"):
            assert part in text, f"L{level} has no {part}"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_has_its_date_decision_reason_and_price(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    title = re.match(r"# (\d+)\. (.+)\n", text)
    assert title is not None
    assert int(title[1]) == int(path.name.partition("-")[0])
    date = re.search(r"^\*(\d{4}-\d\d-\d\d.*)\*$", text, re.MULTILINE)
    assert date is not None
    assert f"| [{title[2]}]({path.name}) | {date[1]} |" in INDEX
    assert all(f"**{part}.**" in text for part in ("Decision", "Why", "Price"))
    assert len(text.splitlines()) <= 30


def test_the_records_are_numbered_and_all_are_listed() -> None:
    assert [int(path.name.partition("-")[0]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))
    assert len(re.findall(r"^\| \[", INDEX, re.MULTILINE)) == len(RECORDS)
    assert re.findall(r"^\d\d-\S+$", INDEX, re.MULTILINE) == [path.stem for path in RECORDS]
