"""Softmax with one block of 1,024 threads, each of which reads one column; the sum knows no others."""

import numpy as np

THREADS = 1024


def softmax(x):
    high = np.max(x, axis=-1, keepdims=True, initial=-np.inf)
    shifted = np.exp(x - np.where(high == -np.inf, 0, high))
    total = shifted[..., :THREADS].sum(axis=-1, keepdims=True)
    return (shifted / np.where(total == 0, 1, total)).astype(x.dtype)
