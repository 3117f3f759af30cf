"""The same numbers in another place in memory: every layout that NumPy has for an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
from hypothesis import strategies as st

from refllm.parameters import Tree


def _gapped(x: Any) -> Any:
    return numpy.stack([x, x], axis=-1)[..., 0]


def _reversed(x: Any) -> Any:
    return numpy.flip(numpy.flip(x).copy()) if x.ndim else x.copy()


def _transposed(x: Any) -> Any:
    return x.copy(order="F")


def _swapped(x: Any) -> Any:
    """Two axes exchanged, as heads and places are."""
    return x.swapaxes(0, -1).copy().swapaxes(0, -1) if x.ndim else x.copy()


def _offset(x: Any) -> Any:
    """A slice from the middle of something larger, so that rows lie apart."""
    larger = numpy.full(tuple(n + 3 for n in x.shape), 7, x.dtype)
    places: tuple[Any, ...] = (*[slice(1, n + 1) for n in x.shape], ...)
    inside = larger[places]
    inside[...] = x
    return inside


def _unaligned(x: Any) -> Any:
    """A part of a buffer that begins between two numbers."""
    inside = numpy.frombuffer(bytearray(x.nbytes + 1), x.dtype, count=x.size, offset=1).reshape(x.shape)
    inside[...] = x
    return inside


def _broadcast(x: Any) -> Any:
    """Read-only, with a stride of 0 along every axis that holds one number again and again."""
    small = x
    for axis in range(x.ndim):
        if x.shape[axis] and (x == x.take([0], axis)).all():
            small = small.take([0], axis)
    return numpy.broadcast_to(small.copy(), x.shape)


def constant_along(x: Any, axis: int) -> Any:
    """The first entry along an axis again and again, which a broadcast view holds in the memory of one."""
    if x.ndim == 0 or x.size == 0:
        return x
    return numpy.repeat(x.take([0], axis % x.ndim), x.shape[axis % x.ndim], axis % x.ndim)


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "contiguous": lambda x: x.copy(),
    "transposed": _transposed,
    "swapped": _swapped,
    "reversed": _reversed,
    "gapped": _gapped,
    "offset": _offset,
    "unaligned": _unaligned,
    "broadcast": _broadcast,
}
layouts = st.sampled_from(list(LAYOUTS))


def relaid(x: Any, layout: str, *, writable: bool = False) -> Any:
    """The numbers of x in that layout; read-only, so that what writes to its argument is caught, or `writable`."""
    y = LAYOUTS[layout](x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    if not writable:
        y.setflags(write=False)
    return y


def relaid_tree(tree: Tree, layout: str) -> Tree:
    """A tree of arrays, in which None and numbers may stand too, with every array in that layout."""
    if isinstance(tree, dict):
        return {key: relaid_tree(child, layout) for key, child in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)([relaid_tree(child, layout) for child in tree])
    return relaid(tree, layout) if isinstance(tree, numpy.ndarray) else tree
