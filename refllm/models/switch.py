"""Switch Transformer: a GPT whose every second feed-forward layer is many experts, of which each token uses one.

    e   = token[ids] + position                       (B, T, C)
    h   = layer_L( ... layer_1(e))                    layer `every`, 2 `every`, ... with experts, the others as in a GPT
    P(x_{t+1} | x_1 ... x_t) = softmax(LN(h_t) tokenᵀ)

A model of E experts has almost E times the parameters of its GPT, and a token costs as much as there.

Training and use differ. In training (`balanced_states`) an expert takes capacity_factor T / E tokens of a text, and the
sum over the layers of how unevenly the tokens are spread is a second value, for the loss that is to be added. In use
(`hidden_states`, `forward`) no token is dropped: a text read piece by piece, through the cache, is then what it is read
at once, which no capacity that depends on the number of tokens can promise. The published code raises the factor too
where it does not train, from 1.25 to 2 (Mesh TensorFlow, moe_capacity_factor_eval).

Source: Fedus et al. 2021 (arXiv:2101.03961) sec. 2 for the layers with experts; Radford et al. 2019 for all else;
documents 002 sec. 1.1. What differs from the published models: a decoder alone; biases, GELU and learned positions as
in GPT-2; the tokens of one text are a group; no noise on the router's input, no dropout inside the experts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any, TypeAlias

from refllm.backend import Array, namespace
from refllm.blocks.feed_forward import ACTIVATIONS
from refllm.blocks.residual import initial_residual, maybe_dropout, norm_shapes
from refllm.blocks.self_attention import Cache, KeyValueStore
from refllm.blocks.switch_layer import switch_transformer_layer, switch_transformer_layer_shapes
from refllm.blocks.transformer_layer import transformer_layer, transformer_layer_shapes
from refllm.borrowed import at_hand, handed_over
from refllm.differentiable import declared_inputs, differentiable
from refllm.errors import UserError
from refllm.kinds import settle_fields
from refllm.models.checks import (
    require_draws,
    require_dropout,
    require_heads_divide_width,
    require_one_of,
    require_parameters,
    require_whole,
)
from refllm.models.output import logits
from refllm.models.places import places
from refllm.ops.embedding import embedding
from refllm.ops.layer_norm import layer_norm
from refllm.ops.position import add_positions
from refllm.parameters import NamedLeaf, Tree, branch, from_names

States: TypeAlias = tuple[tuple[Array, Array], Callable[[Array, Array], Tree]]  # (y, balance), back(dy, dbalance)


@dataclass(frozen=True)
class Config:
    """The architecture. Letters as in the glossary: V, context S, L, H, C, F; E experts; `balance` is the loss's α."""

    vocabulary: int
    context: int
    layers: int
    heads: int
    width: int
    hidden: int
    experts: int = 4
    every: int = 2
    capacity_factor: float = 1.25
    balance: float = 0.01
    activation: str = "gelu_tanh"
    dropout: float = 0.0
    eps: float = 1e-5

    def __post_init__(self) -> None:
        settle_fields(self)
        require_whole(self, "vocabulary", "context", "layers", "heads", "width", "hidden", "experts", "every")
        require_heads_divide_width(self)
        if self.every > self.layers:
            raise UserError(
                f"every must be at most the number of layers, {self.layers}, or none has experts; got {self.every}"
            )
        require_dropout(self)
        if not 0 <= self.balance < math.inf:
            raise UserError(f"balance must be a number of at least 0, got {self.balance}")
        require_one_of(self, "activation", ACTIVATIONS)
        capacity(self.context, self)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


CHOICES = tuple(field.name for field in fields(Config) if field.name not in ("vocabulary", "eps"))  # a user's to make


def capacity(tokens: int, config: Config) -> int:
    """How many of a text's tokens an expert takes in training: capacity_factor * tokens / experts, rounded down.

    Rounded down as in the published code (Mesh TensorFlow, `int`), the factor being the decimal number that it is
    written as. Source: Fedus et al. 2021 (arXiv:2101.03961) sec. 2.2, eq. 3.
    Raises:  UserError if that is zero.
    """
    if not 0 < config.capacity_factor < math.inf:
        raise UserError(
            f"capacity_factor must be a number above 0, or no expert takes a token; got {config.capacity_factor}"
        )
    places = math.floor(Fraction(str(config.capacity_factor)) * tokens / config.experts)
    if places < 1:
        raise UserError(
            f"an expert would take no token of a text: capacity_factor {config.capacity_factor} * {tokens} tokens / "
            f"{config.experts} experts is below 1; raise capacity_factor or lower experts"
        )
    return min(places, tokens)


