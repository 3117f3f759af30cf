"""Causal attention over a long context in blocks of queries, whose scores a memory holds: the same text, called for the
queries of each block with the keys up to its end. For any kind of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from refllm.spec.array import Array, concatenate

MOST = 1 << 23  # scores that one call forms


def attention(function: Callable[..., Any]) -> Callable[..., Any]:
    """The operation `attention` of the golden files, in blocks where it has more scores than MOST."""

    def run(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
        T, S = q.shape[-2], k.shape[-2]
        scores = q.size // max(1, q.shape[-1]) * S
        if not causal or allowed is not None or T != S or scores <= MOST:
            return function(q, k, v, causal=causal, allowed=allowed)

        def block(first: int, end: int) -> Any:
            keys, values = k[..., :end, :], v[..., :end, :]
            return function(q[..., first:end, :], keys, values, causal=True, allowed=None)

        def back(dy: Array) -> tuple[Array, Array, Array]:
            dq, dk, dv = list[Array](), None, None
            for first, end in reversed(list(_bounds(T, scores))):
                dq_here, dk_here, dv_here = block(first, end)[1](dy[..., first:end, :])
                dq.append(dq_here)
                dk, dv = _added(dk, dk_here, end), _added(dv, dv_here, end)
            return concatenate(dq[::-1], axis=-2), dk, dv

        return concatenate([block(first, end)[0] for first, end in _bounds(T, scores)], axis=-2), back

    return run


def _bounds(T: int, scores: int) -> Iterator[tuple[int, int]]:
    rows = max(1, T * MOST // scores // 4)
    return ((first, min(T, first + rows)) for first in range(0, T, rows))


def _added(all: Array | None, here: Array, end: int) -> Array:
    """What earlier queries give is added to that of the keys that they see."""
    return here if all is None else concatenate([all[..., :end, :] + here, all[..., end:, :]], axis=-2)
