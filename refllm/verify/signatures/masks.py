"""Shapes and masks as the kernels of libraries take them: (B, H, T, D), and a boolean mask (B or 1, H or 1, T, S)."""

from __future__ import annotations

from typing import Any

import numpy

from refllm.backend import Array


def four_axes(x: Any) -> Any:
    """A batch of sequences has one head; more leading axes than two are none of a kernel's."""
    if x.ndim == 3:
        return x.reshape(len(x), 1, *x.shape[1:])
    if x.ndim > 4:
        raise NotImplementedError("a kernel takes (B, H, T, D)")
    return x.reshape(*[1] * (4 - x.ndim), *x.shape)


def full_mask(q: Any, k: Any, allowed: Any, *, causal: bool, heads: bool = False) -> Array:
    """True where a query may see a key, with four axes; causal is aligned top-left. `heads`: of three axes the first is
    that of the heads, else of the batch."""
    T, S = q.shape[-2], k.shape[-2]
    mask = numpy.tri(T, S, dtype=bool) if causal else _all(T, S)
    mask = mask if allowed is None else mask & allowed
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape) if heads else with_axes(mask, q)


def of_window(q: Any, k: Any, allowed: Any, window: int) -> Array:
    """Query t stands at place t + S - T among the keys and sees the last `window` of them."""
    T, S = q.shape[-2], k.shape[-2]
    place, s = numpy.arange(T)[:, None] + S - T, numpy.arange(S)
    mask = (s <= place) & (s > place - window)
    return with_axes(mask if allowed is None else mask & allowed, q)


def of_borders(q: Any, k: Any, borders: Any, key_borders: Any, *, causal: bool) -> Array:
    """A query sees the keys of its own document, causal within it as bottom-right alignment has it."""
    mask = numpy.zeros((q.shape[-2], k.shape[-2]), bool)
    for t0, t1, s0, s1 in zip(borders, borders[1:], key_borders, key_borders[1:], strict=False):
        T, S = int(t1 - t0), int(s1 - s0)
        mask[t0:t1, s0:s1] = numpy.tri(T, S, S - T, dtype=bool) if causal else _all(T, S)
    return with_axes(mask, q)


def _all(T: int, S: int) -> Array:
    return numpy.ones((T, S), bool)


def with_axes(mask: Array, q: Any) -> Array:
    """A mask for a batch of sequences has no axis for heads."""
    if mask.ndim == 3 and q.ndim == 3:
        mask = mask[:, None]
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
