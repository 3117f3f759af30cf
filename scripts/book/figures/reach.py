"""How much of a gradient is left after so many steps back through time: of an RNN's state and of an LSTM's cell."""

from __future__ import annotations

from typing import Any

import numpy

from book.figures import Theme
from refllm.spec.recurrent import lstm, rnn

STEPS, WIDTH = 40, 8


def of_state(stretch: float) -> list[float]:
    """|dh_0| for a gradient of length 1 at the last of 1, 2, 3 ... states, with a matrix that turns and stretches."""
    rotation = numpy.linalg.qr(numpy.random.default_rng(0).standard_normal((WIDTH, WIDTH)))[0]
    nothing, first = numpy.zeros((1, STEPS, 1)), numpy.zeros((1, WIDTH))
    found = []
    for steps in range(1, STEPS + 1):
        _, back = rnn(nothing[:, :steps], first, numpy.zeros((1, WIDTH)), stretch * rotation, first[0], token_mask=None)
        dy = numpy.zeros((1, steps, WIDTH))
        dy[0, -1] = WIDTH**-0.5
        found.append(float(numpy.linalg.norm(back(dy)[1])))
    return found


def of_cell(bias: float) -> list[float]:
    """dc_0 for a gradient of 1 at the last of 1, 2, 3 ... cells."""
    weights, first = numpy.zeros((1, 4)), numpy.zeros((1, 1))
    b = numpy.array([0.0, bias, 0.0, 0.0])
    found = []
    for steps in range(1, STEPS + 1):
        _, back = lstm(numpy.zeros((1, steps, 1)), first, first, weights, weights, b, token_mask=None)
        found.append(float(back(numpy.zeros((1, steps, 1)), first + 1)[2][0, 0]))
    return found


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    steps = range(1, STEPS + 1)
    figure, (states, cells) = pyplot.subplots(1, 2, figsize=(9.2, 3.2), sharey=True)
    for stretch, style in ((1.2, "-."), (1.0, "-"), (0.8, "--"), (0.5, ":")):
        states.plot(steps, of_state(stretch), style, label=f"stretched by {stretch}")
    for bias, style in ((5, "-"), (3, "--"), (1, "-."), (0, ":")):
        cells.plot(steps, of_cell(bias), style, label=f"forget bias {bias}")
    for axes, title in ((states, "state of an RNN"), (cells, "cell of an LSTM")):
        axes.set_yscale("log")
        axes.set_ylim(1e-6, 1e8)
        axes.set_title(title)
        axes.set_xlabel("steps back")
        axes.grid(True)
        axes.legend(loc="upper left", fontsize=9)
    states.set_ylabel("what is left of the gradient")
    return figure
