"""The heads of attention: where an array is cut into them, and where they are put side by side again."""

from __future__ import annotations

from collections.abc import Sequence

from refllm.backend import Array, namespace


def cut(y: Array, *, heads: int, parts: int = 1) -> tuple[Array, ...]:
    """y (..., T, parts H D) as `parts` views (..., H, T, D): column p H D + h D + d is entry d of head h of part p."""
    grid = y.reshape(*y.shape[:-1], parts, heads, y.shape[-1] // (parts * heads))
    return tuple([grid[..., part, :, :].swapaxes(-2, -3) for part in range(parts)])


def side_by_side(parts: Sequence[Array]) -> Array:
    """What was cut, in one piece: arrays (..., H, T, D) as (..., T, parts H D)."""
    first = parts[0].swapaxes(-2, -3)
    *places, H, D = first.shape
    if len(parts) == 1:  # no copy, where the heads of a place stand side by side in memory already
        return first.reshape((*places, H * D))
    y = namespace(first).empty((*places, len(parts), H, D), first.dtype)
    for part, x in enumerate(parts):
        y[..., part, :, :] = x.swapaxes(-2, -3)
    return y.reshape((*places, len(parts) * H * D))
