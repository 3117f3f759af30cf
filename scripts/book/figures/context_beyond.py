"""How well positions of each kind serve windows longer than those of training, as measured."""

from __future__ import annotations

from typing import Any

from book.figures import Theme, stored

STYLES = ("*", "o-", "s--", "^-.", "D-", "v:")


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    measured = stored("context")["beyond"]
    figure, axes = pyplot.subplots(figsize=(7, 3.8))
    for number, (style, (name, bits)) in enumerate(zip(STYLES, measured["bits"].items(), strict=True)):
        colour = (*colours.series, colours.ink)[number]
        given = [(window, each) for window, each in zip(measured["windows"], bits, strict=True) if each is not None]
        alone = {"markersize": 11, "zorder": 3} if len(given) == 1 else {}  # else another mark lies on it
        axes.plot(*zip(*given, strict=True), style, label=name, color=colour, **alone)
    axes.set(xlabel="tokens in the window; trained with 64", ylabel="bits per character, held out")
    axes.set_xscale("log", base=2)
    axes.set_xticks(measured["windows"], [str(window) for window in measured["windows"]])
    axes.grid()
    axes.legend(fontsize=9, loc="upper left")
    return figure
