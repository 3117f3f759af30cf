"""Weights of 8 bits."""

from refllm.spec.array import Array, is_zero, nearest, swap, top, where

LARGEST = 127  # so that the numbers are symmetric: -128 is not used


def quantised(W: Array) -> tuple[Array, Array]:
    """COMPRESS, 8-bit weights: q = round(W / s),   s = max|W| / 127 of every output channel

    Halves are rounded to the even number. The weights that are used are q s. A channel of zeros has s = 1.
    Source:  Jacob et al. 2018 (arXiv:1712.05877) sec. 2.1 with zero-point 0; Krishnamoorthi 2018 (arXiv:1806.08342)
             sec. 3.1 (one scale per channel); Dettmers et al. 2022 (arXiv:2208.07339) sec. 2.
    Shapes:  W (I, O) -> q (I, O), s (O,)

    >>> quantised(array([[127., -1.], [2.5, 0.5]]))
    (array([[ 127, -127],
           [   2,   64]]), array([1.        , 0.00787402]))
    """
    largest = top(swap(where(W < 0, -W, W)))[:, 0]
    s = largest / LARGEST + is_zero(largest)
    return nearest(W / s), s
