"""The loop of generation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from refllm.backend import Array, namespace, to_host
from refllm.blocks.lm_head import maybe_capped
from refllm.differentiable import declared_kinds
from refllm.generation.cache import KeyValueCache
from refllm.generation.sampling import choose
from refllm.generation.state import CacheAndState, CarriedState
from refllm.models.output import logit_cap
from refllm.ops.linear import matmul
from refllm.parameters import Tree, any_leaf


class Generator(Protocol):
    """What a model file offers to be generated from.

    Beside `forward` it has `hidden_states` and `head`, if its logits are a product of the two, `cache_shape(config)` if
    it attends to the keys and values of the tokens so far, and `state_shapes(config)` if it carries a state; `cache`
    then is a KeyValueCache, a CarriedState, or both.
    """

    def forward(self, p: Tree, *, ids: Array, config: Any, dropout_mask: Any, cache: Any) -> tuple[Array, Any]: ...


def last_logits(p: Tree, *, model: Any, ids: Array, config: Any, cache: Any) -> Array:
    """LMHEAD: the logits (B, V) of the token after the last of `ids` (B, T), on the host

    The other places of a prompt have hidden states, for what comes later attends them, but no logits.
    Source:  documents 002 sec. 4.2: P(x_{t+1} | x_≤t) = softmax(h_t W).

    >>> from refllm.models import gpt
    >>> config = gpt.Config(vocabulary=3, context=8, layers=1, heads=1, width=2, hidden=2)
    >>> p, ids = gpt.initial(config, np.random.default_rng(0)), array([[0, 1, 2]])
    >>> whole = gpt.forward(p, ids=ids, config=config, dropout_mask=None, cache=None)[0]
    >>> bool(np.allclose(last_logits(p, model=gpt, ids=ids, config=config, cache=None), whole[:, -1]))
    True
    """
    if not hasattr(model, "hidden_states"):  # a table of counts
        y, _ = model.forward(p, ids=ids, config=config, dropout_mask=None, cache=cache)
        return to_host(y[:, -1])
    h, _ = model.hidden_states(p, ids=ids, config=config, dropout_mask=None, cache=cache)
    return logits_of_last(h, p, model=model, config=config)


def logits_of_last(h: Array, p: Tree, *, model: Any, config: Any) -> Array:
    """LMHEAD: the logits (B, V) of the last of the places with hidden states h (B, T, C), on the host

    >>> from refllm.models import gpt
    >>> config = gpt.Config(vocabulary=3, context=8, layers=1, heads=1, width=1, hidden=2)
    >>> p = map_leaves(zeros, gpt.shapes(config)) | {"token": array([[1.0], [2.0], [3.0]])}
    >>> logits_of_last(array([[[5.0], [10.0]]]), p, model=gpt, config=config).tolist()
    [[10.0, 20.0, 30.0]]
    """
    y, _ = matmul(h[:, -1], model.head(p, config))
    return to_host(maybe_capped(y, cap=logit_cap(config))[0])


@declared_kinds
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
    is full, the last half of it becomes the beginning of a new one; a model that carries a state alone never fills it.
    `cache=False` computes every step from scratch.
    Source:  documents 002 sec. 3.2.
    Raises:  ValueError if the prompt is empty or longer than the context of a model that has keys and values.

    >>> from refllm.models import gpt
    >>> config = gpt.Config(vocabulary=3, context=8, layers=1, heads=1, width=2, hidden=2)
    >>> p = map_leaves(zeros, gpt.shapes(config))
    >>> how = {"ids": array([[0]]), "new_tokens": 3, "padding": None, "temperature": 1.0, "top_k": None, "top_p": None}
    >>> draws = array([[0.1, 0.5, 0.9]])  # of three tokens that are as likely
    >>> [int(t[0]) for t, _ in generate(p, model=gpt, config=config, uniforms=draws, cache=True, **how)]
    [0, 1, 2]
    """
    limited = hasattr(model, "cache_shape")
    xp, most = namespace(ids), config.context if limited else ids.shape[1] + new_tokens
    if not 1 <= ids.shape[1] <= most:
        allowed = f"1 to {most} tokens (context)" if limited else "at least 1 token"
        raise ValueError(f"generate: the prompt must have {allowed}, not {ids.shape[1]}")
    room = min(most, ids.shape[1] + new_tokens)
    text = xp.empty((len(ids), room + 1), ids.dtype)  # the window; nothing grows while tokens come
    length, seen, store = ids.shape[1], 0, None  # tokens in the window, and how many of them the cache holds
    text[:, :length] = ids
    for step in range(new_tokens):
        if length > room:
            half = max(1, room // 2)
            padding = None if padding is None else xp.maximum(padding - (length - half), 0)
            text[:, :half] = text[:, length - half : length].copy()
            length, store = half, None
        if store is None or not cache:
            store, seen = new_cache(p, model, config, batch=len(ids), room=room, padding=padding), 0
        logits = last_logits(p, model=model, ids=text[:, seen:length], config=config, cache=store)
        tokens = choose(
            logits,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            uniforms=None if uniforms is None else uniforms[:, step],
        )
        yield tokens, logits
        seen = length
        text[:, length] = xp.asarray(tokens)
        length += 1


def new_cache(
    p: Tree, model: Any, config: Any, *, batch: int, room: int, padding: Array | None
) -> KeyValueCache | CarriedState | CacheAndState:
    """What the model keeps of a batch of texts of at most `room` tokens; nothing yet."""
    like = any_leaf("generate", p)
    state = None
    if hasattr(model, "state_shapes"):
        state = CarriedState(model.state_shapes(config), batch=batch, padding=padding, like=like)
        if not hasattr(model, "cache_shape"):
            return state
    layers, heads, head_width = model.cache_shape(config)
    cache = KeyValueCache(
        batch=batch, layers=layers, heads=heads, room=room, head_width=head_width, padding=padding, like=like
    )
    return cache if state is None else CacheAndState(cache, state)
