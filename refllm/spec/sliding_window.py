"""Attention that sees only the last keys."""

from refllm.spec.array import Array, Pullback, arange
from refllm.spec.attention import attention


def sliding_window_attention(
    q: Array, k: Array, v: Array, *, window: int, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    """WIN: attention in which query t, at place p = t + S - T among the keys, sees key s if p - window < s <= p

    These are `window` keys, the query's own among them, or fewer at the beginning. `attention_mask` can take more away.
    Source:  Beltagy et al. 2020 (arXiv:2004.05150) sec. 3.1, where the window lies on both sides; Jiang et al. 2023
             (arXiv:2310.06825) sec. 2.
    Shapes:  q (..., T, D); k (..., S, D); v (..., S, E); attention_mask bool (..., T, S) -> y (..., T, E)
    Back:    a mask has no gradient:   dq, dk, dv as in `attention`

    >>> q, k, v = array([[0.], [0.], [0.]]), array([[1.], [2.], [3.]]), array([[2.], [4.], [8.]])
    >>> sliding_window_attention(q, k, v, window=2, attention_mask=None)[0]
    array([[2.],
           [3.],
           [6.]])
    """
    T, S = q.shape[-2], k.shape[-2]
    distance = arange(T)[:, None] + S - T - arange(S)
    seen = (0 <= distance) & (distance < window)
    if attention_mask is not None:
        seen = seen & attention_mask
    y, attention_back = attention(q, k, v, causal=False, attention_mask=seen)

    def sliding_window_attention_back(dy: Array) -> tuple[Array, Array, Array]:
        return attention_back(dy)

    return y, sliding_window_attention_back
