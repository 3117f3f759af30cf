"""Layer norm whose variance is E[x²] - E[x]²."""

import numpy as np


def layer_norm(x, g, b, *, eps):
    mean, square = x.mean(-1, keepdims=True), (x * x).mean(-1, keepdims=True)
    variance = np.maximum(square - mean * mean, 0)
    return ((x - mean) / np.sqrt(variance + x.dtype.type(eps)) * g + b).astype(x.dtype)
