"""Positions as rotations of queries and keys, in the two layouts that are in use."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

from refllm.backend import Array, contents, namespace
from refllm.differentiable import differentiable

Frequencies: TypeAlias = float | tuple[float, ...]  # the base, or the angle of every pair at position 1


@differentiable
def rotary_halves(x: Array, *, positions: Array, base: Frequencies) -> tuple[Array, Callable[[Array], Array]]:
    """LONG, rotary: the pair (x_i, x_{i + D/2}) turned by the angle p base^(-2i/D), for i < D/2 and position p

    After it the product of a query and a key depends on their contents and their distance alone. The layout of
    GPT-NeoX and Llama: the pairs are (0, D/2), (1, D/2 + 1), ...; it is `rotary_interleaved` of permuted entries.
    Source:  Su et al. 2021 (arXiv:2104.09864) sec. 3.2.2; the order of the entries is that of GPT-NeoX's code.
    Shapes:  x (..., T, 2*I); positions int broadcast to (..., T) -> y (..., T, 2*I)
    Back:    dx = dy turned by the opposite angles
    Special: positions are integers, (T,) or whatever broadcasts to x without its last axis. Angles are formed in
             float64: at position 10000 a float32 angle has three digits. In the place of the base may stand the angles
             of position 1, a tuple of I numbers, as models have them whose positions were stretched.
    Raises:  ValueError if D = 2 I is odd, or positions are not integers or do not broadcast.

    >>> y = rotary_halves(array([[1.0, 0.0, 0.0, 0.0]]), positions=array([1]), base=1e4)[0]
    >>> (y - [[math.cos(1), 0, math.sin(1), 0]]).round(12).tolist()  # turned by 1 into the second half
    [[0.0, 0.0, 0.0, 0.0]]
    """
    cos, sin = _angles("rotary_halves", x, positions, base)
    return _halves_turned(x, cos, sin), lambda dy: _halves_turned(dy, cos, -sin)


def _halves_turned(x: Array, cos: Array, sin: Array) -> Array:
    y, half = namespace(x).empty(x.shape, x.dtype), x.shape[-1] // 2
    _turn(x[..., :half], x[..., half:], cos, sin, y[..., :half], y[..., half:])
    return y


@differentiable
def rotary_interleaved(x: Array, *, positions: Array, base: Frequencies) -> tuple[Array, Callable[[Array], Array]]:
    """LONG, rotary: the pair (x_{2i}, x_{2i+1}) turned by the angle p base^(-2i/D), for i < D/2 and position p

    The layout of the paper and of GPT-J: the pairs are (0, 1), (2, 3), ...
    Source:  Su et al. 2021 (arXiv:2104.09864) sec. 3.2.2, equations 15 and 34.
    Shapes:  x (..., T, 2*I); positions int broadcast to (..., T) -> y (..., T, 2*I)
    Back:    dx = dy turned by the opposite angles
    Special: as `rotary_halves`.
    Raises:  as `rotary_halves`.

    >>> y = rotary_interleaved(array([[1.0, 0.0, 0.0, 0.0]]), positions=array([1]), base=1e4)[0]
    >>> (y - [[math.cos(1), math.sin(1), 0, 0]]).round(12).tolist()  # turned by 1 into its neighbour
    [[0.0, 0.0, 0.0, 0.0]]
    """
    cos, sin = _angles("rotary_interleaved", x, positions, base)
    return _pairs_turned(x, cos, sin), lambda dy: _pairs_turned(dy, cos, -sin)


def _pairs_turned(x: Array, cos: Array, sin: Array) -> Array:
    y = namespace(x).empty(x.shape, x.dtype)
    _turn(x[..., 0::2], x[..., 1::2], cos, sin, y[..., 0::2], y[..., 1::2])
    return y


def _turn(a: Array, b: Array, cos: Array, sin: Array, into_a: Array, into_b: Array) -> None:
    """(a cos - b sin, b cos + a sin), written into the two views of a new array."""
    into_a[...] = a * cos
    into_a -= b * sin
    into_b[...] = b * cos
    into_b += a * sin


def _angles(operation: str, x: Array, positions: Array, base: Frequencies) -> tuple[Array, Array]:
    """cos and sin of p base^(-2i/D), (..., T, D/2) or what broadcasts to it, in the dtype of x."""
    D = x.shape[-1]
    if isinstance(base, tuple):
        if len(base) != D // 2:
            raise ValueError(f"{operation}: {D // 2} pairs need as many frequencies; got {len(base)}")
    elif not base > 0:
        raise ValueError(f"{operation}: base must be above 0, got {base}")
    xp = namespace(x)
    if (seen := contents(positions)) is not None:
        return _remembered(xp, seen, positions.dtype, positions.shape, D, base, x.dtype)
    return _cos_and_sin(xp, positions, D, base, x.dtype)


def _cos_and_sin(xp: Any, positions: Array, D: int, base: Frequencies, dtype: Any) -> tuple[Array, Array]:
    angle = positions.astype("float64")[..., None] * _frequencies(xp, D, base)
    return xp.cos(angle).astype(dtype), xp.sin(angle).astype(dtype)


@lru_cache(maxsize=8)
def _remembered(
    xp: Any, positions: bytes, kind: Any, shape: tuple[int, ...], D: int, base: Frequencies, dtype: Any
) -> tuple[Array, Array]:
    """cos and sin of these positions: the queries and keys of all layers of a model are turned by the same angles."""
    cos, sin = _cos_and_sin(xp, xp.frombuffer(positions, kind).reshape(shape), D, base, dtype)
    cos.setflags(write=False)
    sin.setflags(write=False)
    return cos, sin


@lru_cache(maxsize=16)
def _frequencies(xp: Any, D: int, base: Frequencies) -> Array:
    """base^(-2i/D), (D/2,), in float64: the same for every layer and token, and never written to."""
    if isinstance(base, tuple):
        return xp.asarray(base, "float64")
    # of a power, not of an exponential: at far positions every digit of these counts, and exp(a) loses those of a
    return xp.power(float(base), xp.arange(0, D, 2, dtype="float64") / -D) if D else xp.empty(0)
