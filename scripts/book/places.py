"""Places in the documents: what the registers cite, section by section."""

from __future__ import annotations

from refllm.spec.registers import errata, sources
from spec_tests.spec import citations


def cited(documents: str) -> list[tuple[str, str]]:
    """`001 ch. 4 sec. 1, 2; 002 sec. 3.1` as documents and sections, as the register of sections has them."""
    found = []
    for _, places in citations.documents_cited(f"documents {documents}"):
        found += [(place.document, str(place)) for place in places]
    return found


def by_section() -> dict[tuple[str, str], list[str]]:
    """The IDs and errata of every section of every document, those without one included; a place within a section
    (a question, a step) belongs to the section that the register lists."""
    found: dict[tuple[str, str], list[str]] = {
        (number, section): [] for number, document in sources().documents.items() for section in document.sections
    }
    wanted = [(entry.id, entry.documents) for entry in sources().entries.values()]
    wanted += [(erratum.id, erratum.documents) for erratum in errata().values()]
    wanted += [(figure.what, figure.documents) for figure in sources().figures]
    for name, documents in wanted:
        for document, section in cited(documents) if documents else ():
            key = (document, section)
            if key in found and name not in found[key]:
                found[key].append(name)
    return found
