"""The same numbers again: in a second call, in other layouts, in poisoned memory, with a call in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy

from refllm.verify.case import Case, Manner
from refllm.verify.laws.differences import compared
from refllm.verify.laws.trial import Base, Trial
from refllm.verify.layouts import CONTIGUOUS, LAYOUTS, read_as_contiguous

AGAIN, LAYOUT = "a second call", "layout of memory"
MOST = 8  # arguments that are tried one by one
STRIDES = "strides are ignored: it is the answer to what lies behind the first number of each array in memory"
POISON, BETWEEN = "memory that was never written", "calls in between"
TWICE = "a second call of the pullback"


def again(base: Base) -> Iterator[Trial]:
    yield _put(base, AGAIN, Manner(), "called a second time with the same inputs")


def layouts(base: Base) -> Iterator[Trial]:
    """One call a layout."""
    if not any(x.size > 1 for x in base.case.inputs.values()):
        return
    names = [*base.case.inputs, *(n for n, x in base.case.keywords.items() if isinstance(x, numpy.ndarray))]
    names += [f"d{name}" for name in base.case.cotangents]
    for layout, (_, words) in LAYOUTS.items():

        def put(alone: str = "", layout: str = layout, done: str = f"given {words}") -> Trial:
            manner = Manner(layout=layout, alone=alone)
            trial = _put(base, LAYOUT, manner, done, refusable=True, needs="layouts")
            return replace(trial, instead=lambda: _without_strides(base.case, manner), reason=STRIDES)

        parts = tuple((name, put(name)) for name in names) if 1 < len(names) <= MOST else ()
        yield replace(put(), parts=parts)


def _without_strides(case: Case, manner: Manner) -> Case | None:
    """The case of the numbers that are read where each array begins, as if it were contiguous; None if they are its
    own, or if there are too few."""
    changed = False

    def read(x: Any, argument: str) -> Any:
        nonlocal changed
        layout = manner.layout_of(argument)
        if layout == CONTIGUOUS or not isinstance(x, numpy.ndarray):
            return x
        found = read_as_contiguous(x, layout)
        if found is None:
            raise EOFError
        changed |= not numpy.array_equal(found, x, equal_nan=x.dtype.kind == "f")
        return found

    try:
        made = replace(
            case,
            inputs={n: read(x, n) for n, x in case.inputs.items()},
            keywords={n: read(x, n) for n, x in case.keywords.items()},
            cotangents={n: read(x, f"d{n}") for n, x in case.cotangents.items()},
        )
    except EOFError:
        return None
    return made if changed else None


def poison(base: Base) -> Iterator[Trial]:
    done = "with NaN in the memory that was freed before the call"
    yield _put(base, POISON, Manner(poisoned=True), done, needs="poison")


def between(base: Base) -> Iterator[Trial]:
    done = "with another call between the call and its pullback"
    yield _put(base, BETWEEN, Manner(interleaved=True), done, needs="interleaving")


def twice(base: Base) -> Iterator[Trial]:
    if base.case.gradients and base.response.gradients:
        done = "with the pullback called a second time for the same upstream gradient"
        yield _put(base, TWICE, Manner(twice=True), done, needs="interleaving")


def _put(base: Base, law: str, manner: Manner, done: str, *, refusable: bool = False, needs: str = "") -> Trial:
    judge = compared(law, done, base.case, base.response, base.dtype, base.C, bits=law != LAYOUT)
    return Trial(law, replace(base.case, manner=manner), done, judge, refusable, needs=needs)
