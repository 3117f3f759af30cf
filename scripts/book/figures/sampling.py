"""What temperature, top-k and top-p leave of one distribution, found by drawing with evenly spread uniforms."""

from __future__ import annotations

from typing import Any

import numpy

from book.figures import Theme
from refllm.spec.sampling import choose

PROBABILITIES = numpy.array([0.32, 0.22, 0.14, 0.1, 0.08, 0.06, 0.04, 0.02, 0.01, 0.01])
DRAWS = 400
SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {"temperature": 1.0, "top_k": None, "top_p": None},
    "temperature 0.5": {"temperature": 0.5, "top_k": None, "top_p": None},
    "temperature 2": {"temperature": 2.0, "top_k": None, "top_p": None},
    "top_k 3": {"temperature": 1.0, "top_k": 3, "top_p": None},
    "top_p 0.8": {"temperature": 1.0, "top_k": None, "top_p": 0.8},
}


def shares(setting: dict[str, Any]) -> Any:
    """How often each token is drawn."""
    logits = numpy.log(PROBABILITIES)
    drawn = [choose(logits, uniform=(n + 0.5) / DRAWS, **setting) for n in range(DRAWS)]
    return numpy.bincount(drawn, minlength=len(PROBABILITIES)) / DRAWS


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    figure, places = pyplot.subplots(1, len(SETTINGS), figsize=(9.2, 2.6), sharey=True)
    for axes, (name, setting) in zip(places, SETTINGS.items(), strict=True):
        axes.bar(range(len(PROBABILITIES)), shares(setting), color=colours.series[0])
        axes.set_title(name, fontsize=11)
        axes.set_xticks([0, 4, 9])
        axes.set_xlabel("token")
    places[0].set_ylabel("probability")
    return figure
