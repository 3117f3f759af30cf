"""Mistakes of Llama: its gated layer, its layer, and the model around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.gated_feed_forward import gated_feed_forward
from refllm.blocks.llama_layer import llama_layer
from refllm.models.llama import add_head_gradient, alibi_slopes, hidden_states
from refllm.ops.rms_norm import rms_norm
from refllm.parameters import Tree, map_leaves
from refllm.verify.mutants.autodiff import Node, constant, differentiable, sigmoid
from refllm.verify.mutants.bank import Function, Mutant, planted
from refllm.verify.mutants.feed_forward import RIGHT
from refllm.verify.mutants.models import layers

Activate = Callable[[Node], Node]
GATES: dict[str, Activate] = {**RIGHT, "silu": lambda x: x * sigmoid(x)}


def gated(f: Callable[[Node, Node, Activate], Node]) -> Function:
    """The gated layer as f(x Wg, x W1, activation) W2."""

    @differentiable
    def changed(x: Node, p: Tree, *, activation: str) -> Node:
        return f(x @ p["Wg"], x @ p["W1"], GATES[activation]) @ p["W2"]

    return changed


def _parallel(x: Array, r: Array | None, p: Tree, **how: Any) -> tuple[Array, Function]:
    """x + attention(RMS1(x)) + FFN(RMS2(x))"""
    silent = {**p["feed_forward"], "W2": numpy.zeros_like(p["feed_forward"]["W2"])}
    deaf = {**p["attention"], "Wo": numpy.zeros_like(p["attention"]["Wo"])}
    a, back_a = llama_layer(x, r, {**p, "feed_forward": silent}, **how)
    f, back_f = llama_layer(x, r, {**p, "attention": deaf}, **how)

    def back(dy: Array) -> tuple[Array, Array | None, Tree]:
        dx, dr, dp = back_a(dy)
        dx_f, _, dp_f = back_f(dy)
        dp = {**dp, "norm2": dp_f["norm2"], "feed_forward": dp_f["feed_forward"]}
        return dx + dx_f - dy, dr, dp

    return a + f - x, back


def _one_norm(x: Array, r: Array | None, p: Tree, **how: Any) -> tuple[Array, Function]:
    """A layer whose second norm has the gain of the first."""
    y, back = llama_layer(x, r, {**p, "norm2": p["norm1"]}, **how)

    def shared(dy: Array) -> tuple[Array, Array | None, Tree]:
        dx, dr, dp = back(dy)
        dp["norm1"] = map_leaves(numpy.add, dp["norm1"], dp["norm2"])
        dp["norm2"] = map_leaves(numpy.zeros_like, dp["norm2"])
        return dx, dr, dp

    return y, shared


def _in_first_layer(value: bool) -> Function:
    """A bias by distance in the first layer alone: in value, or in the gradient alone."""

    def changed(p: Tree, **how: Any) -> tuple[Array, Function]:
        first = p["layers"][0]

        def layer(x: Array, r: Array | None, q: Tree, **given: Any) -> tuple[Array, Function]:
            if q is first or r is None:
                return llama_layer(x, r, q, **given)
            y, back = llama_layer(x, 0 * r if value else r, q, **given)

            def without(dy: Array) -> tuple[Array, Array, Tree]:
                dx, _, dp = back(dy)
                return dx, numpy.zeros_like(r), dp

            return y, without

        with planted(Mutant("", llama_layer, "", layer)):
            return hidden_states(p, **how)

    return changed


def tied(use: Callable[[Array, Array], Array]) -> Function:
    """A tied head whose gradient is joined to the embedding's in another way."""

    def changed(dp: Tree, dhead: Array, config: Any) -> Tree:
        return {**dp, "token": use(dp["token"], dhead.T)} if config.tied else add_head_gradient(dp, dhead, config)

    return changed


@differentiable
def _no_norm(x: Node, g: Node, *, eps: float) -> Node:
    return x + 0.0 * g


