"""Mistakes of layer normalisation and of the residual paths around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.residual import normalise, post_norm, pre_norm
from refllm.blocks.transformer_layer import transformer_layer
from refllm.ops.layer_norm import layer_norm
from refllm.parameters import Tree, map_leaves
from refllm.verify.mutants.autodiff import Node, constant, differentiable, sqrt
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.mutants.linear import gradients

Keep = Callable[[Node], Node]


def norm(
    *,
    axis: Any = -1,
    deviation: Callable[[Node, float], Node] = lambda var, eps: sqrt(var + eps),
    variance: Callable[[Node, Any], Node] = lambda c, axis: (c * c).mean(axis),
    centre: Keep = lambda mean: mean,
    keep: Keep = lambda r: r,
    affine: Callable[[Node, Node, Node], Node] = lambda n, g, b: n * g + b,
    eps_used: Callable[[float], float] = lambda eps: eps,
) -> Function:
    """Layer norm with a part of it exchanged, and the true gradient of what then is computed."""

    @differentiable
    def changed(x: Node, g: Node, b: Node, *, eps: float) -> Node:
        axes = axis if axis is None or len(x.shape) >= -axis else -1
        c = x - centre(x.mean(axes))
        return affine(c / keep(deviation(variance(c, axes), eps_used(eps))), g, b)

    return changed


def _unbiased(c: Node, axis: Any) -> Node:
    C = c.shape[-1]
    return (c * c).mean(axis) * (C / (C - 1) if C > 1 else numpy.nan)


@differentiable
def _difference_of_squares(x: Node, g: Node, b: Node, *, eps: float) -> Node:
    mean = x.mean()
    return (x - mean) / sqrt((x * x).mean() - mean * mean + eps) * g + b


@differentiable
def _eps_alone(x: Node, g: Node, b: Node, *, eps: float) -> Node:
    return (x - x.mean()) * g + b


def _swapped(d: tuple[Array, Array, Array], a: Any, dy: Any) -> tuple[Array, Array, Array]:
    return d[0], d[2], d[1]


def _mean(d: tuple[Array, Array, Array], a: Any, dy: Any) -> tuple[Array, Array, Array]:
    rows = a[0].size // a[0].shape[-1]
    return d[0], d[1] / rows, d[2] / rows


def _gainless(x: Array, g: Array, b: Array, *, eps: float) -> tuple[Array, Function]:
    y, back = layer_norm(x, g, b, eps=eps)
    _, back_of_ones = layer_norm(x, numpy.ones_like(g), b, eps=eps)
    return y, lambda dy: (back_of_ones(dy)[0], *back(dy)[1:])


def residual(*, value: bool = True, gradient: bool = True, normed: bool = False) -> Function:
    """Pre-norm whose residual path is missing in the value, in the gradient, or leaves from the normalised input."""

    def changed(x: Array, norm: Tree, f: Any, *, eps: float, dropout_mask: Any, rate: float) -> tuple[Array, Function]:
        n, back_norm = normalise(x, norm, eps=eps)
        a, back_f = f(n)

        def back(dy: Array) -> tuple[Any, ...]:
            dn, *others = back_f(dy)
            dx, dnorm = back_norm(dn + dy if normed else dn)
            return (dx + dy if gradient and not normed else dx), dnorm, *others

        return (a if not value else a + (n if normed else x)), back

    return changed


def residual_of_post(*, value: bool = True, gradient: bool = True) -> Function:
    """Post-norm whose residual path is missing in the value or in the gradient."""

    def changed(x: Array, norm: Tree, f: Any, *, eps: float, dropout_mask: Any, rate: float) -> tuple[Array, Function]:
        a, back_f = f(x)
        y, back_norm = normalise(a + x if value else a, norm, eps=eps)

        def back(dy: Array) -> tuple[Any, ...]:
            ds, dnorm = back_norm(dy)
            dx, *others = back_f(ds)
            return (dx + ds if gradient else dx), dnorm, *others

        return y, back

    return changed


def _norm_before_sum(
    x: Array, norm: Tree, f: Any, *, eps: float, dropout_mask: Any, rate: float
) -> tuple[Array, Function]:
    """x + LN(f(x))"""
    a, back_f = f(x)
    y, back_norm = normalise(a, norm, eps=eps)

    def back(dy: Array) -> tuple[Any, ...]:
        ds, dnorm = back_norm(dy)
        dx, *others = back_f(ds)
        return dx + dy, dnorm, *others

    return x + y, back


def _one_norm(x: Array, p: Tree, **how: Any) -> tuple[Array, Function]:
    """A layer whose second norm has the parameters of the first."""
    y, back = transformer_layer(x, {**p, "norm2": p["norm1"]}, **how)

    def shared(dy: Array) -> tuple[Array, Tree]:
        dx, dp = back(dy)
        dp["norm1"] = map_leaves(numpy.add, dp["norm1"], dp["norm2"])
        dp["norm2"] = map_leaves(numpy.zeros_like, dp["norm2"])
        return dx, dp

    return y, shared


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Mutant("LN/eps-outside", layer_norm, "layer norm with eps added to the deviation, outside the root",
           norm(deviation=lambda var, eps: sqrt(var) + eps)),
    Mutant("LN/no-eps", layer_norm, "layer norm without eps", norm(deviation=lambda var, eps: sqrt(var))),
    Mutant("LN/eps-squared", layer_norm, "layer norm with eps² inside the root",
           norm(deviation=lambda var, eps: sqrt(var + eps * eps))),
    Mutant("LN/eps-twice", layer_norm, "layer norm with eps inside the root and outside it",
           norm(deviation=lambda var, eps: sqrt(var + eps) + eps)),
    Mutant("LN/eps-fixed", layer_norm, "layer norm with eps fixed at 1e-5, whatever is asked for",
           norm(eps_used=lambda eps: 1e-5)),
    Mutant("LN/unbiased", layer_norm, "layer norm with the unbiased variance, divided by C - 1",
           norm(variance=_unbiased), G + "FluxML/Flux.jl/issues/529"),
    Mutant("LN/unbiased-eps-outside", layer_norm, "layer norm with the unbiased deviation and eps outside the root",
           norm(variance=_unbiased, deviation=lambda var, eps: sqrt(var) + eps),
           G + "harvardnlp/annotated-transformer/pull/119"),
    Mutant("LN/variance-not-root", layer_norm, "layer norm divided by the variance instead of its root",
           norm(deviation=lambda var, eps: var + eps)),
    Mutant("LN/squared-not-root", layer_norm, "layer norm divided by the square of the variance instead of its root",
           norm(deviation=lambda var, eps: (var + eps) ** 2), G + "131250208/TPlinker-joint-extraction/issues/37"),
    Mutant("LN/not-centred", layer_norm, "layer norm without subtracting the mean: RMS norm",
           norm(centre=lambda mean: 0 * constant(mean))),
    Mutant("LN/centred-alone", layer_norm, "layer norm that subtracts the mean and does not divide", _eps_alone),
    Mutant("LN/difference-of-squares", layer_norm, "layer norm with the variance as E[x²] - E[x]²",
           _difference_of_squares, G + "pytorch/pytorch/issues/51102", dtype="float32"),
    Mutant("LN/over-tokens", layer_norm, "layer norm over the tokens instead of the features", norm(axis=-2)),
    Mutant("LN/over-everything", layer_norm, "layer norm over all entries at once", norm(axis=None)),
    Mutant("LN/no-bias", layer_norm, "layer norm without its bias", norm(affine=lambda n, g, b: n * g)),
    Mutant("LN/no-gain", layer_norm, "layer norm without its gain", norm(affine=lambda n, g, b: n + b)),
    Mutant("LN/gain-bias-swapped", layer_norm, "layer norm with gain and bias swapped",
           norm(affine=lambda n, g, b: n * b + g)),
    Mutant("LN/one-plus-gain", layer_norm, "layer norm with the gain stored less 1: (1 + g) n + b",
           norm(affine=lambda n, g, b: n * (g + 1) + b)),
    Mutant("LN/gain-of-sum", layer_norm, "layer norm with the gain applied to the bias too: g (n + b)",
           norm(affine=lambda n, g, b: (n + b) * g)),
    Mutant("LN/back-no-means", layer_norm, "layer norm whose gradient takes mean and deviation for constants",
           norm(centre=constant, keep=constant)),
    Mutant("LN/back-mean-constant", layer_norm, "layer norm whose gradient takes the mean for a constant",
           norm(centre=constant)),
    Mutant("LN/back-deviation-constant", layer_norm, "layer norm whose gradient takes the deviation for a constant",
           norm(keep=constant)),
    Mutant("LN/back-gain-bias-swapped", layer_norm, "layer norm with the gradients of gain and bias swapped",
           gradients(layer_norm, _swapped)),
    Mutant("LN/back-averaged", layer_norm, "layer norm with dg and db averaged over the rows instead of summed",
           gradients(layer_norm, _mean)),
    Mutant("LN/back-without-gain", layer_norm, "layer norm whose dx leaves out the gain",
           _gainless),
    Mutant("LN/residual-missing", pre_norm, "pre-norm without the residual", residual(value=False, gradient=False)),
    Mutant("LN/residual-of-normed", pre_norm, "pre-norm with the residual taken after the norm: n + f(n), n = LN(x)",
           residual(normed=True)),
    Mutant("LN/back-residual-missing", pre_norm, "pre-norm with no gradient through the residual",
           residual(gradient=False)),
    Mutant("LN/pre-is-post", pre_norm, "pre-norm computed as post-norm", post_norm),
    Mutant("LN/post-is-pre", post_norm, "post-norm computed as pre-norm", pre_norm),
    Mutant("LN/post-norm-before-sum", post_norm, "post-norm with the norm before the sum: x + LN(f(x))",
           _norm_before_sum),
    Mutant("LN/post-residual-missing", post_norm, "post-norm without the residual",
           residual_of_post(value=False, gradient=False)),
    Mutant("LN/back-post-residual-missing", post_norm, "post-norm with no gradient through the residual",
           residual_of_post(gradient=False)),
    Mutant("LN/one-norm-for-both", transformer_layer, "a layer with one norm for both of its parts", _one_norm),
]
