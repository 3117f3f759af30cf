"""Numbers, and the scores of attention, that are held between -cap and cap by a smooth bend."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array, namespace
from refllm.differentiable import differentiable
from refllm.ops.attention import _attend


@differentiable
def soft_cap(x: Array, *, cap: float) -> tuple[Array, Callable[[Array], Array]]:
    """CAP: y = cap tanh(x / cap)

    Source:  Gemma Team 2024 (arXiv:2408.00118) sec. 2.
    Shapes:  x (...) -> y (...)
    Back:    dx = dy (1 - tanh²(x / cap))
    Raises:  ValueError if the cap is not positive.

    >>> y, back = soft_cap(array([0.0, 1e9]), cap=30.0)
    >>> y.tolist(), back(ones(2)).tolist()
    ([0.0, 30.0], [1.0, 0.0])
    """
    _require_positive("soft_cap", cap)
    xp = namespace(x)
    t = xp.asarray(xp.tanh(x / cap), x.dtype)

    def back(dy: Array) -> Array:
        return xp.asarray(dy * (1 - t * t), x.dtype)

    return xp.asarray(cap * t, x.dtype), back


@differentiable
def capped_attention(
    q: Array, k: Array, v: Array, *, cap: float, causal: bool, attention_mask: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """CAP: y = P v,   P = softmax(cap tanh(q kᵀ / (√D cap))) over the keys that a query may attend

    The cap comes before the masks. Masks as in `attention`.
    Source:  Gemma Team 2024 (arXiv:2408.00118) sec. 2.
    Shapes:  q (..., T, D); k (..., S, D); v (..., S, E); attention_mask bool broadcast to (..., T, S), or None
             -> y (..., T, E)
    Back:    that of `attention`, with that of `soft_cap` between the weights and the product q kᵀ / √D
    Special: those of `attention`. The products are formed again in `back`.
    Raises:  as `attention`; ValueError if the cap is not positive.

    >>> q, k, v = array([[1e9]]), array([[1.0], [-1.0]]), array([[1.0], [0.0]])
    >>> cap = math.log(3) / 2  # scores of ±cap, however large they were: weights 3/4 and 1/4
    >>> capped_attention(q, k, v, cap=cap, causal=False, attention_mask=None)[0].round(12).tolist()
    [[0.75]]
    """
    _require_positive("capped_attention", cap)
    return _attend(q, k, v, None, cap=cap, causal=causal, attention_mask=attention_mask)


def _require_positive(operation: str, cap: float) -> None:
    if not cap > 0:
        raise ValueError(f"{operation}: cap must be above 0, got {cap}")
