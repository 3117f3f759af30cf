"""Softmax of whole vectors of 32 columns; the rest of the row is left as it is allocated."""

import numpy as np


def softmax(x):
    whole = x.shape[-1] // 32 * 32
    out = np.zeros_like(x)
    high = x.max(axis=-1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(x - np.where(np.isneginf(high), 0, high)).astype(x.dtype)
    out[..., :whole] = exponentials[..., :whole] / np.maximum(exponentials.sum(-1, keepdims=True), 1e-30)
    return out
