"""What is added to a score for the distance of a key: the slopes of ALiBi, and the buckets of T5."""

from __future__ import annotations

from typing import Any

import numpy

from book.figures import Theme
from refllm.spec.llama import alibi_slopes
from refllm.spec.relative import alibi, bucket

KEYS, HEADS, BUCKETS, FARTHEST = 160, 4, 32, 128


def drawing(colours: Theme) -> Any:
    from matplotlib import pyplot

    before = numpy.arange(KEYS)  # places that the key lies before the query
    figure, (falling, steps) = pyplot.subplots(1, 2, figsize=(9.2, 3.2))
    lines = alibi(alibi_slopes(HEADS), queries=1, keys=KEYS)[0][:, ::-1]
    styles = ("-", "--", "-.", ":")
    for head, (line, style) in enumerate(zip(lines, styles, strict=True), 1):
        falling.plot(before, line, style, label=f"head {head}")
    falling.set_title("ALiBi, 4 heads")
    falling.set_ylabel("added to the score")
    falling.set_ylim(-20, 1)
    falling.legend(loc="lower right")
    steps.step(before, [bucket(int(n), BUCKETS, FARTHEST) for n in before], where="post")
    steps.set_title("T5, 32 buckets up to 128")
    steps.set_ylabel("bucket")
    for axes in (falling, steps):
        axes.set_xlabel("places before the query")
        axes.grid(True)
    return figure
