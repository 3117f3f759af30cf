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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from refllm.backend import Array, namespace
from refllm.blocks.affine import affine_shapes
from refllm.blocks.cross_attention import cross_attention_shapes
from refllm.blocks.decoder_layer import LayerStores, decoder_layer
from refllm.blocks.encoder_layer import encoder_layer
from refllm.blocks.feed_forward import ACTIVATIONS
from refllm.blocks.gated_feed_forward import GATES
from refllm.blocks.relative_self_attention import relative_self_attention_shapes
from refllm.blocks.residual import RESIDUALS, maybe_dropout, normalise
from refllm.errors import UserError
from refllm.ops.embedding import embedding
from refllm.ops.linear import matmul
from refllm.ops.position import add_positions, sinusoidal
from refllm.ops.relative import t5_bias_bidirectional, t5_bias_causal
from refllm.parameters import Tree, from_names, named_leaves

POSITIONS = ("sinusoidal", "learned", "relative")
Gradients = dict[str, Tree]


@dataclass(frozen=True)
class Config:
    """The architecture. Letters as in the glossary: V, the longest source and the longest target, L of each stack, H,
    D, C, F; then the choices of the table above. `buckets` and `farthest` are those of relative positions."""

    vocabulary: int
    context: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    head_width: int
    width: int
    hidden: int
    norm: str = "post"
    rms: bool = False
    positions: str = "sinusoidal"
    activation: str = "relu"
    gated: bool = False
    biases: bool = True
    scaled_embedding: bool = False
    embedding_norm: bool = False
    tied: bool = True
    scaled_output: bool = False
    buckets: int = 32
    farthest: int = 128
    dropout: float = 0.0
    eps: float = 1e-5

    def __post_init__(self) -> None:
        sizes = ("vocabulary", "context", "encoder_layers", "decoder_layers", "heads", "head_width", "width", "hidden")
        for name in sizes:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        if not 0 < self.eps < math.inf:
            raise UserError(f"eps must be a positive number, got {self.eps}")
        activations = GATES if self.gated else ACTIVATIONS
        for name, known in (("norm", RESIDUALS), ("activation", activations), ("positions", POSITIONS)):
            if getattr(self, name) not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")
        if self.gated and self.biases:
            raise UserError("a gated feed-forward layer has no biases; say biases=False, or gated=False")
        if self.buckets < 4 or self.buckets % 2 or self.farthest <= self.buckets // 2:
            raise UserError(
                f"buckets must be an even number of at least 4 and farthest above half of it; "
                f"got {self.buckets} and {self.farthest}"
            )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


CHOICES = tuple(field.name for field in fields(Config) if field.name not in ("vocabulary", "eps"))  # a user's to make

VASWANI_SIZES = {"base": (8, 512, 2048, 0.1), "big": (16, 1024, 4096, 0.3)}
BART_SIZES = {"base": (6, 12, 768), "large": (12, 16, 1024)}
T5_SIZES = {
    "small": (6, 8, 64, 512, 2048),
    "base": (12, 12, 64, 768, 3072),
    "large": (24, 16, 64, 1024, 4096),
    "3b": (24, 32, 128, 1024, 16384),
}
T5_1_1_SIZES = {
    "small": (8, 6, 64, 512, 1024),
    "base": (12, 12, 64, 768, 2048),
    "large": (24, 16, 64, 1024, 2816),
    "xl": (24, 32, 64, 2048, 5120),
}


def vaswani(size: str, *, vocabulary: int = 37000) -> Config:
    """The Transformer of 2017, "base" or "big" (its table 3), with its vocabulary of English and German."""
    heads, width, hidden, dropout = VASWANI_SIZES[size]
    return Config(
        vocabulary=vocabulary, context=512, encoder_layers=6, decoder_layers=6, heads=heads, head_width=width // heads,
        width=width, hidden=hidden, scaled_embedding=True, dropout=dropout,
    )  # fmt: skip


