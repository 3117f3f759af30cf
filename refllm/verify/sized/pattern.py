"""Where the wrong elements of a tensor are, in words: the mistakes of kernels have places.

in_words(wrong, ("head", "row", "column"))      "all in columns ≥ 1,024 of 1,025: the tail after 32 whole tiles of 32"
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from refllm.backend import Array

TILES = (1024, 512, 256, 128, 64, 32, 16, 8, 4)
PERIODS = (2, 3, 4, 5, 6, 7, 8, 16, 32, 64)
SHORT = 8  # a tile that must stand more than once for what is left to be its tail
FEW = 3  # indices that are listed one by one


def in_words(wrong: Array, axes: Sequence[str]) -> str:
    """A clause about the places of the wrong elements; "" where they have no pattern, or all are wrong."""
    if not wrong.any() or wrong.all():
        return ""
    parts, region = [], numpy.ones(wrong.shape, bool)
    for axis, name in enumerate(axes):
        others = tuple(a for a in range(wrong.ndim) if a != axis)
        here = numpy.asarray(wrong.any(axis=others))
        if words := _along(here, name):
            parts.append(words)
            region &= here.reshape([-1 if a == axis else 1 for a in range(wrong.ndim)])
    if not parts:
        return ""
    whole = bool(wrong[region].all())
    return f"{'all of' if whole else 'all in'} {', '.join(parts)}"


def _along(here: Array, name: str) -> str:
    """What is said of the indices along one axis that have wrong elements; "" if nothing tells them from the others."""
    n, places = len(here), numpy.flatnonzero(here)
    if len(places) == n or n == 1:
        return ""
    first, last = int(places[0]), int(places[-1])
    if len(places) == last - first + 1:
        return _one_after_the_other(first, last, n, name)
    if period := _period(places, n):
        return f"every {_ordinal(period)} {name}, from {first:,} on"
    if len(places) <= FEW:
        return f"{_several(name)} {', '.join(f'{int(p):,}' for p in places)} of {n:,}"
    return _in_tiles(places, n, name)


def _one_after_the_other(first: int, last: int, n: int, name: str) -> str:
    tail = _tail(first, n) if last == n - 1 else ""
    if first == last:
        return f"{name} {first:,} of {n:,}{tail}"
    if last == n - 1:
        return f"{_several(name)} ≥ {first:,} of {n:,}{tail}"
    return (
        f"{_several(name)} < {last + 1:,} of {n:,}"
        if first == 0
        else f"{_several(name)} {first:,} to {last:,} of {n:,}"
    )


def _tail(first: int, n: int) -> str:
    """That they are what remains after whole tiles, and of which sizes these may be."""
    fit = [t for t in TILES if first and first % t == 0 and n - first < t and (t > SHORT or first > SHORT)]
    smaller = f"{fit[-1]:,} to " if len(fit) > 1 else ""
    return f" (the tail after whole tiles of {smaller}{fit[0]:,})" if fit else ""


def _period(places: Array, n: int) -> int:
    """p if they are every p-th index from the first on, up to the end."""
    steps = numpy.diff(places)
    step = int(steps[0])
    return step if step in PERIODS and (steps == step).all() and places[0] < step and places[-1] + step >= n else 0


def _in_tiles(places: Array, n: int, name: str) -> str:
    """That they stand at the same places of tiles, and no right one does: the last of each, the upper half."""
    for tile in (32, 64, 128, 16, 8):
        within = numpy.unique(places % tile)
        everywhere = numpy.isin(numpy.arange(n) % tile, within).sum() == len(places)
        if n <= tile or not everywhere:
            continue
        if len(within) == 1:
            return f"{name} {int(within[0])} of each tile of {tile}"
        if len(within) == tile // 2 and within[0] in (0, tile // 2) and within[-1] - within[0] == len(within) - 1:
            return f"the {'lower' if within[0] == 0 else 'upper'} half of each tile of {tile} {_several(name)}"
    return ""


def _several(name: str) -> str:
    return name.removesuffix("index") + "indices" if name.endswith("index") else f"{name}s"


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third", 32: "32nd"}.get(n, f"{n}th")
