"""What a step goes into on several processes, as measured; and the share of computing that is predicted for many."""

from __future__ import annotations

from typing import Any

from book.figures import Theme, stored
from refllm.errors import UserError
from refllm.scaling.machines import MACHINES
from refllm.scaling.search import best
from refllm.scaling.steps import predicted
from refllm.scaling.workloads import published

PARTS = {"compute": "computing", "sending": "sending", "waiting": "waiting"}
MODELS = {"gpt2-small": "o-", "gpt2-xl": "s--", "llama2-7b": "^-.", "llama2-70b": "D:"}
COUNTS = [2**n for n in range(15)]


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    figure, (measured, many) = pyplot.subplots(1, 2, figsize=(9.6, 4.0), width_ratios=(1.15, 1))
    _measured(measured, colours)
    _many(many, colours)
    return figure


def _measured(axes: Any, colours: Theme) -> None:
    found = stored("scaling")
    rows = [(str(step["processes"]), step) for step in found["cost"]["steps"]]
    rows += [
        (f"{s['processes']}, {1000 * s['delay']:.0f} ms,\n{s['bandwidth'] / 1e6:g} MB/s", s)
        for s in found["network"]["steps"]
    ]
    left = [0.0] * len(rows)
    for (part, label), colour, hatch in zip(PARTS.items(), colours.series, ("", "///", "..."), strict=False):
        widths = [step[part] for _, step in rows]
        axes.barh([name for name, _ in rows], widths, left=left, label=label, color=colour, hatch=hatch, height=0.7)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel="seconds of a step", ylabel="processes", title="measured")
    # beside the first bars, which are the shortest
    axes.legend(fontsize=9, loc="upper right")


def _many(axes: Any, colours: Theme) -> None:
    machine = MACHINES["a100"]
    for (name, style), colour in zip(MODELS.items(), colours.series, strict=False):
        workload, points = published(name), []
        for n in COUNTS:
            try:
                step = predicted(workload, machine, best(workload, machine, n))
            except UserError:
                continue
            points.append((n, 100 * step.compute / step.total))
        axes.plot(*zip(*points, strict=True), style, label=name, color=colour, markersize=4)
    axes.set_xscale("log", base=4)
    axes.set(xlabel="processes", ylabel="per cent of a step that computes", ylim=(0, 103), title="predicted, best cut")
    axes.grid()
    axes.legend(fontsize=9, loc="lower left")
