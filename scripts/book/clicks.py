"""What a reader of the built pages reaches from the register: one click to the chapter of an ID, where its code, an
example, its derivation, its laws, golden cases, mistakes and sources stand, or are linked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from book import coverage, golden, laws, mistakes, text
from refllm.spec.registers import errata, sources

REGISTER = "register.html"
PARTS = "AB"  # those of the register with chapters; errata (C) and printed numbers (D) have a place each


@dataclass(frozen=True)
class Wanted:
    """What must be found at an ID: the beginnings of the sections that speak of it, and what stands on its page."""

    name: str
    anchor: str
    sections: tuple[str, ...] = ()
    on_page: tuple[str, ...] = ()  # "code", "example", "derivation"


def wanted() -> Iterator[Wanted]:
    """All of the parts A to D of the register."""
    for name, entry in sources().entries.items():
        if entry.part in PARTS:
            functions = text.operations_of(name)
            kinds = {
                "laws": laws.of_id(name),
                "golden-cases": golden.of_id(name),
                "usual-mistakes": mistakes.of_id(name),
            }
            derived = ("derivation",) if any(function.back_lines[0] for function in functions) else ()
            sections = (*(kind for kind, found in kinds.items() if found), "sources")
            yield Wanted(name, f"id-{_anchor(name)}", sections, ("code", "example", *derived))
    for name in errata():
        yield Wanted(name, f"erratum-{_anchor(name)}")
    for figure in sources().figures:
        yield Wanted(figure.what, "printed-" + figure.what.replace(" ", "-"))


def unplanned() -> list[Wanted]:
    """Without what docs/book/planned.toml has for chapters that are not written."""
    plans = coverage.planned(Path(__file__).resolve().parents[2] / "docs/book/planned.toml")
    later = {name for plan in plans for name in (*plan.ids, *plan.printed)}
    return [each for each in wanted() if each.name not in later]


class _Reader(HTMLParser):
    """The places of a page, its links, and what it has of code, examples and derivations."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []
        self.links: list[str] = []
        self.has: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if "id" in given:
            self.places.append(given["id"])
        if tag == "a":
            self.links.append(given.get("href", ""))
        if "text/" in given.get("href", "") or "book-code" in given.get("class", ""):
            self.has.add("code")
        if "highlight-pycon" in given.get("class", ""):
            self.has.add("example")
        if "book-steps" in given.get("class", ""):
            self.has.add("derivation")


def _anchor(name: str) -> str:
    """As docutils writes it."""
    return re.sub("[^a-z0-9]+", "-", name.lower())


def _read(path: Path) -> _Reader:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def faults(folder: Path, asked: list[Wanted]) -> Iterator[str]:
    """What cannot be reached from the register of a built book."""
    if not (folder / REGISTER).is_file():
        yield f"there is no {REGISTER}"
        return
    register = _read(folder / REGISTER)
    pages: dict[str, _Reader] = {}
    for each in asked:
        page = next((link.partition("#")[0] for link in register.links if link.endswith(f"#{each.anchor}")), None)
        if page is None:
            yield f"{REGISTER} leads to no place of {each.name}"
            continue
        if page not in pages:
            pages[page] = _read(folder / page)
        yield from (f"{page}: {each.name}: {lacking}" for lacking in _lacking(pages[page], each))


def _lacking(page: _Reader, each: Wanted) -> Iterator[str]:
    if each.anchor not in page.places:
        yield f"there is no place {each.anchor}"
    for kind in each.on_page:
        if kind not in page.has:
            yield f"the page has no {kind}"
    for section in each.sections:
        of_it = re.compile(rf"{section}-(?:.+-)?{re.escape(_anchor(each.name))}(?:-.+)?")
        if not any(of_it.fullmatch(place) for place in page.places):
            yield f"no section {section} speaks of it"
