"""Where the tokens that a model is given stand, from the beginning or after those that a cache holds, and which of them
are attended to."""

from __future__ import annotations

from refllm.backend import Array, namespace
from refllm.blocks.self_attention import Cache


def places(
    model: str, ids: Array, cache: Cache | None, *, context: int, remedy: str = "give fewer"
) -> tuple[Array, Array | None]:
    """The positions of ids (B, T), and which keys they may attend to besides the causal ones, None for all.

    Raises:  ValueError, with the remedy, if the tokens (with those in the cache) outgrow the context.
    """
    T = ids.shape[1]
    if cache is not None:
        return cache.advance(T)
    if T > context:
        raise ValueError(f"{model}: {T} tokens do not fit the context of {context}; {remedy}")
    return namespace(ids).arange(T), None


def for_every_head(attention_mask: Array | None) -> Array | None:
    """The mask (B, S) of the tokens of a text, not of its padding, as attention asks for it: (B, 1, 1, S), the same for
    every head and query."""
    return None if attention_mask is None else attention_mask[:, None, None, :]
