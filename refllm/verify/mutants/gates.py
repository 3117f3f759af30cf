"""Mistakes of RMS norm, of the gate, and of heads that share keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.ops.activation import silu
from refllm.ops.multiply import multiply
from refllm.ops.repeat_heads import repeat_heads
from refllm.ops.rms_norm import rms_norm
from refllm.verify.mutants import feed_forward
from refllm.verify.mutants.autodiff import Node, constant, differentiable, sigmoid, sqrt, where
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.mutants.linear import gradients

Keep = Callable[[Node], Node]


def norm(
    *,
    axis: Any = -1,
    centre: Keep = lambda x: x,
    root: Callable[[Node, float], Node] = lambda square, eps: sqrt(square + eps),
    square: Callable[[Node, Any], Node] = lambda x, axis: (x * x).mean(axis),
    keep: Keep = lambda r: r,
    gain: Callable[[Node, Node], Node] = lambda n, g: n * g,
) -> Function:
    """RMS norm with a part of it exchanged, and the true gradient of what then is computed."""

    @differentiable
    def changed(x: Node, g: Node, *, eps: float) -> Node:
        axes = axis if axis is None or len(x.shape) >= -axis else -1
        c = centre(x)
        return gain(c / keep(root(square(c, axes), eps)), g)

    return changed


def _gainless(x: Array, g: Array, *, eps: float) -> tuple[Array, Function]:
    y, back = rms_norm(x, g, eps=eps)
    _, back_of_ones = rms_norm(x, numpy.ones_like(g), eps=eps)
    return y, lambda dy: (back_of_ones(dy)[0], back(dy)[1])


def _rows(x: Array) -> int:
    return x.size // x.shape[-1]


def repeated(order: Callable[[int, int], Array]) -> Function:
    """Head i of the answer is head order(G, groups)[i] of k."""

    @differentiable
    def changed(k: Node, *, groups: int) -> Node:
        return k[..., order(k.shape[-3], groups), :, :]

    return changed


def _one_of_a_group(k: Array, *, groups: int) -> tuple[Array, Function]:
    y, _ = repeat_heads(k, groups=groups)
    return y, lambda dy: dy[..., ::groups, :, :].copy()


def _gradient_in_turn(k: Array, *, groups: int) -> tuple[Array, Function]:
    y, _ = repeat_heads(k, groups=groups)
    G = k.shape[-3]
    return y, lambda dy: dy.reshape(*k.shape[:-3], groups, G, *k.shape[-2:]).sum(axis=-4)


def _averaged(k: Array, *, groups: int) -> tuple[Array, Function]:
    y, back = repeat_heads(k, groups=groups)
    return y, lambda dy: back(dy) / groups


# fmt: off
MUTANTS = [
    Mutant("T5-REL/rms-centred", rms_norm, "RMS norm with the mean subtracted: layer norm",
           norm(centre=lambda x: x - x.mean())),
    Mutant("T5-REL/rms-variance", rms_norm, "RMS norm divided by the deviation: the mean subtracted in the root alone",
           norm(square=lambda x, axis: ((x - x.mean(axis)) * (x - x.mean(axis))).mean(axis))),
    Mutant("T5-REL/rms-eps-outside", rms_norm, "RMS norm with eps added outside the root",
           norm(root=lambda square, eps: sqrt(square) + eps)),
    Mutant("T5-REL/rms-eps-largest", rms_norm, "RMS norm with eps as the least root, not added",
           norm(root=lambda square, eps: where(square.value > eps**2, sqrt(square), eps))),
    Mutant("T5-REL/rms-no-eps", rms_norm, "RMS norm without eps", norm(root=lambda square, eps: sqrt(square))),
    Mutant("T5-REL/rms-eps-fixed", rms_norm, "RMS norm with eps fixed at 1e-5",
           norm(root=lambda square, eps: sqrt(square + 1e-5))),
    Mutant("T5-REL/rms-eps-fixed-least", rms_norm, "RMS norm with eps fixed at 1e-6",
           norm(root=lambda square, eps: sqrt(square + 1e-6)),
           "https://github.com/ggml-org/llama.cpp/issues/2373"),
    Mutant("T5-REL/rms-not-root", rms_norm, "RMS norm divided by the mean square instead of its root",
           norm(root=lambda square, eps: square + eps)),
    Mutant("T5-REL/rms-sum", rms_norm, "RMS norm with the sum of the squares instead of their mean: the length",
           norm(square=lambda x, axis: (x * x).sum(axis))),
    Mutant("T5-REL/rms-unbiased", rms_norm, "RMS norm with the sum of the squares divided by C - 1",
           norm(square=lambda x, axis: (x * x).sum(axis) / max(1, x.shape[-1] - 1))),
    Mutant("T5-REL/rms-over-tokens", rms_norm, "RMS norm over the tokens instead of the features", norm(axis=-2)),
    Mutant("T5-REL/rms-over-everything", rms_norm, "RMS norm over all entries at once", norm(axis=None)),
    Mutant("T5-REL/rms-no-gain", rms_norm, "RMS norm without its gain", norm(gain=lambda n, g: n + 0.0 * g)),
    Mutant("T5-REL/rms-gain-plus-one", rms_norm, "RMS norm with the gain stored less 1: (1 + g) n, as in Gemma",
           norm(gain=lambda n, g: n * (g + 1.0))),
    Mutant("T5-REL/rms-gain-added", rms_norm, "RMS norm with the gain added instead of multiplied",
           norm(gain=lambda n, g: n + g)),
    Mutant("T5-REL/rms-back-root-constant", rms_norm, "RMS norm whose gradient takes the root for a constant",
           norm(keep=constant)),
    Mutant("T5-REL/rms-back-without-gain", rms_norm, "RMS norm whose dx leaves out the gain", _gainless),
    Mutant("T5-REL/rms-back-averaged", rms_norm, "RMS norm with dg averaged over the rows instead of summed",
           gradients(rms_norm, lambda d, a, dy: (d[0], d[1] / _rows(a[0])))),
    Mutant("FFN/silu-is-sigmoid", silu, "the sigmoid instead of SiLU", differentiable(sigmoid)),
    Mutant("FFN/silu-is-gelu", silu, "GELU instead of SiLU", differentiable(feed_forward.RIGHT["gelu_erf"])),
    Mutant("FFN/silu-is-gelu-tanh", silu, "GELU's tanh form instead of SiLU",
           differentiable(feed_forward.RIGHT["gelu_tanh"])),
    Mutant("FFN/silu-is-relu", silu, "ReLU instead of SiLU", differentiable(feed_forward.RIGHT["relu"])),
    Mutant("FFN/silu-is-quick-gelu", silu, "x sigmoid(1.702 x) instead of SiLU",
           differentiable(lambda x: x * sigmoid(1.702 * x))),
    Mutant("FFN/silu-back-gate-constant", silu, "SiLU whose gradient is sigmoid(x)",
           differentiable(lambda x: x * constant(sigmoid(x)))),
    Mutant("FFN/silu-back-of-sigmoid", silu, "SiLU whose gradient is that of the sigmoid times x",
           differentiable(lambda x: constant(x) * sigmoid(x))),
    Mutant("FFN/multiply-added", multiply, "the gate added instead of multiplied", differentiable(lambda a, b: a + b)),
    Mutant("FFN/multiply-first-alone", multiply, "the gate left out", differentiable(lambda a, b: a + 0.0 * b)),
    Mutant("FFN/multiply-back-swapped", multiply, "a product with the gradients of its factors exchanged",
           gradients(multiply, lambda d, a, dy: (d[1], d[0]))),
    Mutant("FFN/multiply-back-one-side", multiply, "a product with no gradient for its second factor",
           gradients(multiply, lambda d, a, dy: (d[0], 0 * d[1]))),
    Mutant("LONG/repeat-in-turn", repeat_heads, "shared key heads in turn, 0, 1, 0, 1, instead of 0, 0, 1, 1",
           repeated(lambda G, groups: numpy.tile(numpy.arange(G), groups))),
    Mutant("LONG/repeat-first", repeat_heads, "shared key heads with the first one for all queries",
           repeated(lambda G, groups: numpy.zeros(G * groups, int))),
    Mutant("LONG/repeat-reversed", repeat_heads, "shared key heads from the last to the first",
           repeated(lambda G, groups: numpy.repeat(numpy.arange(G)[::-1], groups))),
    Mutant("LONG/repeat-back-averaged", repeat_heads, "shared key heads with the mean of their group's gradients, not "
           "the sum", _averaged),
    Mutant("LONG/repeat-back-first", repeat_heads, "shared key heads with the gradient of the first query head alone",
           _one_of_a_group),
    Mutant("LONG/repeat-back-in-turn", repeat_heads, "shared key heads whose gradients are summed in turn",
           _gradient_in_turn),
]
