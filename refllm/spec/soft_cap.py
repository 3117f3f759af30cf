"""Numbers that are held between -cap and cap by a smooth bend."""

from refllm.spec.array import Array, Pullback, sqrt, swap, tanh
from refllm.spec.attention import masked
from refllm.spec.softmax import softmax


def soft_cap(x: Array, *, cap: float) -> tuple[Array, Pullback]:
    """CAP: y = cap tanh(x / cap)

    Near 0 it is x; it never leaves [-cap, cap]. Gemma 2 has 50 for the scores of attention and 30 for the logits.
    Source:  Gemma Team 2024 (arXiv:2408.00118) sec. 2.
    Shapes:  x (...,) -> y (...,)
    Back:    tanh' = 1 - tanh²   hence   dx = dy (1 - tanh²(x / cap)): the cap of the value cancels the 1 / cap inside

    >>> soft_cap(array([0., 1., 1000.]), cap=50.)[0]
    array([ 0.        ,  0.99986669, 50.        ])
    """
    t = tanh(x / cap)

    def soft_cap_back(dy: Array) -> Array:
        return dy * (1 - t * t)

    return cap * t, soft_cap_back


def capped_attention(
    q: Array, k: Array, v: Array, *, cap: float, causal: bool, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    """CAP: y = P v,   P = softmax(cap tanh(q kᵀ / (√D cap))) over the keys that a query may attend

    The cap comes before the masks: capped, -∞ would be -cap, and a forbidden key would have weight. Masks as in
    `attention`.
    Source:  Gemma Team 2024 (arXiv:2408.00118) sec. 2.
    Shapes:  q (..., T, D); k (..., S, D); v (..., S, E); attention_mask bool (..., T, S) -> y (..., T, E)
    Back:    that of `attention`, with that of `soft_cap` between the weights and the product q kᵀ / √D

    >>> q, k, v = array([[100.]]), array([[1.], [0.]]), array([[1.], [0.]])
    >>> capped_attention(q, k, v, cap=1., causal=False, attention_mask=None)[0]  # 1 / (1 + e^-1)
    array([[0.73105858]])
    """
    D = q.shape[-1]
    s, soft_cap_back = soft_cap(q @ swap(k) / sqrt(D), cap=cap)
    s = masked(s, causal=causal, attention_mask=attention_mask)
    P, softmax_back = softmax(s)
    y = P @ v

    def capped_attention_back(dy: Array) -> tuple[Array, Array, Array]:
        dv = swap(P) @ dy
        dP = dy @ swap(v)
        ds = softmax_back(dP)
        dproduct = soft_cap_back(ds)
        return dproduct @ k / sqrt(D), swap(dproduct) @ q / sqrt(D), dv

    return y, capped_attention_back
