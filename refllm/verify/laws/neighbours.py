"""A row of a batch does not depend on the other rows. Which axes are a batch, the plain text declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case
from refllm.verify.declared import Batch, batch
from refllm.verify.laws.differences import compared
from refllm.verify.laws.trial import Base, Trial

NEIGHBOURS = "rows of a batch"
HIGHEST = 3  # level: what generates text or trains has decisions and draws of its own


def neighbours(base: Base) -> Iterator[Trial]:
    """The rows beside one that stays are exchanged; then they hold NaN."""
    found = batch(base.case) if 1 <= base.case.level <= HIGHEST else None
    if found is None:
        return
    kept = found.size // 2
    yield _trial(base, found, kept, _exchanged, f"with other rows beside {_row(found, kept)}", refusable=False)
    if not found.inputs:
        return
    last = found.size - 1
    yield _trial(base, found, last, _lost, f"with NaN in the rows beside {_row(found, last)}", refusable=True)


Change = Callable[[Array, int], Array]


def _exchanged(rows: Array, kept: int) -> Array:
    """Each row in the place of the next, but for the one that stays."""
    moved = numpy.roll(rows, 1, axis=0)
    moved[kept] = rows[kept]
    return moved


def _lost(rows: Array, kept: int) -> Array:
    if rows.dtype.kind != "f":
        return rows
    lost = numpy.full_like(rows, numpy.nan)
    lost[kept] = rows[kept]
    return lost


def changed(case: Case, found: Batch, kept: int, change: Change) -> Case:
    """The case with that change in every array that has rows of the batch."""

    def over(arrays: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        return {n: _by_row(x, found, kept, change) if n in names else x for n, x in arrays.items()}

    cotangents = over(case.cotangents, tuple(case.cotangents))
    return replace(
        case, inputs=over(case.inputs, found.inputs), keywords=over(case.keywords, found.keywords),
        cotangents=cotangents,
    )  # fmt: skip


def _by_row(x: Array, found: Batch, kept: int, change: Change) -> Array:
    core = x.shape[len(found.lead) :]
    return change(x.reshape(found.size, *core), kept).reshape(x.shape)


def _trial(base: Base, found: Batch, kept: int, change: Change, done: str, *, refusable: bool) -> Trial:
    at = numpy.unravel_index(kept, found.lead)

    def where(group: str, name: str) -> Any:
        return at if group == "outputs" or name in found.inputs else None

    judge = compared(NEIGHBOURS, done, base.case, base.response, base.dtype, base.C, where)
    return Trial(NEIGHBOURS, changed(base.case, found, kept, change), done, judge, refusable)


def _row(found: Batch, kept: int) -> str:
    at = [int(i) for i in numpy.unravel_index(kept, found.lead)]
    return f"row {at[0] if len(at) == 1 else at}"
