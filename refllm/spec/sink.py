"""Attention that may attend nothing."""

from refllm.spec.array import Array, Pullback, concatenate, rows, spread, sqrt, sum, swap
from refllm.spec.attention import masked
from refllm.spec.softmax import softmax


def sink_attention(
    q: Array, k: Array, v: Array, sink: Array, *, causal: bool, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    """SINK: y_t = Σ_s e^{s_ts} v_s / (e^{sink_h} + Σ_s e^{s_ts}),   s = q kᵀ / √D

    Every head h has a learnt logit beside the scores of its keys. It takes a share of the weights and gives no value;
    it is not divided by √D, and no mask takes it away. A row with no key left gives zeros: the sink has it all.
    Source:  Xiao et al. 2023 (arXiv:2309.17453) sec. 3.3 for the logit 0 ("zero sink"); Miller 2023; a learnt one a
             head is that of gpt-oss.
    Shapes:  q (..., H, T, D); k (..., H, S, D); v (..., H, S, E); sink (H,); attention_mask bool (..., H, T, S)
             -> y (..., H, T, E)
    Back:    that of `attention` for the S + 1 scores of a row; the value of the last is 0, so its dP is 0 and
             d(its score) = -P_sink Σ_s P_s dP_s;   dsink_h = Σ of it over the rows of the head

    >>> q, k, v = array([[[0.]]]), array([[[1.]]]), array([[[6.]]])
    >>> sink_attention(q, k, v, array([log(2.)]), causal=False, attention_mask=None)[0]  # 6 e^0 / (2 + e^0)
    array([[[2.]]])
    """
    D, S = q.shape[-1], k.shape[-2]
    s = q @ swap(k) / sqrt(D)
    s = masked(s, causal=causal, attention_mask=attention_mask)
    nothing = spread(sink[:, None, None], (*s.shape[:-1], 1))
    P, softmax_back = softmax(concatenate([s, nothing], axis=-1))
    y = P[..., :S] @ v

    def sink_attention_back(dy: Array) -> tuple[Array, Array, Array, Array]:
        dv = swap(P[..., :S]) @ dy
        dP = dy @ swap(v)
        ds = softmax_back(concatenate([dP, 0 * P[..., S:]], axis=-1))
        dk = swap(ds[..., :S]) @ q / sqrt(D)
        dq = ds[..., :S] @ k / sqrt(D)
        dsink = rows(sum(ds[..., S:], axis=-2)[..., 0, 0])
        return dq, dk, dv, dsink

    return y, sink_attention_back
