"""The LSTM step by step, its hidden numbers in blocks that read one state and write the next."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from refllm.backend import Array
from refllm.verify.kernels.machine import TILE, swap, tiles, unwritten, zeros

Pullback = Callable[..., tuple[Array, ...]]


def lstm(
    x: Array, h: Array, c: Array, Wx: Array, Wh: Array, b: Array, *, valid: Array | None
) -> tuple[tuple[Array, Array], Pullback]:
    (B, T, _), N = x.shape, h.shape[-1]
    there = numpy.ones((B, T), bool) if valid is None else valid
    states, cells, gates = [h], [c], list[Array]()
    for t in range(T):
        new_h, new_c, gate = unwritten(h.shape, h), unwritten(c.shape, c), unwritten((4, B, N), h)
        for block in tiles(N, TILE):
            columns = [slice(n * N + block.start, n * N + block.stop) for n in range(4)]
            z = [x[:, t] @ Wx[:, part] + states[t] @ Wh[:, part] + b[part] for part in columns]
            i, f, g, o = sigmoid(z[0]), sigmoid(z[1]), numpy.tanh(z[2]), sigmoid(z[3])
            cell = f * cells[t][:, block] + i * g
            new_c[:, block] = numpy.where(there[:, t, None], cell, cells[t][:, block])
            new_h[:, block] = numpy.where(there[:, t, None], o * numpy.tanh(cell), states[t][:, block])
            gate[..., block] = numpy.stack([i, f, g, o])
        states.append(new_h)
        cells.append(new_c)
        gates.append(gate)

    def lstm_back(dy: Array, dc_T: Array) -> tuple[Array, ...]:
        dx, dWx, dWh, db = unwritten(x.shape, x), zeros(Wx.shape, x), zeros(Wh.shape, x), zeros(b.shape, x)
        dh, dc = zeros(h.shape, h), dc_T
        for t in reversed(range(T)):
            i, f, g, o = gates[t]
            mask, s = there[:, t, None], numpy.tanh(cells[t + 1])
            dh = dy[:, t] + dh
            dcell = dc + dh * o * (1 - s * s)
            parts = [dcell * g * i * (1 - i), dcell * cells[t] * f * (1 - f), dcell * i * (1 - g * g)]
            dz = numpy.where(mask, numpy.concatenate([*parts, dh * s * o * (1 - o)], axis=1), 0)
            dx[:, t] = dz @ swap(Wx)
            dWx += swap(x[:, t]) @ dz
            dWh += swap(states[t]) @ dz
            db += dz.sum(axis=0)
            dh = numpy.where(mask, dz @ swap(Wh), dh)
            dc = numpy.where(mask, dcell * f, dc)
        return dx, dh, dc, dWx, dWh, db

    return (numpy.stack(states[1:], axis=1), cells[-1]), lstm_back


def sigmoid(z: Array) -> Array:
    e = numpy.exp(-abs(z))
    return numpy.where(z >= 0, 1, e) / (1 + e)
