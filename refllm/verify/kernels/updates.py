"""AdamW in blocks, in which each thread takes one number; the norm of several arrays, each in blocks."""

from __future__ import annotations

import numpy

from refllm.backend import Array
from refllm.verify.kernels.machine import BLOCK, tiles, unwritten

THREADS = 1024


def adamw(
    p: Array, g: Array, m: Array, v: Array, *,
    step: int, lr: float, beta1: float, beta2: float, eps: float, decay: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    new_p, new_m, new_v = (unwritten((p.size,), p) for _ in range(3))
    parameter, gradient, first, second = (x.reshape(-1) for x in (p, g, m, v))
    for block in tiles(p.size, THREADS):
        new_m[block] = beta1 * first[block] + (1 - beta1) * gradient[block]
        new_v[block] = beta2 * second[block] + (1 - beta2) * gradient[block] ** 2
        m_hat = new_m[block] / (1 - beta1**step)
        v_hat = new_v[block] / (1 - beta2**step)
        decayed = parameter[block] * (1 - lr * decay)
        new_p[block] = decayed - lr * (m_hat / (numpy.sqrt(v_hat) + eps))
    return new_p.reshape(p.shape), new_m.reshape(p.shape), new_v.reshape(p.shape)


def clip_by_global_norm(g: list[Array], *, clip: float) -> tuple[Array, list[Array]]:
    squares = numpy.zeros((), g[0].dtype)
    for x in g:
        squares = squares + sum_of_squares(x.reshape(-1))
    norm = numpy.sqrt(squares)
    scale = 1 if norm <= clip else clip / norm
    return norm, [(x * scale).astype(x.dtype) for x in g]


def sum_of_squares(x: Array) -> Array:
    squares = numpy.zeros((), x.dtype)
    for part in tiles(x.size, BLOCK):
        squares = squares + (x[part] ** 2).sum()
    return squares
