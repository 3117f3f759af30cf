"""RMS norm of two rows a block, of which the second is not written."""

import numpy as np


def rms_norm(x, g, *, eps):
    rows = x.reshape(-1, x.shape[-1])
    y = np.zeros_like(rows)
    for first in range(0, len(rows), 2):
        row = rows[first]
        y[first] = row / np.sqrt(np.mean(row * row) + eps) * g
    return y.reshape(x.shape)
