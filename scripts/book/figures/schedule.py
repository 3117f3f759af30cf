"""The learning rate over the steps: a line up, half a cosine down."""

from __future__ import annotations

from typing import Any

from book.figures import Theme
from refllm.spec.update import warmup_cosine

TOTAL = 1000


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.2))
    steps = range(1, 1101)
    for warmup, lowest in ((100, 0.0), (100, 0.1), (400, 0.0)):
        rates = [warmup_cosine(step=s, max_lr=1.0, warmup=warmup, total=TOTAL, min_lr=lowest) for s in steps]
        axes.plot(steps, rates, label=f"warmup {warmup}, min_lr {lowest:g} of max_lr")
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate / max_lr")
    axes.grid()
    axes.legend(fontsize=9, loc="upper right")
    return figure
