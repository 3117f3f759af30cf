"""The loop of generation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from refllm.backend import Array, namespace, to_host
from refllm.generation.cache import KeyValueCache
from refllm.generation.sampling import choose
from refllm.parameters import Tree, named_leaves


class Generator(Protocol):
    """What a model file offers to be generated from."""

    def forward(self, p: Tree, *, ids: Array, config: Any, keep: Array | None, cache: Any) -> tuple[Array, Any]: ...

    def cache_shape(self, config: Any) -> tuple[int, int, int]: ...


def generate(
    p: Tree,
    *,
    model: Generator,
    ids: Array,
    padding: Array | None,
    config: Any,
    new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    uniforms: Array | None,
    cache: bool,
) -> Iterator[tuple[Array, Array]]:
    """GEN: for every new token, (tokens (B,), logits (B, V)), both on the host, as soon as they are known

    for t = T ... T + L - 1: embed x_t (with all before it in the cache), take the distribution of x_{t+1}, choose it.
    Erratum E6: the document's loop begins with x_{T+1}, which is not there yet; the first step embeds x_T.
    `ids` (B, T) is the prompt, at least one token; rows of unequal length are padded on the left and `padding` (B,)
    says by how much. `uniforms` (B, new_tokens) are the draws; None chooses the most probable token. When the context
    is full, the last half of it becomes the beginning of a new one. `cache=False` computes every step from scratch.
    Source:  documents 002 sec. 3.2.
    Raises:  ValueError if the prompt is empty or longer than the context.
    """
    if not 1 <= ids.shape[1] <= config.context:
        raise ValueError(f"generate: the prompt must have 1 to {config.context} tokens (context), not {ids.shape[1]}")
    text, new = ids, ids  # the tokens in the window, and those the cache has not seen
    store = None
    for step in range(new_tokens):
        if text.shape[1] > config.context:
            dropped = text.shape[1] - max(1, config.context // 2)
            text = new = text[:, dropped:]
            padding = None if padding is None else namespace(padding).maximum(padding - dropped, 0)
            store = None
        if store is None or not cache:
            layers, heads, head_width = model.cache_shape(config)
            store = KeyValueCache(
                batch=len(text),
                layers=layers,
                heads=heads,
                room=config.context,
                head_width=head_width,
                padding=padding,
                like=next(leaf for _, leaf in named_leaves(p)),
            )
            new = text
        logits = model.forward(p, ids=new, config=config, keep=None, cache=store)[0][:, -1]
        logits = to_host(logits)
        tokens = choose(
            logits,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            uniforms=None if uniforms is None else uniforms[:, step],
        )
        yield tokens, logits
        new = namespace(text).asarray(tokens)[:, None]
        text = namespace(text).concatenate([text, new], axis=1)
