"""Mistakes of putting a model together, of its loss and of training it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.models.gpt import Config, add_head_gradient, forward, hidden_states
from refllm.ops.layer_norm import layer_norm
from refllm.ops.softmax import softmax
from refllm.parameters import Tree, is_decayed, map_leaves
from refllm.verify import reference
from refllm.verify.mutants.autodiff import Node, differentiable, exp
from refllm.verify.mutants.bank import Function, Mutant, planted, with_layers
from refllm.verify.mutants.loss import pick
from refllm.verify.mutants.softmax import log_share

GPT = "refllm.models.gpt"
_loss, _train, _train_step = reference.loss, reference.train, reference.train_step  # theirs, not what is planted


@differentiable
def _no_norm(x: Node, g: Node, b: Node, *, eps: float) -> Node:
    return x


def layers(order: Callable[[list[int]], list[int]], states: Function = hidden_states) -> Function:
    """A model's states, a GPT's, from layers that are those of other numbers: order([0, 1, ...])."""

    def changed(p: Tree, *, config: Any, **how: Any) -> tuple[Array, Function]:
        chosen = order(list(range(len(p["layers"]))))
        fewer = with_layers(config, len(chosen))
        y, back = states({**p, "layers": [p["layers"][i] for i in chosen]}, config=fewer, **how)

        def collected(dy: Array) -> Tree:
            dp = back(dy)
            found = map_leaves(numpy.zeros_like, p["layers"])
            for i, d in zip(chosen, dp["layers"], strict=True):
                found[i] = map_leaves(numpy.add, found[i], d)
            return {**dp, "layers": found}

        return y, collected

    return changed


def tied(use: Callable[[Array, Array], Array]) -> Function:
    """A tied head whose gradient is joined to the embedding's in another way."""

    def changed(dp: Tree, dhead: Array, config: Config) -> Tree:
        return {**dp, "token": use(dp["token"], dhead.T)} if config.tied else add_head_gradient(dp, dhead, config)

    return changed


def tables_scaled(*names: str, power: float) -> Function:
    """A model that multiplies these tables by C^power more, where the embedding is to be scaled."""

    def changed(p: Tree, *, config: Config, **how: Any) -> tuple[Array, Function]:
        factors = {n: config.width**power for n in names if config.scaled_embedding and n in p}
        y, back = hidden_states({**p, **{n: p[n] * by for n, by in factors.items()}}, config=config, **how)

        def scaled(dy: Array) -> Tree:
            dp = back(dy)
            return {**dp, **{n: dp[n] * by for n, by in factors.items()}}

        return y, scaled

    return changed


def _probabilities(p: Tree, **how: Any) -> tuple[Array, Function]:
    z, back = forward(p, **how)
    y, back_softmax = softmax(z)
    return y, lambda dy: back(back_softmax(dy))


def loss(share: Callable[[Array, int | None], float]) -> Function:
    """The loss with its sum multiplied by share(targets, ignore)."""

    def changed(p: Tree, *, targets: Array, ignore: int | None, **how: Any) -> tuple[Array, Function, Tree]:
        y, back, taps = _loss(p, targets=targets, ignore=ignore, **how)
        factor = share(targets, ignore) * max(1, _count(targets, ignore))
        return y * factor, lambda dy: back(dy * factor), taps

    return changed


def _count(targets: Array, ignore: int | None) -> int:
    return targets.size if ignore is None else int((targets != ignore).sum())


def targets_as(change: Callable[[Array, Array], Array]) -> Function:
    """The loss against other targets: change(ids, targets)."""

    def changed(p: Tree, *, ids: Array, targets: Array, **how: Any) -> tuple[Array, Function, Tree]:
        return _loss(p, ids=ids, targets=change(ids, targets), **how)

    return changed


def sentence(f: Callable[[Node, Array], Node]) -> Function:
    """A sentence's log probability, or a perplexity, as f(log p of its tokens (..., T))."""
    return differentiable(lambda logits, *, ids: f(pick(log_share(logits), ids), ids))


@differentiable
def _product(logits: Node, *, ids: Array) -> Node:
    """The product, not a sum of logarithms, which is taken of the product at last."""
    p = pick(exp(log_share(logits)), ids)
    value = p.value.prod(axis=-1)
    return Node(numpy.log(value), (p, lambda d: d[..., None] * value[..., None] / p.value / value[..., None]))


