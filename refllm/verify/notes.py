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
    if said.get("format") != 2 or not _is_texts(said.get("effects")) or not isinstance(said.get("notes"), list):
        raise MalformedError(f"{FILE}: must have format 2, effects, notes and cases; get the golden files again")
    told = [_note(entry, said["effects"]) for entry in said["notes"]]
    cases = said.get("cases")
    if not isinstance(cases, dict):
        raise MalformedError(f"{FILE}: cases must be an object; get the golden files again")
    return Notes(dict(told), {case: [told[n][0] for n in _numbers(case, x, len(told))] for case, x in cases.items()})


def _note(entry: Any, effects: list[str]) -> tuple[str, dict[str, Any]]:
    """The id of a note, and what it says, its effect in words."""
    name, effect, links = (entry.get(part) if isinstance(entry, dict) else None for part in ("id", "effect", "links"))
    if not isinstance(name, str) or not _is_texts(links) or type(effect) is not int or not 0 <= effect < len(effects):
        raise MalformedError(f"{FILE}: a note needs an id, links and the number of an effect; get the files again")
    return name, {**entry, "effect": effects[effect]}


def _numbers(case: str, found: Any, count: int) -> list[int]:
    if not isinstance(found, list) or not all(type(n) is int and 0 <= n < count for n in found):
        raise MalformedError(f"{FILE}: {case!r:.60} lists notes that are not there; get the golden files again")
    return found


def _is_texts(x: Any) -> bool:
    return isinstance(x, list) and all(isinstance(text, str) for text in x)
