"""Mistakes of softmax and of the mean squared error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.ops.softmax import log_softmax, softmax
from refllm.ops.squared_error import mean_squared_error
from refllm.verify.mutants.autodiff import Node, differentiable, exp, log, sqrt, top, where
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.mutants.linear import gradients

LN2 = math.log(2)


def share(x: Node, axis: Any = -1) -> Node:
    """softmax; zeros where all is -inf."""
    e = exp(x - (top(x, axis) if axis is not None else x.value.max()))
    total = e.sum(axis)
    return e / (total + (total.value == 0))


def log_share(x: Node, axis: int = -1) -> Node:
    y = x - top(x, axis)
    return y - log(exp(y).sum(axis))


def _nan_if_nothing(x: Node) -> Node:
    e = exp(x - x.value.max(axis=-1, keepdims=True))
    return e / e.sum()


def _not_negative(x: Node) -> Array:
    return numpy.maximum(top(x), 0)


def _largest(x: Node) -> Any:
    return x.value.max(initial=-math.inf)


def _axis(x: Node, axis: int) -> int:
    return axis if len(x.shape) >= -axis else -1


def _pull(operation: Function, rule: Callable[[Array, Array], Array]) -> Function:
    """The operation with dx = rule(y, dy)."""

    def changed(x: Array) -> tuple[Array, Function]:
        y, _ = operation(x)
        return y, lambda dy: rule(y, dy)

    return changed


def squares(f: Callable[[Node], Node]) -> Function:
    return differentiable(lambda x, t: f(x - t))


def average(x: Node) -> Node:
    return x.mean(None, keepdims=False)


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Mutant("SMX/wrong-axis", softmax, "softmax over the axis before the last",
           differentiable(lambda x: share(x, _axis(x, -2)))),
    Mutant("SMX/first-axis", softmax, "softmax over the first axis", differentiable(lambda x: share(x, 0))),
    Mutant("SMX/all-at-once", softmax, "softmax over all entries at once", differentiable(lambda x: share(x, None))),
    Mutant("SMX/no-shift", softmax, "softmax without the shift by the row maximum: exp overflows",
           differentiable(lambda x: exp(x) / exp(x).sum()), G + "deeplearning4j/deeplearning4j/issues/6039"),
    Mutant("SMX/shift-not-negative", softmax, "softmax shifted by the row maximum only if that is above 0",
           differentiable(lambda x: exp(x - _not_negative(x)) / exp(x - _not_negative(x)).sum()),
           G + "FluxML/NNlib.jl/pull/43"),
    Mutant("SMX/shift-global", softmax, "softmax shifted by the largest of all entries, not of the row",
           differentiable(lambda x: exp(x - _largest(x)) / exp(x - _largest(x)).sum()),
           G + "keras-team/keras/issues/9606"),
    Mutant("SMX/nan-if-nothing", softmax, "softmax whose row of only -infinity is NaN",
           differentiable(_nan_if_nothing)),
    Mutant("SMX/base-two", softmax, "softmax with powers of 2 instead of e", differentiable(lambda x: share(x * LN2))),
    Mutant("SMX/eps-in-sum", softmax, "softmax with 1e-6 added to the sum", differentiable(
           lambda x: exp(x - top(x)) / (exp(x - top(x)).sum() + 1e-6))),
    Mutant("SMX/back-diagonal", softmax, "softmax whose gradient is y (1 - y) dy, the diagonal alone",
           _pull(softmax, lambda y, dy: y * (1 - y) * dy), G + "deeplearning4j/libnd4j/issues/440"),
    Mutant("SMX/back-first-term", softmax, "softmax whose gradient is y dy, without - y Σ y dy",
           _pull(softmax, lambda y, dy: y * dy), G + "HomericIntelligence/Odyssey/issues/2134"),
    Mutant("SMX/back-sum-of-dy", softmax, "softmax whose gradient is y (dy - Σ dy)",
           _pull(softmax, lambda y, dy: y * (dy - dy.sum(axis=-1, keepdims=True)))),
    Mutant("SMX/log-wrong-axis", log_softmax, "log-softmax over the axis before the last",
           differentiable(lambda x: log_share(x, _axis(x, -2)))),
    Mutant("SMX/log-of-softmax", log_softmax, "log(softmax(x)): small probabilities are lost",
           differentiable(lambda x: log(share(x)))),
    Mutant("SMX/log-with-eps", log_softmax, "log(softmax(x) + 1e-9)", differentiable(lambda x: log(share(x) + 1e-9))),
    Mutant("SMX/log-shift-global", log_softmax, "log-softmax shifted by the largest of all entries, not of the row",
           differentiable(lambda x: x - _largest(x) - log(exp(x - _largest(x)).sum())),
           G + "keras-team/keras/issues/9606"),
    Mutant("SMX/log-base-two", log_softmax, "log-softmax with the logarithm to base 2",
           differentiable(lambda x: log_share(x) / LN2)),
    Mutant("SMX/log-back-of-one", log_softmax, "log-softmax whose gradient is dy - softmax(x), without Σ dy",
           _pull(log_softmax, lambda y, dy: dy - numpy.exp(y))),
    Mutant("SMX/log-back-mean", log_softmax,
           "log-softmax whose gradient subtracts the mean of dy instead of softmax Σ dy",
           _pull(log_softmax, lambda y, dy: dy - dy.mean(axis=-1, keepdims=True))),
    Mutant("MSE/sum", mean_squared_error, "the squared error summed instead of averaged",
           squares(lambda d: (d * d).sum(None, keepdims=False))),
    Mutant("MSE/half", mean_squared_error, "half the mean squared error", squares(lambda d: average(d * d) / 2)),
    Mutant("MSE/over-rows", mean_squared_error, "the squared error averaged over the first axis, summed over the rest",
           squares(lambda d: (d * d).sum(None, keepdims=False) / len(d.value))),
    Mutant("MSE/root", mean_squared_error, "the root of the mean squared error",
           squares(lambda d: sqrt(average(d * d)))),
    Mutant("MSE/absolute", mean_squared_error, "the mean absolute error",
           squares(lambda d: average(where(d.value > 0, d, -d)))),
    Mutant("MSE/back-no-two", mean_squared_error, "the mean squared error with a gradient without the factor 2",
           gradients(mean_squared_error, lambda d, a, dy: (d[0] / 2, d[1] / 2))),
    Mutant("MSE/back-not-averaged", mean_squared_error, "the mean squared error with a gradient not divided by N",
           gradients(mean_squared_error, lambda d, a, dy: (d[0] * a[0].size, d[1] * a[0].size))),
    Mutant("MSE/back-targets-sign", mean_squared_error, "the mean squared error with the gradient of t not negative",
           gradients(mean_squared_error, lambda d, a, dy: (d[0], d[0]))),
]
