"""The weights of attention in every layer and head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.backend import Array, namespace
from refllm.ops.attention import attention, biased_attention
from refllm.watching import Attended, watched


def attention_weights(seen: Attended) -> Array:
    """EXPLAIN, ATT: P = softmax(q kᵀ / √D + bias) over the keys that a query may attend

    The operation never has P in one piece, but y = P v, so that v = I gives P itself: there is no second formula.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.1; documents 000 sec. 9 Q5.
    Shapes:  q (..., T, D); k (..., S, D) -> P (..., T, S)
    """
    k = seen.k
    xp, S = namespace(k), k.shape[-2]
    unit = xp.broadcast_to(xp.eye(S, dtype=k.dtype), (*k.shape[:-2], S, S))
    if seen.r is None:
        return attention(seen.q, k, unit, causal=seen.causal, attention_mask=seen.attention_mask)[0]
    return biased_attention(seen.q, k, unit, seen.r, causal=seen.causal, attention_mask=seen.attention_mask)[0]


def attention_maps(forward: Callable[[], Any]) -> list[Array]:
    """EXPLAIN: the weights (B, H, T, S) of every attention that `forward` computes, in the order of its calls

    Source:  documents 000 sec. 9 Q5.

    >>> from refllm.ops.attention import attention
    >>> x = zeros((1, 1, 2, 3))  # a text, a head, two places that are alike
    >>> attention_maps(lambda: attention(x, x, x, causal=True, attention_mask=None))[0].tolist()
    [[[[1.0, 0.0], [0.5, 0.5]]]]
    """
    with watched() as seen:
        forward()
    return [attention_weights(one) for one in seen]