def bart(size: str) -> Config:
    """BART, "base" or "large"; "base" has 139 417 344 parameters, 139 420 416 with the unused rows of positions."""
    layers, heads, width = BART_SIZES[size]
    return Config(
        vocabulary=50265, context=1024, encoder_layers=layers, decoder_layers=layers, heads=heads,
        head_width=width // heads, width=width, hidden=4 * width, positions="learned", activation="gelu_erf",
        embedding_norm=True, dropout=0.1,
    )  # fmt: skip


def t5(size: str) -> Config:
    """T5 of the paper (version 1.0), "small" to "3b"; "small" has 60 506 624 parameters."""
    layers, heads, head_width, width, hidden = T5_SIZES[size]
    return Config(
        vocabulary=32128, context=512, encoder_layers=layers, decoder_layers=layers, heads=heads,
        head_width=head_width, width=width, hidden=hidden, norm="pre", rms=True, positions="relative", biases=False,
        scaled_output=True, dropout=0.1, eps=1e-6,
    )  # fmt: skip


def t5_1_1(size: str) -> Config:
    """Version 1.1 of T5: a gate in the feed-forward layers, an output layer of its own; "small" has 76 961 152."""
    layers, heads, head_width, width, hidden = T5_1_1_SIZES[size]
    return Config(
        vocabulary=32128, context=512, encoder_layers=layers, decoder_layers=layers, heads=heads,
        head_width=head_width, width=width, hidden=hidden, norm="pre", rms=True, positions="relative", biases=False,
        activation="gelu_tanh", gated=True, tied=False, dropout=0.1, eps=1e-6,
    )  # fmt: skip


def shapes(config: Config) -> Tree:
    """The structure of the parameters, stated once for the initialiser, the loader and the tests."""
    V, C = config.vocabulary, config.width
    tree: Tree = {
        "token": (V, C),
        "encoder": _stack_shapes(config, config.encoder_layers, {"attention": _self_attention_shapes(config)}),
        "decoder": _stack_shapes(
            config,
            config.decoder_layers,
            {
                "attention": _self_attention_shapes(config),
                "cross_attention": cross_attention_shapes(C, config.heads, config.head_width, biases=config.biases),
            },
        ),
    }
    if not config.tied:
        tree["head"] = (C, V)
    return tree


def _stack_shapes(config: Config, layers: int, attentions: Tree) -> Tree:
    C, F = config.width, config.hidden
    norm = {"g": (C,)} if config.rms else {"g": (C,), "b": (C,)}
    gate = {"Wg": (C, F)} if config.gated else {}
    feed_forward = {**gate, **affine_shapes({"1": (C, F), "2": (F, C)}, biases=config.biases)}
    layer: Tree = {}
    for i, (name, sublayer) in enumerate({**attentions, "feed_forward": feed_forward}.items(), start=1):
        layer |= {f"norm{i}": norm, name: sublayer}
    tree: Tree = {}
    if config.positions == "learned":
        tree["position"] = (config.context, C)
    if config.embedding_norm:
        tree["embedding_norm"] = norm
    if config.positions == "relative":
        tree["relative"] = (config.buckets, config.heads)
    tree["layers"] = [layer for _ in range(layers)]
    if config.norm == "pre":
        tree["norm"] = norm  # the residual stream of a post-norm model is normalised already
    return tree


def _self_attention_shapes(config: Config) -> Tree:
    return relative_self_attention_shapes(config.width, config.heads, config.head_width, biases=config.biases)


