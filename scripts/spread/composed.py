"""Operations for which PyTorch and JAX have no function: lines that people write of what they do have.

    of(torch, parts)["sink_attention"](q, k, v, sink, causal=True, allowed=None)       a forward function of tensors

The lines are those of both libraries; what they write differently is in `Parts`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

Forward = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a library has under a name of its own."""

    softmax: Forward  # along rows, as those below
    log_sum_exp: Forward
    first_largest: Forward  # (x, k) -> 1 at the k largest of every row, of equal ones the first
    rms_norm: Forward  # (x, g, eps=...)
    attention: Forward  # (q, k, v, causal=..., allowed=...)
    rotary: Mapping[str, Forward]  # by layout


def of(xp: Any, parts: Parts) -> dict[str, Forward]:
    """Forward functions by the golden files' names; `xp` is torch or jax.numpy."""

    def scores(q: Any, k: Any) -> Any:
        return q @ k.mT / math.sqrt(q.shape[-1])

    def seen(s: Any, causal: bool, allowed: Any) -> Any:
        T, S = s.shape[-2:]
        keys = xp.arange(S) + (T - S if causal else -S)
        past = keys <= xp.arange(T)[:, None] if causal else (keys < 0) & (xp.arange(T)[:, None] >= 0)
        return past if allowed is None else past & allowed

    def weighed(s: Any, causal: bool, allowed: Any) -> Any:
        """The scores of what is seen, their softmax, and which rows see anything: of the others the softmax is NaN."""
        mask = seen(s, causal, allowed)
        some = mask.any(-1)[..., None]
        s = xp.where(mask | ~some, s, -math.inf)
        return s, xp.where(some, parts.softmax(s), 0), some[..., 0]

    def attention_with_lse(q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
        s, P, some = weighed(scores(q, k), causal, allowed)
        return P @ v, xp.where(some, parts.log_sum_exp(s), -math.inf)

    def capped_attention(q: Any, k: Any, v: Any, *, cap: float, causal: bool, allowed: Any) -> Any:
        return weighed(cap * xp.tanh(scores(q, k) / cap), causal, allowed)[1] @ v

    def sink_attention(q: Any, k: Any, v: Any, sink: Any, *, causal: bool, allowed: Any) -> Any:
        s = scores(q, k)
        s = xp.where(seen(s, causal, allowed), s, -math.inf)
        beside = xp.broadcast_to(sink[:, None, None], (*s.shape[:-1], 1))
        return parts.softmax(xp.concatenate([s, beside], -1))[..., : s.shape[-1]] @ v

    def normed_attention(q: Any, k: Any, v: Any, gq: Any, gk: Any, *, eps: float, **masks: Any) -> Any:
        return parts.attention(parts.rms_norm(q, gq, eps=eps), parts.rms_norm(k, gk, eps=eps), v, **masks)

    def partial_rotary(x: Any, *, turned: int, layout: str, **turns: Any) -> Any:
        return xp.concatenate([parts.rotary[layout](x[..., :turned], **turns), x[..., turned:]], -1)

    def top_experts(x: Any, *, k: int, renormalise: bool) -> Any:
        chosen = parts.softmax(x) * parts.first_largest(x, k)
        return chosen / chosen.sum(-1)[..., None] if renormalise else chosen

    def sliding_window_attention(q: Any, k: Any, v: Any, *, window: int, allowed: Any) -> Any:
        T, S = q.shape[-2], k.shape[-2]
        distance = xp.arange(T)[:, None] + (S - T) - xp.arange(S)
        seen = (distance >= 0) & (distance < window)
        return parts.attention(q, k, v, causal=False, allowed=seen if allowed is None else seen & allowed)

    def packed_attention(q: Any, k: Any, v: Any, *, borders: Any, key_borders: Any, causal: bool) -> Any:
        (own, query), (theirs, key) = (to_end(x.shape[-2], b) for x, b in ((q, borders), (k, key_borders)))
        seen = (own[:, None] == theirs) & (own[:, None] < len(borders))
        return parts.attention(q, k, v, causal=False, allowed=seen & (key <= query[:, None]) if causal else seen)

    def to_end(places: int, borders: Any) -> Any:
        """The document of each place, from 1 on, and how far it is from where the document ends."""
        place, borders = xp.arange(places), xp.asarray(borders)
        document = (place[:, None] >= borders).sum(-1)
        last = (document[:, None] == xp.arange(len(borders))) * borders
        return document, place - last.sum(-1)

    forwards = (attention_with_lse, capped_attention, sink_attention, normed_attention, partial_rotary, top_experts,
                sliding_window_attention, packed_attention)  # fmt: skip
    return {forward.__name__: forward for forward in forwards}


def of_torch(found: Mapping[str, Any], attention: Forward) -> dict[str, Forward]:
    """`found` has the names of scripts/adapters/torch_adapter.py."""
    import torch  # type: ignore[import-not-found,unused-ignore]

    def first_largest(x: Any, k: int) -> Any:
        places = torch.sort(x, descending=True, stable=True).indices[..., :k]
        return torch.nn.functional.one_hot(places, x.shape[-1]).sum(-2).to(x.dtype)

    def rms_norm(x: Any, g: Any, *, eps: float) -> Any:
        return torch.nn.functional.rms_norm(x, g.shape, g, eps)

    rotary = {"halves": found["turn_halves"], "interleaved": found["turn_pairs"]}
    return of(torch, Parts(lambda x: torch.softmax(x, -1), lambda x: torch.logsumexp(x, -1), first_largest, rms_norm,
                           attention, rotary))  # fmt: skip


def of_jax(found: Mapping[str, Any]) -> dict[str, Forward]:
    """`found` has the names of scripts/adapters/jax_adapter.py."""
    import jax  # type: ignore[import-not-found,unused-ignore]

    def first_largest(x: Any, k: int) -> Any:
        return jax.nn.one_hot(jax.lax.top_k(x, k)[1], x.shape[-1], dtype=x.dtype).sum(-2)

    rotary = {"halves": found["turn_halves"], "interleaved": found["turn_pairs"]}
    return of(jax.numpy, Parts(jax.nn.softmax, lambda x: jax.nn.logsumexp(x, -1), first_largest, found["rms"],
                               found["attend"], rotary))  # fmt: skip
