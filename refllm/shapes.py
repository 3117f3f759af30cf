"""The grammar of a docstring's `Shapes:` line. What it says holds: refllm/differentiable.py checks it at every call.

    Shapes:  x (..., T, I); W (I, parts*heads*D); token_mask bool (..., T), or None -> y[parts] (..., heads, T, D)

`name (dimensions)` is floating-point, `name bool (...)` a mask, `name int (...)` or `name (...) in [0, V)` indices,
`name real (...)` numbers of any kind. `...` is any number of leading axes, the same for all. A dimension is a sum of
products of letters, numbers and whole-number arguments, `T+S-1` or `4*N`. `broadcast to (...)` takes what broadcasts to
that shape, `end of (...)` the last axes of it. `, or None` is an argument that may be left out; `x[2]` are two arrays.
Names that are no arguments are entries of the parameters `p` (refllm/entries.py), `span.W` one of its entry `span`, and
`norm1 tree` an entry that is a tree itself; with `p tree` it may have others. Their shapes the operations inside check.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

Term = tuple[int, tuple[str, ...]]  # sign, factors

_ARRAY = (  # compiled when the first line is read, not at the import
    r"(?P<name>\w+'?(\.\w+)*)(\[(?P<count>\w+)\])? ((?P<tree>tree)|((?P<kind>bool|int|real) )?"
    r"((?P<how>broadcast to|end of) )?\((?P<dimensions>[^()]*)\)( in \[0, (?P<bound>[\w*+]+)\))?)"
    r"(?P<ignore> or `ignore`)?(?P<optional>,? or None)?"
    r'( or, for "(?P<value>\w+)", \((?P<other>[^()]*)\))?'
)


class Dimension(NamedTuple):
    text: str
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Declared:
    """One array of a `Shapes:` line."""

    name: str
    dimensions: tuple[str, ...]  # as written, `...` included
    kind: str  # "float", "bool", "int", "real" or, of an entry of the parameters, "tree"
    how: str  # "" for that very shape, "broadcast to" or "end of"
    optional: bool
    count: str | None  # how many there are: a number, or the argument that says it
    bound: str | None  # integers below the size of that name
    other: tuple[str, tuple[str, ...]] | None  # a keyword's value, and the dimensions it brings

    @cached_property
    def batched(self) -> bool:
        return self.dimensions[:1] == ("...",)

    @cached_property
    def letters(self) -> tuple[Dimension, ...]:
        return tuple(dimension(d) for d in self.dimensions if d != "...")


class ShapesError(ValueError):
    """A `Shapes:` line that cannot be read."""


def sections(docstring: str) -> dict[str, str]:
    """`Name:  text` paragraphs of a docstring, continuation lines joined."""
    found: dict[str, str] = {}
    current = None
    for line in inspect.cleandoc(docstring).splitlines():
        if match := re.match(r"([A-Z]\w+):\s+(\S.*)", line):
            current = match[1]
            found[current] = match[2].strip()
        elif current and line.startswith(" "):
            found[current] += " " + line.strip()
        else:
            current = None
    return found


def parse(operation: str, line: str) -> tuple[tuple[Declared, ...], tuple[Declared, ...]]:
    """The inputs and the outputs of a `Shapes:` line."""
    before, arrow, after = line.partition("->")
    if not arrow:
        raise ShapesError(f"{operation}: `Shapes:` has no `->`; write `x (..., C) -> y (..., C)`")
    return tuple(_arrays(operation, before)), tuple(_arrays(operation, after))


def _arrays(operation: str, text: str) -> list[Declared]:
    arrays = []
    for part in text.split(";"):
        match = re.fullmatch(_ARRAY, " ".join(part.split()))
        if match is None:
            raise ShapesError(
                f"{operation}: `Shapes:` holds {part.strip()!r}, which is not `name (dimensions)`; "
                f"the grammar stands at the top of {__name__}"
            )
        other = (match["value"], _split(match["other"])) if match["value"] else None
        kind = match["tree"] or match["kind"] or ("float" if match["bound"] is None else "int")
        arrays.append(
            Declared(
                match["name"], _split(match["dimensions"] or ""), kind, match["how"] or "",
                match["optional"] is not None, match["count"], match["bound"], other,
            )
        )  # fmt: skip
    return arrays


def _split(dimensions: str) -> tuple[str, ...]:
    return tuple(d.strip() for d in dimensions.split(",") if d.strip())


def dimension(text: str) -> Dimension:
    terms = re.findall(r"([+-]?)([^+-]+)", text)
    return Dimension(text, tuple((-1 if sign == "-" else 1, tuple(term.split("*"))) for sign, term in terms))


def written(parts: list[str] | tuple[str, ...]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
