"""Matrix products of numbers in two doubles, from products of matrices of few bits, which float64 forms without error.

Row by row a is cut into slices: a = a_1 + a_2 + ... + rest. Slice i holds whole multiples of A 2^(-β i), at most
A 2^(-β (i - 1)) of them, A being a power of two above the row; column by column b likewise with B. A product of the
slices i and j is a sum of K whole numbers of at most 2 β bits, in units of A B 2^(-β (i + j)). All products of the same
i + j, seven at most, stay below 2^53 of these units if 2 β + log2 K + 3 <= 53: each is exact, in whatever order and
with whatever instructions a library adds, and so is their sum (Ozaki, Ogita, Oishi & Rump 2012).

The sums for i + j = 2, 3, ... are then added up in two doubles. What is left out are the products with i + j > n + 1, n
being the number of slices, and those with a rest: together at most (n + 2) K A B 2^(-β n).
"""

from __future__ import annotations

import math

import numpy

from refllm.backend import Array
from refllm.numbers.two_doubles import U2, Pair, add, split_sum

BITS = 112  # that the slices of a number hold together


def product(a: Pair, b: Pair) -> tuple[Pair, Array]:
    """a @ b, and a bound of its error."""
    K = a[0].shape[-1]
    beta = (53 - 3 - max(0, math.ceil(math.log2(max(K, 1))))) // 2
    count = -(-BITS // beta)
    A, B = _scale(a[0], -1), _scale(b[0], -2)
    ones, others = _slices(a, A, beta, count), _slices(b, B, beta, count)
    lead = numpy.broadcast_shapes(a[0].shape[:-2], b[0].shape[:-2])
    shape = (*lead, a[0].shape[-2], b[0].shape[-1])
    found: Pair = (numpy.zeros(shape), numpy.zeros(shape))
    for level in range(2, count + 2):
        pairs = [(ones[i - 1], others[level - i - 1]) for i in range(1, level) if i <= count and level - i <= count]
        terms = [x @ y for x, y in pairs if x is not None and y is not None]
        if terms:
            found = add(found, split_sum(sum(terms[1:], terms[0]), numpy.zeros(shape)))
    size = abs(a[0]) @ abs(b[0])
    left_out = (count + 2) * K * (A * B) * 2.0 ** (-beta * count) * (size > 0)
    return found, left_out + 4 * (count + 1) * U2 * size * (1 + 2.0**-20)


def _scale(x: Array, axis: int) -> Array:
    """A power of two above all numbers of a row, or of a column."""
    largest = abs(x).max(axis=axis, keepdims=True, initial=0.0)
    return numpy.ldexp(1.0, numpy.frexp(largest)[1] + 1)


def _slices(x: Pair, scale: Array, beta: int, count: int) -> list[Array | None]:
    """The slices; None for one that is 0 everywhere."""
    found: list[Array | None] = []
    hi, lo = x
    for i in range(1, count + 1):
        unit = scale * 2.0 ** (-beta * i)
        piece = numpy.rint(hi / unit) * unit
        hi, lo = split_sum(hi - piece, lo)
        found.append(piece if piece.any() else None)
    return found
