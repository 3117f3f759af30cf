"""Online softmax that forgets to scale its running sum when the running maximum grows."""

import numpy as np


def softmax(x):
    rows = x.reshape(-1, x.shape[-1])
    out = np.empty_like(rows)
    for number, row in enumerate(rows):
        running, total = -np.inf, 0.0
        for start in range(0, len(row), 64):
            piece = row[start : start + 64].astype(float)
            running = max(running, piece.max())
            total += np.exp(piece - running).sum() if running > -np.inf else 0.0
        out[number] = np.exp(row - running) / total if total else 0
    return out.reshape(x.shape)
