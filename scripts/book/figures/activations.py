"""The nonlinearities of the feed-forward layer, computed by the text."""

from __future__ import annotations

from typing import Any

import numpy

from book.figures import Theme
from refllm.spec.activation import gelu_erf, gelu_tanh, relu, silu

CURVES = {"ReLU": (relu, "-"), "GELU": (gelu_erf, "-"), "GELU, tanh form": (gelu_tanh, ":"), "SiLU": (silu, "--")}


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    x = numpy.linspace(-4, 2.5, 400)
    figure, axes = pyplot.subplots(figsize=(7, 3.4))
    for name, (function, style) in CURVES.items():
        axes.plot(x, function(x)[0], style, label=name)
    axes.grid()
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.legend()
    return figure
