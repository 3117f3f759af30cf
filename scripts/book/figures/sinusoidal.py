"""The sinusoidal code of 100 positions, computed by the text."""

from __future__ import annotations

from typing import Any

import numpy

from book.figures import Theme
from refllm.spec.position import sinusoidal


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    code, _ = sinusoidal(numpy.arange(100.0), width=32)
    figure, axes = pyplot.subplots(figsize=(7, 4))
    picture = axes.imshow(code, aspect="auto", cmap="managua" if colours.dark else "RdBu", vmin=-1, vmax=1)
    axes.set_xlabel("entry")
    axes.set_ylabel("position")
    figure.colorbar(picture, ax=axes, label="value", ticks=[-1, 0, 1])
    return figure
