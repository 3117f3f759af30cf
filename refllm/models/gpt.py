"""GPT: a decoder-only Transformer that gives the distribution of the next token at every position.

    e   = token[ids] + position                      (B, T, C)      √C token[ids] + position if scaled_embedding
    h   = layer_L( ... layer_1(e))                   causal self-attention and feed-forward
    P(x_{t+1} | x_1 ... x_t) = softmax(LN(h_t) W)    W = tokenᵀ if tied

All positions are computed at once under the causal mask (erratum E8: nothing is recursive in training).

Source: Radford et al. 2018 and 2019 (GPT, GPT-2: norm "pre", gelu_tanh, learned positions, tied); with norm "post",
relu, sinusoidal positions and scaled_embedding (sec. 3.4) the decoder half of Vaswani et al. 2017 (arXiv:1706.03762);
documents 001 ch. 1, 002 sec. 4.2.
What differs from GPT-2's code: no dropout on the attention weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from refllm.backend import Array, namespace
from refllm.blocks.feed_forward import ACTIVATIONS
from refllm.blocks.layers import through
from refllm.blocks.residual import RESIDUALS, initial_residual, maybe_dropout, norm_shapes
from refllm.blocks.self_attention import Cache
from refllm.blocks.transformer_layer import transformer_layer, transformer_layer_shapes
from refllm.differentiable import differentiable
from refllm.kinds import settle_fields
from refllm.models.checks import (
    require_draws,
    require_dropout,
    require_heads_divide_width,
    require_one_of,
    require_parameters,
    require_whole,
)
from refllm.models.output import add_head_gradient, head, logits
from refllm.models.places import places
from refllm.ops.embedding import embedding
from refllm.ops.layer_norm import layer_norm
from refllm.ops.position import add_positions, sinusoidal
from refllm.parameters import NamedLeaf, Tree, branch, from_names


@dataclass(frozen=True)
class Config:
    """The architecture. Letters as in the glossary: V, context S, L, H, C, F."""

    vocabulary: int
    context: int
    layers: int
    heads: int
    width: int
    hidden: int
    norm: str = "pre"
    activation: str = "gelu_tanh"
    positions: str = "learned"
    tied: bool = True
    dropout: float = 0.0
    eps: float = 1e-5
    scaled_embedding: bool = False

    def __post_init__(self) -> None:
        settle_fields(self)
        require_whole(self, "vocabulary", "context", "layers", "heads", "width", "hidden")
        require_heads_divide_width(self)
        require_dropout(self)
        require_one_of(self, "norm", RESIDUALS)
        require_one_of(self, "activation", ACTIVATIONS)
        require_one_of(self, "positions", ("learned", "sinusoidal"))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


CHOICES = tuple(field.name for field in fields(Config) if field.name not in ("vocabulary", "eps"))  # a user's to make


def shapes(config: Config) -> Tree:
    """The structure of the parameters, stated once for the initialiser, the loader and the tests."""
    V, C = config.vocabulary, config.width
    tree: Tree = {"token": (V, C)}
    if config.positions == "learned":
        tree["position"] = (config.context, C)
    tree["layers"] = [transformer_layer_shapes(C, config.hidden) for _ in range(config.layers)]
    if config.norm == "pre":
        tree["norm"] = norm_shapes(C)  # the residual stream of a post-norm model is normalised already
    if not config.tied:
        tree["head"] = (C, V)
    return tree


def initial(config: Config, generator: Any) -> Tree:
    """Initial parameters, as `initial_leaves` draws them."""
    return from_names(shapes(config), dict(initial_leaves(config, generator)))


def initial_leaves(config: Config, generator: Any) -> Iterator[NamedLeaf]:
    """Initial float64 host arrays by path, as `initial_residual` says."""
    return initial_residual(shapes(config), generator, width=config.width, layers=config.layers)


@differentiable
def hidden_states(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: Cache | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """GPT: the hidden states after the last norm

    Source:  Radford et al. 2019 sec. 2.3; documents 002 sec. 4.2.
    Shapes:  ids (B, T) in [0, V) -> y (B, T, C)
    Draws:   as `dropout_widths` says, bool (B, T, C)
    Back:    the layers' pullbacks in reverse; back gives no gradient of the head, which is not used here.
    Raises:  ValueError if the tokens (with those in the cache) outgrow the context.

    >>> config = Config(vocabulary=5, context=4, layers=2, heads=1, width=2, hidden=2)
    >>> p, how = initial(config, np.random.default_rng(0)), {"config": config, "dropout_mask": None, "cache": None}
    >>> y, z = (hidden_states(p, ids=ids, **how)[0] for ids in (array([[1, 2, 3]]), array([[1, 2, 4]])))
    >>> bool((y[:, :2] == z[:, :2]).all()), bool((y[:, 2] == z[:, 2]).any())  # the past does not know the future
    (True, False)
    """
    require_parameters("gpt", p, config, shapes, cache=cache)
    require_draws("gpt", dropout_mask, dropout_widths, config)
    positions, attention_mask = places("gpt", ids, cache, context=config.context)
    rate = config.dropout
    scale = math.sqrt(config.width) if config.scaled_embedding else 1.0
    e, back_embedding = embedding(p["token"], ids=ids)  # (B, T, C)
    table = p["position"] if config.positions == "learned" else _sinusoidal_table(p["token"], config)
    e, back_positions = add_positions(e * scale, table, positions=positions)
    x, back_drop = maybe_dropout(e, dropout_mask=branch(dropout_mask, "embedding"), rate=rate)

    def layer(x: Array, of_layer: Tree, i: int) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
        return transformer_layer(
            x, of_layer, norm=config.norm, heads=config.heads, causal=True, attention_mask=attention_mask,
            activation=config.activation, eps=config.eps, dropout_mask=branch(dropout_mask, "layers", i), rate=rate,
            cache=None if cache is None else cache.layers[i],
        )  # fmt: skip

    h, back_layers = through(x, p["layers"], layer)
    y, back_norm = layer_norm(h, **p["norm"], eps=config.eps) if config.norm == "pre" else (h, None)

    def back(dy: Array) -> Tree:
        dp: Tree = {}
        dh, dg, db = back_norm(dy) if back_norm is not None else (dy, None, None)
        dx, dlayers = back_layers(dh)
        de, dtable = back_positions(back_drop(dx))
        dp["token"] = back_embedding(de * scale)
        if config.positions == "learned":
            dp["position"] = dtable
        dp["layers"] = dlayers
        if config.norm == "pre":
            dp["norm"] = {"g": dg, "b": db}
        return dp

    return y, back


def dropout_widths(config: Config) -> Tree:
    """The widths of the draws (B, T, width) that `dropout_mask` holds: after the embedding, and for each sublayer."""
    layer = dict.fromkeys(("attention", "feed_forward"), config.width)
    return {"embedding": config.width, "layers": [layer] * config.layers}


def cache_shape(config: Config) -> tuple[int, int, int]:
    """Layers, heads and head width of the keys and values to keep."""
    return config.layers, config.heads, config.width // config.heads


@differentiable
def forward(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: Cache | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """GPT, LMHEAD: the logits of the next token at every position

    Source:  documents 002 sec. 4.2: P(x_{t+1} | x_≤t) = softmax(h_t W).
    Shapes:  ids (B, T) in [0, V) -> y (B, T, V)

    >>> config = Config(vocabulary=3, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p = map_leaves(zeros, shapes(config))
    >>> forward(p, ids=array([[1, 2]]), config=config, dropout_mask=None, cache=None)[0].tolist()  # knows nothing
    [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    """
    h, back_hidden = hidden_states(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=cache)
    return logits(h, back_hidden, head(p, config), add_head_gradient, config)


def _sinusoidal_table(like: Array, config: Config) -> Array:
    return sinusoidal(namespace(like).arange(config.context, dtype=like.dtype), width=config.width)[0]
