"""Encoder-decoder: a Transformer that reads a source in both directions and writes a target from left to right.

    memory = encoder(e(source))                              (B, S, C)   self-attention over the whole source
    h      = decoder(e(target so far), memory)               (B, T, C)   causal self-attention, then cross-attention
    P(y_{t+1} | y_1 ... y_t, source) = softmax(h_t W)        W = tokenᵀ if tied

One architecture with the choices in which its three published forms differ:

              norm          positions     feed-forward              embedding           head
    vaswani   post, layer   sinusoidal    relu                      times √C            tied
    bart      post, layer   learned       gelu_erf                  with a layer norm   tied
    t5        pre, RMS      relative      relu, or gated gelu_tanh                      tied, h / √C; or its own

The T5 form has no biases and leaves the 1/√D out of attention; one table of distance biases serves all layers of the
encoder, another all of the decoder.

Source: Vaswani et al. 2017 (arXiv:1706.03762); Lewis et al. 2020 (arXiv:1910.13461); Raffel et al. 2020
(arXiv:1910.10683); documents 004 sec. 4.1, 000 sec. 6. What differs from the published code: no dropout on the
attention weights, inside the feed-forward layer or after T5's last norm; BART's bias of the logits, which is zero, and
the two rows of its position tables that no position uses are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from refllm.backend import Array, namespace
from refllm.blocks.affine import affine_shapes
from refllm.blocks.cross_attention import cross_attention_shapes
from refllm.blocks.decoder_layer import Cache, decoder_layer
from refllm.blocks.encoder_layer import encoder_layer
from refllm.blocks.relative_self_attention import relative_self_attention_shapes
from refllm.blocks.residual import norm_shapes
from refllm.blocks.stack import stack, stack_shapes
from refllm.blocks.switch_layer import switch_layer_shapes
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.models.checks import require_draws, require_parameters
from refllm.models.encoder_decoder_config import CHOICES, POSITIONS, Config, has_experts
from refllm.models.output import add_head_gradient, head, logits
from refllm.models.places import for_every_head
from refllm.parameters import NamedLeaf, Tree, branch, from_names, named_leaves

__all__ = [
    "CHOICES", "POSITIONS", "Config", "Gradients", "add_head_gradient", "cache_shape", "decode", "dropout_widths",
    "encode", "forward", "has_experts", "head", "hidden_states", "initial", "initial_leaves", "shapes",
]  # fmt: skip

Gradients = dict[str, Tree]


def shapes(config: Config) -> Tree:
    """The structure of the parameters, stated once for the initialiser, the loader and the tests."""
    V, C, F, H, D = config.vocabulary, config.width, config.hidden, config.heads, config.head_width
    attention = relative_self_attention_shapes(C, H, D, biases=config.biases)
    reading = cross_attention_shapes(C, H, D, biases=config.biases)
    gate = {"Wg": (C, F)} if config.gated else {}
    feed_forward = {**gate, **affine_shapes({"1": (C, F), "2": (F, C)}, biases=config.biases)}
    around = stack_shapes(
        norm={"g": (C,)} if config.rms else norm_shapes(C),
        position=(config.context, C) if config.positions == "learned" else None,
        relative=(config.buckets, H) if config.positions == "relative" else None,
        embedding_norm=config.embedding_norm,
        last_norm=config.norm == "pre",  # the residual stream of a post-norm model is normalised already
    )
    tree: Tree = {
        "token": (V, C),
        "encoder": around(config.encoder_layers, {"attention": attention, "feed_forward": feed_forward}),
        "decoder": around(
            config.decoder_layers, {"attention": attention, "cross_attention": reading, "feed_forward": feed_forward}
        ),
    }
    switch = switch_layer_shapes(C, F, config.experts, biases=False)
    for half in ("encoder", "decoder"):
        tree[half]["layers"] = [
            {**layer, "feed_forward": switch} if has_experts(half, i, config) else layer
            for i, layer in enumerate(tree[half]["layers"])
        ]
    if not config.tied:
        tree["head"] = (C, V)
    return tree


def initial(config: Config, generator: Any) -> Tree:
    """Initial parameters, as `initial_leaves` draws them."""
    return from_names(shapes(config), dict(initial_leaves(config, generator)))


def initial_leaves(config: Config, generator: Any) -> Iterator[NamedLeaf]:
    """Initial float64 host arrays by path: gains 1, biases 0, matrices normal with deviation 1/√(their inputs),
    which keeps the size of what goes through them.

    Tokens and their positions have 1/√C where the embedding is multiplied by √C, 1 where the hidden states are divided
    by it (T5), and else BART's 0.02, at other widths than its 768 times √(768 / C). Queries that are not divided by √D
    in attention are divided by it here (Raffel et al. 2020, code).
    """
    C, D = config.width, config.head_width
    token = C**-0.5 if config.scaled_embedding else 1.0 if config.scaled_output else 0.02 * math.sqrt(768 / C)
    for path, shape in named_leaves(shapes(config)):
        name = path.rpartition(".")[2]
        deviation = 0.0 if len(shape) == 1 else shape[-2] ** -0.5  # experts have one more axis in front
        if name in ("token", "position"):
            deviation = token
        elif name == "relative":
            deviation = C**-0.5
        leaf = (1.0 if name == "g" else 0.0) + deviation * generator.standard_normal(shape)
        if name in ("Wq", "Wqkv") and not _scaled(config):
            leaf[:, : config.heads * D] /= math.sqrt(D)
        yield path, leaf


@differentiable
def encode(
    p: Tree, *, ids: Array, attention_mask: Array | None, config: Config, dropout_mask: Tree | None
) -> tuple[Array, Callable[[Array], Gradients]]:
    """ENCDEC: what the decoder reads of a source

    Source:  Vaswani et al. 2017 sec. 3.1; documents 004 sec. 4.1.
    Shapes:  ids (B, S) in [0, V); attention_mask bool (B, S), or None -> memory (B, S, C)
    Draws:   as `dropout_widths` says of "encoder", bool (B, S, C)
    Back:    gives the gradients of "token" and "encoder".
    Special: `attention_mask` is false at the padding. What stands there does not reach the rest; the memory at the
             padding means nothing.
    Raises:  UserError if the source is longer than the context.

    >>> config = Config(5, context=4, encoder_layers=1, decoder_layers=1, heads=1, head_width=2, width=2, hidden=2)
    >>> p, seen = initial(config, np.random.default_rng(0)), array([[True, True, False]])
    >>> how = {"attention_mask": seen, "config": config, "dropout_mask": None}
    >>> y, z = (encode(p, ids=ids, **how)[0] for ids in (array([[1, 2, 3]]), array([[1, 2, 4]])))
    >>> y.shape, bool((y[:, :2] == z[:, :2]).all())  # padding does not reach the rest
    ((1, 3, 2), True)
    """
    require_parameters("encoder_decoder", p, config, shapes)
    require_draws("encoder_decoder", dropout_mask, lambda c: dropout_widths(c)["encoder"], config)
    S = ids.shape[1]
    _require_room("source", S, config)
    keys_mask = for_every_head(attention_mask)

    def layer(x: Array, r: Array | None, of_layer: Tree, i: int) -> tuple[Array, Callable[[Array], tuple[Any, ...]]]:
        return encoder_layer(
            x, r, of_layer, norm=config.norm, heads=config.heads, scaled=_scaled(config),
            attention_mask=keys_mask, activation=config.activation, capacity=config.capacity, eps=config.eps,
            rate=config.dropout, dropout_mask=branch(dropout_mask, "layers", i),
        )  # fmt: skip

    memory, back_stack = stack(
        p["token"], p["encoder"], layer, ids=ids, positions=namespace(ids).arange(S), keys=S, causal=False,
        dropout_mask=branch(dropout_mask, "embedding"), **_around(config),
    )  # fmt: skip

    def back(dmemory: Array) -> Gradients:
        dtoken, dencoder = back_stack(dmemory)
        return {"token": dtoken, "encoder": dencoder}

    return memory, back


@differentiable
def decode(
    p: Tree,
    memory: Array,
    *,
    ids: Array,
    memory_mask: Array | None,
    config: Config,
    dropout_mask: Tree | None,
    cache: Cache | None,
) -> tuple[Array, Callable[[Array], tuple[Gradients, Array]]]:
    """ENCDEC: the hidden states that the head makes the next token's distribution of; with `scaled_output` over √C

    Source:  Vaswani et al. 2017 sec. 3.1; Raffel et al. 2020, code (1/√C); documents 004 sec. 4.1.
    Shapes:  memory (B, S, C); ids (n*B, T) in [0, V); memory_mask bool (B, S), or None -> y (n*B, T, C)
    Draws:   as `dropout_widths` says of "decoder", bool (n*B, T, C)
    Back:    gives the gradients of "token" and "decoder", and that of the memory.
    Special: n rows of ids after each other read the same row of memory. With a cache, ids are the tokens after those
             that it holds, and keys and values of the memory are those of its first use.
    Raises:  UserError if the target is longer than the context.

    >>> config = Config(5, context=4, encoder_layers=1, decoder_layers=1, heads=1, head_width=2, width=2, hidden=2)
    >>> p, memory = initial(config, np.random.default_rng(0)), ones((1, 3, 2))
    >>> how = {"memory_mask": None, "config": config, "dropout_mask": None, "cache": None}
    >>> y, z = (decode(p, memory, ids=ids, **how)[0] for ids in (array([[1, 2]]), array([[1, 3]])))
    >>> bool((y[:, 0] == z[:, 0]).all()), bool((y[:, 1] == z[:, 1]).any())  # the past does not know the future
    (True, False)
    """
    require_parameters("encoder_decoder", p, config, shapes, cache=cache)
    require_draws("encoder_decoder", dropout_mask, lambda c: dropout_widths(c)["decoder"], config)
    T = ids.shape[1]
    positions = namespace(ids).arange(T) if cache is None else cache.advance(T)
    length = T if cache is None else cache.length
    _require_room("target", length, config)
    keys_mask = for_every_head(memory_mask)

    def layer(x: Array, r: Array | None, of_layer: Tree, i: int) -> tuple[Array, Callable[[Array], tuple[Any, ...]]]:
        return decoder_layer(
            x, memory, r, of_layer, norm=config.norm, heads=config.heads, scaled=_scaled(config),
            memory_mask=keys_mask, activation=config.activation, capacity=config.capacity, eps=config.eps,
            rate=config.dropout, cache=None if cache is None else cache.layers[i],
            dropout_mask=branch(dropout_mask, "layers", i),
        )  # fmt: skip

    h, back_stack = stack(
        p["token"], p["decoder"], layer, ids=ids, positions=positions, keys=length, causal=True,
        dropout_mask=branch(dropout_mask, "embedding"), **_around(config),
    )  # fmt: skip
    scale = config.width**-0.5 if config.scaled_output else 1.0

    def back(dy: Array) -> tuple[Gradients, Array]:
        dtoken, dmemory, ddecoder = back_stack(dy * scale)
        return {"token": dtoken, "decoder": ddecoder}, dmemory

    return h * scale, back


@differentiable
def hidden_states(
    p: Tree,
    *,
    source: Array,
    attention_mask: Array | None,
    ids: Array,
    config: Config,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """ENCDEC: both halves, from the source and the target so far to the states before the head

    Source:  Vaswani et al. 2017 sec. 3.1; documents 004 sec. 4.1.
    Shapes:  source (B, S) in [0, V); attention_mask bool (B, S), or None; ids (B, T) in [0, V) -> y (B, T, C)
    Draws:   as `dropout_widths` says: those of `encode` in "encoder", those of `decode` in "decoder"
    Back:    back gives no gradient of the head, which is not used here.

    >>> config = Config(5, context=4, encoder_layers=1, decoder_layers=1, heads=1, head_width=2, width=2, hidden=2)
    >>> how = {"attention_mask": None, "config": config, "dropout_mask": None}
    >>> p = map_leaves(zeros, shapes(config))
    >>> hidden_states(p, source=array([[1, 2, 3]]), ids=array([[0, 4]]), **how)[0].tolist()  # a norm with a gain of 0
    [[[0.0, 0.0], [0.0, 0.0]]]
    """
    require_draws("encoder_decoder", dropout_mask, dropout_widths, config)
    memory, back_encode = encode(
        p, ids=source, attention_mask=attention_mask, config=config, dropout_mask=branch(dropout_mask, "encoder")
    )
    h, back_decode = decode(
        p,
        memory,
        ids=ids,
        memory_mask=attention_mask,
        config=config,
        dropout_mask=branch(dropout_mask, "decoder"),
        cache=None,
    )

    def back(dh: Array) -> Tree:
        d, dmemory = back_decode(dh)
        e = back_encode(dmemory)
        return {"token": e["token"] + d["token"], "encoder": e["encoder"], "decoder": d["decoder"]}

    return h, back


def dropout_widths(config: Config) -> Tree:
    """The widths of the draws (B, S, width) of `encode` and (B, T, width) of `decode`: after the embeddings,
    and for each sublayer."""
    C = config.width
    encoder = dict.fromkeys(("attention", "feed_forward"), C)
    decoder = dict.fromkeys(("attention", "cross_attention", "feed_forward"), C)
    return {
        "encoder": {"embedding": C, "layers": [encoder] * config.encoder_layers},
        "decoder": {"embedding": C, "layers": [decoder] * config.decoder_layers},
    }


def cache_shape(config: Config) -> tuple[int, int, int]:
    """Layers, heads and head width of the decoder's keys and values to keep."""
    return config.decoder_layers, config.heads, config.head_width


