"""The notes of the golden files: which known mistakes a case catches, and who has made them in public.

known = read(folder)
known.links("ATT/square", passed={"ATT/one-key"})      public reports of what this case catches and those do not
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from refllm.verify.tensors import MalformedError, parse_json, read_file

FILE = "notes.json"
_LARGEST = 1 << 24  # bytes


@dataclass(frozen=True)
class Notes:
    """Notes by id, and the ids of the notes of each case."""

    notes: dict[str, Any]
    cases: dict[str, list[str]]

    def links(self, case: str, passed: Collection[str], value_right: bool) -> list[str]:
        """Reports of the mistakes that this case catches, without those that a case which passed would have caught, and
        those of the gradient alone where the value is wrong or of the value where it is right."""
        found = [
            name
            for name in self.cases.get(case, [])
            if self.notes[name]["links"] and (self.notes[name]["kind"] == "gradient") == value_right
        ]
        if found:
            contradicted = {name for other in passed for name in self.cases.get(other, [])}
            found = [name for name in found if name not in contradicted]
        return list(dict.fromkeys(link for name in found for link in self.notes[name]["links"]))


def read(folder: Path) -> Notes:
    """Those of a golden folder; none where it has no notes. MalformedError where they cannot be read."""
    path = folder / FILE
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else Notes({}, {})


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> Notes:
    """Read once, until the file has `changed`: a report asks for each of its failures."""
    said = parse_json(read_file(path, _LARGEST), FILE)
    notes, cases = said.get("notes"), said.get("cases")
    if said.get("format") != 1 or not isinstance(notes, dict) or not isinstance(cases, dict):
        raise MalformedError(f"{FILE}: must have format 1, notes and cases; get the golden files again")
    for name, note in notes.items():
        links = note.get("links") if isinstance(note, dict) else None
        if not isinstance(links, list) or not all(isinstance(link, str) for link in links):
            raise MalformedError(f"{FILE}: {name!r:.60} has no list of links; get the golden files again")
    for case, names in cases.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and name in notes for name in names):
            raise MalformedError(f"{FILE}: {case!r:.60} lists notes that are not there; get the golden files again")
    return Notes(notes, cases)
