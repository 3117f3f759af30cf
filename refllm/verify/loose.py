"""Edits whose numbers the answers do not tell: `2 * share` where any factor from 1.8 to 2.2 gives the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from refllm.verify.edits import Edit, source_of

FACTOR = re.compile(r"(?<=[*/] )\d+(?:\.\d+)?\b(?! \*\*)|\b\d+(?:\.\d+)?(?= \*)")
SIGN = re.compile(r" [-+*/] ")
ABOUT = (0.9, 1.1)  # times the number, what stands in its place


def is_loose(edits: tuple[Edit, ...], fits: Callable[[tuple[Edit, ...]], bool]) -> bool:
    """Whether an edit has a factor that the text has not, and another one in its place `fits` as well."""
    for n, edit in enumerate(edits):
        for other in _with_other_factors(edit):
            if fits((*edits[:n], other, *edits[n + 1 :])):
                return True
    return False


def is_invented(edit: Edit) -> bool:
    """Whether an edit computes what the text does not: it has more sums, products and quotients than what it stands
    for."""
    source = source_of(edit.original).encode()
    return any(len(SIGN.findall(new)) > len(SIGN.findall(source[a:b].decode())) for a, b, new in edit.changes)


def _with_other_factors(edit: Edit) -> list[Edit]:
    source, found = source_of(edit.original).encode(), list[Edit]()
    for k, (first, last, new) in enumerate(edit.changes):
        known = FACTOR.findall(source[first:last].decode())
        for number in FACTOR.finditer(new):
            if number[0] not in known:
                for about in ABOUT:
                    words = f"{new[: number.start()]}{float(number[0]) * about:.6g}{new[number.end() :]}"
                    changes = (*edit.changes[:k], (first, last, words), *edit.changes[k + 1 :])
                    found.append(replace(edit, changes=changes))
    return found
