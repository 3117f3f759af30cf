"""Memory and time of a training step over the length of its window, as measured."""

from __future__ import annotations

from typing import Any

from book.figures import Theme, stored

NAMES = {"gpt": "GPT, learned positions", "llama": "Llama, rotary positions"}


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    figure, (memory, time) = pyplot.subplots(1, 2, figsize=(9.2, 3.6))
    for (name, steps), style in zip(stored("context")["memory"]["steps"].items(), ("o-", "s--"), strict=True):
        lengths = [step["context"] for step in steps]
        memory.plot(lengths, [step["megabytes"] for step in steps], style, label=NAMES[name])
        time.plot(lengths, [step["seconds"] for step in steps], style, label=NAMES[name])
    memory.set(xlabel="tokens in the window", ylabel="peak memory (MB)", ylim=(0, None), xlim=(0, None))
    time.set(xlabel="tokens in the window", ylabel="seconds", yscale="log")
    time.set_xscale("log", base=2)
    for axes in (memory, time):
        axes.grid()
        axes.legend(fontsize=9, loc="upper left")
    return figure
