"""Layer norm of a row padded to 32 columns with zeros, whose deviations count the padding."""

import numpy as np


def layer_norm(x, g, b, *, eps):
    C = x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-C // 256) * 256), x.dtype)
    padded[..., :C] = x
    mean = padded.sum(-1, keepdims=True) / C
    variance = np.square(padded - mean).sum(-1, keepdims=True) / C
    return ((x - mean) / np.sqrt(variance + eps) * g + b).astype(x.dtype)
