"""Functions of single numbers in vectors of four, and dropout by a mask of one bit a number."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from refllm.backend import Array
from refllm.verify.kernels.machine import tiles, unwritten

Pullback = Callable[[Array], Array]
BLOCK = 4 * 256  # numbers that a block of threads takes, four each
ROOT = 0.7978845608028654  # √(2 / π)


def gelu_tanh(x: Array) -> tuple[Array, Pullback]:
    flat, y = x.reshape(-1), unwritten((x.size,), x)
    for block in tiles(x.size, BLOCK):
        a = flat[block]
        t = tanh(ROOT * (a + 0.044715 * a**3))
        y[block] = 0.5 * a * (1 + t)

    def gelu_tanh_back(dy: Array) -> Array:
        given, dx = dy.reshape(-1), unwritten((x.size,), x)
        for block in tiles(x.size, BLOCK):
            a = flat[block]
            t = tanh(ROOT * (a + 0.044715 * a**3))
            slope = (1 - t * t) * ROOT * (1 + 3 * 0.044715 * a * a)
            dx[block] = given[block] * (0.5 * (1 + t) + 0.5 * a * slope)
        return dx.reshape(x.shape)

    return y.reshape(x.shape), gelu_tanh_back


def tanh(z: Array) -> Array:
    return numpy.tanh(z)


def silu(x: Array) -> tuple[Array, Pullback]:
    flat, y = x.reshape(-1), unwritten((x.size,), x)
    for block in tiles(x.size, BLOCK):
        a = flat[block]
        y[block] = a * below(a)

    def silu_back(dy: Array) -> Array:
        given, dx = dy.reshape(-1), unwritten((x.size,), x)
        for block in tiles(x.size, BLOCK):
            a, p = flat[block], below(flat[block])
            dx[block] = given[block] * p * (1 + a * below(-a))
        return dx.reshape(x.shape)

    return y.reshape(x.shape), silu_back


def below(z: Array) -> Array:
    """1 / (1 + e^-z), without a large power of e."""
    e = numpy.exp(-abs(z))
    return numpy.where(z >= 0, 1, e) / (1 + e)


def dropout(x: Array, *, keep: Array, rate: float) -> tuple[Array, Pullback]:
    flat, bits, y = x.reshape(-1), keep.reshape(-1), unwritten((x.size,), x)
    for block in tiles(x.size, BLOCK):
        y[block] = numpy.where(bits[block], flat[block] / (1 - rate), 0)

    def dropout_back(dy: Array) -> Array:
        given, dx = dy.reshape(-1), unwritten((x.size,), x)
        for block in tiles(x.size, BLOCK):
            dx[block] = numpy.where(bits[block], given[block] / (1 - rate), 0)
        return dx.reshape(x.shape)

    return y.reshape(x.shape), dropout_back
