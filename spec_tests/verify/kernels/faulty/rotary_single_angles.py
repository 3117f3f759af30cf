"""Rotary positions whose angles and table are float32."""

import numpy as np


def rotary_halves(x, *, positions, base):
    half = x.shape[-1] // 2
    inverse = (1.0 / base ** (np.arange(half, dtype=np.float32) * 2 / x.shape[-1])).astype(np.float32)
    angle = np.outer(positions.astype(np.float32), inverse).astype(np.float32)
    c, s = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * c - b * s, b * c + a * s], -1)
