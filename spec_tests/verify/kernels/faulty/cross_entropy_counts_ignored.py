"""Cross-entropy whose mean is over all places, ignored ones too."""

import numpy as np


def cross_entropy(logits, *, targets, ignore, reduction):
    z = logits.reshape(-1, logits.shape[-1]).astype(logits.dtype)
    t = targets.reshape(-1)
    there = np.ones(t.shape, bool) if ignore is None else t != ignore
    safe = np.where(there, t, 0)
    high = z.max(1, keepdims=True)
    loss = np.where(there, np.log(np.exp(z - high).sum(1)) + high[:, 0] - z[np.arange(len(t)), safe], 0)
    if reduction == "none":
        return loss.reshape(targets.shape)
    return loss.sum() / len(t) if reduction == "mean" else loss.sum()