def has_experts(layer: int, config: Config) -> bool:
    """Whether the layer of that number, from 0, is one of experts."""
    return (layer + 1) % config.every == 0


def shapes(config: Config) -> Tree:
    """The structure of the parameters, stated once for the initialiser, the loader and the tests."""
    V, C, F = config.vocabulary, config.width, config.hidden
    return {
        "token": (V, C),
        "position": (config.context, C),
        "layers": [
            switch_transformer_layer_shapes(C, F, config.experts)
            if has_experts(i, config)
            else transformer_layer_shapes(C, F)
            for i in range(config.layers)
        ],
        "norm": norm_shapes(C),
    }


def initial(config: Config, generator: Any) -> Tree:
    """Initial parameters, as `initial_leaves` draws them."""
    return from_names(shapes(config), dict(initial_leaves(config, generator)))


def initial_leaves(config: Config, generator: Any) -> Iterator[NamedLeaf]:
    """Initial float64 host arrays by path, as `initial_residual` says; each expert is drawn by itself.

    The deviation is 0.55 / √C, between the usual 1 / √C and the 0.32 / √C, a tenth of its variance, that kept large
    models with experts stable (Fedus et al. 2021 sec. 2.4).
    """
    return initial_residual(shapes(config), generator, width=config.width, layers=config.layers)


@differentiable
def balanced_states(p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None) -> States:
    """SWITCH in training: the hidden states after the last norm, tokens that overflow dropped; and the balance,
    Σ over the layers with experts of the mean over the texts of E Σ_e f_e P_e

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.2; documents 002 sec. 1.1.
    Shapes:  ids (B, T) in [0, V) -> y (B, T, C); balance ()
    Draws:   as `dropout_widths` says, bool (B, T, C)
    Back:    back(dy, dbalance). The loss adds config.balance * balance to its mean over the tokens.
    Special: a mean over texts, so that the balances of two shards, weighted by their texts, are that of both together.
    Raises:  UserError if so short a text leaves an expert no place; ValueError if it is longer than the context.

    >>> config = Config(vocabulary=5, context=4, layers=2, heads=1, width=2, hidden=2, experts=2)
    >>> p = map_leaves(zeros, shapes(config))  # of experts as likely the first takes all: E f P = 2 · 1 · 1/2
    >>> (y, balance), back = balanced_states(p, ids=array([[1, 2, 3, 4]]), config=config, dropout_mask=None)
    >>> y.shape, float(balance)
    ((1, 4, 2), 1.0)
    """
    require_parameters("switch", p, config, shapes)
    require_draws("switch", dropout_mask, dropout_widths, config)
    positions, _ = places("switch", ids, None, context=config.context)
    return _states(
        p, ids=ids, positions=positions, attention_mask=None, config=config, dropout_mask=dropout_mask, cache=None,
        places=capacity(ids.shape[1], config) if ids.shape[1] else 1,  # no token, and none that finds no place
    )  # fmt: skip


