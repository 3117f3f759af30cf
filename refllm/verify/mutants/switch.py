"""Mistakes of the switch layer, of its capacity, and of the model and the loss around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.switch_layer import switch_layer
from refllm.models.switch import balanced_states, capacity, hidden_states
from refllm.objectives.causal import _balanced_loss
from refllm.parameters import Tree
from refllm.verify.mutants.attention import weights as softmax
from refllm.verify.mutants.autodiff import Node, constant, differentiable, sigmoid, where
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.mutants.feed_forward import RIGHT
from refllm.verify.mutants.loss import pick
from refllm.verify.mutants.routing import balanced, second_best, valid_ignored

Slots = Callable[[Array, Array, int], Array]


def _fits(takes: Array, token_mask: Array, capacity: int) -> Array:
    """Which tokens have a place: `takes` (..., T, E) is the choice."""
    takes = takes & token_mask[..., None]
    return numpy.asarray((takes & (takes.cumsum(axis=-2) <= capacity)).any(axis=-1))


def _last_first(takes: Array, token_mask: Array, capacity: int) -> Array:
    return _fits(takes[..., ::-1, :], token_mask[..., ::-1], capacity)[..., ::-1]


def _over_the_batch(takes: Array, token_mask: Array, capacity: int) -> Array:
    """All texts share the places."""
    flat = _fits(takes.reshape(-1, takes.shape[-1]), token_mask.reshape(-1), capacity)
    return flat.reshape(token_mask.shape)


def _padding_takes_places(takes: Array, token_mask: Array, capacity: int) -> Array:
    return _fits(takes, numpy.ones_like(token_mask), capacity)


def layer(
    *,
    probabilities: Callable[[Node], Node] = softmax,
    choose: Callable[[Array], Array] = lambda p: p.argmax(axis=-1),
    fits: Slots = _fits,
    weigh: Callable[[Node, Array], Node] = pick,
    missing: Callable[[Node], Node] = lambda x: 0.0 * x,
    balanced: Callable[[Node, Array, Array], Node] = balanced,
) -> Function:
    """The switch layer with a part of it exchanged, and the true gradient of what then is computed."""

    @differentiable
    def changed(x: Node, p: Tree, *, activation: str, capacity: int, token_mask: Array | None) -> tuple[Node, Node]:
        P = probabilities(x @ p["Wr"])
        chosen, E = choose(P.value), P.shape[-1]
        counted = numpy.ones(chosen.shape, bool) if token_mask is None else token_mask
        takes = numpy.arange(E) == chosen[..., None]
        there = fits(takes, counted, capacity)
        y = 0.0 * x
        for e in range(E):
            h = x @ p["W1"][e] + (p["b1"][e] if "b1" in p else 0.0)
            z = RIGHT[activation](h) @ p["W2"][e] + (p["b2"][e] if "b2" in p else 0.0)
            y = where((there & (chosen == e))[..., None], z, y)
        g = weigh(P, chosen)
        y = y * g.reshape(*g.shape, 1) + where(there[..., None], 0.0, missing(x))
        weight = counted / numpy.maximum(counted.sum(axis=-1, keepdims=True), 1)
        dtype = x.value.dtype
        return y, balanced(P, takes.astype(dtype), weight[..., None].astype(dtype))

    return changed


def _last_of_equals(p: Array) -> Array:
    return p.shape[-1] - 1 - p[..., ::-1].argmax(axis=-1)


def _second_best(p: Array) -> Array:
    return second_best(p, p.argmax(axis=-1)) if p.shape[-1] > 1 else p.argmax(axis=-1)


def with_capacity(change: Callable[[int], int]) -> Function:
    """The layer with another capacity."""

    def changed(x: Array, p: Tree, *, capacity: int, **how: Any) -> tuple[Any, Function]:
        return switch_layer(x, p, capacity=change(capacity), **how)

    return changed


# --- the model --------------------------------------------------------------------------------------------------------


def _dropped_in_use(p: Tree, *, ids: Array, config: Any, dropout_mask: Any, cache: Any) -> tuple[Array, Function]:
    """The hidden states as in training."""
    if cache is not None:
        return hidden_states(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=cache)
    (y, balance), back = balanced_states(p, ids=ids, config=config, dropout_mask=dropout_mask)
    return y, lambda dy: back(dy, numpy.zeros_like(balance))


def objective(weight: Callable[[Any, Array], float]) -> Function:
    """The loss with another factor of the balance: weight(config, counted), `counted` the places that count."""

    def changed(p: Tree, *, targets: Array, ignore: int | None, config: Any, **how: Any) -> tuple[Array, Function]:
        counted = numpy.ones(targets.shape, bool) if ignore is None else targets != ignore
        other = replace(config, balance=weight(config, counted))
        return _balanced_loss(p, targets=targets, ignore=ignore, config=other, **how)

    return changed


def _rounded_up(tokens: int, config: Any) -> int:
    return min(tokens, max(1, -int(-config.capacity_factor * tokens // config.experts)))


# fmt: off
MUTANTS = [
    Mutant("MOE/not-weighed", switch_layer, "a switch layer that does not multiply by the probability",
           layer(weigh=lambda P, i: 0.0 * pick(P, i) + 1.0)),
    Mutant("MOE/second-best", switch_layer, "a switch layer that takes the second-best expert",
           layer(choose=_second_best)),
    Mutant("MOE/least", switch_layer, "a switch layer that takes the least probable expert",
           layer(choose=lambda p: p.argmin(axis=-1))),
    Mutant("MOE/last-of-equals", switch_layer, "a switch layer that takes the last of equally probable experts",
           layer(choose=_last_of_equals)),
    Mutant("MOE/sigmoid", switch_layer, "a switch layer whose router has sigmoids instead of a softmax",
           layer(probabilities=sigmoid)),
    Mutant("MOE/dropped-passed", switch_layer, "a switch layer that gives a dropped token itself: the residual adds it "
           "twice", layer(missing=lambda x: x)),
    Mutant("MOE/capacity-one-less", switch_layer, "a switch layer whose experts take one token less",
           layer(fits=lambda takes, token_mask, K: _fits(takes, token_mask, K - 1))),
    Mutant("MOE/capacity-one-more", switch_layer, "a switch layer whose experts take one token more",
           with_capacity(lambda K: K + 1)),
    Mutant("MOE/capacity-none", switch_layer, "a switch layer that drops no token",
           layer(fits=lambda takes, token_mask, K: _fits(takes, token_mask, takes.shape[-2]))),
    Mutant("MOE/last-tokens-first", switch_layer, "a switch layer whose experts take the last tokens, not the first",
           layer(fits=_last_first)),
    Mutant("MOE/capacity-of-batch", switch_layer, "a switch layer whose texts share the places of an expert",
           layer(fits=_over_the_batch)),
    Mutant("MOE/padding-routed", switch_layer, "a switch layer whose padding takes places",
           layer(fits=_padding_takes_places)),
    Mutant("MOE/padding-balanced", switch_layer, "a switch layer whose balance counts padding",
           layer(balanced=valid_ignored)),
    Mutant("MOE/back-router-detached", switch_layer, "a switch layer whose router learns by the balance alone",
           layer(weigh=lambda P, i: constant(pick(P, i)))),
    Mutant("MOE/model-drops-in-use", hidden_states, "a switch model that drops tokens in use too", _dropped_in_use),
    Mutant("MOE/capacity-rounded-up", capacity, "an expert's capacity rounded up", _rounded_up),
    Mutant("MOE/capacity-factor-ignored", capacity, "an expert's capacity without its factor: T / E",
           lambda tokens, config: max(1, tokens // config.experts)),
    Mutant("MOE/loss-no-balance", _balanced_loss, "a switch model trained without its balance",
           objective(lambda config, counted: 0.0)),
    Mutant("MOE/loss-balance-whole", _balanced_loss, "a switch model trained with the balance times 1, not its factor",
           objective(lambda config, counted: 1.0)),
    Mutant("MOE/loss-balance-per-token", _balanced_loss, "a switch model whose balance is divided by the tokens again",
           objective(lambda config, counted: config.balance / counted.size)),
    Mutant("MOE/loss-balance-over-counted", _balanced_loss, "a switch model whose balance is summed over all places "
           "and divided by those that count", objective(lambda config, counted: config.balance / counted.mean())),
    Mutant("MOE/loss-balance-of-counted", _balanced_loss, "a switch model whose balance is weighed by the share of the "
           "places that count", objective(lambda config, counted: config.balance * counted.mean())),
]
