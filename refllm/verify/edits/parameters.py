"""Parameters that are taken for others: those of one norm, of the encoder, of the first layer for those of another.

    for edit in others_read(case, gpt): edit.diff()        + p = taken(p, "layers.1", "layers.0")

Which can be taken for each other is seen from their names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations
from types import FunctionType

from refllm.verify.case import Case
from refllm.verify.edits import Edit, source_of
from refllm.verify.edits.source import Source

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
COST = 1.15
OF_EVERY_LAYER = 0.05  # how much likelier a mistake in all layers is, which one line makes
LAYER = re.compile(r"\blayers\.\d+\b")
NUMBER = re.compile(r"\d+$")


def others_read(case: Case, function: FunctionType) -> Iterator[Edit]:
    """Edits of an operation by which some of its parameters are those of other places."""
    if "p" not in function.__code__.co_varnames[: function.__code__.co_argcount]:
        return
    text = Source(source_of(function))
    for one, other in _pairs(case):
        cost = COST - OF_EVERY_LAYER * one.startswith("layers.*")
        changes = text.with_first_line(f'p = taken(p, "{one}", "{other}")')
        yield Edit(function, changes, cost, False, said=f"`{other}` is used in the place of `{one}`")


def _pairs(case: Case) -> Iterator[tuple[str, str]]:
    """Two places of parameters of the same shapes, of which the second may be taken for the first."""
    branches = _branches(case)
    alike: dict[Shapes, list[str]] = {}
    for path, shapes in branches.items():
        alike.setdefault(shapes, []).append(path)
    found = dict.fromkeys(
        pair for paths in alike.values() for one, other in permutations(paths, 2) for pair in _taken(one, other)
    )
    yield from found


def _taken(one: str, other: str) -> Iterator[tuple[str, str]]:
    """The two, and the same in every layer, if they are alike by name: in one part of their names alone."""
    a, b = one.split("."), other.split(".")
    differing = [(x, y) for x, y in zip(a, b, strict=False) if x != y]
    if len(a) != len(b) or len(differing) != 1:
        return
    [(x, y)] = differing
    if NUMBER.sub("", x) != NUMBER.sub("", y) and {x, y} != {"encoder", "decoder"}:
        return
    yield one, other
    if x.isdigit() and y == "0":
        yield LAYER.sub("layers.*", one), other
    elif LAYER.search(one):
        yield LAYER.sub("layers.*", one), LAYER.sub("layers.*", other)


def _branches(case: Case) -> dict[str, Shapes]:
    """What there is below every place of p."""
    found: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, x in case.inputs.items():
        root, *parts = name.split(".")
        for n in range(1, len(parts) + 1) if root == "p" else ():
            found.setdefault(".".join(parts[:n]), []).append((".".join(parts[n:]), x.shape))
    return {path: tuple(sorted(leaves)) for path, leaves in found.items() if not path.endswith("layers")}
