"""Where the heads of a small trained GPT look in one sentence."""

from __future__ import annotations

from typing import Any

import numpy

from book.figures import Theme, stored


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    data = stored("attention_maps")
    words, maps = data["words"], data["maps"]
    figure, places = pyplot.subplots(len(maps), len(maps[0]), figsize=(9.6, 6.2), sharex=True, sharey=True)
    for layer, row in enumerate(maps):
        for head, weights in enumerate(row):
            axes = places[layer][head]
            axes.imshow(numpy.array(weights), cmap="inferno" if colours.dark else "Blues", vmin=0, vmax=1)
            axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=10)
            axes.set_xticks(range(len(words)), words, rotation=90, fontsize=8.5)
            axes.set_yticks(range(len(words)), words, fontsize=8.5)
            axes.tick_params(length=0)
    return figure
