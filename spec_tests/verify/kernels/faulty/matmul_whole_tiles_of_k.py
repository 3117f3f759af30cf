"""A product whose loop over K runs K // 32 times."""

import numpy as np


def matmul(x, W):
    y = np.zeros((*x.shape[:-1], W.shape[1]), x.dtype)
    for step in range(x.shape[-1] // 32):
        part = slice(32 * step, 32 * step + 32)
        y += x[..., part] @ W[part]
    return y
