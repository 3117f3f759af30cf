"""Scalar reverse mode over mpmath numbers: a number that remembers its parents and their local derivatives.

`gradients` emits nodes itself, so a gradient is an ordinary formula whose own conditioning can be asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from mpmath import mp, mpf

CHUNK = 1024  # outputs swept together by `conditions`; bounds its memory

Rule = Callable[..., tuple[Any, ...]]

_order = itertools.count()


class Node:
    """A value, the nodes it was made from, and the rule that gives the derivative with respect to each of them.

    The rule maps (parents..., value) to one derivative a parent. It is written once for numbers and for nodes;
    None stands for a sum, all of whose derivatives are 1. What is `wide` is formed in float64 by everybody.
    """

    __slots__ = ("order", "parents", "rule", "value", "wide")

    def __init__(self, value: Any, parents: tuple[Node, ...] = (), rule: Rule | None = None) -> None:
        self.value, self.parents, self.rule = value, parents, rule
        self.order = next(_order)
        self.wide = False

    def __neg__(self) -> Node:
        return Node(-self.value, (self,), lambda a, y: (-1,))

    @staticmethod
    def _operator(f: Callable[[Node, Node], Node]) -> tuple[Any, Any]:
        """A binary operator and its reflection; an array beside a node is left to NumPy, element by element."""
        forward = lambda a, b: NotImplemented if isinstance(b, np.ndarray) else f(a, constant(b))
        reflected = lambda a, b: NotImplemented if isinstance(b, np.ndarray) else f(constant(b), a)
        return forward, reflected

    __add__, __radd__ = _operator(lambda a, b: total((a, b)))
    __sub__, __rsub__ = _operator(lambda a, b: Node(a.value - b.value, (a, b), lambda a, b, y: (1, -1)))
    __mul__, __rmul__ = _operator(lambda a, b: Node(a.value * b.value, (a, b), lambda a, b, y: (b, a)))
    __truediv__, __rtruediv__ = _operator(
        lambda a, b: Node(a.value / b.value, (a, b), lambda a, b, y: (1 / b, -(y / b)))
    )


def constant(x: Any) -> Node:
    """A leaf: a float or an int becomes the number it is, without rounding."""
    return x if isinstance(x, Node) else Node(mpf(x))


def total(terms: Iterable[Node]) -> Node:
    """A sum of any number of terms is one node, so that no order of summation is preferred."""
    parents = tuple(terms)
    return Node(sum((p.value for p in parents), mpf(0)), parents)


def _function(f: Callable[[Any], Any], derivative: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """y = f(x) for nodes and plain numbers alike, with dy/dx = derivative(x, y)."""
    rule = lambda x, y: (derivative(x, y),)
    return lambda x: Node(f(x.value), (x,), rule) if isinstance(x, Node) else f(x)


exp = _function(mp.exp, lambda x, y: y)
log = _function(mp.log, lambda x, y: 1 / x)
tanh = _function(mp.tanh, lambda x, y: 1 - y * y)
sigmoid = _function(lambda x: 1 / (1 + mp.exp(-x)), lambda x, y: y * (1 - y))
cos: Callable[[Any], Any] = _function(mp.cos, lambda x, y: -sin(x))
sin: Callable[[Any], Any] = _function(mp.sin, lambda x, y: cos(x))
erf = _function(mp.erf, lambda x, y: 2 / mp.sqrt(mp.pi) * exp(-(x * x)))
# Zero, with its slope, where beside 1 there is no digit left for it.
erfc = _function(
    lambda x: y if (y := mp.erfc(x)) > mpf(10) ** -mp.dps else mpf(0),
    lambda x, y: -2 / mp.sqrt(mp.pi) * exp(-(x * x)) if number(y) != 0 else 0,
)
# The root of exactly zero has no derivative; nothing flows through it (a parameter that has never had a gradient).
sqrt = _function(mp.sqrt, lambda x, y: 1 / (2 * y) if number(y) != 0 else 0)


def logsumexp(terms: Iterable[Node]) -> Node:
    """log sum_j exp(x_j) as one number, from which its derivatives exp(x_i - y) are formed again."""
    parents = tuple(terms)
    top = max(p.value for p in parents)
    y = top + mp.log(sum(mp.exp(p.value - top) for p in parents))
    return Node(y, parents, lambda *known: tuple(exp(x - known[-1]) for x in known[:-1]))


def wide(x: Node) -> Node:
    """The same number, formed in float64 whatever the dtype of the arrays."""
    x.wide = True
    return x


def settled(x: Node, digits: int) -> Node:
    """x, or zero if it is only what is left of a sum that cancels exactly: then so much as its root is defined."""
    return Node(x.value if abs(x.value) > mpf(10) ** -digits else mpf(0), (x,))


def number(x: Any) -> Any:
    """The value of a node; a plain number is its own value."""
    return x.value if isinstance(x, Node) else x


def ancestors(outputs: Iterable[Node]) -> list[Node]:
    """Every node that the outputs are made from, themselves included, oldest first."""
    seen: dict[int, Node] = {}
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node.order not in seen:
            seen[node.order] = node
            waiting.extend(node.parents)
    return [seen[order] for order in sorted(seen)]


def gradients(outputs: Sequence[Node], cotangents: Sequence[Node], inputs: Sequence[Node]) -> list[Node]:
    """The gradient of sum(cotangents * outputs) with respect to every input, as nodes."""
    wanted = {node.order for node in inputs}
    nodes = ancestors(outputs)
    active = set(wanted)  # the nodes that depend on an input; no other needs an adjoint
    for node in nodes:
        if any(parent.order in active for parent in node.parents):
            active.add(node.order)
    arriving: dict[int, list[Node]] = {}
    for node, cotangent in zip(outputs, cotangents, strict=True):
        arriving.setdefault(node.order, []).append(cotangent)
    found: dict[int, Node] = {}
    for node in reversed(nodes):
        terms = arriving.pop(node.order, None)
        if terms is None or node.order not in active:
            continue
        adjoint = terms[0] if len(terms) == 1 else total(terms)
        if node.order in wanted:
            found[node.order] = adjoint
        for parent, derivative in zip(node.parents, _derivatives(node, node.parents, node), strict=True):
            if parent.order in active and derivative is not ZERO:
                term = adjoint if derivative is ONE else adjoint * derivative
                arriving.setdefault(parent.order, []).append(term)
    return [found.get(node.order) or constant(0) for node in inputs]


ZERO, ONE = 0, 1  # the small integers a rule returns for "nothing flows" and "passes unchanged"


def _derivatives(node: Node, parents: Sequence[Any], value: Any) -> tuple[Any, ...]:
    return (ONE,) * len(node.parents) if node.rule is None else node.rule(*parents, value)


def conditions(outputs: Sequence[Node]) -> tuple[np.ndarray, np.ndarray]:
    """S_i = sum over all nodes n of |d output_i / d n| |n|: the first-order error of output i, in units of roundoff,
    if every input, constant and intermediate were rounded; and beside it the same sum over the wide nodes, in units of
    float64's roundoff. One reverse sweep in float64, vectorised over outputs."""
    result = np.zeros((2, len(outputs)))
    for start in range(0, len(outputs), CHUNK):
        chunk = outputs[start : start + CHUNK]
        nodes = ancestors(chunk)
        adjoints: dict[int, np.ndarray] = {}
        for i, node in enumerate(chunk):
            adjoints.setdefault(node.order, np.zeros(len(chunk)))[i] += 1
        S, W = result[:, start : start + CHUNK]
        for node in reversed(nodes):
            adjoint = adjoints.pop(node.order, None)
            if adjoint is None or not mp.isfinite(node.value):
                continue  # a forbidden score, -inf, is not rounded, nor is what is infinite or NaN a rounding
            part = W if node.wide else S
            part += np.abs(adjoint) * abs(float(node.value))
            values = [parent.value for parent in node.parents]
            for parent, derivative in zip(node.parents, _derivatives(node, values, node.value), strict=True):
                flow = adjoint * (float(derivative) if mp.isfinite(parent.value) else 0)
                if parent.order in adjoints:
                    adjoints[parent.order] += flow
                else:
                    adjoints[parent.order] = flow
    if not np.isfinite(result).all():
        raise ArithmeticError("a condition is not finite: an intermediate value leaves the range of float64")
    return result[0], result[1]
