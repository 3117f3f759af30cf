"""BERT: a Transformer encoder that sees both sides of every token, and a head for each thing that is asked of it.

    e  = LN(token[ids] + position + segment[segments])     (B, T, C)
    h  = layer_L( ... layer_1(e))                          post-norm; attention over all tokens but the padding
    "masked"   softmax(LN(f(h W + b)) tokenᵀ + bias)       which word stood at a masked place
    "pair"     tanh(h_[CLS] W + b), then two classes       whether b follows a (NSP), or comes first (SOP)
    "classes"  the same pooled state, then `labels`        what a text is
    "span"     h W + b, two columns                        where an answer starts and where it ends

`encode` gives h; a function a head takes h on from there. Each pullback gives the gradients of the parameters that it
has used, and `whole_gradient` puts them together.

Source: Devlin et al. 2019 (N19-1423, arXiv:1810.04805) sec. 3, 4.1, 4.2 and A.2; documents 000 sec. 3.2, 4.2.
What differs from the published code: no dropout on the attention weights, initial weights that are normal without
being cut at two deviations. f is `gelu_erf`, as in the first release of that code; `gelu_tanh`, which the code has had
since, is a choice here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from refllm.backend import Array, namespace
from refllm.blocks.feed_forward import ACTIVATIONS
from refllm.blocks.layers import through
from refllm.blocks.residual import maybe_dropout, norm_shapes
from refllm.blocks.transformer_layer import transformer_layer, transformer_layer_shapes
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.kinds import settle_fields
from refllm.models.bert_heads import class_logits, pair_logits, pooled, span_logits
from refllm.models.checks import (
    require_draws,
    require_dropout,
    require_heads_divide_width,
    require_one_of,
    require_parameters,
    require_positive,
    require_whole,
)
from refllm.ops.embedding import embedding
from refllm.ops.layer_norm import layer_norm
from refllm.ops.linear import linear
from refllm.ops.position import add_positions
from refllm.parameters import NamedLeaf, Tree, branch, from_names, map_leaves, named_leaves

__all__ = [
    "CHOICES", "OUTPUTS", "PAIR_CLASSES", "Config", "class_logits", "dropout_widths", "encode", "initial",
    "initial_leaves", "masked_logits", "masked_transform", "pair_logits", "pooled", "shapes", "span_logits",
    "whole_gradient",
]  # fmt: skip

OUTPUTS = ("masked", "pair", "classes", "span")
PAIR_CLASSES = 2


@dataclass(frozen=True)
class Config:
    """The architecture. Letters as in the glossary: V, context S, L, H, C, F. `outputs` names its heads; a published
    encoder may be without a `pooler`."""

    vocabulary: int
    context: int
    layers: int
    heads: int
    width: int
    hidden: int
    segments: int = 2
    activation: str = "gelu_erf"
    dropout: float = 0.0
    eps: float = 1e-12
    outputs: tuple[str, ...] = ("masked", "pair")
    labels: int = 2
    pooler: bool = True

    def __post_init__(self) -> None:
        settle_fields(self)
        require_whole(self, "vocabulary", "context", "layers", "heads", "width", "hidden", "segments", "labels")
        require_heads_divide_width(self)
        require_dropout(self)
        require_positive(self, "eps")
        require_one_of(self, "activation", ACTIVATIONS)
        object.__setattr__(self, "outputs", tuple(self.outputs))  # JSON brings a list
        if set(self.outputs) - set(OUTPUTS) or len(set(self.outputs)) < len(self.outputs):
            raise UserError(f"outputs must be different ones of {', '.join(OUTPUTS)}; got {', '.join(self.outputs)}")
        if not self.pooler and {"pair", "classes"} & set(self.outputs):
            raise UserError("pair and classes are read from the pooled state; say pooler=True, or leave them out")

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "outputs": list(self.outputs)}


CHOICES = ("context", "layers", "heads", "width", "hidden", "activation", "dropout")  # a user's to make


def shapes(config: Config) -> Tree:
    """The structure of the parameters, stated once for the initialiser, the loader and the tests."""
    V, C = config.vocabulary, config.width
    heads: Tree = {
        "masked": {**_linear_shapes(C, C), "norm": norm_shapes(C), "bias": (V,)},  # its decoder is tokenᵀ
        "pair": _linear_shapes(C, PAIR_CLASSES),
        "classes": _linear_shapes(C, config.labels),
        "span": _linear_shapes(C, 2),
    }
    return {
        "token": (V, C),
        "position": (config.context, C),
        "segment": (config.segments, C),
        "norm": norm_shapes(C),
        "layers": [transformer_layer_shapes(C, config.hidden) for _ in range(config.layers)],
        **({"pooler": _linear_shapes(C, C)} if config.pooler else {}),
        **{name: heads[name] for name in OUTPUTS if name in config.outputs},
    }


def _linear_shapes(inputs: int, outputs: int) -> Tree:
    return {"W": (inputs, outputs), "b": (outputs,)}


def initial(config: Config, generator: Any) -> Tree:
    """Initial parameters, as `initial_leaves` draws them."""
    return from_names(shapes(config), dict(initial_leaves(config, generator)))


def initial_leaves(config: Config, generator: Any) -> Iterator[NamedLeaf]:
    """Initial float64 host arrays by path: gains 1, biases 0, matrices normal with deviation 0.02 √(768 / C).

    At the width of "base" the deviation is the published 0.02 (Devlin et al. 2019, code); with the root the size of
    what a matrix puts out does not shrink with the width.
    """
    normal = 0.02 * math.sqrt(768 / config.width)
    for path, shape in named_leaves(shapes(config)):
        deviation = normal if len(shape) > 1 else 0.0
        yield path, (1.0 if path.endswith(".g") else 0.0) + deviation * generator.standard_normal(shape)


@differentiable
def encode(
    p: Tree,
    *,
    ids: Array,
    segments: Array,
    attention_mask: Array | None,
    config: Config,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """BERT: the hidden states of all tokens

    Source:  Devlin et al. 2019 sec. 3 and fig. 2; documents 000 sec. 4.2.
    Shapes:  ids (B, T) in [0, V); segments (B, T) in [0, segments); attention_mask bool (B, 1, 1, T), or None -> y (B,
             T, C)
    Draws:   as `dropout_widths` says, bool (B, T, C)
    Back:    the layers' pullbacks in reverse; gives "token", "position", "segment", "norm" and "layers".
    Special: `attention_mask` is false at the padding. What stands there does not reach the text; the states at the
             padding mean nothing.
    Raises:  UserError if the tokens outgrow the context.

    >>> config = Config(vocabulary=5, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p, ids = initial(config, np.random.default_rng(0)), array([[1, 2, 3]])
    >>> seen = array([[[[True, True, False]]]])
    >>> how = {"segments": 0 * ids, "attention_mask": seen, "config": config, "dropout_mask": None}
    >>> y, z = (encode(p, ids=x, **how)[0] for x in (ids, array([[1, 2, 4]])))
    >>> y.shape, bool((y[:, :2] == z[:, :2]).all())  # padding does not reach the text
    ((1, 3, 2), True)
    """
    require_parameters("bert", p, config, shapes)
    require_draws("bert", dropout_mask, dropout_widths, config)
    T = ids.shape[1]
    if T > config.context:
        raise UserError(f"bert: {T} tokens do not fit the {config.context} positions; cut the text, or raise context")
    rate = config.dropout
    words, back_token = embedding(p["token"], ids=ids)  # (B, T, C)
    placed, back_position = add_positions(words, p["position"], positions=namespace(ids).arange(T))
    e, back_segment = add_positions(placed, p["segment"], positions=segments)  # a row of a table for each token, too
    n, back_norm = layer_norm(e, **p["norm"], eps=config.eps)
    x, back_drop = maybe_dropout(n, dropout_mask=branch(dropout_mask, "embedding"), rate=rate)

    def layer(x: Array, of_layer: Tree, i: int) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
        return transformer_layer(
            x, of_layer, norm="post", heads=config.heads, causal=False, attention_mask=attention_mask,
            activation=config.activation, eps=config.eps, dropout_mask=branch(dropout_mask, "layers", i), rate=rate,
            cache=None,
        )  # fmt: skip

    y, back_layers = through(x, p["layers"], layer)

    def back(dy: Array) -> Tree:
        dx, dlayers = back_layers(dy)
        de, dg, db = back_norm(back_drop(dx))
        dplaced, dsegment = back_segment(de)
        dwords, dposition = back_position(dplaced)
        return {
            "token": back_token(dwords),
            "position": dposition,
            "segment": dsegment,
            "norm": {"g": dg, "b": db},
            "layers": dlayers,
        }

    return y, back


def dropout_widths(config: Config) -> Tree:
    """The widths of the draws (B, T, width) that `encode` takes: after the embedding, and for each sublayer."""
    layer = dict.fromkeys(("attention", "feed_forward"), config.width)
    return {"embedding": config.width, "layers": [layer] * config.layers}


@differentiable
def masked_transform(h: Array, p: Tree, *, config: Config) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """MLM: t = LN(f(h W + b)), what the decoder tokenᵀ and its bias make logits of

    Source:  Devlin et al. 2019, code (the transform before the output); documents 000 sec. 3.2.
    Shapes:  h (..., C); masked.W (C, C); masked.b (C,); masked.norm.g (C,); masked.norm.b (C,); masked.bias (V,)
             -> t (..., C)
    Back:    gives dh and the gradients of W, b and the norm of "masked"; `bias` belongs to the decoder.

    >>> config = Config(vocabulary=5, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p = map_leaves(zeros, shapes(config))
    >>> p["masked"]["norm"]["b"] = array([1.0, 2.0])  # all else is zero, and the norm's shift remains
    >>> masked_transform(ones((1, 2)), p, config=config)[0].tolist()
    [[1.0, 2.0]]
    """
    q = p["masked"]
    z, back_linear = linear(h, q["W"], q["b"])
    a, back_f = ACTIVATIONS[config.activation](z)
    t, back_norm = layer_norm(a, **q["norm"], eps=config.eps)

    def back(dt: Array) -> tuple[Array, Tree]:
        da, dg, db = back_norm(dt)
        dh, dW, dbias = back_linear(back_f(da))
        return dh, {"W": dW, "b": dbias, "norm": {"g": dg, "b": db}}

    return t, back


@differentiable
def masked_logits(h: Array, p: Tree, *, config: Config) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """MLM: logits of the word at each of some places, t tokenᵀ + bias

    Source:  Devlin et al. 2019 sec. 3.1; Press & Wolf 2017 (arXiv:1608.05859) for the tie; documents 004 sec. 4.3.
    Shapes:  h (..., C); p tree; token (V, C); masked.W (C, C); masked.b (C,); masked.norm.g (C,); masked.norm.b (C,);
             masked.bias (V,) -> y (..., V)
    Back:    gives dh and the gradients of "token" and "masked".

    >>> config = Config(vocabulary=3, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p = map_leaves(zeros, shapes(config))
    >>> p["masked"]["bias"] = array([1.0, 2.0, 3.0])
    >>> masked_logits(ones((1, 2)), p, config=config)[0].tolist()
    [[1.0, 2.0, 3.0]]
    """
    t, back_transform = masked_transform(h, p, config=config)
    y, back_decoder = linear(t, p["token"].T, p["masked"]["bias"])

    def back(dy: Array) -> tuple[Array, Tree]:
        dt, dW, dbias = back_decoder(dy)
        dh, dmasked = back_transform(dt)
        return dh, {"token": dW.T, "masked": {**dmasked, "bias": dbias}}

    return y, back


def whole_gradient(p: Tree, *parts: Tree) -> Tree:
    """The gradient of every parameter: the sum of the parts that the pullbacks gave, zeros where none gave one.

    The token table is used twice, as embedding and as the decoder of "masked", and sums its two gradients.
    """
    whole = {}
    for name, child in p.items():
        given = [part[name] for part in parts if name in part] or [map_leaves(_zeros, child)]
        whole[name] = map_leaves(lambda first, *others: sum(others, start=first), *given)
    return whole


def _zeros(leaf: Array) -> Array:
    return namespace(leaf).zeros_like(leaf)
