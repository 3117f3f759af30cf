"""Shared key heads: query head h reads head h % G."""

import numpy as np


def repeat_heads(k, *, groups):
    return np.concatenate([k] * groups, axis=-3)
