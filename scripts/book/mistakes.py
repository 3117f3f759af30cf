"""The bank of mistakes, as far as the book tells of it. Only `bank` knows how the bank is written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from book import text


@dataclass(frozen=True)
class Mistake:
    """A mistake that people make: its words, the lines of the text that it changes, as a diff, and a public report."""

    id: str
    spec: str
    about: str
    issue: str | None
    operations: tuple[str, ...]
    diff: tuple[tuple[str, tuple[str, ...]], ...]  # where, and the lines that go and come


@cache
def bank() -> tuple[Mistake, ...]:
    from refllm.verify.mutants import MUTANTS

    found = []
    for mutant in MUTANTS:
        diff = tuple((place, tuple(lines)) for place, lines in mutant.diff)
        names = tuple(original.__name__ for original in mutant.originals)
        found.append(Mistake(mutant.id, mutant.spec, mutant.about, mutant.issue, names, diff))
    return tuple(found)


def of(name: str) -> list[Mistake]:
    """Those of an ID, or of an operation."""
    return [mistake for mistake in bank() if name == mistake.spec or name in mistake.operations]


def of_id(name: str) -> list[Mistake]:
    """Those of an ID; of a system that has none under its own name, those of its operations."""
    return of(name) or [mistake for function in text.operations_of(name) for mistake in of(function.name)]
