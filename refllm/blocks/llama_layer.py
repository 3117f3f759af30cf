"""One layer of Llama: grouped attention, then a gated feed-forward layer, each after an RMS norm."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array
from refllm.blocks.gated_feed_forward import gated_feed_forward, gated_feed_forward_shapes
from refllm.blocks.grouped_attention import grouped_attention, grouped_attention_shapes
from refllm.blocks.residual import pre_norm
from refllm.blocks.self_attention import KeyValueStore
from refllm.differentiable import differentiable
from refllm.parameters import Tree, branch


def llama_layer_shapes(width: int, heads: int, kv_heads: int, head_width: int, hidden: int) -> Tree:
    return {
        "norm1": {"g": (width,)},
        "attention": grouped_attention_shapes(width, heads, kv_heads, head_width),
        "norm2": {"g": (width,)},
        "feed_forward": gated_feed_forward_shapes(width, hidden),
    }


@differentiable
def llama_layer(
    x: Array,
    r: Array | None,
    p: Tree,
    *,
    heads: int,
    kv_heads: int,
    rotation: str | None,
    positions: Array,
    base: float,
    attention_mask: Array | None,
    eps: float,
    dropout_mask: Tree | None,
    rate: float,
    cache: KeyValueStore | None,
) -> tuple[Array, Callable[[Array], tuple[Array, Array | None, Tree]]]:
    """MHA, FFN: h = x + MHA(RMS(x)),  y = h + FFN(RMS(h)), causal, with SwiGLU

    Source:  Touvron et al. 2023 (arXiv:2302.13971) sec. 2.2.
    Shapes:  x (..., T, C); r (heads, T+S-1), or None; positions int end of (..., T);
             attention_mask bool broadcast to (..., heads, T, S), or None -> y (..., T, C)
    Draws:   of "attention" and "feed_forward", bool (..., T, C)
    """

    def attend(z: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array | None, Tree]]]:
        return grouped_attention(
            z, r, p["attention"], heads=heads, kv_heads=kv_heads, rotation=rotation, positions=positions, base=base,
            causal=True, attention_mask=attention_mask, cache=cache,
        )  # fmt: skip

    def feed(z: Array) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
        return gated_feed_forward(z, p["feed_forward"], activation="silu")

    h, back1 = pre_norm(x, p["norm1"], attend, eps=eps, dropout_mask=branch(dropout_mask, "attention"), rate=rate)
    y, back2 = pre_norm(h, p["norm2"], feed, eps=eps, dropout_mask=branch(dropout_mask, "feed_forward"), rate=rate)

    def back(dy: Array) -> tuple[Array, Array | None, Tree]:
        dh, dnorm2, dfeed = back2(dy)
        dx, dnorm1, dr, dattention = back1(dh)
        return dx, dr, {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2, "feed_forward": dfeed}

    return y, back
