"""Scaled dot-product attention, and the same with a bias that depends on the distance of key and query."""

from refllm.spec.array import Array, Pullback, arange, sqrt, swap, where
from refllm.spec.softmax import softmax


def attention(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> tuple[Array, Pullback]:
    """ATT, ATT-MASK: y = P v,   P = softmax(q kᵀ / √D) over the keys that a query may attend

    Causal: query t attends the keys up to t + S - T, so that the last query sees every key. `allowed` is a boolean
    mask, true = may attend. A row with no key left gives zeros.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.1, 3.2.3; documents 001, 002 sec. 3.1 (erratum E3).
    Shapes:  q (..., T, D); k (..., S, D); v (..., S, E); allowed bool (..., T, S) -> y (..., T, E)
    Back:    y_te = Σ_s P_ts v_se        hence   dv = Pᵀ dy   and   dP = dy vᵀ
             ∂P_tj/∂s_ti = P_tj ([i = j] - P_ti)   hence   ds_ti = Σ_j dP_tj ∂P_tj/∂s_ti = P_ti (dP_ti - Σ_j P_tj dP_tj)
             s_ts = Σ_d q_td k_sd / √D   hence   dq = ds k / √D   and   dk = dsᵀ q / √D
             A forbidden key has P = 0, so ds = 0 there: nothing more is needed for the masks.

    >>> attention(array([[1., 0.]]), array([[1., 0.], [0., 1.]]), array([[2.], [4.]]), causal=False, allowed=None)[0]
    array([[2.6604769]])
    """
    s = q @ swap(k) / sqrt(q.shape[-1])
    s = where(may_attend(s.shape, causal, allowed), s, float("-inf"))
    P, softmax_back = softmax(s)
    y = P @ v

    def attention_back(dy: Array) -> tuple[Array, Array, Array]:
        dv = swap(P) @ dy
        dP = dy @ swap(v)
        ds = softmax_back(dP)
        dk = swap(ds) @ q / sqrt(q.shape[-1])
        dq = ds @ k / sqrt(q.shape[-1])
        return dq, dk, dv

    return y, attention_back


def may_attend(shape: tuple[int, ...], causal: bool, allowed: Array | None) -> Array:
    """Which key a query may attend, (..., T, S)."""
    T, S = shape[-2:]
    may = arange(S) <= arange(T)[:, None] + S - (T if causal else 0)
    return may if allowed is None else may & allowed
