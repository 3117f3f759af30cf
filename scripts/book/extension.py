"""The book's extension of Sphinx: directives, mathematics, pages of the text, and the check that nothing is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

from book import coverage, languages, long_cells, punctuation, source_pages, spoken
from book.directives import code, commands, computed, directive, drawn, evidence, tables
from book.mathml import mathml

LOG = logging.getLogger(__name__)


def inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(_rendered(self, node, display=False))
    raise nodes.SkipNode


def displayed(self: HTML5Translator, node: nodes.math_block) -> None:
    # a long formula scrolls on a narrow page, for the keyboard too
    ids = f' id="{node["ids"][0]}"' if node["ids"] else ""
    inside = _rendered(self, node, display=True)
    self.body.append(f'<div class="book-math"{ids} tabindex="0" role="group" aria-label="formula">{inside}</div>\n')
    raise nodes.SkipNode


def _rendered(self: HTML5Translator, node: nodes.Element, *, display: bool) -> str:
    try:
        return mathml(node.astext(), display=display)
    except ValueError as fault:
        LOG.warning("%s", fault, location=node, type="book", subtype="math")
        return self.encode(node.astext())


def check(app: Any, env: Any) -> None:
    """When all pages are read: what is missing."""
    record = directive.record(env)
    docs = Path(env.srcdir)
    plans = coverage.planned(docs / "book/planned.toml")
    for fault in [*coverage.holes(record, plans), *coverage.stale(plans, record, docs), *languages.faults(docs)]:
        LOG.warning("%s", fault, type="book", subtype="coverage")
    for line in coverage.still_missing(plans, record):
        print(f"docs: not written yet: {line}", file=sys.stderr)


OUTSIDE = {"golden/README.md": "golden.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def lead_inside(app: Any, page: str, source: list[str]) -> None:
    """A file outside docs/ may be a page of the book: on a code host a link leads to the file, here to the page."""
    for file, own in OUTSIDE.items():
        source[0] = source[0].replace(f"](../{file}", f"]({own}")


def language(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """`lang: zh` at the head of a page is the language of the page."""
    own = app.env.metadata.get(page, {}).get("lang")
    if own:
        context["language"] = own


def setup(app: Any) -> dict[str, Any]:
    app.add_config_value("book_figures", "", "env")
    for name, kind in {
        "id": code.Id, "text": code.Text, "code": code.Code, "changes": code.Changes, "files": code.Files,
        "example": computed.Example, "steps": computed.Steps, "drawn": drawn.Drawn,
        "laws": evidence.Laws, "cases": evidence.Cases, "mistakes": evidence.Mistakes, "sources": evidence.Sources,
        "conventions": evidence.Conventions, "erratum": evidence.Erratum, "printed": evidence.Printed,
        "evidence": evidence.Evidence, "commands": commands.Commands,
        "register": tables.Waiting, "sections": tables.Waiting, "operations": tables.Waiting,
    }.items():  # fmt: skip
        app.add_directive(name, kind, override=True)
    app.add_role("value", computed.Value())
    app.add_node(directive.Details, html=(directive.visit_details, directive.depart_details))
    app.add_node(directive.Spoken, html=(directive.visit_spoken, directive.depart_spoken))
    app.add_node(directive.Foreign, html=(directive.visit_foreign, directive.depart_foreign))
    app.add_node(tables.WaitingTable)
    app.add_html_math_renderer("mathml", (inline, None), (displayed, None))
    app.connect("source-read", lead_inside)
    app.connect("doctree-read", punctuation.keep_together)
    app.connect("doctree-read", spoken.mark)
    app.connect("env-check-consistency", check)
    app.connect("doctree-resolved", tables.fill)
    app.connect("doctree-resolved", long_cells.mark)
    app.connect("html-collect-pages", source_pages.pages)
    app.connect("html-page-context", language)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": False}
