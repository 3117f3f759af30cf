"""The loss of a small GPT while it learns, beside n-gram models of the same text."""

from __future__ import annotations

import math
from typing import Any

from book.figures import Theme, stored


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    data = stored("loss_curve")
    figure, axes = pyplot.subplots(figsize=(7.6, 4))
    for name, label, style in (("held_out", "held-out text", "-"), ("learning", "training text", "--")):
        axes.plot(data["steps"], [loss / math.log(2) for loss in data[name]], style, label=label)
    for n, (name, bits) in enumerate(data["baselines_in_bits"].items()):
        if name != "uniform":
            axes.axhline(bits, color=colours.faint, linewidth=1, linestyle=(0, (1 + 2 * n, 2)))
            axes.annotate(name, (data["steps"][-1], bits), xytext=(4, -4), textcoords="offset points")
    axes.set_xlabel("step")
    axes.set_ylabel("bits per character")
    axes.set_xlim(0, data["steps"][-1])
    axes.set_ylim(bottom=0)
    axes.grid()
    axes.legend()
    return figure
