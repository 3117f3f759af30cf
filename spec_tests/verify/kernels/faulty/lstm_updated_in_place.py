"""An LSTM whose hidden state is one buffer: blocks of 32 read what earlier blocks of the step have written."""

import numpy as np


def lstm(x, h, c, Wx, Wh, b, *, valid):
    hidden, cell, N = h.copy(), c.copy(), h.shape[1]
    y = np.zeros((*x.shape[:2], N), x.dtype)
    for t in range(x.shape[1]):
        for first in range(0, N, 32):
            own = np.arange(first, min(first + 32, N))
            z = [x[:, t] @ Wx[:, own + k * N] + hidden @ Wh[:, own + k * N] + b[own + k * N] for k in range(4)]
            i, f, o = (1 / (1 + np.exp(-z[k])) for k in (0, 1, 3))
            new = f * cell[:, own] + i * np.tanh(z[2])
            on = np.ones((len(x), 1), bool) if valid is None else valid[:, t, None]
            cell[:, own] = np.where(on, new, cell[:, own])
            hidden[:, own] = np.where(on, o * np.tanh(new), hidden[:, own])
        y[:, t] = hidden
    return y, cell
