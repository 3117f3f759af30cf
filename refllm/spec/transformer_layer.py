"""The layers of GPT and BERT, of Llama, and of an encoder and a decoder."""

from refllm.spec.array import Array, Pullback, Tree
from refllm.spec.cross_attention import cross_attention
from refllm.spec.feed_forward import feed_forward, gated_feed_forward
from refllm.spec.layers import residual
from refllm.spec.self_attention import grouped_attention, relative_self_attention, self_attention


def transformer_layer(
    x: Array, p: Tree, *, norm: str, heads: int, causal: bool, attention_mask: Array | None, activation: str, eps: float
) -> tuple[Array, Pullback]:
    """MHA, FFN, LN: self-attention, then feed-forward, each in its residual; norm "pre" or "post"

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1; Radford et al. 2019 sec. 2.3; documents 002 sec. 3.1.
    Shapes:  x (..., T, C); attention_mask bool (..., 1, T) -> y (..., T, C)

    >>> N, Z = {"g": ones(2), "b": zeros(2)}, zeros((2, 2))  # both sublayers give 0: what is left is x, or its norm
    >>> attention = {"Wqkv": zeros((2, 6)), "bqkv": zeros(6), "Wo": Z, "bo": zeros(2)}
    >>> p = {"norm1": N, "attention": attention, "norm2": N, "feed_forward": {"W1": Z, "W2": Z}}
    >>> how = {"heads": 1, "causal": True, "attention_mask": None, "activation": "relu", "eps": 0.}
    >>> [transformer_layer(array([[1., 3.]]), p, norm=norm, **how)[0] for norm in ("pre", "post")]
    [array([[1., 3.]]), array([[-1.,  1.]])]
    """

    def attend(h: Array, p: Tree) -> tuple[Array, Pullback]:
        return self_attention(h, p, heads=heads, causal=causal, attention_mask=attention_mask)

    def feed(h: Array, p: Tree) -> tuple[Array, Pullback]:
        return feed_forward(h, p, activation=activation)

    h, attend_back = residual(x, p, 1, "attention", attend, norm=norm, eps=eps)
    y, feed_back = residual(h, p, 2, "feed_forward", feed, norm=norm, eps=eps)

    def transformer_layer_back(dy: Array) -> tuple[Array, Tree]:
        dh, dfeed = feed_back(dy)
        dx, dattend = attend_back(dh)
        return dx, {**dattend, **dfeed}

    return y, transformer_layer_back


def llama_layer(
    x: Array, p: Tree, r: Array | None, *, heads: int, kv_heads: int, rotation: str | None, positions: Array,
    base: float, attention_mask: Array | None, eps: float,
) -> tuple[Array, Pullback]:  # fmt: skip
    """LONG: h = x + attention(RMS(x)),   y = h + SwiGLU(RMS(h)); causal

    Source:  Touvron et al. 2023 (arXiv:2302.13971) sec. 2.2.
    Shapes:  x (..., T, C); r (H, T+T-1); positions (..., T); attention_mask bool (..., 1, T) -> y (..., T, C)
    Back:    gives dx, dp and, where there is an r, dr

    >>> N, Z = {"g": ones(2)}, zeros((2, 2))  # both sublayers give 0: what is left is x
    >>> attention, gated = dict.fromkeys(("Wq", "Wk", "Wv", "Wo"), Z), dict.fromkeys(("Wg", "W1", "W2"), Z)
    >>> p = {"norm1": N, "attention": attention, "norm2": N, "feed_forward": gated}
    >>> how = {"rotation": None, "positions": arange(1), "base": 1., "attention_mask": None, "eps": 0.}
    >>> llama_layer(array([[1., 3.]]), p, None, heads=1, kv_heads=1, **how)[0]
    array([[1., 3.]])
    """

    def attend(h: Array, p: Tree) -> tuple[Array, Pullback]:
        return grouped_attention(
            h, p, r, heads=heads, kv_heads=kv_heads, rotation=rotation, positions=positions, base=base, causal=True,
            attention_mask=attention_mask,
        )  # fmt: skip

    def feed(h: Array, p: Tree) -> tuple[Array, Pullback]:
        return gated_feed_forward(h, p, activation="silu")

    h, attend_back = residual(x, p, 1, "attention", attend, norm="pre", eps=eps)
    y, feed_back = residual(h, p, 2, "feed_forward", feed, norm="pre", eps=eps)

    def llama_layer_back(dy: Array) -> tuple[Array, ...]:
        dh, dfeed = feed_back(dy)
        dx, dattend, *dr = attend_back(dh)
        return dx, {**dattend, **dfeed}, *dr

    return y, llama_layer_back


