"""Arrays of floats that remember how they were made, so that a changed text has the gradient a framework gives it.

y, back = differentiated(f)(x, ...)      f takes and returns traced arrays; outside there are only floats
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy

from refllm.backend import Array
from refllm.numbers.rules import DERIVATIVES
from refllm.parameters import Tree, map_leaves
from refllm.spec.array import Floats

_order = itertools.count()


class Traced:
    """A value, and for every parent the rule that takes the gradient of this value to its part of the parent's."""

    __array_ufunc__ = None  # an array on the left leaves the operation to this one

    def __init__(self, value: Any, *parents: tuple[Traced, Callable[[Array], Array]]) -> None:
        self.value: Array = numpy.asarray(value)
        self.parents, self.order = parents, next(_order)

    @property
    def mathematics(self) -> Any:
        return TracedMathematics

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    dtype = property(lambda self: self.value.dtype)
    T = property(lambda self: Traced(self.value.T, (self, lambda d: d.T)))

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Traced]:
        return (self[i] for i in range(len(self)))

    def like(self, other: Any) -> Traced:
        """A plain number takes the dtype of this array, as it would beside NumPy's."""
        if isinstance(other, Traced):
            return other
        return Traced(other if isinstance(other, numpy.ndarray) else numpy.asarray(other, self.value.dtype))

    def __add__(self, other: Any) -> Traced:
        o = self.like(other)
        return Traced(self.value + o.value, (self, lambda d: d), (o, lambda d: d))

    def __sub__(self, other: Any) -> Traced:
        o = self.like(other)
        return Traced(self.value - o.value, (self, lambda d: d), (o, lambda d: -d))

    def __mul__(self, other: Any) -> Traced:
        o = self.like(other)
        return Traced(self.value * o.value, (self, lambda d: d * o.value), (o, lambda d: d * self.value))

    def __truediv__(self, other: Any) -> Traced:
        o = self.like(other)
        y = self.value / o.value
        return Traced(y, (self, lambda d: d / o.value), (o, lambda d: -d * y / o.value))

    def __pow__(self, n: float) -> Traced:
        return Traced(self.value**n, (self, lambda d: d * n * self.value ** (n - 1)))

    def __neg__(self) -> Traced:
        return Traced(-self.value, (self, lambda d: -d))

    def __matmul__(self, other: Any) -> Traced:
        o = self.like(other)
        if self.ndim == 1:
            return (self.reshape(1, -1) @ o).reshape(o.shape[-1])
        return Traced(
            self.value @ o.value,
            (self, lambda d: d @ o.value.swapaxes(-1, -2)),
            (o, lambda d: self.value.swapaxes(-1, -2) @ d),
        )

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Traced:
        return self.like(other) - self

    def __rtruediv__(self, other: Any) -> Traced:
        return self.like(other) / self

    def __rmatmul__(self, other: Any) -> Traced:
        return self.like(other) @ self

    @staticmethod
    def _comparison(f: Any) -> Any:
        return lambda a, b: f(a.value, b.value if isinstance(b, Traced) else b)

    __eq__, __ne__ = _comparison(numpy.equal), _comparison(numpy.not_equal)
    __lt__, __le__ = _comparison(numpy.less), _comparison(numpy.less_equal)
    __gt__, __ge__ = _comparison(numpy.greater), _comparison(numpy.greater_equal)
    __hash__ = object.__hash__

    def __getitem__(self, index: Any) -> Traced:
        def scatter(d: Array) -> Array:
            dx = numpy.zeros_like(self.value)
            numpy.add.at(dx, index, d)
            return dx

        return Traced(self.value[index], (self, scatter))

    def reshape(self, *shape: Any) -> Traced:
        return Traced(self.value.reshape(*shape), (self, lambda d: d.reshape(self.shape)))

    def swapaxes(self, a: int, b: int) -> Traced:
        return Traced(self.value.swapaxes(a, b), (self, lambda d: d.swapaxes(a, b)))


def _function(name: str) -> Any:
    f, derivative = getattr(Floats, name), DERIVATIVES[name]

    def of(x: Traced) -> Traced:
        y = f(x.value)
        return Traced(y, (x, lambda d: d * derivative(x.value, y)))

    return staticmethod(of)