def training(
    step: Callable[[int], int] = lambda step: step,
    moments: Callable[[Tree], Tree] = lambda m: m,
    order: Callable[[int, int], int] = lambda n, batches: n,
) -> Function:
    """The loop of training with another step number, other moments before a step, or another batch."""

    def changed(
        p: Tree, m: Tree, v: Tree, *, ids: Array, targets: Array, first: int, **how: Any
    ) -> tuple[Array, Array, Tree, Tree, Tree]:
        losses, norms = [], []
        for n in range(len(ids)):
            i = order(n, len(ids))
            (y, norm, p, m, v), *_ = _train_step(
                p, moments(m), moments(v), ids=ids[i], targets=targets[i], step=step(first + n), **how
            )
            losses.append(y)
            norms.append(norm)
        return numpy.array(losses), numpy.array(norms), p, m, v

    return changed


def _never_zeroed(p: Tree, m: Tree, v: Tree, *, ids: Array, targets: Array, first: int, **how: Any) -> Any:
    """Gradients add up from step to step."""
    gradient: list[Tree] = []

    def accumulating(p: Tree, **loss_how: Any) -> tuple[Array, Function, Tree]:
        y, back, taps = _loss(p, **loss_how)

        def summed(dy: Array) -> Tree:
            new = back(dy)
            gradient[:] = [map_leaves(numpy.add, gradient[0], new) if gradient else new]
            return gradient[0]

        return y, summed, taps

    with planted(Mutant("", _loss, "", accumulating)):
        return _train(p, m, v, ids=ids, targets=targets, first=first, **how)


