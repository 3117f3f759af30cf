"""Multi-head self-attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from refllm.backend import Array
from refllm.differentiable import differentiable
from refllm.heads import cut, side_by_side
from refllm.ops.attention import attention
from refllm.ops.linear import heads as to_heads
from refllm.ops.linear import linear
from refllm.parameters import Tree


class KeyValueStore(Protocol):
    """Where a layer keeps the keys and values of the tokens so far (generation/cache.py)."""

    def extend(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Appends k and v (B, H, T, D); returns all keys and values so far, (B, H, S, D)."""
        ...


class Cache(Protocol):
    """Keys and values of the tokens so far for every layer, and where new ones stand (generation/cache.py)."""

    length: int  # the places that it holds

    @property
    def layers(self) -> Sequence[KeyValueStore]: ...

    def advance(self, tokens: int) -> tuple[Array, Array | None]:
        """Makes room for `tokens` more; their positions (T,) or (B, T), and which keys they may attend."""
        ...


def self_attention_shapes(width: int) -> Tree:
    return {"Wqkv": (width, 3 * width), "bqkv": (3 * width,), "Wo": (width, width), "bo": (width,)}


@differentiable
def self_attention(
    x: Array, p: Tree, *, heads: int, causal: bool, attention_mask: Array | None, cache: KeyValueStore | None
) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """MHA: q, k, v = x Wqkv + bqkv cut into H heads;   y = concat(ATT of each head) Wo + bo

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.2; documents 001 ch. 2, 002 sec. 5 (code), 003 sec.
             4.3.
    Shapes:  x (..., T, C); Wqkv (C, 3*C); bqkv (3*C,); Wo (C, C); bo (C,);
             attention_mask bool broadcast to (..., heads, T, S), or None -> y (..., T, C)
    Special: with a cache, k and v are appended to it and the queries attend all that it holds; the pullback then
             serves the new tokens alone, so training uses none. The gradient of the keys' bias is exactly zero:
             it shifts all scores of a query by the same amount.

    >>> p = {"Wqkv": array([[0.0, 0.0, 1.0]]), "bqkv": zeros(3), "Wo": ones((1, 1)), "bo": zeros(1)}
    >>> x = array([[2.0], [4.0], [9.0]])  # q = k = 0: the mean of what is seen
    >>> self_attention(x, p, heads=1, causal=True, attention_mask=None, cache=None)[0].tolist()
    [[2.0], [3.0], [5.0]]
    """
    (q, k, v), back_heads = to_heads(x, p["Wqkv"], p["bqkv"], heads=heads, parts=3)  # 3 x (B, H, T, D)
    if cache is not None:
        k, v = cache.extend(k, v)  # (B, H, S, D)
    a, back_attention = attention(q, k, v, causal=causal, attention_mask=attention_mask)  # (B, H, T, D)
    y, back_out = linear(side_by_side([a]), p["Wo"], p["bo"])

    def back(dy: Array) -> tuple[Array, Tree]:
        da, dWo, dbo = back_out(dy)
        dx, dWqkv, dbqkv = back_heads(*back_attention(*cut(da, heads=heads)))
        return dx, {"Wqkv": dWqkv, "bqkv": dbqkv, "Wo": dWo, "bo": dbo}

    return y, back
