"""Reverse-mode differentiation of NumPy expressions, so that a wrong forward has the gradient a framework gives it.

A mistake of the forward pass is written as its formula over `Node`s and nothing else; `differentiable` turns it into
an operation with a pullback. A mistake of the backward pass is a `constant` where there should be none, or an
operation of refllm whose pullback is changed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.parameters import Tree, map_leaves

_numbers = itertools.count()


class Node:
    """A value, and for every parent the rule that takes the gradient of this value to its part of the parent's."""

    __array_ufunc__ = None  # an array on the left leaves the operation to the node on the right

    def __init__(self, value: Any, *parents: tuple[Node, Callable[[Array], Array]]) -> None:
        self.value: Array = numpy.asarray(value)
        self.parents, self.number = parents, next(_numbers)

    def _like(self, other: Any) -> Node:
        """A number takes the dtype of this node, as it would beside an array."""
        if isinstance(other, Node):
            return other
        return Node(other if isinstance(other, numpy.ndarray) else numpy.asarray(other, self.value.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __add__(self, other: Any) -> Node:
        o = self._like(other)
        return Node(self.value + o.value, (self, lambda d: d), (o, lambda d: d))

    def __mul__(self, other: Any) -> Node:
        o = self._like(other)
        return Node(self.value * o.value, (self, lambda d: d * o.value), (o, lambda d: d * self.value))

    def __pow__(self, n: float) -> Node:
        return Node(self.value**n, (self, lambda d: d * n * self.value ** (n - 1)))

    def __matmul__(self, other: Any) -> Node:
        o = self._like(other)
        if len(self.shape) == 1:
            return (self.reshape(1, -1) @ o).reshape(o.shape[-1])
        return Node(
            self.value @ o.value,
            (self, lambda d: d @ o.value.swapaxes(-1, -2)),
            (o, lambda d: self.value.swapaxes(-1, -2) @ d),
        )

    def __neg__(self) -> Node:
        return self * -1.0

    def __sub__(self, other: Any) -> Node:
        return self + -self._like(other)

    def __truediv__(self, other: Any) -> Node:
        return self * self._like(other) ** -1.0

    def __rsub__(self, other: Any) -> Node:
        return -self + other

    def __rtruediv__(self, other: Any) -> Node:
        return self**-1.0 * other

    __radd__, __rmul__ = __add__, __mul__

    def __getitem__(self, index: Any) -> Node:
        def scatter(d: Array) -> Array:
            dx = numpy.zeros_like(self.value)
            numpy.add.at(dx, index, d)
            return dx

        return Node(self.value[index], (self, scatter))

    def reshape(self, *shape: int) -> Node:
        return Node(self.value.reshape(shape), (self, lambda d: d.reshape(self.shape)))

    def swap(self, i: int = -1, j: int = -2) -> Node:
        return Node(self.value.swapaxes(i, j), (self, lambda d: d.swapaxes(i, j)))

    def sum(self, axis: Any = -1, keepdims: bool = True) -> Node:
        def spread(d: Array) -> Array:
            if axis is not None and not keepdims:
                d = numpy.expand_dims(d, axis)
            return numpy.broadcast_to(d, self.shape)

        return Node(self.value.sum(axis=axis, keepdims=keepdims), (self, spread))

    def mean(self, axis: Any = -1, keepdims: bool = True) -> Node:
        total = self.sum(axis, keepdims)
        return total * (total.value.size / max(1, self.value.size))


def constant(x: Node) -> Node:
    """The value alone: what `detach` or `stop_gradient` makes of it."""
    return Node(x.value)


def elementwise(x: Node, value: Array, slope: Array) -> Node:
    """A function of single elements, given by its values and its derivatives at x."""
    return Node(value, (x, lambda d: d * slope))


def exp(x: Node) -> Node:
    y = numpy.exp(x.value)
    return elementwise(x, y, y)


def log(x: Node) -> Node:
    return elementwise(x, numpy.log(x.value), 1 / x.value)


def sqrt(x: Node) -> Node:
    y = numpy.sqrt(x.value)
    return elementwise(x, y, 0.5 / y)


def tanh(x: Node) -> Node:
    y = numpy.tanh(x.value)
    return elementwise(x, y, 1 - y * y)


def sigmoid(x: Node) -> Node:
    return 0.5 * (1 + tanh(0.5 * x))


def where(condition: Array, x: Any, y: Any) -> Node:
    a = x if isinstance(x, Node) else y._like(x)
    b = a._like(y)
    return Node(
        numpy.where(condition, a.value, b.value),
        (a, lambda d: numpy.where(condition, d, 0)),
        (b, lambda d: numpy.where(condition, 0, d)),
    )


def top(x: Node, axis: int = -1) -> Array:
    """The maximum as a constant, to shift by; 0 where nothing is finite."""
    y = x.value.max(axis=axis, keepdims=True)
    return numpy.where(numpy.isneginf(y), 0, y).astype(y.dtype)


def stack(nodes: list[Node], axis: int) -> Node:
    """The nodes side by side along a new axis."""

    def part(i: int) -> Callable[[Array], Array]:
        return lambda d: d.take(i, axis=axis)

    return Node(numpy.stack([node.value for node in nodes], axis), *((node, part(i)) for i, node in enumerate(nodes)))


def differentiable(f: Callable[..., Any]) -> Callable[..., Any]:
    """The operation whose value is f of nodes: it takes and returns arrays (or trees of them) and has a pullback."""

    @functools.wraps(f)
    def operation(*arrays: Tree, **keywords: Any) -> tuple[Any, Callable[..., Any]]:
        inputs = [map_leaves(Node, x) for x in arrays]
        with numpy.errstate(all="ignore"):
            found = f(*inputs, **keywords)
        results = found if isinstance(found, tuple) else (found,)

        def back(*dy: Array) -> Any:
            with numpy.errstate(all="ignore"):
                gradients = _pull(results, dy)
            dx = tuple(map_leaves(lambda node: gradients.get(node, numpy.zeros_like(node.value)), x) for x in inputs)
            return dx if len(dx) > 1 else dx[0]

        values = tuple(node.value for node in results)
        return (values if isinstance(found, tuple) else values[0]), back

    return operation


def _pull(results: tuple[Node, ...], dy: tuple[Array, ...]) -> dict[Node, Array]:
    """The gradient of Σ results dy with respect to every node: later nodes first, so that each is complete in turn."""
    gradients: dict[Node, Array] = {}
    for node, d in zip(results, dy, strict=True):
        gradients[node] = gradients.get(node, 0) + numpy.asarray(d).reshape(node.shape)
    reached, waiting = set(results), list(results)
    while waiting:
        new = {parent for parent, _ in waiting.pop().parents} - reached
        reached |= new
        waiting += new
    for node in sorted(reached, key=lambda n: -n.number):
        for parent, rule in node.parents:
            if node in gradients:
                gradients[parent] = gradients.get(parent, 0) + _unbroadcast(rule(gradients[node]), parent.shape)
    return gradients


def _unbroadcast(d: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes along which a value of `shape` was repeated."""
    if d.shape == shape:
        return d
    d = d.sum(axis=tuple(range(d.ndim - len(shape))))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and d.shape[i] != 1)
    return d.sum(axis=repeated, keepdims=True) if repeated else d
