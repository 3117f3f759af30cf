"""Rotary embedding: how fast the pairs of a head turn, and what that makes of the score of equal vectors."""

from __future__ import annotations

from typing import Any

import numpy

from book.figures import Theme
from refllm.spec.rotary import rotary_halves

WIDTH, BASE, SHOWN = 64, 10000.0, (0, 4, 8, 16, 31)


def turned(positions: Any) -> Any:
    """A vector of ones in every position."""
    ones = numpy.ones((len(positions), WIDTH))
    return rotary_halves(ones, positions=positions, base=BASE)[0]


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    distances = numpy.arange(0, 513)
    scores = turned(distances) @ turned(numpy.array([0]))[0] / WIDTH
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.2, 3.6))
    places = numpy.arange(1, 513)
    for pair in SHOWN:
        left.plot(places, places * BASE ** (-2 * pair / WIDTH) / (2 * numpy.pi), label=f"pair {pair}")
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("position")
    left.set_ylabel("turns")
    left.axhline(1, color=colours.faint, linewidth=1, linestyle=":")
    left.legend(fontsize=9)
    right.plot(distances, scores)
    right.set_xlabel("distance of query and key")
    right.set_ylabel("score, as a share of the largest")
    for axes in (left, right):
        axes.grid()
    return figure
