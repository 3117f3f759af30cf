"""One layer of an encoder: attention in both directions, then feed-forward, each with its residual and norm."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array, namespace
from refllm.blocks.feed_forward import feed_forward, feed_forward_without_biases
from refllm.blocks.gated_feed_forward import Gate, gated_feed_forward
from refllm.blocks.relative_self_attention import relative_self_attention
from refllm.blocks.residual import RESIDUALS, Placement
from refllm.blocks.switch_layer import switch_layer
from refllm.differentiable import differentiable
from refllm.parameters import Tree, branch


@differentiable
def encoder_layer(
    x: Array,
    r: Array | None,
    p: Tree,
    *,
    norm: Placement,
    heads: int,
    scaled: bool,
    attention_mask: Array | None,
    activation: Gate,
    capacity: int,
    eps: float,
    dropout_mask: Tree | None,
    rate: float,
) -> tuple[Array, Callable[[Array], tuple[Array, Array | None, Tree]]]:
    """MHA, FFN: h = x + MHA(N(x)), y = h + FFN(N(h)) for norm = "pre";   h = N(x + MHA(x)), y = N(h + FFN(h)) for
    norm = "post"

    N is layer norm or RMS norm, and the feed-forward layer gated or not, or of experts, by what p holds.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1; Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1.
    Shapes:  x (B, S, C); r (heads, 2*S-1), or None; attention_mask bool (B, 1, 1, S), or None;
             norm1.g (C,); norm1.b (C,), or None; attention tree; norm2.g (C,); norm2.b (C,), or None; feed_forward tree
             -> y (B, S, C)
    Draws:   of "attention" and "feed_forward", bool (B, S, C)

    >>> p = {"norm1": {"g": ones(2)}, "norm2": {"g": ones(2)}, "attention": {"Wqkv": ones((2, 6)), "Wo": zeros((2, 2))},
    ...      "feed_forward": {"W1": ones((2, 4)), "W2": zeros((4, 2))}}
    >>> how = {"norm": "pre", "heads": 1, "scaled": True, "attention_mask": None, "activation": "relu", "capacity": 1}
    >>> how |= {"eps": 1e-5, "dropout_mask": None, "rate": 0.0}
    >>> encoder_layer(array([[[1.0, 3.0]]]), None, p, **how)[0].tolist()  # nothing is put out: the residual remains
    [[[1.0, 3.0]]]
    """
    residual = RESIDUALS[norm]

    def attend(z: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array | None, Tree]]]:
        return relative_self_attention(
            z, r, p["attention"], heads=heads, scaled=scaled, causal=False, attention_mask=attention_mask, cache=None
        )

    def feed(z: Array) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
        return maybe_gated(z, p["feed_forward"], activation=activation, capacity=capacity)

    h, back1 = residual(x, p["norm1"], attend, eps=eps, dropout_mask=branch(dropout_mask, "attention"), rate=rate)
    y, back2 = residual(h, p["norm2"], feed, eps=eps, dropout_mask=branch(dropout_mask, "feed_forward"), rate=rate)

    def back(dy: Array) -> tuple[Array, Array | None, Tree]:
        dh, dnorm2, dfeed = back2(dy)
        dx, dnorm1, dr, dattention = back1(dh)
        dp = {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2, "feed_forward": dfeed}
        return dx, dr, dp

    return y, back


def maybe_gated(
    x: Array, p: Tree, *, activation: Gate, capacity: int
) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """FFN: of experts where p has a router (MOE), with a gate where it has one, else with biases where it has them

    Source:  see `switch_layer`, `gated_feed_forward`, `feed_forward` and `feed_forward_without_biases`.
    Shapes:  x (..., C) -> y (..., C)
    Special: an expert takes at most `capacity` tokens of a text; the balance of the experts has no part in the loss.

    >>> p = {"W1": ones((1, 1)), "W2": ones((1, 1))}
    >>> maybe_gated(array([[3.0]]), p, activation="relu", capacity=1)[0].tolist()
    [[3.0]]
    >>> maybe_gated(array([[3.0]]), {**p, "Wg": ones((1, 1))}, activation="relu", capacity=1)[0].tolist()  # 3 · 3
    [[9.0]]
    """
    if "Wr" in p:
        places = max(1, min(capacity, x.shape[-2]))
        (y, balance), back = switch_layer(x, p, activation=activation, capacity=places, token_mask=None)
        return y, lambda dy: back(dy, namespace(balance).zeros_like(balance))
    if "Wg" in p:
        return gated_feed_forward(x, p, activation=activation)
    return (feed_forward if "b1" in p else feed_forward_without_biases)(x, p, activation=activation)
