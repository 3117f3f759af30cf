"""The same numbers again: in a second call, in other layouts, in poisoned memory, with a call in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from refllm.verify.case import Manner
from refllm.verify.laws.differences import compared
from refllm.verify.laws.trial import Base, Trial
from refllm.verify.layouts import LAYOUTS

AGAIN, LAYOUT = "a second call", "layout of memory"
POISON, BETWEEN = "memory that was never written", "calls in between"


def again(base: Base) -> Iterator[Trial]:
    yield _put(base, AGAIN, Manner(), "called a second time with the same inputs")


def layouts(base: Base) -> Iterator[Trial]:
    """One call a layout."""
    if not any(x.size > 1 for x in base.case.inputs.values()):
        return
    for layout, (_, words) in LAYOUTS.items():
        yield _put(base, LAYOUT, Manner(layout=layout), f"given {words}", refusable=True, needs="layouts")


def poison(base: Base) -> Iterator[Trial]:
    done = "with NaN in the memory that was freed before the call"
    yield _put(base, POISON, Manner(poisoned=True), done, needs="poison")


def between(base: Base) -> Iterator[Trial]:
    done = "with another call between the call and its pullback"
    yield _put(base, BETWEEN, Manner(interleaved=True), done, needs="interleaving")


def _put(base: Base, law: str, manner: Manner, done: str, *, refusable: bool = False, needs: str = "") -> Trial:
    judge = compared(law, done, base.case, base.response, base.dtype, base.C, bits=law != LAYOUT)
    return Trial(law, replace(base.case, manner=manner), done, judge, refusable, needs=needs)
