"""Work that is counted, so that edited text ends: an edit can make any loop of the text endless.

    with at_most(1000) as work: ...     EndlessError at step 1001; work.steps is how many there were

A step is a word of the text (refllm/spec/array.py), or a turn of a loop of edited source, which says `_tick()` first.
Steps are the same on every machine, which seconds are not. Who searches for so many seconds says so, `until(end)`:
from then on every evaluation ends at its next step.
"""

from __future__ import annotations

import ast
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from refllm.spec import array

TIMES = 8  # as much work as the unedited text, which an edit may cost
MORE = 1000  # steps beyond that


class EndlessError(Exception):
    """An evaluation took far more steps than the text that was edited."""


class Work:
    """Steps so far, and how many there may be."""

    def __init__(self, limit: float) -> None:
        self.steps, self.limit = 0, limit

    def step(self) -> None:
        self.steps += 1
        if self.steps > self.limit:
            raise EndlessError(f"more than {self.limit:.0f} steps")
        if is_over():
            raise EndlessError("the time for all evaluations is over")


_running: list[Work] = []
_ends: list[float] = []


@contextmanager
def until(end: float) -> Iterator[None]:
    """In this context no evaluation goes on after `end`, by `time.perf_counter`."""
    _ends.append(end)
    try:
        yield
    finally:
        _ends.pop()


def is_over() -> bool:
    """Whether the time is over, for whoever makes what is evaluated."""
    return bool(_ends) and time.perf_counter() > _ends[-1]


def tick() -> None:
    """One step, where work is counted."""
    if _running:
        _running[-1].step()


@contextmanager
def at_most(limit: float = math.inf) -> Iterator[Work]:
    """In this context every step counts. For one thread."""
    own, work = array._mathematics, Work(limit)

    def counted(*arguments: Any) -> Any:
        work.step()
        return own(*arguments)

    _running.append(work)
    array._mathematics = counted
    try:
        yield work
    finally:
        array._mathematics = own
        _running.pop()


def allowed(steps: int) -> int:
    """How many steps an edit may take of text that takes so many."""
    return TIMES * steps + MORE


def with_ticks(tree: ast.Module) -> ast.Module:
    """The same source, each turn of its loops a step."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.While):
            word = ast.copy_location(ast.Name("_tick", ast.Load()), node)
            call = ast.copy_location(ast.Call(word, [], []), node)
            node.body.insert(0, ast.copy_location(ast.Expr(call), node))
    return tree
