"""The model of documents 003 sec. 4.3: attention, and recurrent layers over what it gathers.

    e   = token[ids] + PE                                   (B, T, C), sinusoidal positions
    a   = multi-head self-attention of e                    no residual, no norm, as in the document
    h   = layer_L( ... layer_1(a))                          RNN or LSTM, (B, T, N); bidirectional (B, T, 2N)
    logits = h W

With dropout after the embedding, the attention and each recurrent layer. The document calls this a language model and
makes it bidirectional (sec. 2.3, 4.1).
Erratum E9: a bidirectional model sees the future, so it can neither be trained to predict the next token nor generate.
As a language model (`bidirectional` false) the attention is causal and the layers run forward; with `bidirectional`
true it encodes whole texts (`encode`), for a classifier or the like.
Erratum E12: the document's `nn.Sequential` cannot run, since its modules return tuples, its positional table, which it
never uses, has a row per word instead of one per position, and its LSTM is not bidirectional.
Erratum E5: the positions are those of PE-SIN, not of the document's formula.
What differs beyond the errata: no bias in the output layer.

Source: documents 003 sec. 2.3, 4.1, 4.3; Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.2, 3.5; Schuster & Paliwal
1997.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from refllm.backend import Array, namespace
from refllm.blocks.recurrent import (
    GATES,
    initial_recurrent,
    recurrent_layers,
    recurrent_layers_shapes,
    recurrent_state_shapes,
)
from refllm.blocks.residual import maybe_dropout
from refllm.blocks.self_attention import Cache as KeyValueCache
from refllm.blocks.self_attention import self_attention, self_attention_shapes
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
from refllm.models.places import for_every_head, places
from refllm.models.state import State
from refllm.ops.embedding import embedding
from refllm.ops.position import add_positions, sinusoidal
from refllm.parameters import NamedLeaf, Tree, branch, from_names, named_leaves


@dataclass(frozen=True)
class Config:
    """The architecture: V, context S, layers L of the recurrent part, heads H, width C, hidden N of the states."""

    vocabulary: int
    context: int
    layers: int = 2
    heads: int = 8
    width: int = 512
    hidden: int = 512
    cell: str = "lstm"
    bidirectional: bool = False
    dropout: float = 0.1

    def __post_init__(self) -> None:
        settle_fields(self)
        require_whole(self, "vocabulary", "context", "layers", "heads", "width", "hidden")
        require_heads_divide_width(self)
        require_one_of(self, "cell", GATES)
        require_dropout(self)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def seen(self) -> int:
        """The width of the last layer's states, in both directions."""
        return 2 * self.hidden if self.bidirectional else self.hidden


# A user's to make; a language model is never bidirectional.
CHOICES = tuple(field.name for field in fields(Config) if field.name not in ("vocabulary", "bidirectional"))


def document_003(context: int, *, bidirectional: bool) -> Config:
    """The sizes of documents 003 sec. 4.3: 10 000 words, 8 heads, 512 wide throughout, two LSTM layers, dropout 0.1."""
    return Config(
        vocabulary=10_000, context=context, layers=2, heads=8, width=512, hidden=512, cell="lstm",
        bidirectional=bidirectional, dropout=0.1,
    )  # fmt: skip


def shapes(config: Config) -> Tree:
    """The structure of the parameters."""
    V, C = config.vocabulary, config.width
    return {
        "token": (V, C),
        "attention": self_attention_shapes(C),
        "layers": recurrent_layers_shapes(
            C, config.hidden, layers=config.layers, cell=config.cell, bidirectional=config.bidirectional
        ),
        "head": (config.seen, V),
    }


def _shapes_without_head(config: Config) -> Tree:
    return {name: shape for name, shape in shapes(config).items() if name != "head"}


def initial(config: Config, generator: Any) -> Tree:
    """Initial parameters, as `initial_leaves` draws them."""
    return from_names(shapes(config), dict(initial_leaves(config, generator)))


