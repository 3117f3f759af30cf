"""Attention whose scores do not grow with the size of queries and keys."""

from refllm.spec.array import Array, Pullback
from refllm.spec.attention import attention
from refllm.spec.layer_norm import rms_norm


def normed_attention(
    q: Array, k: Array, v: Array, gq: Array, gk: Array, *, eps: float, causal: bool, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    """QKN: attention of rms_norm(q) and rms_norm(k): every query and key of a head by itself, over its D entries

    One gain for the queries of all heads and one for the keys. The scores are still divided by √D; values stay.
    Source:  Henry et al. 2020 (arXiv:2010.04245) sec. 3 for the idea, with a learnt scale; Dehghani et al. 2023
             (arXiv:2302.05442) sec. 2 with layer norm; with RMS norm Gemma 3 and Qwen 3.
    Shapes:  q (..., T, D); k (..., S, D); v (..., S, E); gq (D,); gk (D,); attention_mask bool (..., T, S)
             -> y (..., T, E)
    Back:    that of `attention`, then that of `rms_norm` for the queries and for the keys

    >>> q, k, v = array([[3., 4.]]), array([[30., 40.], [-3., -4.]]), array([[1.], [0.]])
    >>> normed_attention(q, k, v, ones(2), ones(2), eps=0., causal=False, attention_mask=None)[0]  # scores ±√2
    array([[0.94419278]])
    """
    nq, query_back = rms_norm(q, gq, eps=eps)
    nk, key_back = rms_norm(k, gk, eps=eps)
    y, attention_back = attention(nq, nk, v, causal=causal, attention_mask=attention_mask)

    def normed_attention_back(dy: Array) -> tuple[Array, Array, Array, Array, Array]:
        dnq, dnk, dv = attention_back(dy)
        dq, dgq = query_back(dnq)
        dk, dgk = key_back(dnk)
        return dq, dk, dv, dgq, dgk

    return y, normed_attention_back
