"""The learning rate as a function of the step."""

from __future__ import annotations

import math


def warmup_cosine(step: float, *, peak: float, warmup: float, total: float, floor: float) -> float:
    """ADAMW (schedule): linear from peak / warmup at step 1 to peak at step `warmup`, then half a cosine down to
    `floor` at step `total`, and `floor` after

        lr = peak step / warmup                                                     for step < warmup
        lr = floor + (peak - floor) (1 + cos(π (step - warmup) / (total - warmup))) / 2   else

    Source:  Loshchilov & Hutter 2017 (arXiv:1608.03983) eq. 5 without restarts; warm-up as Vaswani et al. 2017
             sec. 5.3. Steps count from 1, so that the first step moves.
    """
    if step < warmup:
        return peak * step / warmup
    if step >= total:
        return floor
    return floor + (peak - floor) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