def initial(config: Config, generator: Any) -> Tree:
    """Initial parameters as float64 host arrays: gains 1, biases 0, matrices normal with deviation 1/√(their inputs),
    which keeps the size of what goes through them.

    Tokens and their positions have 1/√C where the embedding is multiplied by √C, 1 where the hidden states are divided
    by it (T5), and else BART's 0.02, at other widths than its 768 times √(768 / C). Queries that are not divided by √D
    in attention are divided by it here (Raffel et al. 2020, code).
    """
    C, D = config.width, config.head_width
    token = C**-0.5 if config.scaled_embedding else 1.0 if config.scaled_output else 0.02 * math.sqrt(768 / C)
    leaves = {}
    for path, shape in named_leaves(shapes(config)):
        name = path.rpartition(".")[2]
        deviation = 0.0 if len(shape) == 1 else shape[0] ** -0.5
        if name in ("token", "position"):
            deviation = token
        elif name == "relative":
            deviation = C**-0.5
        leaf = (1.0 if name == "g" else 0.0) + deviation * generator.standard_normal(shape)
        if name in ("Wq", "Wqkv") and not _scaled(config):
            leaf[:, : config.heads * D] /= math.sqrt(D)
        leaves[path] = leaf
    return from_names(shapes(config), leaves)


class Cache(Protocol):
    """What the decoder keeps while it writes (generation/decoder_cache.py)."""

    @property
    def layers(self) -> Sequence[LayerStores]: ...

    @property
    def length(self) -> int:
        """Places of the target that it holds."""
        ...

    def advance(self, tokens: int) -> Array:
        """Makes room for `tokens` more; their positions (T,)."""
        ...


def encode(
    p: Tree, *, ids: Array, allowed: Array | None, config: Config, keep: Sequence[Array] | None
) -> tuple[Array, Callable[[Array], Gradients]]:
    """ENCDEC: what the decoder reads of a source

    Source:  Vaswani et al. 2017 sec. 3.1; documents 004 sec. 4.1.
    Shapes:  ids (B, S) in [0, V); allowed bool (B, S), false at the padding, or None; keep 1 + 2L draws bool (B, S, C),
             in the order of use -> memory (B, S, C)
    Back:    gives the gradients of "token" and "encoder".
    Special: what stands in the padding does not reach the rest; the memory at the padding means nothing.
    Raises:  UserError if the source is longer than the context.
    """
    S = ids.shape[1]
    _require_room("source", S, config)
    stack = p["encoder"]
    x, back_embed = _embed(
        p["token"],
        stack,
        ids=ids,
        positions=namespace(ids).arange(S),
        config=config,
        keep=None if keep is None else keep[0],
    )
    r, back_r = _distance_bias(stack, queries=S, keys=S, causal=False, config=config)
    backs = []
    for i, layer in enumerate(stack["layers"]):
        x, back_layer = encoder_layer(
            x, r, layer, norm=config.norm, heads=config.heads, scaled=_scaled(config), allowed=_over_heads(allowed),
            activation=config.activation, eps=config.eps, rate=config.dropout,
            keep=None if keep is None else (keep[1 + 2 * i], keep[2 + 2 * i]),
        )  # fmt: skip
        backs.append(back_layer)
    memory, back_norm = _maybe_norm(x, stack, "norm", eps=config.eps)

    def back(dmemory: Array) -> Gradients:
        dx, dnorm = back_norm(dmemory)
        dlayers, drs = [], []
        for back_layer in reversed(backs):
            dx, dr, dlayer = back_layer(dx)
            dlayers.append(dlayer)
            drs.append(dr)
        dtoken, dembed = back_embed(dx)
        return {"token": dtoken, "encoder": {**dembed, **back_r(drs), "layers": dlayers[::-1], **dnorm}}

    return memory, back


