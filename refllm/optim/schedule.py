"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from refllm.differentiable import declared_kinds


@declared_kinds
def warmup_cosine(step: float, *, max_lr: float, warmup: float, total: float, min_lr: float) -> float:
    """ADAMW (schedule): linear from max_lr / warmup at step 1 to max_lr at step `warmup`, then half a cosine down to
    `min_lr` at step `total`, and `min_lr` after

        lr = max_lr step / warmup                                                   for step < warmup
        lr = min_lr + (max_lr - min_lr) (1 + cos(π (step - warmup) / (total - warmup))) / 2   else

    Source:  Loshchilov & Hutter 2017 (arXiv:1608.03983) eq. 5 without restarts; warm-up as Vaswani et al. 2017
             sec. 5.3. Steps count from 1, so that the first step moves.
    Raises:  ValueError for a step that is negative or not a number: the rate would be.

    >>> how = {"max_lr": 1.0, "warmup": 4, "total": 12, "min_lr": 0.0}
    >>> [round(warmup_cosine(step, **how), 12) for step in (1, 4, 8, 12)]  # a quarter, the top, half of it, the end
    [0.25, 1.0, 0.5, 0.0]
    """
    if not step >= 0:
        raise ValueError(f"warmup_cosine: steps count from 1; got {step}")
    if step < warmup:
        return max_lr * step / warmup
    if step >= total:
        return min_lr
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
