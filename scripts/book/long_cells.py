"""Cells with many words, in tables of three columns and more: they are marked, so that a narrow page keeps them wide
enough to read and scrolls. By itself a browser makes such a column as narrow as its longest word."""

from __future__ import annotations

from typing import Any

from docutils import nodes

COLUMNS = 3  # a table of two fits
LONG = 40  # characters: two lines on a phone


def mark(app: Any, doctree: nodes.document, page: str) -> None:
    for table in doctree.findall(nodes.table):
        for row in table.findall(nodes.row):
            cells = [cell for cell in row.children if isinstance(cell, nodes.entry)]
            for cell in cells if len(cells) >= COLUMNS else ():
                if len(cell.astext()) > LONG:
                    cell["classes"].append("book-long")
