"""RNN, LSTM and BIRNN, and the language models over them, over a window of words, and the hybrid, as formulas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from golden import tape
from golden.formulas import Array, each, matmul
from golden.tape import constant, sigmoid, total
from golden.tree import Tree

State = tuple[Array, ...]  # the first is the one that is seen
Step = Callable[[Array, State], State]


def tanh(x: Array) -> Array:
    """RNN (Elman 1990), BERT's pooler (Devlin 2019): (e^x - e^-x) / (e^x + e^-x)."""
    return each(tape.tanh, x)


def rnn(x: Array, h: Array, Wx: Array, Wh: Array, b: Array, *, valid: Array | None) -> Array:
    """RNN (Elman 1990): h_t = tanh(x_t Wx + h_(t-1) Wh + b), from the state h; where not `valid`, h_t = h_(t-1)."""

    def step(x: Array, state: State) -> State:
        return (each(tape.tanh, _sum(matmul(x, Wx), matmul(state[0], Wh), b)),)

    y, _ = _over_time(step, x, (h,), valid)
    return y


def lstm(x: Array, h: Array, c: Array, Wx: Array, Wh: Array, b: Array, *, valid: Array | None) -> dict[str, Array]:
    """LSTM (Hochreiter 1997, Gers 2000): i, f, o = sigmoid, g = tanh of x_t Wx + h_(t-1) Wh + b, cut in the order
    i, f, g, o; c_t = f c_(t-1) + i g; h_t = o tanh(c_t). Where not `valid`, both states pass."""

    def step(x: Array, state: State) -> State:
        h, c = state
        i, f, g, o = np.split(_sum(matmul(x, Wx), matmul(h, Wh), b), 4, axis=-1)
        c = each(sigmoid, f) * c + each(sigmoid, i) * each(tape.tanh, g)
        return each(sigmoid, o) * each(tape.tanh, c), c

    y, (_, c) = _over_time(step, x, (h, c), valid)
    return {"y": y, "c": c}


def _sum(*terms: Array) -> Array:
    """As one node, so that no order of summation is preferred."""
    return each(lambda *nodes: total(nodes), *terms)


def _over_time(step: Step, x: Array, state: State, valid: Array | None) -> tuple[Array, State]:
    """The states seen (B, T, N), and the last."""
    seen = []
    for t in range(x.shape[1]):
        new = step(x[:, t], state)
        if valid is not None:
            new = tuple(np.where(valid[:, t, None], now, before) for now, before in zip(new, state, strict=True))
        state = new
        seen.append(state[0])
    return np.stack(seen, axis=1), state


def window(x: Array, past: Array, *, places: int, valid: Array | None) -> Array:
    """NNLM (Bengio 2003, eq. 1): the words x_t, x_(t-1) ... side by side, `places` of them, the newest first; before
    x_1 stands `past`, the newest last, and where not `valid` zeros."""
    if valid is not None:
        x = each(lambda word, there: word if there else constant(0), x, valid[..., None])
    seen = np.concatenate([past, x], axis=1)
    return np.stack([np.concatenate(list(reversed(row)), axis=-1) for row in _windows(seen, places)], axis=1)


def _windows(seen: Array, places: int) -> list[list[Array]]:
    """For every t the rows (B, C) of the last `places` words, the oldest first."""
    return [[seen[:, t + n] for n in range(places)] for t in range(seen.shape[1] - places + 1)]


def bidirectional(x: Array, p: Tree, *, cell: str, valid: Array | None) -> Array:
    """BIRNN (Schuster 1997): at every t the state of a layer that comes from the first word, and beside it that of
    another layer, which comes from the last. Both begin with zeros."""
    turned = None if valid is None else valid[:, ::-1]
    ahead = from_zeros(x, p["forward"], cell=cell, valid=valid)
    behind = from_zeros(x[:, ::-1], p["backward"], cell=cell, valid=turned)
    return np.concatenate([ahead, behind[:, ::-1]], axis=-1)


def from_zeros(x: Array, p: Tree, cell: str, valid: Array | None) -> Array:
    """The states (B, T, N) of one layer that begins with zeros."""
    zeros = each(lambda _: constant(0), np.empty((len(x), len(p["Wh"])), dtype=object))
    if cell == "rnn":
        return rnn(x, zeros, p["Wx"], p["Wh"], p["b"], valid=valid)
    return lstm(x, zeros, zeros, p["Wx"], p["Wh"], p["b"], valid=valid)["y"]
