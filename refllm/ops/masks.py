"""Masks: a key that a query may not attend gets the score -inf, so that its weight exp(-inf) is 0."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from refllm.backend import Array


class Masks:
    """The causal mask, in which query t sees the keys up to t + S - T, and the mask that the caller gives.

    In the text both are `where(may_attend, s, -inf)`. Here 0 or -inf is added to the scores instead, which takes half
    as long; nothing is added to keys that every query of a tile sees.
    """

    def __init__(self, xp: Any, q: Array, keys: int, causal: bool, attention_mask: Array | None, height: int) -> None:
        T = q.shape[-2]
        self.xp, self.past = xp, keys - T
        self.given = None if attention_mask is None else xp.broadcast_to(attention_mask, (*q.shape[:-1], keys))
        self.late = _late(xp, min(T, height), q.dtype) if causal and T > 1 else None  # one last query sees every key

    def forbid(self, s: Array, n: slice, m: slice) -> None:
        """Adds -inf to the scores s (..., n, m) of the keys that are forbidden."""
        if self.late is not None:
            after = n.start + self.past + 1  # the key after the own one of the tile's first query
            first = max(m.start, after)
            if first < m.stop:
                s[..., first - m.start :] += self.late[: n.stop - n.start, first - after : m.stop - after]
        if self.given is not None:
            s += self.xp.where(self.given[..., n, m], 0, -math.inf).astype(s.dtype)


@lru_cache(maxsize=16)
def _late(xp: Any, size: int, dtype: Any) -> Array:
    """-inf where j >= i, else 0: what is added to the scores of a block of queries i with the keys j after the own one
    of its first query. All layers get the same array, to which nothing is written."""
    index = xp.arange(size)
    return xp.where(index >= index[:, None], -math.inf, 0).astype(dtype)
