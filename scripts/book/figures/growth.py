"""What attention keeps for its backward pass, and how many products it forms, over the length of a text. Counted from
the formulas, for one head; nothing is measured here."""

from __future__ import annotations

from typing import Any

import numpy

from book.figures import Theme

D = 64  # the width of a head
TILE = 64 * 512  # scores that the fast version forms at once
LENGTHS = 2 ** numpy.arange(7, 18)


def kept(T: Any) -> dict[str, Any]:
    """Numbers that are held between the passes, besides queries, keys and values."""
    return {
        "all weights: T²": T * T,
        "tiles: output, sum, maximum": T * (D + 2) + TILE,
    }


def products(T: Any) -> dict[str, Any]:
    """Multiplications of forward and backward pass: two products of matrices, then five."""
    return {"whole text": 7 * T * T * D, "window of 1,024 keys": 7 * T * numpy.minimum(T, 1024) * D}


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    figure, places = pyplot.subplots(1, 2, figsize=(9.2, 3.6))
    for axes, counted, label in zip(places, (kept, products), ("numbers kept", "multiplications"), strict=True):
        for name, values in counted(LENGTHS).items():
            axes.plot(LENGTHS, values, marker="o", markersize=3, label=name)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("length T")
        axes.set_ylabel(label)
        axes.grid()
        axes.legend(fontsize=9, loc="lower right")
    return figure
