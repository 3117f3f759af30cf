"""Multi-head attention of one sequence to another: of the decoder to what the encoder made of the source."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from refllm.backend import Array
from refllm.blocks.affine import affine_shapes, concatenated, project
from refllm.differentiable import differentiable
from refllm.ops.attention import attention
from refllm.parameters import Tree


class MemoryStore(Protocol):
    """Where a layer keeps the keys and values of the memory (generation/cache.py); None before the first use."""

    held: tuple[Array, Array] | None


def cross_attention_shapes(width: int, heads: int, head_width: int, *, biases: bool) -> Tree:
    inner = heads * head_width
    maps = {"q": (width, inner), "kv": (width, 2 * inner), "o": (inner, width)}
    return affine_shapes(maps, biases=biases)


@differentiable
def cross_attention(
    x: Array,
    memory: Array,
    p: Tree,
    *,
    heads: int,
    scaled: bool,
    attention_mask: Array | None,
    cache: MemoryStore | None,
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Tree]]]:
    """XATT: q = x Wq + bq;  k, v = memory Wkv + bkv;   y = concat(ATT of each head) Wo + bo

    Queries come from the decoder, keys and values from the output of the encoder. Without biases where p has none.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.3; documents 004 sec. 4.1. `scaled` = False leaves out
             the 1/√D as T5 does (Raffel et al. 2020, code): q is multiplied by √D before ATT divides by it.
    Shapes:  memory (B, S, C); x (n*B, T, C); Wq (C, heads*D); bq (heads*D,), or None; Wkv (C, 2*heads*D);
             bkv (2*heads*D,), or None; Wo (heads*D, C); bo (C,), or None;
             attention_mask bool (B, 1, 1, S), or None -> y (n*B, T, C)
    Special: n rows of x after each other share a row of memory (the beams of one source); it is not repeated for them.
             With a cache, keys and values are computed at the first use and the memory is not read again; then there
             is no pullback.
    Raises:  ValueError if the rows of memory do not divide those of x.

    >>> p = {"Wq": zeros((1, 1)), "Wkv": ones((1, 2)), "Wo": ones((1, 1))}
    >>> memory = array([[[2.0], [4.0]]])  # queries of zero see all of it alike
    >>> how = {"heads": 1, "scaled": True, "attention_mask": None, "cache": None}
    >>> cross_attention(ones((1, 1, 1)), memory, p, **how)[0].tolist()
    [[[3.0]]]
    """
    B, n = len(memory), len(x) // max(1, len(memory))
    (q,), back_q = project(x, p, name="q", heads=heads, parts=1)  # (n B, H, T, D)
    H, T, D = q.shape[1:]
    scale = 1.0 if scaled else math.sqrt(D)
    (k, v), back_kv = _keys_and_values(memory, p, heads=heads, cache=cache)  # (B, H, S, D)

    def beside(z: Array) -> Array:
        """The queries of rows that share a memory, as queries of one row: there is no order among them."""
        return z.reshape(B, n, H, T, D).swapaxes(1, 2).reshape(B, H, n * T, D)

    def apart(z: Array) -> Array:
        return z.reshape(B, H, n, T, D).swapaxes(1, 2).reshape(n * B, H, T, D)

    a, back_attention = attention(beside(q) * scale, k, v, causal=False, attention_mask=attention_mask)
    y, back_out = concatenated(apart(a), p, name="o")

    def back(dy: Array) -> tuple[Array, Array, Tree]:
        da, dp_out = back_out(dy)
        dq, dk, dv = back_attention(beside(da))
        dx, dp_q = back_q(apart(dq) * scale)
        dmemory, dp_kv = back_kv(dk, dv)
        return dx, dmemory, {**dp_q, **dp_kv, **dp_out}

    return y, back


def _keys_and_values(
    memory: Array, p: Tree, *, heads: int, cache: MemoryStore | None
) -> tuple[tuple[Array, ...], Callable[..., tuple[Array, Tree]]]:
    """From the cache if it has them, else from the memory, and then into the cache if there is one."""
    if cache is not None and cache.held is not None:
        return cache.held, _no_pullback
    kv, back = project(memory, p, name="kv", heads=heads, parts=2)
    if cache is None:
        return kv, back
    cache.held = (kv[0], kv[1])
    return kv, _no_pullback


def _no_pullback(*_: Array) -> tuple[Array, Tree]:
    raise ValueError("cross_attention: there is no pullback through a cache; give cache=None to train")
