"""Positions as rotations of queries and keys, in the two layouts that are in use."""

from refllm.spec.array import Array, Pullback, arange, concatenate, cos, like, power, ratio, sin, stack


def rotary_halves(x: Array, *, positions: Array, base: float) -> tuple[Array, Pullback]:
    """LONG, rotary: the pair (x_i, x_{i + D/2}) turned by the angle p base^(-2i/D), for i < D/2 and position p

    After it the product of a query and a key depends on their contents and their distance alone.
    Source:  Su et al. 2021 (arXiv:2104.09864) sec. 3.2.2; the order of the entries is that of GPT-NeoX's code.
    Shapes:  x (..., T, 2*I) -> y (..., T, 2*I)
    Back:    a rotation's transpose is the opposite rotation:   dx = dy turned by -angle

    >>> x = array([[1., 2., 3., 4.]])
    >>> rotary_halves(x, positions=array([pi() / 2]), base=1.)[0]  # a quarter turn of (1, 3) and (2, 4)
    array([[-3., -4.,  1.,  2.]])
    """
    half, a = x.shape[-1] // 2, angles(positions, x.shape[-1], base)

    def turned(z: Array, angle: Array) -> Array:
        return concatenate(turn(z[..., :half], z[..., half:], angle), axis=-1)

    def rotary_halves_back(dy: Array) -> Array:
        return turned(dy, -a)

    return turned(x, a), rotary_halves_back


def rotary_interleaved(x: Array, *, positions: Array, base: float) -> tuple[Array, Pullback]:
    """LONG, rotary: the pair (x_{2i}, x_{2i+1}) turned by the angle p base^(-2i/D), for i < D/2 and position p

    Source:  Su et al. 2021 (arXiv:2104.09864) sec. 3.2.2, equations 15 and 34.
    Shapes:  x (..., T, 2*I) -> y (..., T, 2*I)
    Back:    dx = dy turned by -angle

    >>> x = array([[1., 2., 3., 4.]])
    >>> rotary_interleaved(x, positions=array([pi() / 2]), base=1.)[0]  # a quarter turn of (1, 2) and (3, 4)
    array([[-2.,  1., -4.,  3.]])
    """
    a = angles(positions, x.shape[-1], base)

    def turned(z: Array, angle: Array) -> Array:
        return stack(turn(z[..., 0::2], z[..., 1::2], angle), axis=-1).reshape(z.shape)

    def rotary_interleaved_back(dy: Array) -> Array:
        return turned(dy, -a)

    return turned(x, a), rotary_interleaved_back


def turn(a: Array, b: Array, angle: Array) -> tuple[Array, Array]:
    """The point (a, b) turned about the origin."""
    c, s = like(cos(angle), a), like(sin(angle), a)
    return a * c - b * s, b * c + a * s


def angles(positions: Array, D: int, base: float) -> Array:
    """p base^(-2i/D) for every position p and i < D/2, in float64: far angles have few digits in float32"""
    return positions[..., None] * power(base, -ratio(arange(0, D, 2), D))
