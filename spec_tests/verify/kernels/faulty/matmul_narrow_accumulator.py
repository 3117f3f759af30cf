"""A product whose accumulator is float16, a tile of 32 terms at a time."""

import numpy as np


def matmul(x, W):
    total = np.zeros((*x.shape[:-1], W.shape[1]), np.float16)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(W), 32):
            total = total + (x[..., start : start + 32] @ W[start : start + 32]).astype(np.float16)
    return total.astype(x.dtype)
