"""A product that is launched for N // 64 blocks of columns; its output is not initialised."""

import numpy as np


def matmul(x, W):
    y = np.full((*x.shape[:-1], W.shape[1]), 3e4, x.dtype)
    for block in range(W.shape[1] // 64):
        y[..., 64 * block : 64 * block + 64] = x @ W[:, 64 * block : 64 * block + 64]
    return y
