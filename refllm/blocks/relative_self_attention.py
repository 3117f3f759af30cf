"""Multi-head self-attention whose scores know the distance of key and query."""

from __future__ import annotations

import math
from collections.abc import Callable

from refllm.backend import Array
from refllm.blocks.affine import affine_shapes, concatenated, project
from refllm.blocks.self_attention import KeyValueStore
from refllm.differentiable import differentiable
from refllm.ops.attention import attention, biased_attention
from refllm.parameters import Tree


def relative_self_attention_shapes(width: int, heads: int, head_width: int, *, biases: bool) -> Tree:
    inner = heads * head_width
    return affine_shapes({"qkv": (width, 3 * inner), "o": (inner, width)}, biases=biases)


@differentiable
def relative_self_attention(
    x: Array,
    r: Array | None,
    p: Tree,
    *,
    heads: int,
    scaled: bool,
    causal: bool,
    attention_mask: Array | None,
    cache: KeyValueStore | None,
) -> tuple[Array, Callable[[Array], tuple[Array, Array | None, Tree]]]:
    """MHA, T5-REL: MHA with the bias r[distance] added to every score; q, k, v = x Wqkv + bqkv

    Without biases where p has none. Unlike `self_attention` it lets H D differ from C.
    Source:  Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1. `scaled` = False leaves out the 1/√D as T5 does (its
             code): q is multiplied by √D before ATT divides by it.
    Shapes:  x (..., T, C); r (heads, T+S-1), or None; Wqkv (C, 3*heads*D); bqkv (3*heads*D,), or None;
             Wo (heads*D, C); bo (C,), or None;
             attention_mask bool broadcast to (..., heads, T, S), or None -> y (..., T, C)
    Special: no r adds nothing. With a cache the keys are those that it holds, S of them, as in `self_attention`. Where
             r is None, so is its gradient.

    >>> p = {"Wqkv": array([[0.0, 0.0, 1.0]]), "Wo": ones((1, 1))}
    >>> how = {"heads": 1, "scaled": True, "causal": False, "attention_mask": None, "cache": None}
    >>> r = array([[-np.inf, -np.inf, 0.0]])  # only the key one place after the query
    >>> relative_self_attention(array([[2.0], [4.0]]), r, p, **how)[0].tolist()  # the last query has none
    [[4.0], [0.0]]
    """
    (q, k, v), back_qkv = project(x, p, name="qkv", heads=heads, parts=3)  # 3 x (B, H, T, D)
    if cache is not None:
        k, v = cache.extend(k, v)  # (B, H, S, D)
    scale = 1.0 if scaled else math.sqrt(q.shape[-1])
    a, back_attention = maybe_biased(q * scale, k, v, r, causal=causal, attention_mask=attention_mask)
    y, back_out = concatenated(a, p, name="o")

    def back(dy: Array) -> tuple[Array, Array | None, Tree]:
        da, dp_out = back_out(dy)
        dq, dk, dv, dr = back_attention(da)
        dx, dp_qkv = back_qkv(dq * scale, dk, dv)
        return dx, dr, {**dp_qkv, **dp_out}

    return y, back


def maybe_biased(
    q: Array, k: Array, v: Array, r: Array | None, *, causal: bool, attention_mask: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array, Array | None]]]:
    """ATT: `biased_attention` where there is an r, else `attention`, whose pullback then gives None for dr

    Source:  see `attention` and `biased_attention`.
    Shapes:  q (..., H, T, D); k (..., H, S, D); v (..., H, S, E); r (H, T+S-1), or None;
             attention_mask bool broadcast to (..., H, T, S), or None -> y (..., H, T, E)

    >>> q, v = zeros((1, 1, 2)), array([[[2.0]]])
    >>> maybe_biased(q, q, v, None, causal=True, attention_mask=None)[1](ones((1, 1, 1)))[3] is None
    True
    """
    if r is None:
        y, back = attention(q, k, v, causal=causal, attention_mask=attention_mask)
        return y, lambda dy: (*back(dy), None)
    return biased_attention(q, k, v, r, causal=causal, attention_mask=attention_mask)