@differentiable
def hidden_states(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: Cache | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """SWITCH in use: the hidden states after the last norm, no token dropped

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1; documents 002 sec. 1.1, 4.2.
    Shapes:  ids (B, T) in [0, V) -> y (B, T, C)
    Draws:   as `dropout_widths` says, bool (B, T, C)
    Raises:  ValueError if the tokens (with those in the cache) outgrow the context.

    >>> config = Config(vocabulary=5, context=4, layers=2, heads=1, width=2, hidden=2, experts=2)
    >>> p, how = initial(config, np.random.default_rng(0)), {"config": config, "dropout_mask": None, "cache": None}
    >>> y, z = (hidden_states(p, ids=ids, **how)[0] for ids in (array([[1, 2, 3]]), array([[1, 2, 4]])))
    >>> bool((y[:, :2] == z[:, :2]).all()), bool((y[:, 2] == z[:, 2]).any())  # the past does not know the future
    (True, False)
    """
    require_parameters("switch", p, config, shapes, cache=cache)
    require_draws("switch", dropout_mask, dropout_widths, config)
    positions, attention_mask = places("switch", ids, cache, context=config.context)
    (y, balance), back_states = _states(
        p,
        ids=ids,
        positions=positions,
        attention_mask=attention_mask,
        config=config,
        dropout_mask=dropout_mask,
        cache=cache,
        places=ids.shape[1],
    )

    def back(dy: Array) -> Tree:
        return back_states(dy, namespace(balance).zeros_like(balance))

    return y, back


def dropout_widths(config: Config) -> Tree:
    """The widths of the draws (B, T, width) that `dropout_mask` holds: after the embedding, and for each sublayer."""
    feed = ["switch" if has_experts(i, config) else "feed_forward" for i in range(config.layers)]
    return {"embedding": config.width, "layers": [dict.fromkeys(("attention", name), config.width) for name in feed]}


def cache_shape(config: Config) -> tuple[int, int, int]:
    """Layers, heads and head width of the keys and values to keep."""
    return config.layers, config.heads, config.width // config.heads


@declared_inputs
def head(p: Tree, config: Config) -> Array:
    """The weights of the output layer

    Shapes:  p tree; token (V, C) -> W (C, V)

    >>> config = Config(vocabulary=3, context=4, layers=2, heads=1, width=1, hidden=2)
    >>> p = map_leaves(zeros, shapes(config)) | {"token": array([[1.0], [2.0], [3.0]])}
    >>> head(p, config).tolist()  # the table of the tokens, transposed
    [[1.0, 2.0, 3.0]]
    """
    return p["token"].T


def add_head_gradient(dp: Tree, dhead: Array, config: Config) -> Tree:
    """The gradient of the hidden states completed by that of the head: the token table sums its two uses."""
    dp["token"] += dhead.T
    return dp


@differentiable
def forward(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: Cache | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """SWITCH in use, LMHEAD: the logits of the next token at every position, no token dropped

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1; documents 002 sec. 4.2.
    Shapes:  ids (B, T) in [0, V) -> y (B, T, V)

    >>> config = Config(vocabulary=3, context=4, layers=2, heads=1, width=2, hidden=2, experts=2)
    >>> p = map_leaves(zeros, shapes(config))
    >>> forward(p, ids=array([[1, 2]]), config=config, dropout_mask=None, cache=None)[0].tolist()  # knows nothing
    [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    """
    h, back_hidden = hidden_states(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=cache)
    return logits(h, back_hidden, head(p, config), add_head_gradient, config)


def _states(
    p: Tree,
    *,
    ids: Array,
    positions: Array,
    attention_mask: Array | None,
    config: Config,
    dropout_mask: Tree | None,
    cache: Cache | None,
    places: int,
) -> States:
    """The hidden states and the balance, with so many places for an expert in each text."""
    words, back_words = embedding(p["token"], ids=ids)  # (B, T, C)
    e, back_positions = add_positions(words, p["position"], positions=positions)
    x, back_drop = maybe_dropout(e, dropout_mask=branch(dropout_mask, "embedding"), rate=config.dropout)
    balance, backs = namespace(x).zeros((), x.dtype), []
    for i, layer in enumerate(p["layers"]):
        with at_hand(p["layers"], i):
            (x, of_layer), back_layer = _layer(
                x,
                layer,
                attention_mask=attention_mask,
                config=config,
                dropout_mask=branch(dropout_mask, "layers", i),
                cache=None if cache is None else cache.layers[i],
                places=places,
            )
        balance = balance + of_layer
        backs.append(back_layer)
    y, back_norm = layer_norm(x, **p["norm"], eps=config.eps)

    def back(dy: Array, dbalance: Array) -> Tree:
        dx, dg, db = back_norm(dy)
        dlayers = []
        for i in reversed(range(len(backs))):
            with at_hand(p["layers"], i):
                dx, dlayer = backs[i](dx, dbalance)
            dlayers.append(handed_over(p["layers"], i, dlayer))
        dwords, dposition = back_positions(back_drop(dx))
        return {
            "token": back_words(dwords),
            "position": dposition,
            "layers": dlayers[::-1],
            "norm": {"g": dg, "b": db},
        }

    return (y, balance), back


def _layer(
    x: Array,
    p: Tree,
    *,
    attention_mask: Array | None,
    config: Config,
    dropout_mask: Tree | None,
    cache: KeyValueStore | None,
    places: int,
) -> States:
    """A layer and the mean of its texts' balances, 0 for one without experts."""
    xp = namespace(x)
    given: dict[str, Any] = {
        "heads": config.heads, "causal": True, "attention_mask": attention_mask, "activation": config.activation,
        "eps": config.eps, "dropout_mask": dropout_mask, "rate": config.dropout, "cache": cache,
    }  # fmt: skip
    if "switch" not in p:
        y, back_dense = transformer_layer(x, p, norm="pre", **given)
        return (y, xp.zeros((), x.dtype)), lambda dy, dbalance: back_dense(dy)
    (y, balances), back_switch = switch_transformer_layer(x, p, capacity=places, token_mask=None, **given)
    texts = max(1, len(balances))

    def back(dy: Array, dbalance: Array) -> Tree:
        return back_switch(dy, xp.ones_like(balances) * (dbalance / texts))

    return (y, balances.sum() / texts), back
