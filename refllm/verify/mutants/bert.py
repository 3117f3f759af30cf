"""Mistakes of BERT: of its input, its encoder, its heads and the losses of its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.feed_forward import ACTIVATIONS
from refllm.blocks.transformer_layer import transformer_layer
from refllm.models import bert
from refllm.objectives.sentence_pair import pair_nll
from refllm.objectives.span import span_nll
from refllm.ops.activation import tanh
from refllm.ops.layer_norm import layer_norm
from refllm.ops.position import add_positions
from refllm.parameters import Tree, map_leaves
from refllm.verify.families import bert as family
from refllm.verify.mutants.autodiff import differentiable
from refllm.verify.mutants.bank import Function, Mutant, planted, with_layers

BERT = bert.__name__
_encode, _transform, _pooled, _pair, _masked = (
    bert.encode, bert.masked_transform, bert.pooled, bert.pair_logits, bert.masked_logits,
)  # fmt: skip
_whole, _pretraining, _spans = bert.whole_gradient, family.pretraining, family.spans


def encoder(change: Callable[..., dict[str, Any]]) -> Function:
    """The encoder with other arguments: change(ids=, segments=, attention_mask=, config=) says which."""

    def changed(p: Tree, **how: Any) -> tuple[Array, Function]:
        return _encode(p, **{**how, **change(**how)})

    return changed


def without(*names: str) -> Function:
    """The encoder without these tables, which then have no gradient."""

    def changed(p: Tree, **how: Any) -> tuple[Array, Function]:
        y, back = _encode({**p, **{name: 0 * p[name] for name in names}}, **how)
        return y, lambda dy: {**(dp := back(dy)), **{name: 0 * dp[name] for name in names}}

    return changed


@differentiable
def _no_norm(x: Any, g: Any, b: Any, *, eps: float) -> Any:
    return x


_IDENTITY = differentiable(lambda x: x * 1.0)


def _with(original: Function, part: Function, instead: Function, within: str) -> Function:
    """A function in whose forward pass alone another one is exchanged."""

    def changed(*arguments: Any, **how: Any) -> Any:
        with planted(Mutant("", part, "", instead, within=within)):
            return original(*arguments, **how)

    return changed


def _without_activation(h: Array, p: Tree, *, config: bert.Config) -> tuple[Array, Function]:
    plain = Mutant("", ACTIVATIONS[config.activation], "", _IDENTITY)
    with planted(plain):
        return _transform(h, p, config=config)


def pooler(change: Callable[[Array], Array], back_change: Callable[[Array, Array], Array]) -> Function:
    """The pooler of other states: change(h), whose gradient back_change(dh, h) puts back."""

    def changed(h: Array, p: Tree) -> tuple[Array, Function]:
        y, back = _pooled(change(h), p)

        def pulled(dy: Array) -> tuple[Array, Tree]:
            dh, dp = back(dy)
            return back_change(dh, h), dp

        return y, pulled

    return changed


def _averaged(dh: Array, h: Array) -> Array:
    return numpy.broadcast_to(dh[:, :1] / h.shape[1], h.shape).astype(h.dtype)


def _no_decoder_bias(h: Array, p: Tree, *, config: bert.Config) -> tuple[Array, Function]:
    without_bias = {**p, "masked": {**p["masked"], "bias": 0 * p["masked"]["bias"]}}
    y, back = _masked(h, without_bias, config=config)

    def pulled(dy: Array) -> tuple[Array, Tree]:
        dh, dp = back(dy)
        return dh, {**dp, "masked": {**dp["masked"], "bias": 0 * dp["masked"]["bias"]}}

    return y, pulled


def _inverted_mask(*, attention_mask: Array | None, **how: Any) -> dict[str, Any]:
    return {"attention_mask": None if attention_mask is None else ~attention_mask}


def whole(keep: Callable[[str, list[Tree]], list[Tree]]) -> Function:
    """The gradients put together from some of their parts."""

    def changed(p: Tree, *parts: Tree) -> Tree:
        found = {}
        for name, child in p.items():
            given = keep(name, [part[name] for part in parts if name in part])
            found[name] = _whole({name: child}, *({name: part} for part in given))[name]
        return found

    return changed


def pretraining(
    *,
    masked: Callable[[Array, int, Array], float] = lambda targets, ignore, ids: 1.0,
    pair: Callable[[Array], float] = lambda pairs: 1.0,
    targets: Callable[[Array, int, Array], Array] = lambda targets, ignore, ids: targets,
) -> Function:
    """The losses of pre-training multiplied by a share, or against other targets."""

    def changed(p: Tree, **how: Any) -> Any:
        told, ignore, ids = how["targets"], how["ignore"], how["ids"]
        (a, b), back, taps = _pretraining(p, **{**how, "targets": targets(told, ignore, ids)})
        s, t = a.dtype.type(masked(told, ignore, ids)), b.dtype.type(pair(how["pairs"]))
        return (a * s, b * t), lambda da, db: back(da * s, db * t), taps

    return changed


def scaled(original: Function, factor: Callable[[Array], float]) -> Function:
    """A loss multiplied by factor(targets)."""

    def changed(p: Tree, *, targets: Array, **how: Any) -> Any:
        y, back, taps = original(p, targets=targets, **how)
        f = y.dtype.type(factor(targets))
        return y * f, lambda dy: back(dy * f), taps

    return changed


def _exchanged_classes(h: Array, p: Tree, *, targets: Array, **how: Any) -> Any:
    return pair_nll(h, p, targets=1 - targets, **how)


def _exchanged_ends(h: Array, p: Tree, *, targets: Array, **how: Any) -> Any:
    return span_nll(h, p, targets=targets[:, ::-1], **how)


def _anywhere(h: Array, p: Tree, *, answer_mask: Array | None, **how: Any) -> Any:
    return span_nll(h, p, answer_mask=None, **how)


def _layer(**fixed: Any) -> Function:
    def changed(x: Array, p: Tree, **how: Any) -> Any:
        return transformer_layer(x, p, **{**how, **fixed})

    return changed


def _next_position(x: Array, P: Array, *, positions: Array) -> Any:
    return add_positions(x, P, positions=(positions + 1) % len(P) if positions.ndim == 1 else positions)


def _other_gelu(activation: str) -> str:
    return {"gelu_erf": "gelu_tanh", "gelu_tanh": "gelu_erf"}.get(activation, activation)


def _divided_by_masked(p: Tree, **how: Any) -> Any:
    masked = int((how["targets"] != how["ignore"]).sum())
    return pretraining(pair=lambda pairs: len(pairs) / masked)(p, **how)


def _without_last_layer(p: Tree, *, config: Any, **how: Any) -> tuple[Array, Function]:
    fewer = with_layers(config, config.layers - 1)
    y, back = _encode({**p, "layers": p["layers"][:-1]}, config=fewer, **how)
    rest = p["layers"][-1:]
    return y, lambda dy: {**(dp := back(dy)), "layers": [*dp["layers"], *map_leaves(numpy.zeros_like, rest)]}


# fmt: off
MUTANTS = [
    Mutant("BERT/no-embedding-norm", bert.encode, "BERT without the norm after its embedding",
           _with(_encode, layer_norm, _no_norm, BERT)),
    Mutant("BERT/no-positions", bert.encode, "BERT without positions", without("position")),
    Mutant("BERT/no-segments", bert.encode, "BERT without segments", without("segment")),
    Mutant("BERT/segments-zero", bert.encode, "BERT with every token in segment 0",
           encoder(lambda segments, **how: {"segments": 0 * segments})),
    Mutant("BERT/segments-exchanged", bert.encode, "BERT with the two segments exchanged",
           encoder(lambda segments, **how: {"segments": 1 - segments})),
    Mutant("BERT/positions-from-one", add_positions, "BERT with positions that count from 1", _next_position,
           within=BERT),
    Mutant("BERT/causal", transformer_layer, "BERT with a causal mask", _layer(causal=True), within=BERT),
    Mutant("BERT/pre-norm", transformer_layer, "BERT with pre-norm layers", _layer(norm="pre"), within=BERT),
    Mutant("BERT/padding-attended", bert.encode, "BERT that attends to padding",
           encoder(lambda **how: {"attention_mask": None})),
    Mutant("BERT/mask-inverted", bert.encode, "BERT that attends to padding alone",
           encoder(_inverted_mask)),
    Mutant("BERT/last-layer-skipped", bert.encode, "BERT without its last layer", _without_last_layer),
    Mutant("BERT/relu", bert.encode, "BERT with ReLU in its feed-forward layers",
           encoder(lambda config, **how: {"config": replace(config, activation="relu")})),
    Mutant("BERT/other-gelu", bert.encode, "BERT with the other of the two GELUs in its feed-forward layers",
           encoder(lambda config, **how: {"config": replace(config, activation=_other_gelu(config.activation))})),
    Mutant("BERT/no-pooler-tanh", tanh, "BERT's pooler without tanh", _IDENTITY, within=BERT),
    Mutant("BERT/pooler-of-last", bert.pooled, "BERT's pooler on the last token instead of [CLS]",
           pooler(lambda h: h[:, ::-1], lambda dh, h: dh[:, ::-1])),
    Mutant("BERT/pooler-of-mean", bert.pooled, "BERT's pooler on the mean over the tokens instead of [CLS]",
           pooler(lambda h: h.mean(axis=1, keepdims=True), _averaged)),
    Mutant("BERT/back-pooler-detached", bert.pooled, "BERT's pooler that passes no gradient to the encoder",
           pooler(lambda h: h, lambda dh, h: 0 * dh)),
    Mutant("MLM/no-norm", bert.masked_transform, "the transform of the masked words without its norm",
           _with(_transform, layer_norm, _no_norm, BERT)),
    Mutant("MLM/no-activation", bert.masked_transform, "the transform of the masked words without its activation",
           _without_activation),
    Mutant("MLM/no-decoder-bias", bert.masked_logits, "the logits of masked words without their bias",
           _no_decoder_bias),
    Mutant("MLM/back-decoder-dropped", bert.whole_gradient, "a tied decoder of masked words that gives the embedding "
           "no gradient", whole(lambda name, given: given[:1] if name == "token" else given)),
    Mutant("MLM/back-embedding-dropped", bert.whole_gradient, "a tied decoder of masked words whose gradient "
           "overwrites the embedding's", whole(lambda name, given: given[-1:] if name == "token" else given)),
    Mutant("MLM/all-places", family.pretraining, "the loss of masked words over all places, not the masked ones alone",
           pretraining(targets=lambda targets, ignore, ids: numpy.where(targets == ignore, ids, targets))),
    Mutant("MLM/mean-over-all", family.pretraining, "the loss of masked words averaged over all places",
           pretraining(masked=lambda targets, ignore, ids: (targets != ignore).mean())),
    Mutant("MLM/sum", family.pretraining, "the loss of masked words summed instead of averaged",
           pretraining(masked=lambda targets, ignore, ids: (targets != ignore).sum())),
    Mutant("MLM/mean-over-texts", family.pretraining, "the loss of masked words summed and divided by the texts",
           pretraining(masked=lambda targets, ignore, ids: (targets != ignore).sum() / len(ids))),
    Mutant("MLM/corrupted-words", family.pretraining, "the loss of masked words against the words of the corrupted "
           "text", pretraining(targets=lambda targets, ignore, ids: numpy.where(targets == ignore, ignore, ids))),
    Mutant("NSP/classes-exchanged", pair_nll, "the loss of the pair with its two classes exchanged",
           _exchanged_classes),
    Mutant("NSP/sum", family.pretraining, "the loss of the pair summed over the texts",
           pretraining(pair=len)),
    Mutant("NSP/mean-over-masked", family.pretraining, "the loss of the pair divided by the number of masked places",
           _divided_by_masked),
    Mutant("TASKS/span-sum", family.spans, "the loss of an answer as the sum of start and end, not their mean",
           scaled(_spans, lambda targets: 2.0)),
    Mutant("TASKS/span-exchanged", span_nll, "the loss of an answer with start and end exchanged", _exchanged_ends),
    Mutant("TASKS/span-anywhere", span_nll, "the loss of an answer over every place, possible or not", _anywhere),
]
