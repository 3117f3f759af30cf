"""The logarithm of a softmax's denominator, and attention over a part of the keys that is put together by it."""

from refllm.spec.array import Array, Pullback, exp, log, sqrt, stack, sum, swap, top, where
from refllm.spec.attention import masked
from refllm.spec.softmax import softmax


def log_sum_exp(x: Array) -> tuple[Array, Pullback]:
    """LSE: l = log Σ_j e^{x_j};   a row of only -∞ gives -∞

    Source:  Dao et al. 2022 (arXiv:2205.14135) sec. 3.1; as one number Dao 2023 (arXiv:2307.08691) sec. 3.1.
    Shapes:  x (..., N) -> l (...,)
    Back:    ∂l/∂x_i = e^{x_i} / Σ_j e^{x_j}   hence   dx = softmax(x) dl

    >>> log_sum_exp(array([[1000., 1000.]]))[0]
    array([1000.69314718])
    """
    Z = sum(exp(x - top(x)))
    l = where(Z == 0, float("-inf"), top(x) + log(where(Z == 0, 1, Z)))[..., 0]

    def log_sum_exp_back(dl: Array) -> Array:
        return softmax(x)[0] * dl[..., None]

    return l, log_sum_exp_back


def attention_with_lse(
    q: Array, k: Array, v: Array, *, causal: bool, attention_mask: Array | None
) -> tuple[tuple[Array, Array], Pullback]:
    """LSE: y = P v as `attention`, and l = log Σ_s e^{s_ts} of the scores s = q kᵀ / √D that a query may attend

    Natural logarithm, of the scores with their scale. A row with no key left: y = 0, l = -∞.
    Source:  as `log_sum_exp`.
    Shapes:  q (..., T, D); k (..., S, D); v (..., S, E); attention_mask bool (..., T, S) -> y (..., T, E); l (..., T)
    Back:    both outputs come from the scores:   ds = softmax_back(dy vᵀ) + P dl;   the rest as in `attention`

    >>> q, k, v = array([[0.]]), array([[1.], [2.]]), array([[2.], [4.]])
    >>> attention_with_lse(q, k, v, causal=False, attention_mask=None)[0]
    (array([[3.]]), array([0.69314718]))
    """
    D = q.shape[-1]
    s = q @ swap(k) / sqrt(D)
    s = masked(s, causal=causal, attention_mask=attention_mask)
    P, softmax_back = softmax(s)
    l, log_sum_exp_back = log_sum_exp(s)
    y = P @ v

    def attention_with_lse_back(dy: Array, dl: Array) -> tuple[Array, Array, Array]:
        dv = swap(P) @ dy
        dP = dy @ swap(v)
        ds = softmax_back(dP) + log_sum_exp_back(dl)
        return ds @ k / sqrt(D), swap(ds) @ q / sqrt(D), dv

    return (y, l), attention_with_lse_back


def merge_attention(y1: Array, l1: Array, y2: Array, l2: Array) -> tuple[tuple[Array, Array], Pullback]:
    """LSE: y = (e^{l1} y1 + e^{l2} y2) / (e^{l1} + e^{l2}),   l = log(e^{l1} + e^{l2})

    What attention gives over two sets of keys, from what it gives over each. A part without a key has l = -∞ and counts
    for nothing; two such parts give zeros and -∞.
    Source:  Dao et al. 2022 (arXiv:2205.14135) sec. 3.1; Liu et al. 2023 (arXiv:2310.01889) sec. 3.
    Shapes:  y1, y2 (..., T, E); l1, l2 (..., T) -> y (..., T, E); l (..., T)
    Back:    with the weights w = softmax(l1, l2):   dy1 = w1 dy,   dw1 = Σ_e dy_e y1_e,   and from the weights and l
             (dl1, dl2) = softmax_back(dw1, dw2) + w dl

    >>> merge_attention(array([[2.]]), array([0.]), array([[5.]]), array([log(2.)]))[0]  # (1 · 2 + 2 · 5) / 3, log 3
    (array([[4.]]), array([1.09861229]))
    """
    parts = stack([l1, l2], axis=-1)
    w, softmax_back = softmax(parts)
    l, log_sum_exp_back = log_sum_exp(parts)
    y = w[..., :1] * y1 + w[..., 1:] * y2

    def merge_attention_back(dy: Array, dl: Array) -> tuple[Array, Array, Array, Array]:
        dw = stack([sum(dy * y1, keepdims=False), sum(dy * y2, keepdims=False)], axis=-1)
        dparts = softmax_back(dw) + log_sum_exp_back(dl)
        return w[..., :1] * dy, dparts[..., 0], w[..., 1:] * dy, dparts[..., 1]

    return (y, l), merge_attention_back
