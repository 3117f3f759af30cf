"""Mistakes of the operations of a switch layer: the gate, the balance, the way to the experts and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from refllm.backend import Array
from refllm.ops.routing import combine, dispatch, expert_linear, expert_matmul, gate, load_balance
from refllm.verify.mutants.autodiff import Node, constant, differentiable, where
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.mutants.linear import gradients
from refllm.verify.mutants.loss import pick


def gated(f: Callable[[Node, Array], Node]) -> Function:
    """The probability that an expert's output is multiplied by, as f(p, chosen)."""
    return differentiable(lambda p, *, chosen: f(p, chosen))


def second_best(p: Array, chosen: Array) -> Array:
    """The most probable expert but for the chosen one."""
    others = numpy.where(numpy.arange(p.shape[-1]) == chosen[..., None], -1.0, p)
    return others.argmax(axis=-1)


def balance(f: Callable[[Node, Array, Array], Node]) -> Function:
    """The load balance as f(p, onehot of the choices, weight of every token): the weights of a text sum to 1."""

    @differentiable
    def changed(p: Node, *, chosen: Array, token_mask: Array | None) -> Node:
        counted = numpy.ones(chosen.shape) if token_mask is None else token_mask.astype(float)
        weight = counted / numpy.maximum(counted.sum(axis=-1, keepdims=True), 1)
        onehot = numpy.arange(p.shape[-1]) == chosen[..., None]
        return f(p, onehot.astype(p.value.dtype), weight[..., None].astype(p.value.dtype))

    return changed


def _shares(x: Array, weight: Array) -> Array:
    return (x * weight).sum(axis=-2)


def _means(p: Node, weight: Array) -> Node:
    return (p * weight).sum(-2, keepdims=False)


def balanced(p: Node, onehot: Array, weight: Array) -> Node:
    return (_means(p, weight) * _shares(onehot, weight)).sum(keepdims=False) * p.shape[-1]


def valid_ignored(p: Node, onehot: Array, weight: Array) -> Node:
    return balanced(p, onehot, numpy.full_like(weight, 1 / weight.shape[-2]))


def sent(slots_of: Callable[[Array, int, int], Array]) -> Function:
    """Dispatch by other slots: slots_of(slots, experts, capacity)."""

    @differentiable
    def changed(x: Node, *, slots: Array, experts: int, capacity: int) -> Node:
        at = slots_of(slots, experts, capacity)[..., None, :] == numpy.arange(experts * capacity)[:, None]
        y = Node(at.astype(x.value.dtype)) @ x
        return y.reshape(*x.shape[:-2], experts, capacity, x.shape[-1])

    return changed


