"""One layer of a decoder that reads a source: self-attention, cross-attention, feed-forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from refllm.backend import Array
from refllm.blocks.cross_attention import MemoryStore, cross_attention
from refllm.blocks.encoder_layer import maybe_gated
from refllm.blocks.gated_feed_forward import Gate
from refllm.blocks.relative_self_attention import relative_self_attention
from refllm.blocks.residual import RESIDUALS, Placement
from refllm.blocks.self_attention import KeyValueStore
from refllm.differentiable import differentiable
from refllm.parameters import Tree, branch


class LayerStores(NamedTuple):
    """What a decoder layer keeps while a text is written (generation/decoder_cache.py)."""

    text: KeyValueStore
    memory: MemoryStore


class Cache(Protocol):
    """What the decoder keeps while it writes (generation/decoder_cache.py)."""

    @property
    def layers(self) -> Sequence[LayerStores]: ...

    @property
    def length(self) -> int:
        """Places of the target that it holds."""

    def advance(self, tokens: int) -> Array:
        """Makes room for `tokens` more; their positions (T,)."""


@differentiable
def decoder_layer(
    x: Array,
    memory: Array,
    r: Array | None,
    p: Tree,
    *,
    norm: Placement,
    heads: int,
    scaled: bool,
    memory_mask: Array | None,
    activation: Gate,
    capacity: int,
    eps: float,
    dropout_mask: Tree | None,
    rate: float,
    cache: LayerStores | None,
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array | None, Tree]]]:
    """MHA, XATT, FFN: the three sublayers in this order, causal MHA first, each with its residual and norm

    x + f(N(x)) for norm = "pre", N(x + f(x)) for norm = "post"; N and the feed-forward layer as in `encoder_layer`.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1, 3.2.3; documents 004 sec. 4.1 (erratum E20: its
             self-attention is causal).
    Shapes:  memory (B, S, C); x (n*B, T, C); r (heads, T+K-1), or None; memory_mask bool (B, 1, 1, S), or None;
             norm1.g (C,); norm1.b (C,), or None; attention tree; norm2.g (C,); norm2.b (C,), or None;
             cross_attention tree; norm3.g (C,); norm3.b (C,), or None; feed_forward tree -> y (n*B, T, C)
    Draws:   of "attention", "cross_attention" and "feed_forward", bool (n*B, T, C)
    Special: n rows of x after each other share a row of memory. K is T, with a cache the places that it holds.

    >>> attention = {"Wo": zeros((2, 2))}
    >>> norm = {"g": ones(2), "b": zeros(2)}
    >>> p = {"norm1": norm, "norm2": norm, "norm3": norm, "attention": {"Wqkv": ones((2, 6)), **attention},
    ...      "cross_attention": {"Wq": ones((2, 2)), "Wkv": ones((2, 4)), **attention},
    ...      "feed_forward": {"W1": ones((2, 4)), "W2": zeros((4, 2))}}
    >>> x, how = array([[[1.0, 3.0]]]), {"norm": "pre", "heads": 1, "scaled": True, "memory_mask": None, "capacity": 1}
    >>> how |= {"activation": "relu", "eps": 1e-5, "dropout_mask": None, "rate": 0.0, "cache": None}
    >>> decoder_layer(x, x, None, p, **how)[0].tolist()  # nothing is put out: the residual connections remain
    [[[1.0, 3.0]]]
    """
    residual = RESIDUALS[norm]
    text_store, memory_store = cache if cache is not None else (None, None)

    def attend(z: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array | None, Tree]]]:
        return relative_self_attention(
            z, r, p["attention"], heads=heads, scaled=scaled, causal=True, attention_mask=None, cache=text_store
        )

    def read(z: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array, Tree]]]:
        return cross_attention(
            z, memory, p["cross_attention"], heads=heads, scaled=scaled, attention_mask=memory_mask, cache=memory_store
        )

    def feed(z: Array) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
        return maybe_gated(z, p["feed_forward"], activation=activation, capacity=capacity)

    h, back1 = residual(x, p["norm1"], attend, eps=eps, dropout_mask=branch(dropout_mask, "attention"), rate=rate)
    c, back2 = residual(h, p["norm2"], read, eps=eps, dropout_mask=branch(dropout_mask, "cross_attention"), rate=rate)
    y, back3 = residual(c, p["norm3"], feed, eps=eps, dropout_mask=branch(dropout_mask, "feed_forward"), rate=rate)

    def back(dy: Array) -> tuple[Array, Array, Array | None, Tree]:
        dc, dnorm3, dfeed = back3(dy)
        dh, dnorm2, dmemory, dreading = back2(dc)
        dx, dnorm1, dr, dattention = back1(dh)
        dp = {
            "norm1": dnorm1,
            "attention": dattention,
            "norm2": dnorm2,
            "cross_attention": dreading,
            "norm3": dnorm3,
            "feed_forward": dfeed,
        }
        return dx, dmemory, dr, dp

    return y, back
