"""What is computed while a page is read: `{example}`, `{steps}` and the role `{value}`."""

from __future__ import annotations

from typing import Any

import numpy
from docutils import nodes
from sphinx.util.docutils import SphinxRole

from book.directives.directive import LOG, Directive, PageError, session, table


class Example(Directive):
    """A Python session that is run; the build fails if it states another number than it computes."""

    has_content = True

    def made(self) -> list[nodes.Node]:
        code = "\n".join(self.content)
        for fault in session(self.env).faults(code):
            self.tell(fault)
        self.record.add("example", self.page)
        return [nodes.literal_block(code, code, language="pycon")]


class Steps(Directive):
    """The steps of a derivation, a line each: `code | shape | formula | why`.

    The code is run after the examples of the page that stand above, and must give the shape, in the letters of the
    page. A formula is TeX. With `code` left out the line is a formula of its own.
    """

    has_content = True

    def made(self) -> list[nodes.Node]:
        rows: list[list[Any]] = []
        for line in filter(str.strip, self.content):
            parts = [part.strip() for part in line.split(" | ")]
            if len(parts) != 4:
                raise PageError(f"a step has four parts with ` | ` between them: code | shape | formula | why: {line}")
            code, shape, formula, why = parts
            if code:
                self._check(code, shape)
            shown: list[nodes.Node] = [nodes.literal(code, code)] if code else []
            rows.append([str(len(rows) + 1), nodes.math(formula, formula), shape, self.words(why), shown])
        self.record.add("steps", self.page)
        head = [self.said(each) for each in ("step", "formula", "shape", "because", "code")]
        made = table(head, rows, [5, 30, 12, 33, 20])
        made["classes"].append("book-steps")
        return [made]

    def _check(self, code: str, shape: str) -> None:
        try:
            found = session(self.env).shapes(code)
            wanted = session(self.env).size(shape)
        except Exception as fault:
            raise PageError(f"the step {code}: {type(fault).__name__}: {fault}") from None
        if found != {wanted}:
            has = " and ".join(map(str, sorted(found)))
            raise PageError(f"the step {code} has the shape {has}, and not {shape}, which is {wanted}")


class Value(SphinxRole):
    """{value}`P[0, 1] | .4f`: a number of the page, computed; `| code` shows words as code."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        expression, _, form = self.text.partition("|")
        try:
            found: Any = session(self.env).value(expression.strip())
        except Exception as fault:
            LOG.warning("%s: %s: %s", self.text, type(fault).__name__, fault, location=self.get_location(), type="book")
            return [], []
        if form.strip() == "code":
            return [nodes.literal("", str(found))], []
        shown = format(found, form.strip()) if form else _plain(found)
        return [nodes.Text(shown)], []


def _plain(found: Any) -> str:
    return str(found.item()) if isinstance(found, numpy.generic) else str(found)
