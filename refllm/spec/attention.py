"""Scaled dot-product attention, and the same with a bias that depends on the distance of key and query."""

from refllm.spec.array import Array, Pullback, arange, scatter_add, sqrt, sum, swap, where
from refllm.spec.softmax import softmax


def attention(q: Array, k: Array, v: Array, *, causal: bool, attention_mask: Array | None) -> tuple[Array, Pullback]:
    """ATT, ATT-MASK: y = P v,   P = softmax(q kᵀ / √D) over the keys that a query may attend

    Causal: query t attends the keys up to t + S - T, so that the last query sees every key. `attention_mask` is a
    boolean mask, true = may attend. A row with no key left gives zeros.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.1, 3.2.3; documents 001 ch. 4 sec. 1 (erratum E1: the
             softmax of one score is 1), 002 sec. 3.1 (erratum E3: D is the width of one head's key).
    Shapes:  q (..., T, D); k (..., S, D); v (..., S, E); attention_mask bool (..., T, S) -> y (..., T, E)
    Back:    y_te = Σ_s P_ts v_se        hence   dv = Pᵀ dy   and   dP = dy vᵀ
             ∂P_tj/∂s_ti = P_tj ([i = j] - P_ti)   hence   ds_ti = Σ_j dP_tj ∂P_tj/∂s_ti = P_ti (dP_ti - Σ_j P_tj dP_tj)
             s_ts = Σ_d q_td k_sd / √D   hence   dq = ds k / √D   and   dk = dsᵀ q / √D
             A forbidden key has P = 0, so ds = 0 there: nothing more is needed for the masks.

    >>> q, k, v = array([[1., 0.]]), array([[1., 0.], [0., 1.]]), array([[2.], [4.]])
    >>> attention(q, k, v, causal=False, attention_mask=None)[0]
    array([[2.6604769]])
    """
    (T, D), S = q.shape[-2:], k.shape[-2]
    s = q @ swap(k) / sqrt(D)
    if causal:
        s = where(arange(S) <= arange(T)[:, None] + S - T, s, float("-inf"))
    if attention_mask is not None:
        s = where(attention_mask, s, float("-inf"))
    P, softmax_back = softmax(s)
    y = P @ v

    def attention_back(dy: Array) -> tuple[Array, Array, Array]:
        dv = swap(P) @ dy
        dP = dy @ swap(v)
        ds = softmax_back(dP)
        dk = swap(ds) @ q / sqrt(D)
        dq = ds @ k / sqrt(D)
        return dq, dk, dv

    return y, attention_back


def biased_attention(
    q: Array, k: Array, v: Array, r: Array, *, causal: bool, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    """ATT, T5-REL, LONG: y = P v,   P = softmax(q kᵀ / √D + bias),   bias of query t and key s = r[s - t + T - 1]

    Entry i of r is for the distance i - (S - 1) from the query's place to the key's: `t5_bias_causal`,
    `t5_bias_bidirectional` and `alibi` make such an r. Masks as in `attention`.
    Source:  Shaw et al. 2018 (arXiv:1803.02155) for weights that know the distance; Raffel et al. 2020
             (arXiv:1910.10683) sec. 2.1 and Press et al. 2022 (arXiv:2108.12409) sec. 3 for one number a distance.
    Shapes:  q (..., H, T, D); k (..., H, S, D); v (..., H, S, E); r (H, T+S-1); attention_mask bool (..., H, T, S)
             -> y (..., H, T, E)
    Back:    that of `attention`;   dr[i] = Σ of ds over the places where s - t + T - 1 = i, and over the leading axes

    Without the bias the first of two keys has the larger score, 1/√2. The bias of the second makes the two equal:

    >>> q, k, v = array([[[1., 0.]]]), array([[[1., 0.], [0., 1.]]]), array([[[2.], [4.]]])
    >>> biased_attention(q, k, v, array([[0., 0.5**0.5]]), causal=False, attention_mask=None)[0]
    array([[[3.]]])
    """
    (H, T, D), S = q.shape[-3:], k.shape[-2]
    place = arange(S) - arange(T)[:, None] + T - 1
    s = q @ swap(k) / sqrt(D) + r[:, place]
    s = masked(s, causal=causal, attention_mask=attention_mask)
    P, softmax_back = softmax(s)
    y = P @ v

    def biased_attention_back(dy: Array) -> tuple[Array, Array, Array, Array]:
        dv = swap(P) @ dy
        dP = dy @ swap(v)
        ds = softmax_back(dP)
        dbias = sum(ds.reshape(-1, H, T, S), axis=0, keepdims=False)
        dr = scatter_add(place, dbias.swapaxes(0, 2).swapaxes(0, 1), r.shape[-1]).T
        return ds @ k / sqrt(D), swap(ds) @ q / sqrt(D), dv, dr

    return y, biased_attention_back


def masked(s: Array, *, causal: bool, attention_mask: Array | None) -> Array:
    """ATT-MASK: the scores s of the pairs that both masks allow, -∞ for the others; the masks are those of `attention`

    For attention that forms its scores in another way. A forbidden pair has weight 0, so the gradient of its score is 0
    without a step of its own.
    Source:  as `attention`.
    Shapes:  s (..., T, S); attention_mask bool (..., T, S) -> (..., T, S)

    >>> masked(array([[1., 2.], [3., 4.]]), causal=True, attention_mask=None)
    array([[  1., -inf],
           [  3.,   4.]])
    """
    T, S = s.shape[-2:]
    if causal:
        s = where(arange(S) <= arange(T)[:, None] + S - T, s, float("-inf"))
    if attention_mask is not None:
        s = where(attention_mask, s, float("-inf"))
    return s
