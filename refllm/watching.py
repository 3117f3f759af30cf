"""Looking on while a model computes: what each attention was given and what it gave.

The operations stay pure: looking on changes no number, and without an onlooker nothing is kept. refllm/explain forms
the weights of attention from what is seen here, which attention itself never has in one piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from refllm.backend import Array


@dataclass(frozen=True)
class Attended:
    """The arguments of one call of `attention`, or of `biased_attention` if r is not None, and its value y."""

    q: Array
    k: Array
    v: Array
    r: Array | None
    causal: bool
    attention_mask: Array | None
    y: Array


_onlooker: ContextVar[list[Attended] | None] = ContextVar("onlooker", default=None)


@contextmanager
def watched() -> Iterator[list[Attended]]:
    """In this context, and in this thread alone, every attention is added to the list, in the order of the calls."""
    seen: list[Attended] = []
    token = _onlooker.set(seen)
    try:
        yield seen
    finally:
        _onlooker.reset(token)


_states: ContextVar[list[Array] | None] = ContextVar("states", default=None)


@contextmanager
def watched_states() -> Iterator[list[Array]]:
    """In this context, and in this thread alone, what goes into a stack of layers and what each of them gives is added
    to the list."""
    seen: list[Array] = []
    token = _states.set(seen)
    try:
        yield seen
    finally:
        _states.reset(token)


def pass_by(x: Array) -> None:
    """For a stack of layers: an onlooker, if there is one, sees its input and what each layer gives."""
    seen = _states.get()
    if seen is not None:
        seen.append(x)


def show(
    q: Array, k: Array, v: Array, r: Array | None, *, causal: bool, attention_mask: Array | None, y: Array
) -> None:
    """For the operations: an onlooker, if there is one, sees this."""
    seen = _onlooker.get()
    if seen is not None:
        seen.append(Attended(q, k, v, r, causal, attention_mask, y))
