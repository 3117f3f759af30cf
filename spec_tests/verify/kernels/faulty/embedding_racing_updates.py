"""The gradient of a table in which threads of a block overwrite each other's updates."""

import numpy as np


def embedding(E, *, ids):
    def back(dy):
        dE, flat, rows = np.zeros_like(E), ids.reshape(-1), dy.reshape(-1, E.shape[1])
        for start in range(0, len(flat), 32):
            dE[flat[start : start + 32]] += rows[start : start + 32]  # not numpy.add.at
        return dE

    return E[ids], back