def decode(
    p: Tree,
    memory: Array,
    *,
    ids: Array,
    memory_allowed: Array | None,
    config: Config,
    keep: Sequence[Array] | None,
    cache: Cache | None,
) -> tuple[Array, Callable[[Array], tuple[Gradients, Array]]]:
    """ENCDEC: the hidden states that the head makes the next token's distribution of; with `scaled_output` over √C

    Source:  Vaswani et al. 2017 sec. 3.1; Raffel et al. 2020, code (1/√C); documents 004 sec. 4.1.
    Shapes:  memory (B, S, C); ids (n B, T) in [0, V); memory_allowed bool (B, S) or None; keep 1 + 3L draws bool
             (n B, T, C), in the order of use -> y (n B, T, C)
    Back:    gives the gradients of "token" and "decoder", and that of the memory.
    Special: n rows of ids after each other read the same row of memory. With a cache, ids are the tokens after those
             that it holds, and keys and values of the memory are those of its first use.
    Raises:  UserError if the target is longer than the context.
    """
    T = ids.shape[1]
    positions = namespace(ids).arange(T) if cache is None else cache.advance(T)
    length = T if cache is None else cache.length
    _require_room("target", length, config)
    stack = p["decoder"]
    x, back_embed = _embed(
        p["token"], stack, ids=ids, positions=positions, config=config, keep=None if keep is None else keep[0]
    )
    r, back_r = _distance_bias(stack, queries=T, keys=length, causal=True, config=config)
    backs = []
    for i, layer in enumerate(stack["layers"]):
        x, back_layer = decoder_layer(
            x, memory, r, layer, norm=config.norm, heads=config.heads, scaled=_scaled(config),
            memory_allowed=_over_heads(memory_allowed), activation=config.activation, eps=config.eps,
            rate=config.dropout, cache=None if cache is None else cache.layers[i],
            keep=None if keep is None else (keep[1 + 3 * i], keep[2 + 3 * i], keep[3 + 3 * i]),
        )  # fmt: skip
        backs.append(back_layer)
    h, back_norm = _maybe_norm(x, stack, "norm", eps=config.eps)
    scale = config.width**-0.5 if config.scaled_output else 1.0

    def back(dy: Array) -> tuple[Gradients, Array]:
        dx, dnorm = back_norm(dy * scale)
        dmemory = namespace(memory).zeros_like(memory)
        dlayers, drs = [], []
        for back_layer in reversed(backs):
            dx, dread, dr, dlayer = back_layer(dx)
            dmemory += dread
            dlayers.append(dlayer)
            drs.append(dr)
        dtoken, dembed = back_embed(dx)
        dstack = {**dembed, **back_r(drs), "layers": dlayers[::-1], **dnorm}
        return {"token": dtoken, "decoder": dstack}, dmemory

    return h * scale, back


def hidden_states(
    p: Tree,
    *,
    source: Array,
    allowed: Array | None,
    ids: Array,
    config: Config,
    keep: tuple[Sequence[Array], Sequence[Array]] | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """ENCDEC: both halves, from the source and the target so far to the states before the head

    Source:  Vaswani et al. 2017 sec. 3.1; documents 004 sec. 4.1.
    Shapes:  source (B, S); allowed bool (B, S) or None; ids (B, T); keep: the draws of `encode` and those of `decode`
             -> y (B, T, C)
    Back:    back gives no gradient of the head, which is not used here.
    """
    keep_source, keep_target = keep if keep is not None else (None, None)
    memory, back_encode = encode(p, ids=source, allowed=allowed, config=config, keep=keep_source)
    h, back_decode = decode(p, memory, ids=ids, memory_allowed=allowed, config=config, keep=keep_target, cache=None)

    def back(dh: Array) -> Tree:
        d, dmemory = back_decode(dh)
        e = back_encode(dmemory)
        return {"token": e["token"] + d["token"], "encoder": e["encoder"], "decoder": d["decoder"]}

    return h, back


def dropout_widths(config: Config) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The widths of the draws (B, S, width) of `encode` and (B, T, width) of `decode`: one after the embedding, then
    two and three a layer."""
    C = config.width
    return (C,) * (1 + 2 * config.encoder_layers), (C,) * (1 + 3 * config.decoder_layers)


def cache_shape(config: Config) -> tuple[int, int, int]:
    """Layers, heads and head width of the decoder's keys and values to keep."""
    return config.decoder_layers, config.heads, config.head_width


def head(p: Tree, config: Config) -> Array:
    """The weights of the output layer, (C, V)."""
    return p["token"].T if config.tied else p["head"]


def add_head_gradient(dp: Tree, dhead: Array, config: Config) -> Tree:
    """The gradient of `hidden_states` completed by that of the head; a tied matrix sums its three uses."""
    if config.tied:
        dp["token"] += dhead.T
    else:
        dp["head"] = dhead
    return dp


def forward(
    p: Tree,
    *,
    source: Array,
    allowed: Array | None,
    ids: Array,
    config: Config,
    keep: tuple[Sequence[Array], Sequence[Array]] | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """ENCDEC, LMHEAD: the logits of the next token of the target, at every place of it

    Source:  documents 004 sec. 4.1.
    Shapes:  source (B, S); allowed bool (B, S) or None; ids (B, T), which begins with the start token -> y (B, T, V)
    """
    h, back_hidden = hidden_states(p, source=source, allowed=allowed, ids=ids, config=config, keep=keep)
    y, back_head = matmul(h, head(p, config))

    def back(dy: Array) -> Tree:
        dh, dhead = back_head(dy)
        return add_head_gradient(back_hidden(dh), dhead, config)

    return y, back


def _embed(
    token: Array, stack: Tree, *, ids: Array, positions: Array, config: Config, keep: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Gradients]]]:
    """Tokens, scaled; their positions; the norm; dropout. Back gives dtoken and the stack's own gradients."""
    scale = math.sqrt(config.width) if config.scaled_embedding else 1.0
    words, back_words = embedding(token, ids=ids)
    placed, back_placed = _place(words * scale, stack, positions=positions, config=config)
    normed, back_norm = _maybe_norm(placed, stack, "embedding_norm", eps=config.eps)
    y, back_drop = maybe_dropout(normed, keep=keep, rate=config.dropout)

    def back(dy: Array) -> tuple[Array, Gradients]:
        dplaced, dnorm = back_norm(back_drop(dy))
        dwords, dposition = back_placed(dplaced)
        return back_words(dwords * scale), {**dposition, **dnorm}

    return y, back