def encoder_layer(
    x: Array, p: Tree, r: Array | None, *, norm: str, heads: int, scaled: bool, attention_mask: Array | None,
    activation: str, eps: float,
) -> tuple[Array, Pullback]:  # fmt: skip
    """MHA, FFN, LN: as `transformer_layer`, in both directions, with what T5 changes: see `relative_self_attention`

    The norm is RMS norm, and the feed-forward layer gated or without biases, where p says so.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1; Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1.
    Shapes:  x (..., S, C); r (H, S+S-1); attention_mask bool (..., 1, S) -> y (..., S, C)
    Back:    gives dx, dp and, where there is an r, dr
    """

    def attend(h: Array, p: Tree) -> tuple[Array, Pullback]:
        return relative_self_attention(h, p, r, heads=heads, scaled=scaled, causal=False, attention_mask=attention_mask)

    def feed(h: Array, p: Tree) -> tuple[Array, Pullback]:
        return maybe_gated(h, p, activation=activation)

    h, attend_back = residual(x, p, 1, "attention", attend, norm=norm, eps=eps)
    y, feed_back = residual(h, p, 2, "feed_forward", feed, norm=norm, eps=eps)

    def encoder_layer_back(dy: Array) -> tuple[Array, ...]:
        dh, dfeed = feed_back(dy)
        dx, dattend, *dr = attend_back(dh)
        return dx, {**dattend, **dfeed}, *dr

    return y, encoder_layer_back


def decoder_layer(
    x: Array, p: Tree, memory: Array, r: Array | None, *, norm: str, heads: int, scaled: bool,
    attention_mask: Array | None, activation: str, eps: float,
) -> tuple[Array, Pullback]:  # fmt: skip
    """MHA, XATT, FFN, LN: causal self-attention, attention to the memory, feed-forward, each in its residual

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1, 3.2.3; documents 004 sec. 4.1.
    Shapes:  x (..., T, C); memory (..., S, C); r (H, T+T-1); attention_mask bool (..., 1, S), of the memory -> y
             (..., T, C)
    Back:    gives dx, dp, dmemory and, where there is an r, dr
    """

    def attend(h: Array, p: Tree) -> tuple[Array, Pullback]:
        return relative_self_attention(h, p, r, heads=heads, scaled=scaled, causal=True, attention_mask=None)

    def read(h: Array, p: Tree) -> tuple[Array, Pullback]:
        y, cross_attention_back = cross_attention(
            h, memory, p, heads=heads, scaled=scaled, attention_mask=attention_mask
        )

        def read_back(dy: Array) -> tuple[Array, Tree, Array]:
            dh, dmemory, dp = cross_attention_back(dy)
            return dh, dp, dmemory

        return y, read_back

    def feed(h: Array, p: Tree) -> tuple[Array, Pullback]:
        return maybe_gated(h, p, activation=activation)

    h, attend_back = residual(x, p, 1, "attention", attend, norm=norm, eps=eps)
    c, read_back = residual(h, p, 2, "cross_attention", read, norm=norm, eps=eps)
    y, feed_back = residual(c, p, 3, "feed_forward", feed, norm=norm, eps=eps)

    def decoder_layer_back(dy: Array) -> tuple[Array, ...]:
        dc, dfeed = feed_back(dy)
        dh, dread, dmemory = read_back(dc)
        dx, dattend, *dr = attend_back(dh)
        return dx, {**dattend, **dread, **dfeed}, dmemory, *dr

    return y, decoder_layer_back


def maybe_gated(x: Array, p: Tree, *, activation: str) -> tuple[Array, Pullback]:
    """FFN: with a gate where p has one

    Source:  as `gated_feed_forward` and `feed_forward`.
    Shapes:  x (..., C) -> y (..., C)
    """
    return (gated_feed_forward if "Wg" in p else feed_forward)(x, p, activation=activation)
