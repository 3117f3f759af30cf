"""Tiled attention that subtracts the maximum of a row without a key from itself."""

import numpy as np


def attention(q, k, v, *, causal, allowed):
    T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
    s = q @ np.moveaxis(k, -1, -2) / np.sqrt(D).astype(q.dtype)
    if causal:
        s = np.where(np.tri(T, S, S - T, dtype=bool), s, -np.inf)
    if allowed is not None:
        s = np.where(allowed, s, -np.inf)
    with np.errstate(invalid="ignore"):
        e = np.exp(s - s.max(-1, keepdims=True, initial=-np.inf))
        return (e / e.sum(-1, keepdims=True) @ v).astype(q.dtype)
