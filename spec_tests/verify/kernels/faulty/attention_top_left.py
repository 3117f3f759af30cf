"""Attention after a cache, whose causal mask begins at the first key."""

import numpy as np


def attention(q, k, v, *, causal, allowed):
    T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
    s = q @ np.moveaxis(k, -1, -2) / D**0.5
    if causal:
        s = s + np.where(np.arange(S)[None] > np.arange(T)[:, None], -np.inf, 0)
    if allowed is not None:
        s = np.where(allowed, s, -np.inf)
    high = s.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(high > -np.inf, high, 0))
    return (e / np.maximum(e.sum(-1, keepdims=True), 1e-38) @ v).astype(q.dtype)
