"""Finds what a text cites: documents with their sections, papers with their identifiers, and errata; and says of each
whether the registers know it.

A citation of documents is `documents 002 sec. 3.1, 4.2; 003 sec. 4.3 (code)`: numbers of documents, each with its
chapter, sections and questions. One of a paper is `Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.1`; alone, the first
author's name and the year will do (`Vaswani 2017`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from refllm.spec.registers import Paper, Sources, errata

_NAME = r"(?:(?:van den |van |de |Gemma )?[A-Z][\w\-’']+)"
_AUTHORS = rf"{_NAME}(?:,\s+{_NAME})*(?:\s+&\s+{_NAME})?(?:\s+et\s+al\.)?"
PAPER = re.compile(
    rf"(?<![\w\-])({_AUTHORS})\s+((?:19|20)\d\d)(?:(?:\s+and|,)\s+((?:19|20)\d\d)(?=[;.,)|\s]*(?:[;.)|]|and\b|$)))?(?![\w\-.]*\d)"
)
IDENTIFIER = re.compile(
    r"(?:arXiv:|arxiv\.org/abs/)(?P<arxiv>\d{4}\.\d{4,5})|\b(?P<acl>[A-Z]\d\d-\d{4})\b|\bdoi:(?P<doi>10\.[^\s,;)]+)"
)
BETWEEN = re.compile(r"[\s(,]*(?:(?:arXiv:[\d.]+|[A-Z]\d\d-\d{4}|doi:[^\s,;)]+|(?:sec|eq)\. [\d.]+)[\s,]*)*")
ERRATA = re.compile(r"\b[Ee]rrat(?:um|a)\"?:?\s+\"?(E\d+(?:(?:,\s*|\s+and\s+)E\d+)*)|\(E\d+\)")
DOCUMENTS = re.compile(r"\b[Dd]ocuments?\s+(?=\d{3}\b)|(?<!\d )(?<![\w.,])(?=00\d\s+(?:sec|ch)\.\s*\d)")
_TOKEN = re.compile(
    r"\s*(?:(?P<document>00\d|\d{3})\b|ch\.\s*(?P<chapter>\d+)|sec\.\s*(?P<section>\d+(?:\.\d+)*)|Q(?P<question>\d+)"
    r"|(?P<bare>\d+(?:\.\d+)*)\b(?!\s*\d)|(?P<skip>step \d+|\([^()]*\))|(?P<stop>[,;]|and\b))"
)
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


@dataclass(frozen=True)
class Fault:
    """What a citation has that no register has; `where` is a place in the text."""

    where: int
    says: str


def unwrapped(text: str) -> str:
    """The text with line breaks, indentation, comment signs and the quotes of a string that goes on in the next line
    as spaces, so that every character keeps its place."""
    return re.sub(r'"?\s*\n[ \t]*(?:#+:?[ \t]*|[frb]?"(?!""))?', lambda found: " " * len(found[0]), text)


def faults(text: str, sources: Sources) -> Iterator[Fault]:
    """All that is wrong with the citations of a text."""
    text = unwrapped(text)
    yield from document_faults(text, sources)
    yield from paper_faults(text, sources)
    yield from identifier_faults(text, sources)
    for where, number in _errata(text):
        if number not in errata():
            yield Fault(where, f"erratum {number} is not in errata.toml")


def document_faults(text: str, sources: Sources) -> Iterator[Fault]:
    """Documents and sections that there are not, and sections that may be several."""
    for where, places in documents_cited(text):
        for place in places:
            if says := _unresolved(place, sources):
                yield Fault(where, f"documents {place.document}: {says}")


@dataclass(frozen=True)
class Place:
    """A place in a document, "" for what the citation leaves out."""

    document: str
    chapter: str = ""
    section: str = ""
    question: str = ""
    stray: str = ""  # a number that is none of these

    def __str__(self) -> str:
        """As sources.toml has it."""
        parts = ("ch. ", self.chapter), ("sec. ", self.section), ("Q", self.question)
        return " ".join(word + number for word, number in parts if number)


def documents_cited(text: str) -> Iterator[tuple[int, list[Place]]]:
    """Every citation of documents: where it begins, and the places that it names."""
    end = 0
    for found in DOCUMENTS.finditer(text):
        if found.start() >= end:  # else it is a later part of the citation before it
            places, end = _places(text, found.end())
            yield found.start(), places


def _places(text: str, start: int) -> tuple[list[Place], int]:
    """The places of the citation whose first document's number stands at `start`, and where it ends.

    A comma, a semicolon or `and` ends a place; what follows is of the same document and chapter, and a number alone is
    a section where one came before it.
    """
    read: list[Place] = []
    here: Place | None = None
    last = Place("")
    while token := _TOKEN.match(text, start):
        start, kind = token.end(), str(token.lastgroup)
        value = token[kind]
        if kind in ("document", "stop"):
            if here is not None:
                read.append(here)
                last, here = here, None
            if kind == "document":
                here = Place(value)
        elif kind != "skip":
            here = here or Place(last.document, chapter=last.chapter)
            if kind == "bare":
                kind = "section" if last.section else "stray"
            if kind == "question":  # chapters do not number their questions
                here = replace(here, chapter="")
            here = replace(here, **{kind: value})
    return read + ([here] if here is not None else []), start


def _unresolved(place: Place, sources: Sources) -> str:
    document = sources.documents.get(place.document)
    if document is None:
        return "there is no such document in sources.toml"
    if place.stray:
        return f"{place.stray} is no section without `sec.` before it"
    if not str(place) or str(place) in document.sections:
        return ""
    if several := [name for name in document.sections if name.endswith(f" {place}")]:
        return f"{place} may be {', '.join(several)}"
    return f"there is no {place}"


def papers_cited(authors: str, year: int, sources: Sources) -> list[Paper]:
    """The papers that these words may stand for."""
    first = re.match(_NAME, authors)
    short = first is not None and first[0] == authors
    return [
        paper
        for paper in sources.papers
        if paper.year == year and (paper.authors == authors or (short and re.match(_NAME, paper.authors)[0] == authors))  # type: ignore[index]
    ]


def paper_faults(text: str, sources: Sources) -> Iterator[Fault]:
    """Authors and years that no paper has."""
    for found in PAPER.finditer(text):
        authors = re.sub(r"\s+", " ", found[1])
        if authors in MONTHS:
            continue
        for year in filter(None, (found[2], found[3])):
            if not papers_cited(authors, int(year), sources):
                yield Fault(found.start(), f"{authors} {year} is not among the papers of sources.toml")


def identifier_faults(text: str, sources: Sources) -> Iterator[Fault]:
    """Identifiers of no paper, of a paper by others or of another year, and those that stand without their authors."""
    cited = [(found.end(), re.sub(r"\s+", " ", found[1]), int(found[2])) for found in PAPER.finditer(text)]
    for found in IDENTIFIER.finditer(text):
        kind, value = next((kind, value) for kind, value in found.groupdict().items() if value)
        value = value.rstrip(".")
        owners = [paper for paper in sources.papers if getattr(paper, kind) == value]
        before = [(end, authors, year) for end, authors, year in cited if end <= found.start()][-1:]
        if not owners:
            yield Fault(found.start(), f"{found[0]} is not among the papers of sources.toml")
        elif not before or not BETWEEN.fullmatch(text[before[0][0] : found.start()]):
            yield Fault(found.start(), f"{found[0]} stands without the authors and the year of its paper before it")
        elif owners[0] not in papers_cited(before[0][1], before[0][2], sources):
            owner = owners[0]
            yield Fault(
                found.start(), f"{found[0]} is {owner.authors} {owner.year} and not {before[0][1]} {before[0][2]}"
            )


def errata_cited(text: str) -> set[str]:
    """The numbers of the errata that a text names: `erratum E1`, `errata E1, E2`, `(E1)`, a golden case's key."""
    return {number for _, number in _errata(unwrapped(text))}


def _errata(text: str) -> Iterator[tuple[int, str]]:
    for found in ERRATA.finditer(text):
        for number in re.findall(r"E\d+", found[0]):
            yield found.start(), number
