"""Cosines and sines that a kernel reads from a table by flat addresses with another width than that of its rows: beyond
the end of a row there are the numbers of the next one.

    for cause in table_rows("partial_rotary"):      … turns all D entries of a head, by rows of a table for `turned`

The table has rows for frequencies of the turned part or of the whole head, and is read with the distance and the number
of entries of either.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case, Response

REPORT = "https://github.com/vllm-project/vllm/pull/43676"
OF = {"turned": "the part that is turned", "D": "the whole head"}


@dataclass(frozen=True, eq=False)
class TableRows:
    """Each width is "turned" or "D"; `joined`: the cosines of a row stand before its sines, in one table; `by_token`:
    the table has a row for each token, in their order, and not for each position."""

    table: str
    distance: str
    entries: str
    joined: bool
    by_token: bool
    issue: str | None = None
    gradients_alone: bool = False
    diff: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return "partial_rotary/table-of-other-width"

    @property
    def about(self) -> str:
        one = "one table of cosines and sines" if self.joined else "tables of cosines and of sines"
        rows = "tokens" if self.by_token else "positions"
        reads = "turns all D entries of a head" if self.entries == "D" else "turns its part of a head"
        beyond = ", whose rows it reads beyond their ends" if (self.entries, self.distance) == ("D", "turned") else ""
        return (
            f"partial_rotary that {reads} by {one} with rows of {rows} for {OF[self.table]}, at the distance of those "
            f"for {OF[self.distance]}{beyond}"
        )

    def answer(self, case: Case, dtype: str) -> Response | None:
        if case.operation != "partial_rotary":
            return None
        [x], how = case.arguments(dtype), case.keyword_arguments()
        D, turned = x.shape[-1], how["turned"]
        if turned == D:
            return None
        width = {"turned": turned, "D": D}
        n = width[self.entries]
        positions = numpy.asarray(how["positions"])
        cos, sin = self._read(positions, how["base"], width, x.dtype)
        pairs = (slice(0, n // 2), slice(n // 2, n)) if how["layout"] == "halves" else (slice(0, n, 2), slice(1, n, 2))
        y = _turned(x, cos, sin, pairs)
        outputs = {next(iter(case.outputs)): y}
        if not case.cotangents:
            return Response(outputs, None)
        dy = next(iter(case.cotangents.values())).astype(dtype)
        return Response(outputs, {next(iter(case.inputs)): _turned(dy, cos, -sin, pairs)})

    def _read(self, positions: Array, base: float, width: dict[str, int], dtype: Any) -> tuple[Array, Array]:
        W, n = width[self.table], width[self.entries]
        row = numpy.arange(positions.size) if self.by_token else positions.reshape(-1)
        apart = width[self.distance] if self.joined else width[self.distance] // 2
        first = row[:, None] * apart + numpy.arange(n // 2)
        long = W if self.joined else W // 2
        rows = positions.size if self.by_token else int(positions.max(initial=0)) + 1
        shape = (*positions.shape, n // 2)

        def held(address: Array, sine: bool) -> Array:
            r, j = address // long, address % long
            place = positions.reshape(-1)[numpy.minimum(r, rows - 1)] if self.by_token else r
            angle = place * base ** (-2 * (j % (W // 2)) / W)
            of_sine = (j >= W // 2) if self.joined else sine
            found = numpy.where(of_sine, numpy.sin(angle), numpy.cos(angle))
            return numpy.where(r < rows, found, 0).astype(dtype).reshape(shape)

        return held(first, False), held(first + (n // 2 if self.joined else 0), True)


def _turned(x: Array, cos: Array, sin: Array, pairs: tuple[slice, slice]) -> Array:
    one, other = pairs
    y = x.copy()
    y[..., one] = x[..., one] * cos - x[..., other] * sin
    y[..., other] = x[..., other] * cos + x[..., one] * sin
    return y


def table_rows(operation: str) -> Iterator[TableRows]:
    if operation == "partial_rotary":
        for joined, by_token in ((True, True), (True, False), (False, True), (False, False)):
            for table, distance, entries in itertools.product(OF, repeat=3):
                if len({table, distance, entries}) > 1:
                    beyond = joined and (table, distance, entries) == ("turned", "turned", "D")
                    yield TableRows(table, distance, entries, joined, by_token, issue=REPORT if beyond else None)