def _by_place(slots: Array, experts: int, capacity: int) -> Array:
    """Place k of expert e as slot k E + e."""
    size = experts * capacity
    return numpy.where(slots < size, slots % capacity * experts + slots // capacity, slots)


def _first_text(slots: Array, experts: int, capacity: int) -> Array:
    """The slots of the first text for all of them."""
    return numpy.broadcast_to(slots[:1], slots.shape) if slots.ndim > 1 else slots


def brought(
    f: Callable[[Node, Node, Array], Node], slots_of: Callable[[Array, int, int], Array] = lambda s, E, K: s
) -> Function:
    """Combine as f(what the expert made of the token, g, where it has none)."""

    @differentiable
    def changed(z: Node, g: Node, *, slots: Array) -> Node:
        *texts, E, K, C = z.shape
        at = slots_of(slots, E, K)[..., None] == numpy.arange(E * K)
        made = Node(at.astype(z.value.dtype)) @ z.reshape(*texts, E * K, C)
        return f(made, g.reshape(*g.shape, 1), ~at.any(axis=-1, keepdims=True))

    return changed


def _to_the_last(slots: Array, E: int, K: int) -> Array:
    return numpy.minimum(slots, E * K - 1)


def each_expert(f: Callable[..., Node]) -> Function:
    """Products of experts as f(x, W) or f(x, W, b)."""
    return differentiable(f)


def _transposed(W: Node) -> Node:
    return W.swap() if W.shape[-1] == W.shape[-2] else W


def _exchanged(d: tuple[Array, ...], a: tuple[Array, ...], dy: tuple[Array]) -> tuple[Array, ...]:
    """The gradients of the parameters averaged over the rows of an expert."""
    rows = a[0].size // (a[0].shape[-1] * a[0].shape[-3])
    return (d[0], *(each / rows for each in d[1:]))


# fmt: off
MUTANTS = [
    Mutant("MOE/gate-one", gate, "the switch gate without the probability: 1",
           gated(lambda p, i: pick(0.0 * p + 1.0, i))),
    Mutant("MOE/gate-second", gate, "the switch gate with the probability of the second-best expert",
           gated(lambda p, i: pick(p, second_best(p.value, i)))),
    Mutant("MOE/gate-first", gate, "the switch gate with the first expert's probability",
           gated(lambda p, i: pick(p, numpy.zeros_like(i)))),
    Mutant("MOE/back-gate-none", gate, "the switch gate with no gradient: the router does not learn",
           gated(lambda p, i: constant(pick(p, i)))),
    Mutant("MOE/back-gate-all", gate, "the switch gate whose gradient goes to every expert",
           gradients(gate, lambda d, a, dy: numpy.broadcast_to(dy[0][..., None], d.shape).copy())),
    Mutant("MOE/balance-no-factor", load_balance, "the load balance without the factor E",
           balance(lambda p, f, w: balanced(p, f, w) / p.shape[-1])),
    Mutant("MOE/balance-factor-squared", load_balance, "the load balance with the factor E²",
           balance(lambda p, f, w: balanced(p, f, w) * float(p.shape[-1]))),
    Mutant("MOE/balance-counts", load_balance, "the load balance with counts instead of shares: not divided by T",
           balance(lambda p, f, w: balanced(p, f, w) / w.max(axis=-2)[..., 0] if w.any(axis=-2).all()
                   else balanced(p, f, w))),
    Mutant("MOE/balance-probabilities", load_balance, "the load balance of the mean probabilities alone, E Σ P²",
           balance(lambda p, f, w: (_means(p, w) * _means(p, w)).sum(keepdims=False) * float(p.shape[-1]))),
    Mutant("MOE/balance-choices", load_balance, "the load balance of the choices alone, E Σ f²: no gradient",
           balance(lambda p, f, w: ((0.0 * _means(p, w) + _shares(f, w)) * _shares(f, w)).sum(keepdims=False)
                   * float(p.shape[-1])), "https://github.com/huggingface/transformers/issues/28093"),
    Mutant("MOE/balance-token-by-token", load_balance, "the load balance as the mean of E f P at every token",
           balance(lambda p, f, w: (p * f * w).sum((-1, -2), keepdims=False) * float(p.shape[-1]))),
    Mutant("MOE/balance-over-batch", load_balance, "the load balance of the whole batch in the place of each text's",
           balance(lambda p, f, w: (_means(p, w).mean(0) * _shares(f, w).mean(axis=0)).sum(keepdims=False)
                   * float(p.shape[-1]) + 0.0 * balanced(p, f, w) if len(p.shape) > 2 else balanced(p, f, w))),
    Mutant("MOE/balance-padding", load_balance, "the load balance that counts padding", balance(valid_ignored)),
    Mutant("MOE/balance-squared-excess", load_balance, "the load balance as the squared distance from 1 / E",
           balance(lambda p, f, w: ((_means(p, w) - 1 / p.shape[-1]) * (_means(p, w) - 1 / p.shape[-1])
                                    ).sum(keepdims=False) * float(p.shape[-1]))),
    Mutant("MOE/back-balance-none", load_balance, "the load balance with no gradient",
           balance(lambda p, f, w: constant(balanced(p, f, w)))),
    Mutant("MOE/back-balance-sum", load_balance, "the load balance whose gradient is not divided by the tokens",
           balance(lambda p, f, w: Node(balanced(p, f, w).value, (
               p, lambda d: (w > 0) * (d[..., None] * p.shape[-1] * _shares(f, w))[..., None, :])))),
    Mutant("MOE/dispatch-by-place", dispatch, "tokens sent to slot k E + e instead of e K + k", sent(_by_place)),
    Mutant("MOE/dispatch-to-the-last", dispatch, "tokens without a place sent to the last slot", sent(_to_the_last)),
    Mutant("MOE/dispatch-to-the-first", dispatch, "tokens without a place sent to the first slot",
           sent(lambda s, E, K: s % (E * K))),
    Mutant("MOE/dispatch-first-text", dispatch, "tokens sent to the slots of the first text", sent(_first_text)),
    Mutant("MOE/back-dispatch-dropped", dispatch, "dispatch whose dropped tokens have the gradient of the last slot",
           lambda x, *, slots, experts, capacity: (
               dispatch(x, slots=slots, experts=experts, capacity=capacity)[0],
               sent(_to_the_last)(x, slots=slots, experts=experts, capacity=capacity)[1])),
    Mutant("MOE/back-dispatch-none", dispatch, "dispatch with no gradient",
           gradients(dispatch, lambda d, a, dy: 0 * d)),
    Mutant("MOE/combine-not-weighed", combine, "what the experts made, not multiplied by the probability",
           brought(lambda made, g, none: made + 0.0 * g)),
    Mutant("MOE/combine-weighed-twice", combine, "what the experts made, multiplied by the probability twice",
           brought(lambda made, g, none: made * g * g)),
    Mutant("MOE/combine-from-the-last", combine, "tokens without a place given what stands in the last slot",
           brought(lambda made, g, none: made * g, _to_the_last)),
    Mutant("MOE/combine-by-place", combine, "what the experts made, taken from slot k E + e",
           brought(lambda made, g, none: made * g, _by_place)),
    Mutant("MOE/combine-first-text", combine, "what the experts made, taken from the slots of the first text",
           brought(lambda made, g, none: made * g, _first_text)),
    Mutant("MOE/combine-dropped-weighed", combine, "tokens without a place given their probability in every entry",
           brought(lambda made, g, none: where(none, g + 0.0 * made, made * g))),
    Mutant("MOE/back-combine-router", combine, "combine with no gradient for the probability",
           brought(lambda made, g, none: made * constant(g))),
    Mutant("MOE/back-combine-not-weighed", combine, "combine whose experts' gradient is not multiplied by the "
           "probability", brought(lambda made, g, none: Node(
               made.value * g.value, (made, lambda d: d), (g, lambda d: d * made.value)))),
    Mutant("MOE/expert-matmul-first", expert_matmul, "products of experts with the first one's matrix for all",
           each_expert(lambda x, W: x @ W[:1] + 0.0 * (x @ W))),
    Mutant("MOE/expert-matmul-reversed", expert_matmul, "products of experts with the matrices from last to first",
           each_expert(lambda x, W: x @ W[::-1])),
    Mutant("MOE/expert-matmul-transposed", expert_matmul, "products of experts with their matrices transposed (where "
           "they are square)", each_expert(lambda x, W: x @ _transposed(W))),
    Mutant("MOE/expert-matmul-mean", expert_matmul, "products of experts with the mean of their matrices",
           each_expert(lambda x, W: x @ (W.mean(0) + 0.0 * W))),
    Mutant("MOE/back-expert-matmul-mean", expert_matmul, "products of experts with dW averaged over the rows",
           gradients(expert_matmul, _exchanged)),
    Mutant("MOE/expert-linear-first-bias", expert_linear, "experts with the first one's bias for all",
           each_expert(lambda x, W, b: x @ W + (b[:1] + 0.0 * b).reshape(b.shape[0], 1, b.shape[1]))),
    Mutant("MOE/expert-linear-no-bias", expert_linear, "experts without their bias",
           each_expert(lambda x, W, b: x @ W + 0.0 * b.reshape(b.shape[0], 1, b.shape[1]))),
    Mutant("MOE/expert-linear-first", expert_linear, "experts with the first one's parameters for all",
           each_expert(lambda x, W, b: x @ W[:1] + b[:1].reshape(1, 1, b.shape[1]) + 0.0 * (x @ W))),
    Mutant("MOE/back-expert-linear-mean", expert_linear, "experts with dW and db averaged over the rows",
           gradients(expert_linear, _exchanged)),
    Mutant("MOE/back-expert-linear-no-bias", expert_linear, "experts with no gradient for the bias",
           gradients(expert_linear, lambda d, a, dy: (*d[:2], 0 * d[2]))),
]