# fmt: off
MUTANTS = [
    Mutant("FFN/gated-exchanged", gated_feed_forward, "the gated layer with gate and linear part exchanged",
           gated(lambda g, h, f: g * f(h))),
    Mutant("FFN/gated-gelu", gated_feed_forward, "the gated layer with GELU whatever is asked for",
           gated(lambda g, h, f: RIGHT["gelu_erf"](g) * h)),
    Mutant("FFN/gated-silu", gated_feed_forward, "the gated layer with SiLU whatever is asked for",
           gated(lambda g, h, f: GATES["silu"](g) * h)),
    Mutant("FFN/gated-linear", gated_feed_forward, "the gated layer without an activation",
           gated(lambda g, h, f: g * h)),
    Mutant("FFN/gated-sigmoid", gated_feed_forward, "the gated layer with a sigmoid: GLU",
           gated(lambda g, h, f: sigmoid(g) * h)),
    Mutant("FFN/gated-both", gated_feed_forward, "the gated layer with the activation on both factors",
           gated(lambda g, h, f: f(g) * f(h))),
    Mutant("FFN/gated-after", gated_feed_forward, "the gated layer with the activation of the product",
           gated(lambda g, h, f: f(g * h))),
    Mutant("FFN/gated-added", gated_feed_forward, "the gated layer with its factors added",
           gated(lambda g, h, f: f(g) + h)),
    Mutant("FFN/gated-no-gate", gated_feed_forward, "the gated layer without its gate: f(x W1) W2",
           gated(lambda g, h, f: f(h) + 0.0 * g)),
    Mutant("FFN/gated-back-gate-constant", gated_feed_forward, "the gated layer whose gradient takes the gate for a "
           "constant", gated(lambda g, h, f: constant(f(g)) * h)),
    Mutant("LONG/llama-layer-parallel", llama_layer, "Llama's layer with attention and feed-forward side by side",
           _parallel),
    Mutant("LONG/llama-layer-one-norm", llama_layer, "Llama's layer with one gain for both of its norms", _one_norm),
    Mutant("LONG/slopes-from-one", alibi_slopes, "ALiBi's slopes from 1: 2^(-8 (h - 1) / n)",
           lambda n: [2 ** (-8 * h / n) for h in range(n)], "https://github.com/paiml/aprender/issues/2143"),
    Mutant("LONG/slopes-all-numbers", alibi_slopes, "ALiBi's slopes 2^(-8 h / n) where n is no power of two",
           lambda n: [2 ** (-8 * h / n) for h in range(1, n + 1)],
           "https://github.com/ml-explore/mlx/issues/343"),
    Mutant("LONG/slopes-halved", alibi_slopes, "ALiBi's slopes 2^-h whatever the number of heads",
           lambda n: [2.0**-h for h in range(1, n + 1)]),
    Mutant("LONG/slopes-reversed", alibi_slopes, "ALiBi's slopes from the smallest to the largest",
           lambda n: alibi_slopes(n)[::-1]),
    Mutant("LONG/slopes-sorted", alibi_slopes, "ALiBi's slopes in falling order, where n is no power of two",
           lambda n: sorted(alibi_slopes(n), reverse=True)),
    Mutant("T5-REL/first-layer-alone", hidden_states, "a bias by distance in the first layer alone",
           _in_first_layer(value=True)),
    Mutant("T5-REL/back-first-layer-alone", hidden_states, "a bias by distance with the gradient of the first layer "
           "alone", _in_first_layer(value=False)),
    Mutant("LMHEAD/llama-no-final-norm", rms_norm, "Llama without the norm before its head", _no_norm,
           within="refllm.models.llama"),
    Mutant("LMHEAD/llama-shared-layers", hidden_states, "Llama whose layers all have the parameters of the first",
           layers(lambda i: [0 for _ in i], hidden_states)),
    Mutant("LMHEAD/llama-layers-reversed", hidden_states, "Llama with its layers in reverse",
           layers(lambda i: i[::-1], hidden_states)),
    Mutant("LMHEAD/llama-last-layer-skipped", hidden_states, "Llama without its last layer",
           layers(lambda i: i[:-1], hidden_states)),
    Mutant("LMHEAD/back-llama-tied-head-dropped", add_head_gradient, "Llama's tied head that gives the embedding no "
           "gradient", tied(lambda embedding, head: embedding), within="refllm.models.llama"),
    Mutant("LMHEAD/back-llama-tied-embedding-dropped", add_head_gradient, "Llama's tied head whose gradient overwrites "
           "the embedding's", tied(lambda embedding, head: head), within="refllm.models.llama"),
]
