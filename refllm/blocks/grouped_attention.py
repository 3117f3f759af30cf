"""Multi-head self-attention in which several heads of queries share a head of keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeAlias

from refllm.backend import Array
from refllm.blocks.affine import affine_shapes, concatenated, project
from refllm.blocks.relative_self_attention import maybe_biased
from refllm.blocks.self_attention import KeyValueStore
from refllm.blocks.stack import maybe_norm
from refllm.differentiable import differentiable
from refllm.kinds import OneOf
from refllm.ops.repeat_heads import repeat_heads
from refllm.ops.rotary import Frequencies, rotary_halves, rotary_interleaved
from refllm.ops.soft_cap import capped_attention
from refllm.parameters import Tree

ROTATIONS = {"rotary": rotary_halves, "rotary_interleaved": rotary_interleaved}
Rotation: TypeAlias = Annotated[str, OneOf(ROTATIONS)]


def grouped_attention_shapes(
    width: int, heads: int, kv_heads: int, head_width: int, *, biases: str = "none", normed: bool = False
) -> Tree:
    """`biases` are those of "q", "k" and "v", with those of the output "qkvo", or "none"; `normed` is for QK norm."""
    inner, shared = heads * head_width, kv_heads * head_width
    maps = {"q": (width, inner), "k": (width, shared), "v": (width, shared), "o": (inner, width)}
    tree: Tree = {}
    for name, one in maps.items():
        tree |= affine_shapes({name: one}, biases=name in biases and biases != "none")
    if normed:
        tree |= {"query_norm": {"g": (head_width,)}, "key_norm": {"g": (head_width,)}}
    return tree


@differentiable
def grouped_attention(
    x: Array,
    r: Array | None,
    p: Tree,
    *,
    heads: int,
    kv_heads: int,
    rotation: Rotation | None,
    positions: Array,
    base: Frequencies,
    causal: bool,
    attention_mask: Array | None,
    cap: float | None,
    stretch: float,
    eps: float,
    cache: KeyValueStore | None,
) -> tuple[Array, Callable[[Array], tuple[Array, Array | None, Tree]]]:
    """MHA, LONG: q = x Wq in H heads, k, v = x Wk, x Wv in G heads;   y = concat(ATT(q_h, k_g, v_g)) Wo,   g = h G // H

    Positions enter by the rotation of q and k, or by the bias r[distance] of every score, or not at all. Biases, and
    RMS norms of the queries and the keys of each head (QKN), are there where p has them. The scores are
    q kᵀ stretch / √D, held within a cap (CAP) where there is one.
    Source:  Ainslie et al. 2023 (arXiv:2305.13245) sec. 2.2 (grouped queries); Su et al. 2021 (arXiv:2104.09864) sec.
             3.2.2; Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1 and Press et al. 2022 (arXiv:2108.12409) for r;
             Gemma Team 2024 (arXiv:2408.00118) sec. 2 for the cap; Dehghani et al. 2023 (arXiv:2302.05442) sec. 2 for
             norms.
    Shapes:  x (..., T, C); r (heads, T+S-1), or None; Wq (C, heads*D); bq (heads*D,), or None;
             Wk (C, kv_heads*D); bk (kv_heads*D,), or None; Wv (C, kv_heads*D); bv (kv_heads*D,), or None;
             Wo (heads*D, C); bo (C,), or None; query_norm tree, or None; key_norm tree, or None;
             positions int end of (..., T); attention_mask bool broadcast to (..., heads, T, S), or None
             -> y (..., T, C)
    Special: rotation is "rotary" (halves), "rotary_interleaved" or None, and comes after the norms. Keys are cached
             after their rotation, G heads of them, and then rotated never again. Where r is None, so is its gradient.

    >>> p = {"Wq": zeros((1, 2)), "Wk": ones((1, 1)), "Wv": ones((1, 1)), "Wo": array([[1.0], [1.0]])}
    >>> how = {"heads": 2, "kv_heads": 1, "rotation": None, "positions": arange(2), "base": 1e4, "causal": True}
    >>> how |= {"attention_mask": None, "cap": None, "stretch": 1.0, "eps": 1e-5, "cache": None}
    >>> grouped_attention(array([[2.0], [4.0]]), None, p, **how)[0].tolist()  # both heads see the same mean, 2 and 3
    [[4.0], [6.0]]
    """
    own = positions if positions.ndim < 2 else positions[:, None]  # (T,) or (B, 1, T), beside (B, H, T, D)
    (q,), back_q = project(x, p, name="q", heads=heads, parts=1)
    (k,), back_k = project(x, p, name="k", heads=kv_heads, parts=1)
    (v,), back_v = project(x, p, name="v", heads=kv_heads, parts=1)
    q, back_norm_q = maybe_norm(q, p, name="query_norm", eps=eps)
    k, back_norm_k = maybe_norm(k, p, name="key_norm", eps=eps)
    q, back_turn_q = _turned(q, rotation, own, base)
    k, back_turn_k = _turned(k, rotation, own, base)
    if cache is not None:
        k, v = cache.extend(k, v)  # (B, G, S, D)
    all_k, back_repeat_k = repeat_heads(k, groups=heads // kv_heads)
    all_v, back_repeat_v = repeat_heads(v, groups=heads // kv_heads)
    a, back_attention = _attend(
        q if stretch == 1 else q * stretch, all_k, all_v, r, cap=cap, causal=causal, attention_mask=attention_mask
    )
    y, back_out = concatenated(a, p, name="o")

    def back(dy: Array) -> tuple[Array, Array | None, Tree]:
        da, dp_out = back_out(dy)
        dq, dk, dv, dr = back_attention(da)
        dq, dnorm_q = back_norm_q(back_turn_q(dq if stretch == 1 else dq * stretch))
        dk, dnorm_k = back_norm_k(back_turn_k(back_repeat_k(dk)))
        dx, dp_q = back_q(dq)
        dx_k, dp_k = back_k(dk)
        dx_v, dp_v = back_v(back_repeat_v(dv))
        dx += dx_k
        dx += dx_v
        return dx, dr, {**dp_q, **dp_k, **dp_v, **dp_out, **dnorm_q, **dnorm_k}

    return y, back


def _attend(
    q: Array,
    k: Array,
    v: Array,
    r: Array | None,
    *,
    cap: float | None,
    causal: bool,
    attention_mask: Array | None,
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array, Array | None]]]:
    if cap is None:
        return maybe_biased(q, k, v, r, causal=causal, attention_mask=attention_mask)
    if r is not None:
        raise ValueError("grouped_attention: a cap with a bias by distance is no published form; give one of them")
    y, back = capped_attention(q, k, v, cap=cap, causal=causal, attention_mask=attention_mask)
    return y, lambda dy: (*back(dy), None)


def _turned(
    x: Array, rotation: Rotation | None, positions: Array, base: Frequencies
) -> tuple[Array, Callable[[Array], Array]]:
    if rotation is None:
        return x, lambda dy: dy
    return ROTATIONS[rotation](x, positions=positions, base=base)
