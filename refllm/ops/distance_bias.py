"""A bias by distance: the score of query t and key s gets r[s - t + T - 1], formed for a tile of scores at a time."""

from __future__ import annotations

from typing import Any

from refllm.backend import Array, equal_entries


class DistanceBias:
    """What a tile of queries n and keys m gets of r (H, T+S-1), and what r's gradient gets of it."""

    def __init__(self, xp: Any, r: Array, queries: int) -> None:
        self.xp, self.r, self.queries = xp, r, queries

    def tile(self, n: slice, m: slice) -> Array:
        """(H, n, m), a view of r: y[i, j] = part[j - i + h - 1] for the h queries i and the keys j of the tile."""
        part = self.r[:, self._entries(n, m)]
        return self.xp.lib.stride_tricks.sliding_window_view(part, m.stop - m.start, axis=-1)[:, ::-1]

    def add_gradient(self, dr: Array, ds: Array, n: slice, m: slice) -> None:
        """Adds to dr (H, T+S-1) what the gradient ds (..., H, n, m) of a tile's scores gives."""
        dr[:, self._entries(n, m)] += _diagonal_sums(self.xp, ds)

    def _entries(self, n: slice, m: slice) -> slice:
        """Those that a tile needs: from its last query and first key to its first query and last key."""
        return slice(m.start - n.stop + self.queries, m.stop - n.start + self.queries - 1)


def _diagonal_sums(xp: Any, x: Array) -> Array:
    """y[d] = Σ of x[i, j] over j - i + h - 1 = d and over the leading axes; x (..., H, h, w), y (H, h+w-1)

    The diagonals are made columns by a shear, and columns are summed by a product. For h = 2, w = 3:

        a b c      the rows turned    d e f 0 0      the same numbers read     d e f 0
        d e f      over, and h        a b c 0 0      on in rows that are       0 a b c     (0 0 left over)
                   zeros after each                  one shorter

    so that every row stands one place further right than the one above it, and y = d, e + a, f + b, c.
    """
    H, h, w = x.shape[-3:]
    x = x.reshape(-1, H, h, w)
    padded = xp.empty((H, h, w + h), x.dtype)
    padded[..., :w] = (x[0] if len(x) == 1 else x.sum(axis=0))[:, ::-1]
    padded[..., w:] = 0
    in_a_line = padded.reshape(H, h * (w + h))
    sheared = in_a_line[:, : h * (w + h - 1)].reshape(H, h, w + h - 1)
    return equal_entries(xp, h, 1, x.dtype) @ sheared
