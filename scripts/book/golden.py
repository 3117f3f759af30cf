"""The golden cases, as far as the book tells of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from book import text

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """A golden case without its numbers; `shapes` of its inputs that are tensors."""

    id: str
    spec: str
    operation: str
    about: str
    level: int
    file: str
    erratum: str | None
    conventions: tuple[tuple[str, str], ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]


@cache
def cases() -> tuple[Case, ...]:
    found = []
    for path in sorted((ROOT / "golden").glob("L*/*.json")):
        for case in json.loads(path.read_text(encoding="utf-8")).get("cases", []):
            found.append(_case(case, path.relative_to(ROOT / "golden").as_posix()))
    return tuple(found)


def _case(case: dict[str, Any], file: str) -> Case:
    inputs = case.get("inputs", {})
    shapes = tuple((name, tuple(value["shape"])) for name, value in inputs.items() if "shape" in value)
    return Case(
        case["id"], case["spec"], case.get("operation", ""), case["about"], case["level"], file,
        case.get("erratum"), tuple(sorted(case.get("conventions", {}).items())), shapes,
    )  # fmt: skip


def of(name: str) -> list[Case]:
    """Those of an ID, or of an operation."""
    return [case for case in cases() if name in (case.spec, case.operation)]


def of_id(name: str) -> list[Case]:
    """Those of an ID; of a system that has none under its own name, those of its operations."""
    return of(name) or [case for function in text.operations_of(name) for case in of(function.name)]
