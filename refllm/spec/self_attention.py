"""Multi-head self-attention: with a mask, with a bias by distance, and with heads of keys shared by several queries."""

from refllm.spec.affine import affine
from refllm.spec.array import Array, Pullback, Tree, concatenate, sqrt
from refllm.spec.attention import attention, biased_attention
from refllm.spec.heads import cut, joined
from refllm.spec.linear import heads as projected
from refllm.spec.linear import linear, matmul
from refllm.spec.repeat_heads import repeat_heads
from refllm.spec.rotary import rotary_halves, rotary_interleaved


def self_attention(
    x: Array, p: Tree, *, heads: int, causal: bool, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    """MHA: q, k, v = x Wqkv + bqkv cut into heads;   y = concat(attention of each head) Wo + bo

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.2; documents 002 sec. 3.1 step 2 (erratum E3: √D is that
             of one head).
    Shapes:  x (..., T, C); Wqkv (C, 3*C); bqkv (3*C,); Wo (C, C); bo (C,); attention_mask bool (..., 1, T) -> y
             (..., T, C)

    >>> p = {"Wqkv": array([[0., 0., 1.]]), "bqkv": zeros(3), "Wo": ones((1, 1)), "bo": zeros(1)}
    >>> self_attention(array([[2.], [4.]]), p, heads=1, causal=True, attention_mask=None)[0]  # the means of those seen
    array([[2.],
           [3.]])
    """
    (q, k, v), projected_back = projected(x, p["Wqkv"], p["bqkv"], heads=heads, parts=3)
    a, attention_back = attention(q, k, v, causal=causal, attention_mask=attention_mask)
    y, out_back = linear(joined(a), p["Wo"], p["bo"])

    def self_attention_back(dy: Array) -> tuple[Array, Tree]:
        djoined, dWo, dbo = out_back(dy)
        dq, dk, dv = attention_back(cut(djoined, heads))
        dx, dWqkv, dbqkv = projected_back(dq, dk, dv)
        return dx, {"Wqkv": dWqkv, "bqkv": dbqkv, "Wo": dWo, "bo": dbo}

    return y, self_attention_back


def relative_self_attention(
    x: Array, p: Tree, r: Array | None, *, heads: int, scaled: bool, causal: bool, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    """MHA, T5-REL: as `self_attention`, with the bias r of every distance, biases where p has them, and, not `scaled`,
    without the 1/√D

    Source:  Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1, and its code for the missing 1/√D.
    Shapes:  x (..., T, C); r (H, T+T-1); Wqkv (C, 3*I); Wo (I, C); attention_mask bool (..., 1, T) -> y (..., T, C)
    Back:    gives dx, dp and, where there is an r, dr
    """
    qkv, qkv_back = affine(x, p, "qkv")
    I = qkv.shape[-1] // 3
    q, k, v = (cut(qkv[..., n * I : (n + 1) * I], heads) for n in range(3))
    a, attention_back = maybe_biased(
        q if scaled else unscaled(q), k, v, r, causal=causal, attention_mask=attention_mask
    )
    y, out_back = affine(joined(a), p, "o")

    def relative_self_attention_back(dy: Array) -> tuple[Array, ...]:
        djoined, dout = out_back(dy)
        dq, dk, dv, *dr = attention_back(cut(djoined, heads))
        dq = dq if scaled else unscaled(dq)
        dx, dqkv = qkv_back(concatenate([joined(dq), joined(dk), joined(dv)], axis=-1))
        return dx, {**dqkv, **dout}, *dr

    return y, relative_self_attention_back


def unscaled(q: Array) -> Array:
    """√D q, which `attention` divides by √D again. A product with a number: its pullback is the same."""
    return q * sqrt(q.shape[-1])


def maybe_biased(
    q: Array, k: Array, v: Array, r: Array | None, *, causal: bool, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    """ATT: `attention`, or `biased_attention` where there is an r

    Source:  as these.
    Shapes:  q (..., H, T, D); k (..., H, S, D); v (..., H, S, E); r (H, T+S-1); attention_mask bool (..., T, S)
             -> y (..., H, T, E)
    """
    if r is None:
        return attention(q, k, v, causal=causal, attention_mask=attention_mask)
    return biased_attention(q, k, v, r, causal=causal, attention_mask=attention_mask)


def grouped_attention(
    x: Array, p: Tree, r: Array | None, *, heads: int, kv_heads: int, rotation: str | None, positions: Array,
    base: float, causal: bool, attention_mask: Array | None,
) -> tuple[Array, Pullback]:  # fmt: skip
    """LONG, grouped queries: query head h attends the keys of head h // (heads / kv_heads); queries and keys are turned
    by their positions, values are not

    Source:  Ainslie et al. 2023 (arXiv:2305.13245) sec. 2.2; Su et al. 2021 (arXiv:2104.09864) sec. 3.2.2.
    Shapes:  x (..., T, C); Wq (C, H*D); Wk (C, G*D); Wv (C, G*D); Wo (H*D, C); r (H, T+T-1); positions (..., T);
             attention_mask bool (..., 1, T) -> y (..., T, C)
    Back:    gives dx, the sum of what comes back through q, k and v; dp; and, where there is an r, dr

    >>> p = {"Wq": zeros((1, 2)), "Wk": ones((1, 1)), "Wv": array([[5.]]), "Wo": array([[1.], [10.]])}
    >>> how = {"rotation": None, "positions": arange(1), "base": 1., "causal": True, "attention_mask": None}
    >>> grouped_attention(array([[1.]]), p, None, heads=2, kv_heads=1, **how)[0]  # both heads read the one value, 5
    array([[55.]])
    """
    groups = heads // kv_heads
    (q, q_back), (k, k_back), (v, v_back) = (matmul(x, p[name]) for name in ("Wq", "Wk", "Wv"))
    own = positions if positions.ndim == 1 else positions[:, None]
    q_turned, q_turn_back = maybe_turned(cut(q, heads), rotation, positions=own, base=base)
    k_turned, k_turn_back = maybe_turned(cut(k, kv_heads), rotation, positions=own, base=base)
    k_repeated, k_repeat_back = repeat_heads(k_turned, groups=groups)
    v_repeated, v_repeat_back = repeat_heads(cut(v, kv_heads), groups=groups)
    a, attention_back = maybe_biased(q_turned, k_repeated, v_repeated, r, causal=causal, attention_mask=attention_mask)
    y, out_back = matmul(joined(a), p["Wo"])

    def grouped_attention_back(dy: Array) -> tuple[Array, ...]:
        djoined, dWo = out_back(dy)
        dq, dk, dv, *dr = attention_back(cut(djoined, heads))
        dx_q, dWq = q_back(joined(q_turn_back(dq)))
        dx_k, dWk = k_back(joined(k_turn_back(k_repeat_back(dk))))
        dx_v, dWv = v_back(joined(v_repeat_back(dv)))
        return dx_q + dx_k + dx_v, {"Wq": dWq, "Wk": dWk, "Wv": dWv, "Wo": dWo}, *dr

    return y, grouped_attention_back


def maybe_turned(x: Array, rotation: str | None, *, positions: Array, base: float) -> tuple[Array, Pullback]:
    """LONG, rotary: x turned as this rotation says, or x itself

    Source:  as `rotary_halves` and `rotary_interleaved`.
    Shapes:  x (..., T, D); positions (..., T) -> y (..., T, D)
    """

    if rotation is None:

        def unchanged_back(dy: Array) -> Array:
            return dy

        return x, unchanged_back

    turned = {"rotary": rotary_halves, "rotary_interleaved": rotary_interleaved}[rotation]
    return turned(x, positions=positions, base=base)