def _place(
    x: Array, stack: Tree, *, positions: Array, config: Config
) -> tuple[Array, Callable[[Array], tuple[Array, Gradients]]]:
    """Positions added to the embedding; relative ones come in later, in attention."""
    if config.positions == "learned":
        y, back_table = add_positions(x, stack["position"], positions=positions)

        def back(dy: Array) -> tuple[Array, Gradients]:
            dx, dtable = back_table(dy)
            return dx, {"position": dtable}

        return y, back
    if config.positions == "sinusoidal":
        x = x + sinusoidal(positions.astype(x.dtype), width=config.width)[0]
    return x, lambda dy: (dy, {})


def _distance_bias(
    stack: Tree, *, queries: int, keys: int, causal: bool, config: Config
) -> tuple[Array | None, Callable[[list[Array | None]], Gradients]]:
    """T5-REL: the bias that all layers of a stack add to their scores; back takes its gradient from each of them."""
    if config.positions != "relative":
        return None, lambda drs: {}
    bias = t5_bias_causal if causal else t5_bias_bidirectional
    r, back_r = bias(stack["relative"], queries=queries, keys=keys, farthest=config.farthest)
    return r, lambda drs: {"relative": back_r(sum(dr for dr in drs if dr is not None))}


def _maybe_norm(
    x: Array, stack: Tree, name: str, *, eps: float
) -> tuple[Array, Callable[[Array], tuple[Array, Gradients]]]:
    """The norm of that name where the stack has one."""
    if name not in stack:
        return x, lambda dy: (dy, {})
    y, back_norm = normalise(x, stack[name], eps=eps)

    def back(dy: Array) -> tuple[Array, Gradients]:
        dx, dnorm = back_norm(dy)
        return dx, {name: dnorm}

    return y, back


def _scaled(config: Config) -> bool:
    """Whether attention divides its scores by √D: T5, whose initial weights make up for it, does not."""
    return config.positions != "relative"


def _over_heads(allowed: Array | None) -> Array | None:
    return None if allowed is None else allowed[:, None, None, :]


def _require_room(what: str, tokens: int, config: Config) -> None:
    if tokens > config.context:
        raise UserError(
            f"encoder_decoder: a {what} of {tokens} tokens does not fit the {config.context} positions; "
            "cut it, or raise context"
        )
