"""Work that is counted, so that edited text ends: an edit can make any loop of the text endless.

    with at_most(1000) as work: ...     EndlessError at step 1001; work.steps is how many there were

A step is a word of the text (refllm/spec/array.py), or a turn of a loop of edited source, which says `_tick()` first.
A turn of a comprehension of edited source is less: `_turn()`, and there may be many. No power is taken that is huge.
Steps are the same on every machine, which seconds are not. Who searches for so many seconds says so, `until(end)`:
from then on every evaluation ends at its next step. These are seconds of work, so that a report explains as much where
others use the machine too.
"""

from __future__ import annotations

import ast
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from refllm.spec import array

TIMES = 8  # as much work as the unedited text, which an edit may cost
MORE = 1000  # steps beyond that
TURNS = 500_000  # of the comprehensions of one evaluation
LOOK = 64  # turns between two looks at the clock
SLOWER = 2  # times as long as its seconds of work a search may take where others use the machine too
LARGEST = 4096  # exponent of a whole number


class EndlessError(Exception):
    """An evaluation took far more steps than the text that was edited."""


class Work:
    """Steps so far, and how many there may be."""

    def __init__(self, limit: float) -> None:
        self.steps, self.limit, self.turns = 0, limit, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps > self.limit:
            raise EndlessError(f"more than {self.limit:.0f} steps")
        if is_over():
            raise EndlessError("the time for all evaluations is over")

    def turn(self) -> None:
        self.turns += 1
        if self.turns > TURNS:
            raise EndlessError(f"more than {TURNS} turns")
        if self.turns % LOOK == 0 and is_over():
            raise EndlessError("the time for all evaluations is over")


_begun = [0.0, 0.0]  # by the clock on the wall, and by that of the work


def begin() -> None:
    """From now on `now` counts."""
    _begun[:] = time.perf_counter(), time.process_time()


def now() -> float:
    """Seconds of work since `begin`. Where others use the machine too that is less than what has passed, of which half
    counts if it is more."""
    passed = time.perf_counter() - _begun[0]
    return max(time.process_time() - _begun[1], passed / SLOWER)


_running: list[Work] = []
_ends: list[tuple[float, Callable[[], float] | None]] = []


@contextmanager
def until(end: float, clock: Callable[[], float] | None = None) -> Iterator[None]:
    """In this context no evaluation goes on after `end`, by this clock: None is `time.perf_counter`."""
    _ends.append((end, clock))
    try:
        yield
    finally:
        _ends.pop()


def is_over() -> bool:
    """Whether the time is over, for whoever makes what is evaluated."""
    end, clock = _ends[-1] if _ends else (math.inf, None)
    return (time.perf_counter() if clock is None else clock()) > end


def tick() -> None:
    """One step, where work is counted."""
    if _running:
        _running[-1].step()


def turn() -> bool:
    """One turn of a comprehension; always true."""
    if _running:
        _running[-1].turn()
    return True


def power(x: Any, n: Any) -> Any:
    """x ** n, but for whole numbers of a size that takes for ever."""
    if isinstance(x, int) and isinstance(n, int) and n > LARGEST and abs(x) > 1:
        raise EndlessError(f"a power of {n}")
    return x**n


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
    """The same source, each turn of its loops a step, each turn of its comprehensions counted, its powers bounded."""
    _Ticks().visit(tree)
    return ast.fix_missing_locations(tree)


class _Ticks(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node, ast.For | ast.While):
            node.body.insert(0, ast.Expr(_call("_tick")))
        elif isinstance(node, ast.comprehension):
            node.ifs.insert(0, _call("_turn"))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            return ast.copy_location(_call("_power", node.left, node.right), node)
        return node


def _call(name: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])
