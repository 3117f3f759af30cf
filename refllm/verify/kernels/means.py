"""Means that are divided by another number, in the value alone or in the gradient alone: all places instead of
those that count, none, or the right one twice.

    for cause in means("cross_entropy"): cause.answer(case, "float64")     None where it changes nothing of the case
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.case import Case, Response

Times = Callable[[Array, int], Any]  # of how many count, an array, and of how many there are
DIVIDED: tuple[tuple[str, str, Times], ...] = (
    ("of-all-places", "divided by all places, not by those that count", lambda n, all: n / all),
    ("not-divided", "not divided by the number of places", lambda n, _: n),
    ("divided-twice", "divided twice by the number of places", lambda n, _: 1 / n),
)


@dataclass(frozen=True, eq=False)
class Mean:
    id: str
    about: str
    times: Times
    gradients_alone: bool
    issue: str | None = None
    diff: list[tuple[str, list[str]]] = field(default_factory=list)

    def answer(self, case: Case, dtype: str) -> Response | None:
        counted = _counted(case)
        if counted is None or not counted.size:
            return None
        number = numpy.maximum(counted.sum(axis=-1), 1)
        times = numpy.asarray(self.times(number, counted.shape[-1]), "float64")
        found = plain.answer(case, dtype, {}, traced=False, values=not case.cotangents)
        if found is None or (times == 1).all():
            return None
        if not self.gradients_alone:
            return Response({n: _times(times, y) for n, y in found.outputs.items()}, found.gradients)
        return Response(found.outputs, {n: _times(times, d) for n, d in (found.gradients or {}).items()})


def _times(times: Array, x: Array) -> Array:
    """Each place of the first axes times its number."""
    return numpy.asarray(x * times.astype(x.dtype).reshape((*times.shape, *[1] * max(0, x.ndim - times.ndim))))


def _counted(case: Case) -> Array | None:
    """The places that count, in an axis over which the mean is taken; None where an operation takes none."""
    targets, ignore = case.keywords.get("targets"), case.keywords.get("ignore")
    if isinstance(targets, numpy.ndarray) and case.keywords.get("reduction") == "mean":
        flat = targets.reshape(-1)
        return numpy.ones(flat.shape, bool) if ignore is None else numpy.asarray(flat != ignore)
    valid = case.keywords.get("valid")
    of_rows = valid.shape[:-1] if isinstance(valid, numpy.ndarray) else None
    if of_rows is not None and all(y.value.shape == of_rows for y in case.outputs.values()):
        return numpy.asarray(valid)
    return None


def means(operation: str) -> Iterator[Mean]:
    for one, other in (("gradient", "value"), ("value", "gradient")):
        for id, words, times in DIVIDED:
            about = f"{operation} whose {one} is {words}; its {other} is right"
            yield Mean(f"{operation}/{one}-{id}", about, times, gradients_alone=one == "gradient")
