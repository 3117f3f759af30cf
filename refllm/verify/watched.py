"""What is seen of a Python function while it is called: whether it changed what it was given, and whose memory its
results lie in.

An operation that gives new values of its arguments (`adamw` gives p', m' and v') may write them in their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy
from numpy.lib.array_utils import byte_bounds

from refllm.backend import Array
from refllm.parameters import Tree, named_leaves
from refllm.verify.case import Case, in_dtype
from refllm.verify.declared import updates_in_place
from refllm.verify.law import Law

UNCHANGED, OWN_MEMORY, LATER_CALL = "inputs unchanged", "results in their own memory", "results stay as they are"
_HARD = 1000  # steps after which whether two arrays overlap is left open


class Watch:
    """The arrays that one call is given."""

    def __init__(self, case: Case, dtype: str, arguments: list[Tree], keywords: Mapping[str, Any]) -> None:
        self.case, self.dtype, self.arguments, self.keywords = case, dtype, arguments, keywords
        self._watched = bool(case.level) and not updates_in_place(case.operation)

    @cached_property
    def _was(self) -> dict[str, Array]:
        """What the call was given, by name: the numbers of the case itself, which it never gets into its hands."""
        keywords = {name: x for name, x in self.case.keywords.items() if isinstance(x, numpy.ndarray)}
        return keywords | {name: in_dtype(x, self.dtype) for name, x in self.case.inputs.items()}

    def after_call(self, outputs: Mapping[str, Any]) -> list[Law]:
        """What the call broke."""
        if not self._watched:
            return []
        given = self._given()
        return [*_differences(given, self._was, "call"), *_shared(outputs, given, "output")]

    def after_pullback(self, gradients: Mapping[str, Any], cotangents: list[Tree]) -> list[Law]:
        """What the pullback broke. A gradient may be the array that came in: a note, for frameworks hand it on."""
        if not self._watched:
            return []
        given, now = self._given(), _leaves(cotangents, "dy")
        came_in = _leaves(self.case.pulled(lambda x: in_dtype(x, self.dtype)), "dy")
        changed = [*_differences(given, self._was, "pullback"), *_differences(now, came_in, "pullback")]
        handed_on = [Law(law.name, False, law.message) for law in _shared(gradients, now, "gradient of")]
        return [*changed, *_shared(gradients, given, "gradient of"), *handed_on]

    def _given(self) -> dict[str, Array]:
        found = {n: x for n, x in self.keywords.items() if isinstance(x, numpy.ndarray)}
        for name, tree in zip(self.case.order, self.arguments, strict=True):
            found.update((leaf, x) for leaf, x in named_leaves(tree, name) if isinstance(x, numpy.ndarray))
        return found


def overwritten(outputs: Mapping[str, Any], before: Mapping[str, Array]) -> list[Law]:
    """Which results of a call a later call changed; `before` are copies from between the two."""
    found = list[Law]()
    for name, was in before.items():
        if at := _first_difference(outputs[name], was):
            found.append(Law(LATER_CALL, True, f"the result {name} of one call is changed by the next one: {name}{at}"))
    return found


def copies(outputs: Mapping[str, Any]) -> dict[str, Array]:
    return {name: x.copy() for name, x in outputs.items() if isinstance(x, numpy.ndarray)}


def _leaves(trees: list[Tree], name: str) -> dict[str, Array]:
    several = len(trees) > 1
    roots = [f"{name}[{n}]" if several else name for n in range(len(trees))]
    return {
        leaf: x
        for root, tree in zip(roots, trees, strict=True)
        for leaf, x in named_leaves(tree, root)
        if isinstance(x, numpy.ndarray)
    }


def _differences(now: Mapping[str, Array], was: Mapping[str, Array], by: str) -> Iterator[Law]:
    for name, x in now.items():
        if name not in was:
            yield Law(UNCHANGED, True, f"the {by} puts {name} into what it was given")
        elif at := _first_difference(x, was[name]):
            yield Law(UNCHANGED, True, f"the input {name} is changed by the {by}: {name}{at}")


def _first_difference(x: Array, was: Array) -> str:
    """[0, 3] was 1.5, is 0.75; "" if nothing has changed."""
    if x.shape != was.shape or x.dtype != was.dtype:
        return f" had the shape {was.shape} and dtype {was.dtype}, has {x.shape} and {x.dtype}"
    same = x == was
    if x.dtype.kind in "fc" and not same.all():
        same = same | (numpy.isnan(x) & numpy.isnan(was))
    if same.all():
        return ""
    at = tuple(int(i) for i in numpy.argwhere(~same)[0])
    where = list(at) if at else ""
    return f"{where} was {_number(was[at])}, is {_number(x[at])}"


def _number(x: Any) -> str:
    return f"{x:.9g}" if x.dtype.kind in "fiu" else str(x)


def _shared(results: Mapping[str, Any], given: Mapping[str, Array], what: str) -> Iterator[Law]:
    places = [(*_place(x), other, x) for other, x in given.items()]
    for name, y in results.items():
        if not isinstance(y, numpy.ndarray):
            continue
        start, end = _place(y)
        for low, high, other, x in places:
            if low < end and start < high and _overlap(y, x):
                text = f"the {what} {name} lies in the memory of the input {other}: who changes one changes the other"
                yield Law(OWN_MEMORY, True, text)


def _place(x: Array) -> tuple[int, int]:
    """The addresses between which the numbers of an array lie."""
    place: tuple[int, int] = byte_bounds(x)
    return place


def _overlap(x: Array, y: Array) -> bool:
    shares: Any = numpy.shares_memory
    try:
        return bool(shares(x, y, max_work=_HARD))
    except numpy.exceptions.TooHardError:
        return False
