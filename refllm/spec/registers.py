"""The registers: what an ID, a citation and an erratum of this specification stand for.

`sources.toml` lists the IDs, the papers and the documents; `errata.toml` the mistakes of the documents. They are data:
nothing here computes.

>>> sources().entries["ATT"].name
'scaled dot-product attention'
>>> sources().documents["002"].sections["sec. 3.2"].english
'Autoregressive text generation'
>>> errata()["E6"].shown_by
('case GEN/e6-first-step',)
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Section:
    """The heading of a section, and what it says in English."""

    title: str
    english: str


@dataclass(frozen=True)
class Document:
    """A tutorial, cited as `documents NUMBER`, with its sections as they are cited: `sec. 3.1`, `ch. 3 sec. 1.2`."""

    number: str
    title: str
    english: str
    sections: Mapping[str, Section]
    note: str = ""


@dataclass(frozen=True)
class Paper:
    """A work, cited by `authors` and `year`; one work has one arXiv number, ACL number or DOI of each kind, or none."""

    authors: str
    year: int
    title: str
    venue: str
    arxiv: str = ""
    acl: str = ""
    doi: str = ""


@dataclass(frozen=True)
class Entry:
    """What an ID stands for: the form in a line, where the documents have it, the primary sources, and for a system the
    modules and functions that are it."""

    id: str
    part: str
    name: str
    form: str
    documents: str = ""
    primary: tuple[str, ...] = ()
    code: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A number that the documents print and that running code has to meet."""

    what: str
    documents: str
    printed: str
    bar: str


@dataclass(frozen=True)
class Erratum:
    """A mistake of the documents: where, what is printed there, what holds, why, and the golden cases (`case ID`) and
    tests (`test FILE::NAME`) that show it."""

    id: str
    documents: str
    printed: str
    holds: str
    why: str
    shown_by: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """All of `sources.toml`."""

    levels: Mapping[str, str]
    papers: tuple[Paper, ...]
    entries: Mapping[str, Entry]
    figures: tuple[Figure, ...]
    documents: Mapping[str, Document]


@cache
def sources() -> Sources:
    """The register of IDs, papers and documents."""
    read = _read("sources.toml")
    return Sources(
        levels=read["levels"],
        papers=tuple(Paper(**paper) for paper in read["papers"]),
        entries={name: Entry(id=name, **_tuples(entry)) for name, entry in read["entries"].items()},
        figures=tuple(Figure(**figure) for figure in read["figures"]),
        documents={number: _document(number, document) for number, document in read["documents"].items()},
    )


@cache
def errata() -> Mapping[str, Erratum]:
    """The register of the documents' mistakes, by number: E1, E2, ..."""
    return {name: Erratum(id=name, **_tuples(erratum)) for name, erratum in _read("errata.toml").items()}


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _document(number: str, table: Mapping[str, Any]) -> Document:
    sections = {place: Section(title, english) for place, title, english in table["sections"]}
    assert len(sections) == len(table["sections"]), f"documents {number}: a section is listed twice"
    return Document(**{**table, "number": number, "sections": sections})