class TracedMathematics:
    """The vocabulary of the text for traced arrays."""

    exp, log, sqrt, tanh = _function("exp"), _function("log"), _function("sqrt"), _function("tanh")
    sigmoid, sin, cos, erfc = _function("sigmoid"), _function("sin"), _function("cos"), _function("erfc")

    @staticmethod
    def power(x: Any, n: Any) -> Traced:
        """The exponent takes no gradient, unless it is the traced one."""
        if isinstance(x, Traced):
            exponent = n.value if isinstance(n, Traced) else n
            y = numpy.power(x.value, exponent)
            return Traced(y, (x, lambda d: d * exponent * numpy.power(x.value, exponent - 1)))
        y = numpy.power(x, n.value)
        return Traced(y, (n, lambda d: d * y * math.log(x)))

    @staticmethod
    def ratio(a: Any, b: Any) -> Any:
        return a / b

    @staticmethod
    def where(mask: Array, x: Any, y: Any) -> Traced:
        a = x if isinstance(x, Traced) else y.like(x)
        b = a.like(y)
        return Traced(
            numpy.where(mask, a.value, b.value),
            (a, lambda d: numpy.where(mask, d, 0)),
            (b, lambda d: numpy.where(mask, 0, d)),
        )

    @staticmethod
    def like(x: Any, other: Any) -> Any:
        if not isinstance(x, Traced):
            return x.astype(other.dtype)
        return Traced(x.value.astype(other.dtype), (x, lambda d: d.astype(x.value.dtype)))

    @staticmethod
    def constant(x: Traced) -> Traced:
        return Traced(x.value)

    @staticmethod
    def sum(x: Traced, axis: int, keepdims: bool) -> Traced:
        def spread(d: Array) -> Array:
            return numpy.broadcast_to(d if keepdims else numpy.expand_dims(d, axis), x.shape)

        return Traced(x.value.sum(axis=axis, keepdims=keepdims), (x, spread))

    @staticmethod
    def top(x: Traced) -> Traced:
        return Traced(Floats.top(x.value))

    @staticmethod
    def is_zero(x: Traced) -> Traced:
        return Traced(Floats.is_zero(x.value))

    @staticmethod
    def nearest(x: Any) -> Any:
        return Floats.nearest(x.value if isinstance(x, Traced) else x)

    @staticmethod
    def spread(x: Traced, shape: tuple[int, ...]) -> Traced:
        return Traced(numpy.broadcast_to(x.value, shape), (x, lambda d: d))  # summed again where it arrives

    @staticmethod
    def stack(parts: Sequence[Any], axis: int) -> Traced:
        traced = _alike(parts)

        def part(i: int) -> Callable[[Array], Array]:
            return lambda d: d.take(i, axis=axis)

        return Traced(numpy.stack([x.value for x in traced], axis), *((x, part(i)) for i, x in enumerate(traced)))

    @staticmethod
    def concatenate(parts: Sequence[Any], axis: int) -> Traced:
        traced = _alike(parts)
        ends = list(itertools.accumulate(x.shape[axis] for x in traced))

        def part(i: int) -> Callable[[Array], Array]:
            return lambda d: d.take(range(ends[i] - traced[i].shape[axis], ends[i]), axis=axis)

        values = [x.value for x in traced]
        return Traced(numpy.concatenate(values, axis), *((x, part(i)) for i, x in enumerate(traced)))

    @staticmethod
    def scatter_add(index: Array, x: Traced, size: int) -> Traced:
        kept = index < size

        def gather(d: Array) -> Array:
            dx = numpy.zeros_like(x.value)
            dx[kept] = d[index[kept]]
            return dx

        return Traced(Floats.scatter_add(index, x.value, size), (x, gather))


def _alike(parts: Sequence[Any]) -> list[Traced]:
    first = next(x for x in parts if isinstance(x, Traced))
    return [first.like(x) for x in parts]


def differentiated(f: Callable[..., Any]) -> Callable[..., Any]:
    """The operation whose value is f of traced arrays: it takes and returns floats, in trees too, and has a pullback.

    What f returns may be a pair of a value and a pullback, as a text does; the pullback is then left aside.
    """

    @functools.wraps(f)
    def operation(*arrays: Tree, **keywords: Any) -> tuple[Any, Callable[..., Any]]:
        inputs = [map_leaves(Traced, x) for x in arrays]
        with numpy.errstate(all="ignore"):
            found = value_of(f(*inputs, **keywords))
        several = isinstance(found, tuple)
        results = found if several else (found,)

        def traced_back(*dy: Array) -> Any:
            with numpy.errstate(all="ignore"):
                gradients = pull(results, dy)
            dx = tuple(map_leaves(lambda x: gradients.get(x, numpy.zeros_like(x.value)), x) for x in inputs)
            return dx if len(dx) > 1 else dx[0]

        values = tuple(x.value if isinstance(x, Traced) else x for x in results)
        return (values if several else values[0]), traced_back

    return operation


def value_of(found: Any) -> Any:
    """The value of what a text returned: itself, or the first of a value and a pullback."""
    return found[0] if isinstance(found, tuple) and len(found) == 2 and callable(found[1]) else found


def pull(results: Sequence[Any], dy: Sequence[Array]) -> dict[Traced, Array]:
    """The gradient of Σ results · dy for every traced array: later ones first, so that each is complete in its turn."""
    gradients: dict[Traced, Array] = {}
    for x, d in zip(results, dy, strict=True):
        if isinstance(x, Traced):
            gradients[x] = gradients.get(x, 0) + numpy.asarray(d).reshape(x.shape)
    reached, waiting = set(gradients), list(gradients)
    while waiting:
        new = {parent for parent, _ in waiting.pop().parents} - reached
        reached |= new
        waiting += new
    for x in sorted(reached, key=lambda x: -x.order):
        for parent, rule in x.parents:
            if x in gradients:
                gradients[parent] = gradients.get(parent, 0) + _unbroadcast(rule(gradients[x]), parent.shape)
    return gradients


def _unbroadcast(d: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes along which a value of `shape` was repeated."""
    if d.shape == shape:
        return d
    d = d.sum(axis=tuple(range(d.ndim - len(shape))))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and d.shape[i] != 1)
    return d.sum(axis=repeated, keepdims=True) if repeated else d