def initial_leaves(config: Config, generator: Any) -> Iterator[NamedLeaf]:
    """Initial float64 host arrays by path: the recurrent layers' as in blocks/recurrent.py; the embedding normal
    with deviation 1, near the size of the positions; the other matrices normal with deviation 1/√(their inputs);
    biases 0."""
    tree = shapes(config)

    def normal(shape: tuple[int, int], inputs: int) -> Any:
        return generator.standard_normal(shape) / math.sqrt(inputs)

    for path, shape in named_leaves(tree["attention"], "attention"):
        yield path, normal(shape, config.width) if len(shape) > 1 else generator.uniform(0, 0, shape)
    yield "token", normal(tree["token"], 1)
    yield from initial_recurrent(tree["layers"], generator, cell=config.cell, prefix="layers")
    yield "head", normal(tree["head"], config.seen)


class Cache(Protocol):
    """Both: the attention's keys and values, and the recurrent layers' states (generation/state.py)."""

    @property
    def cache(self) -> KeyValueCache: ...

    @property
    def state(self) -> State: ...


@differentiable
def hidden_states(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: Cache | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """HYBRID as a language model: causal attention, and layers that run forward

    Source:  documents 003 sec. 4.3; erratum E9.
    Shapes:  ids (B, T) in [0, V) -> y (B, T, N)
    Draws:   as `dropout_widths` says: bool (B, T, C) of the embedding and of the attention,
             (B, T, N) of each layer
    Back:    back gives no gradient of the head, which is not used here.
    Special: with a cache and a carried state the text goes on from there; the pullback then serves the new tokens
             alone.
    Raises:  UserError if the model is bidirectional; ValueError if the tokens outgrow the context.

    >>> config = Config(vocabulary=5, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p, how = initial(config, np.random.default_rng(0)), {"config": config, "dropout_mask": None, "cache": None}
    >>> y, z = (hidden_states(p, ids=ids, **how)[0] for ids in (array([[1, 2, 3]]), array([[1, 2, 4]])))
    >>> bool((y[:, :2] == z[:, :2]).all()), bool((y[:, 2] == z[:, 2]).any())  # the past does not know the future
    (True, False)
    """
    if config.bidirectional:
        raise UserError(
            "a bidirectional model sees the future, so it cannot predict the next token or generate text (erratum E9); "
            "use bidirectional=False, or `encode` for whole texts"
        )
    held = None if cache is None else cache.cache
    require_parameters("hybrid", p, config, shapes, cache=held)
    require_draws("hybrid", dropout_mask, dropout_widths, config)
    positions, attention_mask = places("hybrid", ids, held, context=config.context)
    token_mask = None if cache is None else cache.state.advance(ids.shape[1])
    return _states(
        p,
        ids=ids,
        positions=positions,
        attention_mask=attention_mask,
        token_mask=token_mask,
        config=config,
        dropout_mask=dropout_mask,
        cache=cache,
    )


@differentiable
def encode(
    p: Tree, *, ids: Array, attention_mask: Array | None, config: Config, dropout_mask: Tree | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """HYBRID, BIRNN: the states of whole texts; in both directions if the model is bidirectional

    Source:  documents 003 sec. 2.3, 4.1, 4.3.
    Shapes:  ids (B, T) in [0, V); attention_mask bool (B, T), or None -> y (B, T, M)
    Draws:   as `dropout_widths` says: bool (B, T, C) of the embedding and of the attention,
             (B, T, M) of each layer
    Back:    back gives no gradient of the head, which is not used here.
    Special: M = N, bidirectional 2N. Padding, where `attention_mask` is false, on either side, is attended by nothing
             and passes the recurrent states on unchanged. What stands at its places in y means nothing.
    Raises:  ValueError if the tokens outgrow the context.

    >>> config = Config(vocabulary=5, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p, seen = initial(config, np.random.default_rng(0)), array([[True, True, False]])
    >>> how = {"attention_mask": seen, "config": config, "dropout_mask": None}
    >>> y, z = (encode(p, ids=ids, **how)[0] for ids in (array([[1, 2, 3]]), array([[1, 2, 4]])))
    >>> y.shape, bool((y[:, :2] == z[:, :2]).all())  # padding does not reach the text
    ((1, 3, 2), True)
    """
    require_parameters("hybrid", p, config, _shapes_without_head if isinstance(p, dict) and "head" not in p else shapes)
    require_draws("hybrid", dropout_mask, dropout_widths, config)
    positions, _ = places("hybrid", ids, None, context=config.context)
    return _states(
        p,
        ids=ids,
        positions=positions,
        attention_mask=for_every_head(attention_mask),
        token_mask=attention_mask,
        config=config,
        dropout_mask=dropout_mask,
        cache=None,
    )


def _states(
    p: Tree,
    *,
    ids: Array,
    positions: Array,
    attention_mask: Array | None,
    token_mask: Array | None,
    config: Config,
    dropout_mask: Tree | None,
    cache: Cache | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """`attention_mask` (B, 1, 1, S) is for the attention, `token_mask` (B, T) for the recurrent layers."""
    xp, rate = namespace(ids), config.dropout
    e, back_embedding = embedding(p["token"], ids=ids)  # (B, T, C)
    table, _ = sinusoidal(xp.arange(config.context, dtype=e.dtype), width=config.width)
    placed, back_positions = add_positions(e, table, positions=positions)
    x, back_drop_x = maybe_dropout(placed, dropout_mask=branch(dropout_mask, "embedding"), rate=rate)
    a, back_attention = self_attention(
        x,
        p["attention"],
        heads=config.heads,
        causal=not config.bidirectional,
        attention_mask=attention_mask,
        cache=None if cache is None else cache.cache.layers[0],
    )
    gathered, back_drop_a = maybe_dropout(a, dropout_mask=branch(dropout_mask, "attention"), rate=rate)
    y, back_layers = recurrent_layers(
        gathered,
        p["layers"],
        cell=config.cell,
        token_mask=token_mask,
        states=None if cache is None else cache.state.layers,
        dropout_mask=branch(dropout_mask, "layers"),
        rate=rate,
    )

    def back(dy: Array) -> Tree:
        dgathered, dlayers = back_layers(dy)
        dx, dattention = back_attention(back_drop_a(dgathered))
        de, _ = back_positions(back_drop_x(dx))
        return {"token": back_embedding(de), "attention": dattention, "layers": dlayers}

    return y, back


def dropout_widths(config: Config) -> Tree:
    """The widths of the draws (B, T, width) that `dropout_mask` holds: after the embedding, the
    attention and each layer."""
    C = config.width
    return {"embedding": C, "attention": C, "layers": [config.seen] * config.layers}


def cache_shape(config: Config) -> tuple[int, int, int]:
    """Layers, heads and head width of the keys and values to keep."""
    return 1, config.heads, config.width // config.heads


def state_shapes(config: Config) -> Tree:
    """What each recurrent layer carries from token to token, for one text."""
    return [recurrent_state_shapes(config.hidden, cell=config.cell) for _ in range(config.layers)]


@declared_inputs
def head(p: Tree, config: Config) -> Array:
    """The weights of the output layer

    Shapes:  p tree; head (N, V) -> W (N, V)

    >>> config = Config(vocabulary=3, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p = map_leaves(zeros, shapes(config))
    >>> head(p, config) is p["head"], p["head"].shape
    (True, (2, 3))
    """
    return p["head"]


def add_head_gradient(dp: Tree, dhead: Array, config: Config) -> Tree:
    """The gradient of `hidden_states` completed by that of the head."""
    dp["head"] = dhead
    return dp


@differentiable
def forward(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: Cache | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """HYBRID, LMHEAD: the logits of the next token at every position

    Source:  documents 002 sec. 4.2, 003 sec. 4.3; erratum E9.
    Shapes:  ids (B, T) in [0, V) -> y (B, T, V)
    Raises:  UserError if the model is bidirectional; ValueError if the tokens outgrow the context.

    >>> config = Config(vocabulary=3, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p = map_leaves(zeros, shapes(config))
    >>> forward(p, ids=array([[1, 2]]), config=config, dropout_mask=None, cache=None)[0].tolist()  # knows nothing
    [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    """
    h, back_hidden = hidden_states(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=cache)
    return logits(h, back_hidden, head(p, config), add_head_gradient, config)
