"""Which key a query may attend: causal, causal with cached keys, padding, both, and a window."""

from __future__ import annotations

from typing import Any

import numpy

from book.figures import Theme


def masks() -> dict[str, Any]:
    """Title -> (T, S), true = may attend."""
    queries, keys = numpy.arange(6)[:, None], numpy.arange(6)
    causal = keys <= queries
    real = keys < 4
    return {
        "causal": causal,
        "causal, 3 cached keys": numpy.arange(6) <= numpy.arange(3)[:, None] + 3,
        "padding: 4 real keys": numpy.broadcast_to(real, (6, 6)),
        "causal and padding": causal & real,
    }


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot
    from matplotlib.colors import ListedColormap

    shown = masks()
    figure, places = pyplot.subplots(1, len(shown), figsize=(9.2, 2.7))
    for axes, (title, mask) in zip(places, shown.items(), strict=True):
        axes.imshow(mask, cmap=ListedColormap([colours.paper, colours.series[0]]), vmin=0, vmax=1)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("key s")
        axes.set_xticks(range(mask.shape[1]))
        axes.set_yticks(range(mask.shape[0]))
        axes.set_xticks(numpy.arange(mask.shape[1] + 1) - 0.5, minor=True)
        axes.set_yticks(numpy.arange(mask.shape[0] + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=colours.faint, alpha=1, linewidth=0.7)
        axes.tick_params(which="both", length=0)
    places[0].set_ylabel("query t")
    return figure
