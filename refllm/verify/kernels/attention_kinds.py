"""What kinds of attention do besides, in tiles: a cap of the scores, a bias by distance, a sink, a log-sum-exp that is
given back. The text with loops (`flash`) asks its kind at the places where they differ; plain attention does nothing.

Capped(50.0)   Biased(r, queries=33)   Sunk(sink)   WithLse(dl)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy

from refllm.backend import Array
from refllm.verify.kernels.machine import swap

State = tuple[Array, Array, Array]  # the largest score of each query so far, the shift, and the sum of exponentials


class Kind:
    """Plain attention, whose parts of keys (`of_keys`) and single heads (`head`) are plain too."""

    def bent(self, s: Array, row: Array, key: Array) -> Array:
        """A tile of scores before the masks."""
        return s

    def begun(self, top: Array, shift: Array, Z: Array) -> State:
        """What a query begins with before its first key."""
        return top, shift, Z

    def delta(self, delta: Array) -> Array:
        """What is subtracted from dP."""
        return delta

    def gradient(self, L: Array, delta: Array) -> Any:
        """The gradient of what this kind has besides q, k and v, as it is before the first tile."""
        return None

    def gathered(self, gradient: Any, ds: Array, rows: slice, keys: slice) -> Any:
        """The same after one tile more."""
        return gradient

    def unbent(self, ds: Array, q: Array, k: Array) -> Array:
        """The gradient of the product, of that of the score of a tile of queries and keys."""
        return ds

    def of_keys(self, keys: slice) -> Kind:
        """Attention to these keys alone."""
        return self

    def head(self, index: tuple[int, ...]) -> Kind:
        """Attention of one head of one text."""
        return self


PLAIN = Kind()


class Capped(Kind):
    def __init__(self, cap: float) -> None:
        self.cap = cap

    def bent(self, s: Array, row: Array, key: Array) -> Array:
        capped: Array = self.cap * numpy.tanh(s / self.cap)
        return capped

    def unbent(self, ds: Array, q: Array, k: Array) -> Array:
        t = numpy.tanh(q @ swap(k) * (1 / math.sqrt(q.shape[-1])) / self.cap)
        return ds * (1 - t * t)


class Biased(Kind):
    """The bias of query t and key s is r[s + first - t + queries - 1], of the head's row of r."""

    def __init__(self, r: Array, queries: int, first: int = 0) -> None:
        self.r, self.queries, self.first = r, queries, first

    def bent(self, s: Array, row: Array, key: Array) -> Array:
        return s + self.r[..., key + self.first - row + self.queries - 1]

    def gradient(self, L: Array, delta: Array) -> Any:
        return numpy.zeros(self.r.shape, self.r.dtype)

    def gathered(self, gradient: Any, ds: Array, rows: slice, keys: slice) -> Any:
        row, key = numpy.arange(rows.start, rows.stop)[:, None], numpy.arange(keys.start, keys.stop)
        place, n = (key + self.first - row + self.queries - 1).reshape(-1), self.r.shape[-1]
        of_heads = ds.reshape(-1, math.prod(self.r.shape[:-1]), place.size).sum(axis=0)
        added = numpy.stack([numpy.bincount(place, each, n) for each in of_heads])
        return gradient + added.reshape(gradient.shape).astype(gradient.dtype)

    def of_keys(self, keys: slice) -> Kind:
        return Biased(self.r, self.queries, keys.start)

    def head(self, index: tuple[int, ...]) -> Kind:
        return Biased(self.r[index[-1]], self.queries, self.first)


class Sunk(Kind):
    """The sink is a score beside those of the keys, which is there before the first of them."""

    def __init__(self, sink: Array) -> None:
        self.sink = sink

    def begun(self, top: Array, shift: Array, Z: Array) -> State:
        sink = numpy.broadcast_to(self.sink[..., None, None], top.shape).astype(top.dtype)
        return sink, sink, numpy.ones(Z.shape, Z.dtype)

    def gradient(self, L: Array, delta: Array) -> Any:
        share = -(numpy.exp(self.sink[..., None] - L) * delta[..., 0])
        return share.sum(axis=-1).reshape(-1, self.sink.size).sum(axis=0).reshape(self.sink.shape)

    def of_keys(self, keys: slice) -> Kind:
        return self if keys.start == 0 else PLAIN

    def head(self, index: tuple[int, ...]) -> Kind:
        return Sunk(numpy.asarray(self.sink[index[-1]]))


class WithLse(Kind):
    def __init__(self, dl: Array | None) -> None:
        self.dl = dl

    def delta(self, delta: Array) -> Array:
        return delta if self.dl is None else delta - self.dl[..., None]

    def head(self, index: tuple[int, ...]) -> Kind:
        return WithLse(None if self.dl is None else self.dl[index])


class Asked(NamedTuple):
    """What attention is called with beside q, k and v."""

    causal: bool
    allowed: Array | None
    window: int | None = None
    kind: Kind = PLAIN


def asked(operation: str, more: list[Array], queries: int, keywords: dict[str, Any], given: list[Array]) -> Asked:
    """Of a case: its further arguments, its keywords, and what its pullback is called with."""
    kind = PLAIN
    if operation == "capped_attention":
        kind = Capped(keywords["cap"])
    elif operation == "relative_attention":
        kind = Biased(more[0], queries)
    elif operation == "sink_attention":
        kind = Sunk(more[0])
    elif operation == "attention_with_lse":
        kind = WithLse(given[1] if len(given) > 1 else None)
    return Asked(bool(keywords.get("causal", True)), keywords["allowed"], keywords.get("window"), kind)
