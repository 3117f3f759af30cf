"""Causal attention to keys of which a cache holds the first: tiles of them that are counted as if there were none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy

from refllm.verify.case import Case

TILES = (
    (64, 128), (64, 64), (128, 64), (128, 128), (32, 32), (16, 16), (32, 64), (64, 32), (128, 32), (16, 64), (256, 256),
)  # fmt: skip


def without_offset(rows: int, keys: int) -> Callable[[Case], Case | None]:
    """The keys up to the tile that has the number of the query, and the causal mask besides. As a mask it holds for
    the values and the gradients of every operation that takes one."""

    def changed(case: Case) -> Case | None:
        q, k, held = case.inputs.get("q"), case.inputs.get("k"), case.keywords
        if q is None or k is None or "allowed" not in held or not (held.get("causal") or "window" in held):
            return None
        T, S = q.shape[-2], k.shape[-2]
        last = numpy.minimum(T, (numpy.arange(T) // rows + 1) * rows)
        read = numpy.arange(S) < (-(-last // keys) * keys)[:, None]
        causal = numpy.arange(S) <= numpy.arange(T)[:, None] + S - T
        if T >= S or read[causal].all():
            return None
        allowed = read if held["allowed"] is None else held["allowed"] & read
        return replace(case, inputs=dict(case.inputs), keywords={**held, "allowed": allowed})

    return changed
