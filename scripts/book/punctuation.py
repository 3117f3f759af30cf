"""No line ends between a formula and the mark behind it: a browser may break a line on both sides of MathML."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

MARKS = re.compile(r"[.,;:?!)\]’”，。；：、？！）]+")


def keep_together(app: Any, doctree: nodes.document) -> None:
    """Wraps a formula in the text and the marks behind it."""
    for formula in list(doctree.findall(nodes.math)):
        around: Any = formula.parent
        siblings = around.children
        place = siblings.index(formula)
        behind: Any = siblings[place + 1] if place + 1 < len(siblings) else None
        found = MARKS.match(behind) if isinstance(behind, nodes.Text) else None
        if found:
            joined = nodes.inline("", "", formula.deepcopy(), nodes.Text(found[0]), classes=["book-joined"])
            around[place : place + 2] = [joined, nodes.Text(behind[found.end() :])]
