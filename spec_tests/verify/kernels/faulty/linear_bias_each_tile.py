"""A linear map that adds its bias inside of the loop over tiles of K."""

import numpy as np


def linear(x, W, b):
    y = np.zeros((*x.shape[:-1], len(b)), x.dtype)
    for start in range(0, len(W), 32):
        y = y + (x[..., start : start + 32] @ W[start : start + 32] + b)
    return y