@differentiable
def forward(
    p: Tree,
    *,
    source: Array,
    attention_mask: Array | None,
    ids: Array,
    config: Config,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """ENCDEC, LMHEAD: the logits of the next token of the target, at every place of it

    Source:  documents 004 sec. 4.1.
    Shapes:  source (B, S) in [0, V); attention_mask bool (B, S), or None; ids (B, T) in [0, V) -> y (B, T, V)
    Draws:   as in `hidden_states`
    Special: ids begin with the start token.

    >>> config = Config(5, context=4, encoder_layers=1, decoder_layers=1, heads=1, head_width=2, width=2, hidden=2)
    >>> how = {"attention_mask": None, "config": config, "dropout_mask": None}
    >>> p = initial(config, np.random.default_rng(0))
    >>> forward(p, source=array([[1, 2, 3]]), ids=array([[0, 4]]), **how)[0].shape  # for each target place V logits
    (1, 2, 5)
    """
    h, back_hidden = hidden_states(
        p, source=source, attention_mask=attention_mask, ids=ids, config=config, dropout_mask=dropout_mask
    )
    return logits(h, back_hidden, head(p, config), add_head_gradient, config)


def _around(config: Config) -> dict[str, Any]:
    """What `stack` is told in both halves."""
    return {
        "scale": math.sqrt(config.width) if config.scaled_embedding else 1.0,
        "waves": config.positions == "sinusoidal",
        "farthest": config.farthest,
        "eps": config.eps,
        "rate": config.dropout,
    }


def _scaled(config: Config) -> bool:
    """Whether attention divides its scores by √D: T5, whose initial weights make up for it, does not."""
    return config.positions != "relative"


def _require_room(what: str, tokens: int, config: Config) -> None:
    if tokens > config.context:
        raise UserError(
            f"encoder_decoder: a {what} of {tokens} tokens does not fit the {config.context} positions; "
            "cut it, or raise context"
        )
