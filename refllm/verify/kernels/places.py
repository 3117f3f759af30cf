"""What the places of wrong elements are in the operation: those that a mask leaves out, the last head of several.

lines = places(case, "outputs.y", wrong)      ["at all places where valid is false and at no others"]
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy

from refllm.backend import Array
from refllm.verify.case import Case
from refllm.verify.kernels import axes

MOST = 0.75  # the share of the places of a mask that wrong ones must take for the mask to be named


def places(case: Case, name: str, wrong: Array) -> list[str]:
    """Clauses, the first that hold."""
    return [*_of_masks(case, wrong), *_of_heads(case, name, wrong)]


def _of_masks(case: Case, wrong: Array) -> Iterator[str]:
    for left_out, words in _left_out(case):
        before = wrong.shape[: left_out.ndim]
        if left_out.ndim == 0 or left_out.shape != before or left_out.all() or not left_out.any():
            continue
        here = numpy.asarray(wrong.any(axis=tuple(range(left_out.ndim, wrong.ndim))))
        if not here[~left_out].any() and here.sum() >= MOST * left_out.sum():
            yield f"at {'all' if here[left_out].all() else 'most'} places {words}, and at no others"
            return


def _left_out(case: Case) -> Iterator[tuple[Array, str]]:
    """The places that do not count, by each of what may say so."""
    for name, value in case.keywords.items():
        if isinstance(value, numpy.ndarray) and value.dtype.kind == "b":
            yield ~value, f"where {name} is false"
    if isinstance(case.keywords.get("targets"), numpy.ndarray) and case.keywords.get("ignore") is not None:
        yield numpy.asarray(case.keywords["targets"] == case.keywords["ignore"]), "whose target does not count"


def _of_heads(case: Case, name: str, wrong: Array) -> Iterator[str]:
    """Which heads are wrong, where they lie beside each other along an axis."""
    heads, words = _heads(case, name)
    if heads < 2 or name.startswith("outputs."):
        return
    for axis in range(max(0, wrong.ndim - 2), wrong.ndim):
        n = wrong.shape[axis]
        if n % heads or n in (heads, axes.sizes(case).get("C")):
            continue
        along = numpy.asarray(wrong.any(axis=tuple(a for a in range(wrong.ndim) if a != axis)))
        of_heads = along.reshape(heads, -1).any(axis=1)
        found = numpy.flatnonzero(of_heads)
        if len(found) == 1:
            at = int(found[0])
            which = "the first" if at == 0 else "the last" if at == heads - 1 else f"head {at}"
            yield f"in {which} of {heads} {words} alone"
            return


def _heads(case: Case, name: str) -> tuple[int, str]:
    """How many heads a parameter of attention has, and what they are called."""
    heads, shared = case.keywords.get("heads"), case.keywords.get("kv_heads")
    of_keys = isinstance(shared, int) and name.endswith(("Wk", "Wv", "bk", "bv"))
    if not isinstance(heads, int) or isinstance(heads, bool):
        return 0, ""
    return (int(shared), "heads of keys") if of_keys and shared else (heads, "heads")