def _clipped_after(p: Tree, m: Tree, v: Tree, *, clip: float | None, **how: Any) -> Any:
    """The norm limits the step of the parameters instead of the gradient."""
    (y, norm, new, m, v), _, taps = _train_step(p, m, v, clip=None, **how)
    factor = 1.0 if clip is None else min(1.0, clip / float(norm))
    return (y, norm, map_leaves(lambda a, b: a + factor * (b - a), p, new), m, v), None, taps


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Mutant("LMHEAD/no-final-norm", layer_norm, "a model without the norm before its head", _no_norm, within=GPT),
    Mutant("LMHEAD/shared-layers", hidden_states, "a model whose layers all have the parameters of the first",
           layers(lambda i: [0 for _ in i])),
    Mutant("LMHEAD/layers-reversed", hidden_states, "a model with its layers in reverse", layers(lambda i: i[::-1])),
    Mutant("LMHEAD/last-layer-skipped", hidden_states, "a model without its last layer", layers(lambda i: i[:-1])),
    Mutant("LMHEAD/embedding-not-scaled", hidden_states, "a model that does not multiply its embedding by √C",
           tables_scaled("token", power=-0.5)),
    Mutant("LMHEAD/embedding-scaled-by-width", hidden_states, "a model that multiplies its embedding by C, not by √C",
           tables_scaled("token", power=0.5)),
    Mutant("LMHEAD/positions-scaled", hidden_states, "a model that multiplies its positions by √C with the embedding",
           tables_scaled("position", power=0.5)),
    Mutant("LMHEAD/probabilities", forward, "a model that returns probabilities where logits are asked for",
           _probabilities),
    Mutant("LMHEAD/back-tied-head-dropped", add_head_gradient, "a tied head that gives the embedding no gradient",
           tied(lambda embedding, head: embedding), within=GPT),
    Mutant("LMHEAD/back-tied-embedding-dropped", add_head_gradient, "a tied head whose gradient overwrites the "
           "embedding's", tied(lambda embedding, head: head), within=GPT),
    Mutant("LMHEAD/back-tied-mean", add_head_gradient, "a tied matrix with the mean of its two gradients, not the sum",
           tied(lambda embedding, head: (embedding + head) / 2), within=GPT),
    Mutant("NLL/sum", reference.loss, "the loss summed over the tokens instead of averaged",
           loss(lambda targets, ignore: 1.0)),
    Mutant("NLL/mean-over-all", reference.loss, "the loss averaged over all tokens, ignored ones too",
           loss(lambda targets, ignore: 1 / targets.size), G + "huggingface/transformers/issues/24725"),
    Mutant("NLL/mean-over-sentences", reference.loss, "the loss summed over the tokens, averaged over the sentences",
           loss(lambda targets, ignore: 1 / len(targets))),
    Mutant("NLL/targets-not-shifted", reference.loss, "the loss of predicting the token that was read",
           targets_as(lambda ids, targets: ids), G + "huggingface/transformers/issues/27517"),
    Mutant("NLL/targets-shifted-twice", reference.loss, "the loss against the target of the next place: shifted twice",
           targets_as(lambda ids, targets: numpy.roll(targets, -1, axis=-1)),
           G + "huggingface/transformers/pull/47395"),
    Mutant("CHAIN/mean", reference.chain_rule, "the mean instead of the sum of a sentence's log-probabilities",
           sentence(lambda log_p, ids: log_p.mean(keepdims=False))),
    Mutant("CHAIN/negative", reference.chain_rule, "the sentence's log-probability with its sign turned",
           sentence(lambda log_p, ids: -log_p.sum(keepdims=False))),
    Mutant("CHAIN/without-first", reference.chain_rule, "the sentence's log-probability without its first prediction",
           sentence(lambda log_p, ids: log_p[..., 1:].sum(keepdims=False))),
    Mutant("CHAIN/base-two", reference.chain_rule, "the sentence's log-probability in bits",
           sentence(lambda log_p, ids: log_p.sum(keepdims=False) / math.log(2))),
    Mutant("CHAIN/log-of-product", reference.chain_rule, "the logarithm of the product of probabilities: it underflows",
           _product, dtype="float32"),
    Mutant("PPL/not-averaged", reference.perplexity, "perplexity without the mean: exp of the whole loss",
           sentence(lambda log_p, ids: exp(-log_p.sum(None, keepdims=False)))),
    Mutant("PPL/base-two", reference.perplexity, "perplexity as a power of 2 of the loss in nats",
           sentence(lambda log_p, ids: exp(-log_p.mean(None, keepdims=False) * math.log(2)))),
    Mutant("PPL/loss", reference.perplexity, "the mean loss instead of its exponential",
           sentence(lambda log_p, ids: -log_p.mean(None, keepdims=False))),
    Mutant("PPL/inverse", reference.perplexity, "the inverse of the perplexity",
           sentence(lambda log_p, ids: exp(log_p.mean(None, keepdims=False)))),
    Mutant("PPL/mean-of-sentences", reference.perplexity, "the mean of the sentences' perplexities",
           sentence(lambda log_p, ids: exp(-log_p.mean(keepdims=False)).mean(None, keepdims=False)),
           G + "lisa-lab/pylearn2/issues/1383"),
    Mutant("PPL/mean-of-tokens", reference.perplexity, "the mean of 1 / p over the tokens",
           sentence(lambda log_p, ids: exp(-log_p).mean(None, keepdims=False)), G + "magenta/magenta/pull/239"),
    Mutant("ADAMW/decay-on-all", is_decayed, "training that decays biases and norms too", lambda shape: True,
           G + "huggingface/transformers/issues/4360"),
    Mutant("ADAMW/decay-on-none", is_decayed, "training that decays nothing", lambda shape: False),
    Mutant("ADAMW/decay-on-vectors", is_decayed, "training that decays biases and norms alone",
           lambda shape: len(shape) < 2),
    Mutant("ADAMW/clip-after-adam", reference.train_step, "training that clips the parameters' step, not the gradient",
           _clipped_after),
    Mutant("ADAMW/step-stands-still", reference.train, "training whose step number stands still",
           training(step=lambda step: 1)),
    Mutant("ADAMW/moments-forgotten", reference.train, "training whose moments start at zero in every step",
           training(moments=lambda m: map_leaves(numpy.zeros_like, m))),
    Mutant("ADAMW/batches-reversed", reference.train, "training on the batches from the last to the first",
           training(order=lambda n, batches: batches - 1 - n)),
    Mutant("ADAMW/one-batch", reference.train, "training on the first batch again and again",
           training(order=lambda n, batches: 0)),
    Mutant("ADAMW/gradient-not-zeroed", reference.train, "training whose gradients add up from step to step",
           _never_zeroed, G + "meta-pytorch/torchforge/pull/71"),
]
