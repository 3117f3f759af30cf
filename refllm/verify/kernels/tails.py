"""The size of the tiles whose partial last one is wrong. One case leaves several sizes open, all of them together few.

starts(wrong, ("row", "column"))        {"column": (33, 32)}: wrong from column 32 of 33 on
words([{"column": (33, 32)}, {"column": (31, 24)}])     "the columns after the last whole tile of 8"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy

from refllm.backend import Array

SIZES = (2, 4, 8, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 512, 1024, 2048)
MOST = 3  # sizes that are named where several fit
VECTOR = ("index", "element")  # what the only axis of an array is called
ALL = "number of the whole array"  # counted through all of its axes
Starts = Mapping[str, tuple[int, int]]


def starts(wrong: Array, axes: Sequence[str]) -> Starts:
    """By axis its length and the first wrong index, where all from there to the end have wrong elements."""
    found = {}
    for axis, name in enumerate(axes):
        here = numpy.asarray(wrong.any(axis=tuple(a for a in range(wrong.ndim) if a != axis)))
        places = numpy.flatnonzero(here)
        if len(places) and places[0] == len(here) - len(places):
            found[name] = len(here), int(places[0])
    flat = numpy.flatnonzero(wrong)
    if wrong.ndim > 1 and len(flat) and wrong.size - flat[0] < wrong.shape[-1]:  # a tail within the last row
        found[ALL] = wrong.size, int(flat[0])
    return found


def _fits(size: int, pairs: set[tuple[int, int]]) -> bool:
    """Whether all begin within the last, partial tile, and most with it: a number may be right by chance."""
    exact = sum(first == n - n % size for n, first in pairs)
    return 2 * exact > len(pairs) and all(n % size and first >= n - n % size for n, first in pairs)


def words(of_cases: Sequence[Starts]) -> str:
    """What begins to be wrong after the last whole tile in every case, and of what size these are; "" if none fits."""
    if len(of_cases) < 2:
        return ""
    given = of_cases
    alone = [{ALL: next(iter(each.values()))} if len(each) == 1 else each for each in of_cases]  # of a vector
    vectors = all(len(each) == 1 and next(iter(each)) in VECTOR for each in given)
    for axis in (ALL,) if vectors else (*of_cases[0], ALL):
        of_cases = alone if axis == ALL else of_cases
        pairs = {each[axis] for each in of_cases if axis in each}
        fit = [size for size in SIZES if _fits(size, pairs)]
        exact = [size for size in fit if all(first == n - n % size for n, first in pairs)]
        fit = exact or (fit if len(pairs) > MOST else []) if axis == ALL else fit
        tails = sum(first > 0 for _, first in pairs)  # the others are shorter than a tile
        if all(axis in each for each in of_cases) and tails > 1 and 0 < len(fit) <= MOST:
            if axis == ALL:
                last = " or ".join(f"n % {size:,}" for size in fit)
                through = (
                    "" if all(len(each) == 1 and ALL not in each for each in given) else ", all axes counted through"
                )
                return f"in the last {last} of the n elements alone{through}"
            several = axis.removesuffix("index") + "indices" if axis.endswith("index") else f"{axis}s"
            return f"the {several} after the last whole tile of {' or '.join(f'{size:,}' for size in fit)}"
    return ""
