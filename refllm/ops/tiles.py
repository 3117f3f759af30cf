"""Tiles: the scores of attention are formed in blocks of queries by keys, so that memory grows with T + S, not T S."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

QUERIES, KEYS = 64, 512  # of a tile; where there are several tiles of keys, it is 4 QUERIES high


class Tiles(NamedTuple):
    """Slices n of the queries and m of the keys, all tiles of a block of queries after each other."""

    each: tuple[tuple[slice, slice], ...]
    height: int  # low: less is formed beyond the diagonal; high: fewer calls
    whole_rows: bool  # a tile holds all scores of its queries

    @staticmethod
    @lru_cache(maxsize=16)  # the layers of a model share them
    def of(queries: int, keys: int, causal: bool) -> Tiles:
        """Those of so many queries and keys. Causal: none beyond the last key that a block of queries sees."""
        height = QUERIES if keys <= KEYS else 4 * QUERIES
        each = []
        for i in range(0, queries, height):
            n = slice(i, min(i + height, queries))
            end = n.stop + keys - queries if causal else keys
            each += [(n, slice(j, min(j + KEYS, end))) for j in range(0, end, KEYS)]
        return Tiles(tuple(each), height, keys <= KEYS)
