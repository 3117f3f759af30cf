"""What the pages show, and what is missing: an ID without a chapter, an operation of the text without a page, a formula
without code. Chapters that are only planned are listed in docs/book/planned.toml, with what they will show; what they
will show is not missed yet, and a chapter that is written is planned no more."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from book import golden, laws, mistakes, text
from refllm.spec.registers import errata, sources

UNWRITTEN = "This chapter is not written yet."


@dataclass(frozen=True)
class Place:
    """A place of the book."""

    page: str
    anchor: str
    title: str


@dataclass(frozen=True)
class Planned:
    """A chapter that is not written, and the IDs and operations that it will show."""

    page: str
    ids: tuple[str, ...]
    operations: tuple[str, ...] = ()
    printed: tuple[str, ...] = ()  # numbers of the documents


@dataclass
class Record:
    """What the pages have shown so far."""

    ids: dict[str, Place] = field(default_factory=dict)
    operations: dict[str, Place] = field(default_factory=dict)
    errata: dict[str, Place] = field(default_factory=dict)
    figures: dict[str, Place] = field(default_factory=dict)  # numbers that the documents print
    shown: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # by kind: cases, mistakes, laws ...
    on_page: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # by page: the kinds
    twice: list[str] = field(default_factory=list)

    def add(self, kind: str, page: str, *names: str) -> None:
        self.shown[kind].update(names)
        self.on_page[page].add(kind)

    def place(self, where: dict[str, Place], name: str, place: Place) -> None:
        if name in where:
            self.twice.append(f"{name} has two places: {where[name].page} and {place.page}")
        where[name] = place


def planned(path: Path) -> list[Planned]:
    """The chapters that docs/book/planned.toml lists."""
    read = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kinds = ("ids", "operations", "printed")
    return [Planned(page, *(tuple(each.get(kind, ())) for kind in kinds)) for page, each in read.items()]


def holes(record: Record, plans: list[Planned]) -> Iterator[str]:
    """What is missing, that no plan has."""
    ids = {name for plan in plans for name in plan.ids}
    operations = {name for plan in plans for name in plan.operations}
    operations |= {o.name for o in text.operations().values() if o.ids and set(o.ids) & ids - record.ids.keys()}
    yield from record.twice
    for name, entry in sources().entries.items():
        if name not in record.ids and name not in ids:
            yield f"{name} ({entry.name}) has no chapter: write one with `{{id}} {name}` behind its heading"
    for name, function in text.operations().items():
        if name not in record.operations and name not in operations:
            yield f"{name} of refllm/spec/{function.module}.py is shown by no page: `{{text}} {name}`"
    for name in errata():
        if name not in record.errata:
            yield f"erratum {name} is shown by no page: `{{erratum}} {name}`"
    for figure in sources().figures:
        if figure.what not in record.figures and figure.what not in {name for plan in plans for name in plan.printed}:
            yield f"a number of the documents has no place: `{{printed}} {figure.what}`"
    for name, place in record.ids.items():
        yield from _of_chapter(record, name, place)


def _of_chapter(record: Record, name: str, place: Place) -> Iterator[str]:
    """An ID has its code, and, as far as there are any, its cases, mistakes and laws; an example and a derivation stand
    on the page."""
    entry, functions = sources().entries[name], text.operations_of(name)
    kinds = record.on_page[place.page]
    if not functions and not entry.code and name not in record.shown["code"]:
        yield f"{name} has a chapter and no code: `{{text}} FUNCTION` or `{{code}} refllm.module.name`"
    if entry.code and not functions and name not in record.shown["code"]:
        yield f"{name}: its page names none of its modules: `{{code}} {name}`"
    if golden.of_id(name) and name not in record.shown["cases"]:
        yield f"{name} has golden cases that its page does not list: `{{cases}} {name}`"
    if mistakes.of_id(name) and name not in record.shown["mistakes"]:
        yield f"{name} has known mistakes that its page does not list: `{{mistakes}} {name}`"
    if (functions or entry.code) and not laws.of_id(name):
        yield f"{name} is checked by no test"
    if name not in record.shown["sources"]:
        yield f"{name}: its page does not say where it comes from: `{{sources}} {name}`"
    if (functions or entry.code) and name not in record.shown["laws"]:
        yield f"{name}: its page does not list the laws: `{{laws}} {name}`"
    if (functions or entry.part in "AB") and "example" not in kinds:
        yield f"{place.page} shows {name} without an example that is computed: `{{example}}`"
    if any(function.back_lines[0] for function in functions) and "steps" not in kinds:
        yield f"{place.page} shows {name} without the steps of its backward pass: `{{steps}}`"


def stale(plans: list[Planned], record: Record, docs: Path) -> Iterator[str]:
    """Plans that are no plans any more."""
    for plan in plans:
        path = docs / f"{plan.page}.md"
        if not path.is_file():
            yield f"planned.toml lists {plan.page}, which has no file"
        elif UNWRITTEN not in path.read_text(encoding="utf-8") and not waits(plan):
            yield f"{plan.page} is written: take it out of planned.toml, but for IDs whose text is still to come"
        for name in plan.ids:
            if name in record.ids:
                yield f"planned.toml lists {name}, which {record.ids[name].page} shows: take it out"
            if name not in sources().entries:
                yield f"planned.toml lists {name}, which is no ID of sources.toml"
        for name in plan.operations:
            if name not in text.operations():
                yield f"planned.toml lists {name}, which is no operation of the text"


def waits(plan: Planned) -> bool:
    """Whether all that a plan names are IDs of which there is neither text nor code: a chapter is written before."""
    entries = sources().entries
    no_text = all(name in entries and not entries[name].code and not text.operations_of(name) for name in plan.ids)
    return bool(plan.ids) and no_text and not plan.operations and not plan.printed


def still_missing(plans: list[Planned], record: Record) -> list[str]:
    """A line for each chapter that is only planned."""
    lines = [(plan.page, ", ".join(name for name in plan.ids if name not in record.ids)) for plan in plans]
    return [f"{page}: {ids}" if ids else page for page, ids in lines]
