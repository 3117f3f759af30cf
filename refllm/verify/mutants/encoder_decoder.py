"""Mistakes of the encoder-decoder: of reading a source, of its two halves, of its loss, and of translating."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.decoder_layer import decoder_layer
from refllm.blocks.lm_head import smoothed_lm_loss
from refllm.blocks.relative_self_attention import relative_self_attention
from refllm.blocks.stack import distance_bias, maybe_norm, stack_embedding, stack_positions
from refllm.generation.sequence import write
from refllm.models import encoder_decoder as model
from refllm.objectives.denoising import denoising_loss
from refllm.objectives.seq2seq import shifted_right
from refllm.ops.relative import t5_bias_bidirectional, t5_bias_causal
from refllm.parameters import Tree, map_leaves
from refllm.verify.families import encoder_decoder as family
from refllm.verify.mutants.autodiff import Node, differentiable
from refllm.verify.mutants.bank import Function, Mutant, planted, with_layers
from refllm.verify.mutants.loss import pick
from refllm.verify.mutants.softmax import log_share

MODEL, STACK = model.__name__, stack_embedding.__module__
_decode, _encode, _seq2seq = model.decode, model.encode, family.seq2seq_loss  # theirs, not what is planted


def half(original: Function, change: Callable[..., dict[str, Any]]) -> Function:
    """The encoder, or the decoder, with other keyword arguments."""

    def changed(*arguments: Any, **how: Any) -> Any:
        return original(*arguments, **{**how, **change(**how)})

    return changed


def layer(**fixed: Any) -> Function:
    """Self-attention with fixed keyword arguments."""

    def changed(x: Array, r: Array | None, p: Tree, **how: Any) -> Any:
        return relative_self_attention(x, r, p, **{**how, **fixed})

    return changed


def configured(original: Function, **fields: Any) -> Function:
    """A part of the model under another configuration."""

    def changed(*arguments: Any, config: model.Config, **how: Any) -> Any:
        return original(*arguments, config=replace(config, **fields), **how)

    return changed


def unnormalised(*names: str, only: str = "") -> Function:
    """The model without its norms of these names, which then have no gradient."""

    def changed(x: Array, stack: Tree, *, name: str, eps: float) -> Any:
        if name not in names or name not in stack or (only == "encoder" and "cross_attention" in stack["layers"][0]):
            return maybe_norm(x, stack, name=name, eps=eps)
        return x, lambda dy: (dy, {name: map_leaves(numpy.zeros_like, stack[name])})

    return changed


def scaled(factor: Callable[[int], float]) -> Function:
    """The embedding multiplied by factor(C)."""

    def changed(token: Array, stack: Tree, *, scale: float, **how: Any) -> Any:
        return stack_embedding(token, stack, scale=factor(token.shape[1]), **how)

    return changed


def _positions_from_one(x: Array, stack: Tree, *, positions: Array, waves: bool) -> Any:
    places = len(stack["position"]) if "position" in stack else len(positions) + 1
    return stack_positions(x, stack, positions=(positions + 1) % places, waves=waves)


def biased(
    r: Callable[[Array], Array] = lambda r: r, drs: Callable[[list[Any]], list[Any]] = lambda drs: drs
) -> Function:
    """The bias by distance changed, or its gradient."""

    def changed(stack: Tree, **how: Any) -> Any:
        right, back = distance_bias(stack, **how)
        return (None if right is None else r(right)), lambda given: back(drs(given))

    return changed


def _last_layer_reads(p: Tree, memory: Array, **how: Any) -> Any:
    """The memory has the gradient of the last decoder layer alone."""
    count: list[int] = []

    def changed(x: Array, memory: Array, r: Array | None, p: Tree, **layer_how: Any) -> Any:
        y, back = decoder_layer(x, memory, r, p, **layer_how)
        own = len(count)
        count.append(own)

        def pulled(dy: Array) -> Any:
            dx, dmemory, dr, dp = back(dy)
            return dx, dmemory if own == len(count) - 1 else 0 * dmemory, dr, dp

        return y, pulled

    with planted(Mutant("", decoder_layer, "", changed, within=MODEL)):
        return _decode(p, memory, **how)


def _memory_without_gradient(p: Tree, memory: Array, **how: Any) -> Any:
    y, back = _decode(p, memory, **how)

    def pulled(dy: Array) -> Any:
        dp, dmemory = back(dy)
        return dp, 0 * dmemory

    return y, pulled


def _without_last_layer(p: Tree, *, config: model.Config, **how: Any) -> Any:
    stack, fewer = p["encoder"], with_layers(config, config.encoder_layers - 1, "encoder_layers")
    y, back = _encode({**p, "encoder": {**stack, "layers": stack["layers"][:-1]}}, config=fewer, **how)

    def pulled(dy: Array) -> Any:
        dp = back(dy)
        missing = map_leaves(numpy.zeros_like, stack["layers"][-1:])
        return {**dp, "encoder": {**dp["encoder"], "layers": [*dp["encoder"]["layers"], *missing]}}

    return y, pulled


def _head_dropped(dp: Tree, dhead: Array, config: model.Config) -> Tree:
    return dp if config.tied else {**dp, "head": dhead}


def smoothed(loss: Callable[[Node, Node, float, Array], Node]) -> Function:
    """The loss with smoothing, loss(log p of every word, log p of the target, smoothing, counted)."""

    @differentiable
    def changed(h: Node, W: Node, *, targets: Array, ignore: int | None, smoothing: float) -> Node:
        log_p = log_share(h @ W)
        counted = numpy.ones(targets.shape, bool) if ignore is None else targets != ignore
        told = pick(log_p, numpy.where(counted, targets, 0))
        return -loss(log_p, told, smoothing, counted.astype(h.value.dtype)).sum(None, keepdims=False)

    return changed


def _smoothed_padding(log_p: Node, told: Node, e: float, counted: Array) -> Node:
    return (1 - e) * told * counted + e * log_p.mean(keepdims=False)


def shared(share: Callable[[Array, int], float]) -> Function:
    """The loss of a target multiplied by a share."""

    def changed(p: Tree, *, targets: Array, ignore: int, **how: Any) -> Any:
        y, back = _seq2seq(p, targets=targets, ignore=ignore, **how)
        s = y.dtype.type(share(targets, ignore))
        return y * s, lambda dy: back(dy * s)

    return changed


def _shifted_twice(targets: Array, *, start: int, ignore: int) -> Array:
    return shifted_right(shifted_right(targets, start=start, ignore=ignore), start=start, ignore=ignore)


def _counting(change: Callable[[Array], Array]) -> Function:
    def changed(p: Tree, *, counted: Array, **how: Any) -> Any:
        return denoising_loss(p, counted=change(counted), **how)

    return changed


def written(**fixed: Any) -> Function:
    """Writing with fixed keyword arguments."""

    def changed(writer: Any, **how: Any) -> Any:
        return write(writer, **{**how, **fixed})

    return changed


def _from_zero(writer: Any, *, ids: Array, **how: Any) -> Any:
    return write(writer, ids=0 * ids, **how)


def _mask_forgotten(p: Tree, memory: Array, *, cache: Any, memory_mask: Array | None, **how: Any) -> Any:
    return _decode(p, memory, cache=cache, memory_mask=None if cache is not None else memory_mask, **how)


# fmt: off
MUTANTS = [
    Mutant("ENCDEC/decoder-not-causal", relative_self_attention, "a decoder whose self-attention is not causal",
           layer(causal=False), within="refllm.blocks.decoder_layer"),
    Mutant("ENCDEC/encoder-causal", relative_self_attention, "an encoder with a causal mask",
           layer(causal=True), within="refllm.blocks.encoder_layer"),
    Mutant("ENCDEC/source-padding-attended", relative_self_attention, "an encoder that attends to padding",
           layer(attention_mask=None), within="refllm.blocks.encoder_layer"),
    Mutant("ENCDEC/memory-padding-read", model.decode, "a decoder that reads the padding of the source",
           half(_decode, lambda **how: {"memory_mask": None})),
    Mutant("ENCDEC/last-encoder-layer-skipped", model.encode, "an encoder without its last layer",
           _without_last_layer),
    Mutant("ENCDEC/embedding-unscaled", stack_embedding, "an encoder-decoder whose embedding is not multiplied by √C",
           scaled(lambda C: 1.0)),
    Mutant("ENCDEC/embedding-scaled", stack_embedding, "an encoder-decoder whose embedding is multiplied by √C where "
           "it should not be", scaled(math.sqrt)),
    Mutant("ENCDEC/no-embedding-norm", maybe_norm, "BART without the norm after its embedding",
           unnormalised("embedding_norm")),
    Mutant("ENCDEC/no-encoder-norm", maybe_norm, "a pre-norm encoder without its last norm",
           unnormalised("norm", only="encoder")),
    Mutant("ENCDEC/no-last-norms", maybe_norm, "a pre-norm encoder-decoder without the last norm of both halves",
           unnormalised("norm")),
    Mutant("ENCDEC/positions-from-one", stack_positions, "an encoder-decoder whose positions count from 1",
           _positions_from_one),
    Mutant("ENCDEC/t5-attention-scaled", model._scaled, "T5 with attention divided by √d_k", lambda config: True),
    Mutant("ENCDEC/t5-head-unscaled", model.decode, "T5 without the 1/√C before its tied head",
           configured(_decode, scaled_output=False)),
    Mutant("ENCDEC/t5-head-scaled", model.decode, "an encoder-decoder with T5's 1/√C before a head that has none",
           configured(_decode, scaled_output=True)),
    Mutant("ENCDEC/t5-no-bias", distance_bias, "T5 without the bias by distance",
           biased(r=lambda r: 0 * r, drs=lambda drs: [0 * d for d in drs])),
    Mutant("ENCDEC/t5-decoder-bidirectional", t5_bias_causal, "T5's decoder with the buckets of its encoder",
           t5_bias_bidirectional, within=STACK),
    Mutant("ENCDEC/t5-encoder-causal", t5_bias_bidirectional, "T5's encoder with the buckets of its decoder",
           t5_bias_causal, within=STACK),
    Mutant("ENCDEC/back-bias-of-first-layer", distance_bias, "T5 whose bias by distance has the gradient of one "
           "layer alone", biased(drs=lambda drs: drs[:1])),
    Mutant("ENCDEC/back-memory-last-layer", model.decode, "a memory with the gradient of the last decoder layer alone",
           _last_layer_reads),
    Mutant("ENCDEC/back-memory-dropped", model.decode, "an encoder that gets no gradient from the decoder",
           _memory_without_gradient),
    Mutant("ENCDEC/back-tied-head-dropped", model.add_head_gradient, "an encoder-decoder whose tied head gives the "
           "embedding no gradient", _head_dropped, within=MODEL),
    Mutant("ENCDEC/targets-not-shifted", shifted_right, "a decoder that reads the targets that it is to predict",
           lambda targets, *, start, ignore: numpy.where(targets == ignore, start, targets)),
    Mutant("ENCDEC/targets-shifted-twice", shifted_right, "a decoder whose input is shifted by two places",
           _shifted_twice),
    Mutant("ENCDEC/start-is-zero", shifted_right, "a decoder that begins with token 0 instead of the start token",
           lambda targets, *, start, ignore: shifted_right(targets, start=0, ignore=ignore)),
    Mutant("ENCDEC/smoothing-on-padding", smoothed_lm_loss, "label smoothing that ignored targets have a share of too",
           smoothed(_smoothed_padding)),
    Mutant("ENCDEC/smoothing-ignored", smoothed_lm_loss, "a loss without label smoothing",
           smoothed(lambda log_p, told, e, counted: told * counted)),
    Mutant("ENCDEC/loss-over-all", family.seq2seq_loss, "the loss of a target averaged over ignored places too",
           shared(lambda targets, ignore: (targets != ignore).mean())),
    Mutant("ENCDEC/loss-over-texts", family.seq2seq_loss, "the loss of a target summed and divided by the texts",
           shared(lambda targets, ignore: (targets != ignore).sum() / len(targets))),
    Mutant("DAE/counts-all", denoising_loss, "denoising that counts every place, corrupted or not",
           _counting(numpy.ones_like)),
    Mutant("DAE/counts-the-others", denoising_loss, "denoising that counts the places that were not corrupted",
           _counting(numpy.invert)),
    Mutant("GEN/memory-mask-forgotten", model.decode, "translating without the mask of the source",
           _mask_forgotten, "https://github.com/speechbrain/speechbrain/issues/1107"),
    Mutant("GEN/end-ignored", write, "writing that goes on behind the end token", written(end=None)),
    Mutant("GEN/starts-with-zero", write, "translating that begins with token 0 instead of the start token",
           _from_zero),
]
