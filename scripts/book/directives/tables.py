"""The tables that lead from an ID, a document's section or a printed number to its place: `{register}`, `{sections}`,
`{operations}`. They are filled when all pages have been read."""

from __future__ import annotations

from typing import Any

from docutils import nodes

from book import golden, laws, mistakes, places, text
from book.coverage import Place, Record
from book.directives.directive import Cell, Directive, PageError, chinese, coded, link, record, table, way_up
from refllm.spec.registers import errata, sources


class WaitingTable(nodes.General, nodes.Element):
    """A table that is not filled yet; `kind` says which, `of` what of it."""


PARTS = {
    "A": "Formulas of the documents",
    "B": "Systems of the documents",
    "C": "Errata",
    "D": "Numbers that the documents print",
    "E": "Formulas of later models",
    "F": "Names used only in this repository",
}


class Waiting(Directive):
    """A table of this kind: `{register} A`, `{sections} 002`, `{operations}`."""

    def made(self) -> list[nodes.Node]:
        if self.name == "register" and any(part not in PARTS for part in self.arguments):
            raise PageError(f"the register has the parts {', '.join(PARTS)}")
        if self.name == "sections" and any(number not in sources().documents for number in self.arguments):
            raise PageError(f"the documents are {', '.join(sources().documents)}")
        return [WaitingTable("", kind=self.name, of=tuple(self.arguments))]


def fill(app: Any, doctree: nodes.document, page: str) -> None:
    """Every waiting table of a page, now that all places are known."""
    for node in list(doctree.findall(WaitingTable)):
        found = record(app.env)
        make = {"register": _register, "sections": _sections, "operations": _operations}[node["kind"]]
        # the theme has wrapped its tables before: in a box of this name they scroll by themselves
        filled = [nodes.container("", each, classes=["table-wrapper"]) for each in make(found, page, node["of"])]
        node.replace_self(filled)


def _to(place: Place | None, page: str, words: str | nodes.Node) -> nodes.Node:
    """A link to a place, or the words alone where there is none yet."""
    if place is None:
        return words if isinstance(words, nodes.Node) else nodes.Text(words)
    return link(words, f"{way_up(page)}{place.page}.html#{place.anchor}")


def _register(found: Record, page: str, parts: tuple[str, ...]) -> list[nodes.Node]:
    made: list[nodes.Node] = []
    for part in parts:
        if part == "C":
            rows = [_of_erratum(found, page, name) for name in errata()]
            made.append(table(["erratum", "documents", "what holds"], rows, [12, 28, 60]))
        elif part == "D":
            rows = [_of_figure(found, page, figure) for figure in sources().figures]
            made.append(table(["number", "documents", "to be met"], rows, [25, 25, 50]))
        else:
            own = [entry for entry in sources().entries.values() if entry.part == part]
            head = ["ID", "what", "operations", "laws", "cases", "mistakes"]
            made.append(table(head, [_of_id(found, page, entry) for entry in own], [12, 34, 30, 8, 8, 8]))
    return made


def _of_id(found: Record, page: str, entry: Any) -> list[Cell]:
    place = found.ids.get(entry.id)
    functions: list[nodes.Node] = []
    for function in text.operations_of(entry.id):
        functions += [nodes.Text(", ")] if functions else []
        functions.append(_to(found.operations.get(function.name), page, nodes.literal("", function.name)))
    numbers = (len(laws.of_id(entry.id)), len(golden.of_id(entry.id)), len(mistakes.of_id(entry.id)))
    operations = functions or [nodes.literal("", each) for each in entry.code[:1]] or "–"
    return [[_to(place, page, entry.id)], [_to(place, page, entry.name)], operations, *(str(n or "–") for n in numbers)]


def _of_erratum(found: Record, page: str, name: str) -> list[Cell]:
    erratum = errata()[name]
    return [[_to(found.errata.get(name), page, name)], erratum.documents, " ".join(erratum.holds.split())]


def _of_figure(found: Record, page: str, figure: Any) -> list[Cell]:
    return [[_to(found.figures.get(figure.what), page, figure.what)], figure.documents, figure.bar]


def _sections(found: Record, page: str, numbers: tuple[str, ...]) -> list[nodes.Node]:
    made: list[nodes.Node] = []
    for number in numbers:
        rows = []
        for (document, section), names in places.by_section().items():
            if document == number:
                heading = sources().documents[number].sections[section]
                words = [chinese(heading.title), nodes.Text(f" ({heading.english})")]
                rows.append([section, words, _all(found, page, names)])
        made.append(table(["section", "heading", "here"], rows, [15, 50, 35]))
    return made


def _all(found: Record, page: str, names: list[str]) -> Cell:
    links: list[nodes.Node] = []
    for name in names:
        links += [nodes.Text(", ")] if links else []
        links.append(_to(found.ids.get(name) or found.errata.get(name) or found.figures.get(name), page, name))
    return links or "text without a formula of its own"


def _operations(found: Record, page: str, _: tuple[str, ...]) -> list[nodes.Node]:
    rows = []
    for function in sorted(text.operations().values(), key=lambda function: function.name):
        place = found.operations.get(function.name)
        file = link(f"{function.module}.py", f"{way_up(page)}text/{function.module}.html#line-{function.first}")
        computes = coded(" ".join(function.part("formula").split()))
        rows.append([[_to(place, page, nodes.literal("", function.name))], computes, [file]])
    return [table(["operation", "what it computes", "text"], rows, [22, 60, 18])]
