"""One layer of Llama: grouped attention, then a gated feed-forward layer, each after an RMS norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.backend import Array
from refllm.blocks.gated_feed_forward import Gate, gated_feed_forward, gated_feed_forward_shapes
from refllm.blocks.grouped_attention import Rotation, grouped_attention, grouped_attention_shapes
from refllm.blocks.residual import pre_norm
from refllm.blocks.self_attention import KeyValueStore
from refllm.blocks.stack import then_norm
from refllm.differentiable import differentiable
from refllm.ops.rotary import Frequencies
from refllm.parameters import Tree, branch


def llama_layer_shapes(
    width: int,
    heads: int,
    kv_heads: int,
    head_width: int,
    hidden: int,
    *,
    biases: str = "none",
    query_key_norm: bool = False,
    offset_norms: bool = False,
    norms_after: bool = False,
    feed_forward_biases: bool = False,
) -> Tree:
    norm: Tree = {"offset": (width,)} if offset_norms else {"g": (width,)}
    attention = grouped_attention_shapes(width, heads, kv_heads, head_width, biases=biases, normed=query_key_norm)
    tree = {"norm1": norm, "attention": attention}
    if norms_after:
        tree["norm1_after"] = norm
    tree |= {"norm2": norm, "feed_forward": gated_feed_forward_shapes(width, hidden, biases=feed_forward_biases)}
    if norms_after:
        tree["norm2_after"] = norm
    return tree


@differentiable
def llama_layer(
    x: Array,
    r: Array | None,
    p: Tree,
    *,
    heads: int,
    kv_heads: int,
    rotation: Rotation | None,
    positions: Array,
    base: Frequencies,
    attention_mask: Array | None,
    cap: float | None,
    stretch: float,
    activation: Gate,
    eps: float,
    dropout_mask: Tree | None,
    rate: float,
    cache: KeyValueStore | None,
) -> tuple[Array, Callable[[Array], tuple[Array, Array | None, Tree]]]:
    """MHA, FFN: h = x + MHA(RMS(x)),  y = h + FFN(RMS(h)), causal, with a gate: `activation` "silu" is SwiGLU

    Where p has norms "norm1_after" and "norm2_after", what a sublayer puts out goes through them before it is added.
    Source:  Touvron et al. 2023 (arXiv:2302.13971) sec. 2.2; Gemma Team 2024 (arXiv:2408.00118) sec. 2 for norms after.
    Shapes:  x (..., T, C); r (heads, T+S-1), or None; positions int end of (..., T);
             attention_mask bool broadcast to (..., heads, T, S), or None; norm1 tree; attention tree;
             norm1_after tree, or None; norm2 tree; feed_forward tree; norm2_after tree, or None -> y (..., T, C)
    Draws:   of "attention" and "feed_forward", bool (..., T, C)

    >>> p = {"norm1": {"g": ones(2)}, "norm2": {"g": ones(2)}}
    >>> p["attention"] = {name: zeros((2, 2)) for name in ("Wq", "Wk", "Wv", "Wo")}
    >>> p["feed_forward"] = {name: zeros((2, 2)) for name in ("Wg", "W1", "W2")}
    >>> how = {"heads": 1, "kv_heads": 1, "rotation": "rotary", "positions": arange(1), "base": 1e4, "eps": 1e-5}
    >>> how |= {"attention_mask": None, "cap": None, "stretch": 1.0, "activation": "silu", "cache": None}
    >>> llama_layer(array([[1.0, 3.0]]), None, p, dropout_mask=None, rate=0.0, **how)[0].tolist()  # x remains
    [[1.0, 3.0]]
    """

    def attend(z: Array) -> tuple[Array, Callable[[Array], tuple[Any, ...]]]:
        a, back_attention = grouped_attention(
            z, r, p["attention"], heads=heads, kv_heads=kv_heads, rotation=rotation, positions=positions, base=base,
            causal=True, attention_mask=attention_mask, cap=cap, stretch=stretch, eps=eps, cache=cache,
        )  # fmt: skip
        return then_norm(a, back_attention, p, name="norm1_after", eps=eps)

    def feed(z: Array) -> tuple[Array, Callable[[Array], tuple[Any, ...]]]:
        a, back_feed = gated_feed_forward(z, p["feed_forward"], activation=activation)
        return then_norm(a, back_feed, p, name="norm2_after", eps=eps)

    h, back1 = pre_norm(x, p["norm1"], attend, eps=eps, dropout_mask=branch(dropout_mask, "attention"), rate=rate)
    y, back2 = pre_norm(h, p["norm2"], feed, eps=eps, dropout_mask=branch(dropout_mask, "feed_forward"), rate=rate)

    def back(dy: Array) -> tuple[Array, Array | None, Tree]:
        dh, dnorm2, dfeed, *dnorm2_after = back2(dy)
        dx, dnorm1, dr, dattention, *dnorm1_after = back1(dh)
        after1, after2 = ((dnorm or [{}])[0] for dnorm in (dnorm1_after, dnorm2_after))
        dp = {"norm1": dnorm1, "attention": dattention, **after1, "norm2": dnorm2, "feed_forward": dfeed, **after2}
        return dx, dr, dp

    return y, back
