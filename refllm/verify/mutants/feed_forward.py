"""Mistakes of the activations, of the layer around them, and of dropout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array, erfc
from refllm.blocks.feed_forward import feed_forward
from refllm.ops.activation import gelu_erf, gelu_tanh, relu
from refllm.ops.dropout import dropout
from refllm.parameters import Tree
from refllm.verify.mutants.autodiff import Node, constant, differentiable, elementwise, sigmoid, tanh, where
from refllm.verify.mutants.bank import Function, Mutant

ROOT = math.sqrt(2 / math.pi)


def _normal(x: Node, width: float = math.sqrt(2)) -> Node:
    """(1 + erf(x / width)) / 2"""
    density = numpy.exp(-((x.value / width) ** 2)) / (width * math.sqrt(math.pi))
    return elementwise(x, 0.5 * erfc(-x.value / width), density)


def _one_plus_erf(x: Node) -> Node:
    """Half of 1 + erf, whose sum is rounded beside 1."""
    right = _normal(x)
    y = numpy.where(x.value < 0, 0.5 * (1 - (1 - 2 * right.value)), right.value)
    return Node(y.astype(x.value.dtype), (right, lambda d: d))


def _gate(x: Node, scale: float = ROOT, cubic: float = 0.044715) -> Node:
    """The factor of x in the tanh form of GELU."""
    return 0.5 * (1 + tanh((x + x * x * x * cubic) * scale))


def _power_of_input(x: Node, power: int) -> Node:
    return 0.5 * x * (1 + tanh(ROOT * (x + 0.044715 * x**power)))


def _slope(x: Node, at: Callable[[Array], Array]) -> Node:
    """relu with another derivative."""
    return elementwise(x, numpy.maximum(x.value, 0), at(x.value).astype(x.value.dtype))


def _mask_of_gradient(x: Array) -> tuple[Array, Function]:
    return numpy.maximum(x, 0), lambda dy: dy * (dy > 0)


Activate = Callable[[Node], Node]
RIGHT: dict[str, Activate] = {
    "relu": lambda x: where(x.value > 0, x, 0.0),
    "gelu_tanh": lambda x: x * _gate(x),
    "gelu_erf": lambda x: x * _normal(x),
}


def layer(f: Callable[[Node, dict[str, Node], Activate], Node]) -> Function:
    """The feed-forward layer as f(x, p, activation)."""

    @differentiable
    def changed(x: Node, p: Tree, *, activation: str) -> Node:
        return f(x, p, RIGHT[activation])

    return changed


def _back_through_residual(x: Array, p: Tree, *, activation: str) -> tuple[Array, Function]:
    """The layer whose pullback leaves out the activation."""
    y, back = feed_forward(x, p, activation=activation)

    def wrong(dy: Array) -> tuple[Array, Tree]:
        _, dp = back(dy)
        dh = dy @ p["W2"].T
        rows = x.reshape(-1, x.shape[-1])
        flat = dh.reshape(-1, dh.shape[-1])
        return dh @ p["W1"].T, {**dp, "W1": rows.T @ flat, "b1": flat.sum(axis=0)}

    return y, wrong


def drop(value: Callable[..., Any], slope: Callable[..., Any] | None = None) -> Function:
    """Dropout that multiplies by value(mask, rate), and the gradient by slope(mask, rate)."""

    def changed(x: Array, *, dropout_mask: Array, rate: float) -> tuple[Array, Function]:
        return x * value(dropout_mask, rate), lambda dy: dy * (slope or value)(dropout_mask, rate)

    return changed


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Mutant("FFN/relu-leaky", relu, "relu that leaks: 0.01 x below zero",
           differentiable(lambda x: where(x.value > 0, x, 0.01 * x))),
    Mutant("FFN/relu-capped", relu, "relu capped at 6",
           differentiable(lambda x: where(x.value < 6, RIGHT["relu"](x), 6.0))),
    Mutant("FFN/relu-absolute", relu, "relu that returns |x|", differentiable(lambda x: where(x.value > 0, x, -x))),
    Mutant("FFN/relu-turned", relu, "relu that keeps what is below zero",
           differentiable(lambda x: where(x.value < 0, x, 0.0))),
    Mutant("FFN/relu-back-one-at-zero", relu, "relu with the derivative 1 at exactly 0",
           differentiable(lambda x: _slope(x, lambda z: z >= 0))),
    Mutant("FFN/relu-back-half-at-zero", relu, "relu with the derivative 1/2 at exactly 0",
           differentiable(lambda x: _slope(x, lambda z: numpy.heaviside(z, 0.5)))),
    Mutant("FFN/relu-back-identity", relu, "relu whose gradient passes everywhere",
           differentiable(lambda x: _slope(x, numpy.ones_like))),
    Mutant("FFN/relu-back-sign-of-gradient", relu, "relu whose gradient is cut where dy, not x, is negative",
           _mask_of_gradient),
    Mutant("FFN/gelu-tanh-is-erf", gelu_tanh, "GELU exactly (erf) instead of its tanh form",
           differentiable(RIGHT["gelu_erf"]), G + "kyutai-labs/pocket-tts/pull/278"),
    Mutant("FFN/gelu-erf-tail-lost", gelu_erf, "GELU with 1 + erf, which has no digits left of a small tail",
           differentiable(lambda x: x * _one_plus_erf(x)), G + "pytorch/pytorch/issues/187806"),
    Mutant("FFN/gelu-erf-is-tanh", gelu_erf, "GELU's tanh form instead of the exact one",
           differentiable(RIGHT["gelu_tanh"])),
    Mutant("FFN/gelu-tanh-is-sigmoid", gelu_tanh, "GELU as x sigmoid(1.702 x)",
           differentiable(lambda x: x * sigmoid(1.702 * x))),
    Mutant("FFN/gelu-erf-is-sigmoid", gelu_erf, "GELU as x sigmoid(1.702 x)",
           differentiable(lambda x: x * sigmoid(1.702 * x))),
    Mutant("FFN/gelu-tanh-is-silu", gelu_tanh, "x sigmoid(x), SiLU, instead of GELU",
           differentiable(lambda x: x * sigmoid(x))),
    Mutant("FFN/gelu-tanh-no-cube", gelu_tanh, "GELU's tanh form without the cubic term",
           differentiable(lambda x: x * _gate(x, cubic=0.0))),
    Mutant("FFN/gelu-tanh-square", gelu_tanh, "GELU's tanh form with x² instead of x³",
           differentiable(lambda x: _power_of_input(x, 2))),
    Mutant("FFN/gelu-tanh-digit", gelu_tanh, "GELU's tanh form with 0.44715 instead of 0.044715",
           differentiable(lambda x: x * _gate(x, cubic=0.44715))),
    Mutant("FFN/gelu-tanh-root", gelu_tanh, "GELU's tanh form with √(2π) instead of √(2/π)",
           differentiable(lambda x: x * _gate(x, scale=math.sqrt(2 * math.pi)))),
    Mutant("FFN/gelu-tanh-pi-half", gelu_tanh, "GELU's tanh form with 2/π instead of its root",
           differentiable(lambda x: x * _gate(x, scale=2 / math.pi))),
    Mutant("FFN/gelu-tanh-not-halved", gelu_tanh, "GELU's tanh form without the factor 1/2",
           differentiable(lambda x: 2 * x * _gate(x))),
    Mutant("FFN/gelu-tanh-gate", gelu_tanh, "GELU's tanh form without the factor x", differentiable(_gate),
           G + "tensorflow/tfjs/pull/8224"),
    Mutant("FFN/gelu-tanh-back-gate-constant", gelu_tanh,
           "GELU's tanh form whose gradient takes the gate for a constant",
           differentiable(lambda x: x * constant(_gate(x)))),
    Mutant("FFN/gelu-erf-no-root-two", gelu_erf, "GELU with erf(x) instead of erf(x / √2)",
           differentiable(lambda x: x * _normal(x, width=1.0))),
    Mutant("FFN/gelu-erf-gate", gelu_erf, "GELU without the factor x: the normal distribution alone",
           differentiable(_normal)),
    Mutant("FFN/gelu-erf-back-gate-constant", gelu_erf, "GELU whose gradient is Φ(x), without x φ(x)",
           differentiable(lambda x: x * constant(_normal(x)))),
    Mutant("FFN/no-activation", feed_forward, "feed-forward without an activation",
           layer(lambda x, p, f: (x @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"])),
    Mutant("FFN/activation-last", feed_forward, "feed-forward with the activation after the second matrix",
           layer(lambda x, p, f: f((x @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]))),
    Mutant("FFN/activation-twice", feed_forward, "feed-forward with the activation after both matrices",
           layer(lambda x, p, f: f(f(x @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]))),
    Mutant("FFN/no-first-bias", feed_forward, "feed-forward without the first bias",
           layer(lambda x, p, f: f(x @ p["W1"]) @ p["W2"] + p["b2"])),
    Mutant("FFN/no-second-bias", feed_forward, "feed-forward without the second bias",
           layer(lambda x, p, f: f(x @ p["W1"] + p["b1"]) @ p["W2"])),
    Mutant("FFN/bias-after-activation", feed_forward, "feed-forward with the first bias added after the activation",
           layer(lambda x, p, f: (f(x @ p["W1"]) + p["b1"]) @ p["W2"] + p["b2"])),
    Mutant("FFN/residual-inside", feed_forward, "feed-forward with its input added, before the layer adds it again",
           layer(lambda x, p, f: f(x @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"] + x)),
    Mutant("FFN/back-activation-missing", feed_forward, "feed-forward whose gradient leaves out the activation's",
           _back_through_residual),
    Mutant("DROP/no-scale", dropout, "dropout without the division by 1 - rate", drop(lambda mask, rate: mask)),
    Mutant("DROP/by-rate", dropout, "dropout divided by the rate instead of 1 - rate",
           drop(lambda mask, rate: mask / rate if rate else mask),
           G + "lmjohns3/theanets/pull/123"),
    Mutant("DROP/multiplied", dropout, "dropout multiplied by 1 - rate instead of divided",
           drop(lambda mask, rate: mask * (1 - rate))),
    Mutant("DROP/scaled-twice", dropout, "dropout divided by 1 - rate twice",
           drop(lambda mask, rate: mask / (1 - rate) ** 2), G + "CSTR-Edinburgh/mlpractical/pull/32"),
    Mutant("DROP/inverted", dropout, "dropout with the mask inverted: what should stay is dropped",
           drop(lambda mask, rate: ~mask / (1 - rate))),
    Mutant("DROP/ignored", dropout, "dropout that does nothing", drop(lambda mask, rate: 1.0)),
    Mutant("DROP/back-no-scale", dropout, "dropout whose gradient is not divided by 1 - rate",
           drop(lambda mask, rate: mask / (1 - rate), lambda mask, rate: mask)),
    Mutant("DROP/back-no-mask", dropout, "dropout whose gradient is not masked",
           drop(lambda mask, rate: mask / (1 - rate), lambda mask, rate: 1 / (1 - rate))),
    Mutant("DROP/back-identity", dropout, "dropout whose gradient passes unchanged",
           drop(lambda mask, rate: mask / (1 - rate), lambda mask, rate: 1.0)),
]
