"""One layer of a Transformer: self-attention, then feed-forward, each with its residual and norm."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array
from refllm.blocks.feed_forward import Activation, feed_forward, feed_forward_shapes
from refllm.blocks.residual import RESIDUALS, Placement, norm_shapes
from refllm.blocks.self_attention import KeyValueStore, self_attention, self_attention_shapes
from refllm.differentiable import differentiable
from refllm.parameters import Tree, branch


def transformer_layer_shapes(width: int, hidden: int) -> Tree:
    return {
        "norm1": norm_shapes(width),
        "attention": self_attention_shapes(width),
        "norm2": norm_shapes(width),
        "feed_forward": feed_forward_shapes(width, hidden),
    }


@differentiable
def transformer_layer(
    x: Array,
    p: Tree,
    *,
    norm: Placement,
    heads: int,
    causal: bool,
    attention_mask: Array | None,
    activation: Activation,
    eps: float,
    dropout_mask: Tree | None,
    rate: float,
    cache: KeyValueStore | None,
) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """MHA, FFN, LN: h = x + MHA(LN(x)), y = h + FFN(LN(h)) for norm = "pre";   h = LN(x + MHA(x)), y = LN(h + FFN(h))
    for norm = "post"

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1; documents 002 sec. 3.1.
    Shapes:  x (..., T, C); attention_mask bool broadcast to (..., heads, T, S), or None;
             norm1.g (C,); norm1.b (C,); attention tree;
             norm2.g (C,); norm2.b (C,); feed_forward tree -> y (..., T, C)
    Draws:   of "attention" and "feed_forward", bool (..., T, C)

    >>> norm = {"g": ones(2), "b": zeros(2)}
    >>> p = {"norm1": norm, "norm2": norm}
    >>> p["feed_forward"] = {"W1": ones((2, 4)), "b1": ones(4), "W2": zeros((4, 2)), "b2": zeros(2)}
    >>> p["attention"] = {"Wqkv": ones((2, 6)), "bqkv": ones(6), "Wo": zeros((2, 2)), "bo": zeros(2)}
    >>> how = {"heads": 1, "causal": True, "attention_mask": None, "activation": "relu", "eps": 1e-15}
    >>> how |= {"dropout_mask": None, "rate": 0.0, "cache": None}
    >>> transformer_layer(array([[1.0, 3.0]]), p, norm="pre", **how)[0].tolist()  # nothing is put out: x remains
    [[1.0, 3.0]]
    >>> transformer_layer(array([[1.0, 3.0]]), p, norm="post", **how)[0].round(12).tolist()  # and here its norm
    [[-1.0, 1.0]]
    """
    residual = RESIDUALS[norm]

    def attend(z: Array) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
        return self_attention(z, p["attention"], heads=heads, causal=causal, attention_mask=attention_mask, cache=cache)

    def feed(z: Array) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
        return feed_forward(z, p["feed_forward"], activation=activation)

    h, back1 = residual(x, p["norm1"], attend, eps=eps, dropout_mask=branch(dropout_mask, "attention"), rate=rate)
    y, back2 = residual(h, p["norm2"], feed, eps=eps, dropout_mask=branch(dropout_mask, "feed_forward"), rate=rate)

    def back(dy: Array) -> tuple[Array, Tree]:
        dh, dnorm2, dfeed = back2(dy)
        dx, dnorm1, dattention = back1(dh)
        return dx, {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2, "feed_forward": dfeed}

    return y, back
