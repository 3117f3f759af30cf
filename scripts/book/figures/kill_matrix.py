"""On which level of the golden files the known mistakes fail, by the ID that they are mistakes of."""

from __future__ import annotations

from typing import Any

import numpy

from book.figures import Theme, stored

LEVELS = ("L1", "L2", "L3", "L4", "L5", "L7")


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    topics = stored("kill_matrix")["by_id"]
    shares = numpy.array([[counts.get(level, 0) / counts["all"] for level in LEVELS] for counts in topics.values()])
    half = (len(topics) + 1) // 2
    figure, places = pyplot.subplots(1, 2, figsize=(9.2, 0.27 * half + 1))
    for axes, rows in zip(places, (slice(0, half), slice(half, None)), strict=True):
        shown = shares[rows]
        names = [f"{name} ({counts['all']})" for name, counts in list(topics.items())[rows]]
        axes.imshow(
            numpy.ma.masked_equal(shown, 0), cmap="viridis" if colours.dark else "Blues", vmin=0, vmax=1, aspect="auto"
        )
        axes.set_xticks(range(len(LEVELS)), LEVELS)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        for (i, j), share in numpy.ndenumerate(shown):
            dark_cell = (share > 0.5) != colours.dark
            axes.text(j, i, f"{share:.0%}" if share else "", ha="center", va="center", fontsize=8.5,
                      color="white" if dark_cell else "black")  # fmt: skip
        axes.tick_params(length=0)
    return figure
