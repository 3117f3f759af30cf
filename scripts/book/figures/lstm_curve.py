"""The loss of the LSTM of documents 003 sec. 5.4 over ten epochs: as printed, and as it comes out on real text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from book.figures import Theme

DATA = Path(__file__).resolve().parents[3] / "docs/data/lstm.json"
PRINTED = (2.0752, 1.8919, 1.7024, 1.4929, 1.2728, 1.0483, 0.8195, 0.6547, 0.5324, 0.4251)  # documents 003 sec. 5.4


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    found = json.loads(DATA.read_text(encoding="utf-8"))
    epochs = range(1, len(found["loss"]) + 1)
    figure, axes = pyplot.subplots(figsize=(7.2, 3.8))
    axes.plot(epochs, found["loss"], "o-", label="training, real text")
    axes.plot(epochs, found["held_out"], "s--", label="held out, real text")
    axes.plot(epochs, PRINTED, "^:", label="printed in the document")
    axes.axhline(found["4-gram"], color=colours.faint, linewidth=1.2)
    axes.annotate("4-gram, held out", (10, found["4-gram"]), ha="right", va="bottom", color=colours.ink)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (nats per token)")
    axes.set_xticks(epochs)
    axes.set_ylim(bottom=0)
    axes.grid(True)
    axes.legend()
    return figure
