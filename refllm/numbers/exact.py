"""Arrays of exact numbers (refllm/numbers/nodes.py): what NumPy does with shapes, and nodes for the arithmetic.

with exact.digits(400):
    y, back = layer_norm(lift(x), lift(g), lift(b), eps=lift(1e-5))
    dx, dg, db = back(lift(dy))                      the hand-written pullback
    dx, dg, db = gradients((y,), (lift(dy),), ...)   that of the tape
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy
from mpmath import mp

from refllm.backend import Array
from refllm.numbers import nodes
from refllm.numbers.nodes import Node, NodeMathematics, Pi, constant, entry, number, total
from refllm.spec import array


def _objects(x: Any) -> Array:
    y = numpy.empty(numpy.shape(x), object)
    y[...] = x
    return y


class Exact:
    """An array of nodes."""

    __array_ufunc__ = None  # an array on the left leaves the operation to this one

    def __init__(self, nodes: Any) -> None:
        self.nodes = nodes if isinstance(nodes, numpy.ndarray) else _objects(nodes)

    @property
    def mathematics(self) -> Any:
        return ExactMathematics

    shape = property(lambda self: self.nodes.shape)
    ndim = property(lambda self: self.nodes.ndim)
    size = property(lambda self: self.nodes.size)
    T = property(lambda self: Exact(self.nodes.T))

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, index: Any) -> Exact:
        return Exact(self.nodes[index])

    def __iter__(self) -> Iterator[Exact]:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: Any) -> Exact:
        return Exact(self.nodes.reshape(*shape))

    def swapaxes(self, a: int, b: int) -> Exact:
        return Exact(self.nodes.swapaxes(a, b))

    def values(self) -> Array:
        """The numbers without their history."""
        return _each(lambda n: n.value, self.nodes)

    def __neg__(self) -> Exact:
        return Exact(_each(operator.neg, self.nodes))

    @staticmethod
    def _operator(f: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
        return (lambda a, b: Exact(_each(f, a.nodes, _nodes(b))), lambda a, b: Exact(_each(f, _nodes(b), a.nodes)))

    @staticmethod
    def _comparison(f: Callable[[Any, Any], Any]) -> Any:
        return lambda a, b: _each(lambda m, n: f(number(m), number(n)), a.nodes, _nodes(b)).astype(bool)

    __add__, __radd__ = _operator(operator.add)
    __sub__, __rsub__ = _operator(operator.sub)
    __mul__, __rmul__ = _operator(operator.mul)
    __truediv__, __rtruediv__ = _operator(operator.truediv)
    __eq__, __ne__ = _comparison(operator.eq), _comparison(operator.ne)
    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)
    __hash__ = None  # type: ignore[assignment]

    def __matmul__(self, other: Any) -> Exact:
        if self.ndim == 1:
            return (self.reshape(1, -1) @ other).reshape(-1)
        a, b = self.nodes, _nodes(other)
        products = _each(operator.mul, a[..., :, None, :], b.swapaxes(-1, -2)[..., None, :, :])
        return ExactMathematics.sum(Exact(products), -1, False)

    def __rmatmul__(self, other: Any) -> Exact:
        return Exact(_nodes(other)) @ self


def _each(f: Callable[..., Any], *arrays: Array) -> Array:
    """f element by element, with broadcasting."""
    with numpy.errstate(invalid="ignore"):  # NaN is an answer here, as where a gradient is infinite
        return _objects(numpy.frompyfunc(f, len(arrays), 1)(*arrays))


def _nodes(x: Any) -> Array:
    """The nodes of whatever stands beside an exact array."""
    if isinstance(x, Exact):
        return x.nodes
    return _objects(constant(x)) if isinstance(x, Node) else _each(constant, numpy.asarray(x))


def lift(x: Any) -> Any:
    """Floats as the exact numbers that they are; a float outside an array becomes one node. Trees are lifted leaf by
    leaf; whole numbers, booleans and texts stay."""
    if isinstance(x, dict):
        return {name: lift(branch) for name, branch in x.items()}
    if isinstance(x, list | tuple):
        return type(x)(lift(branch) for branch in x)
    if isinstance(x, numpy.ndarray):
        return Exact(_each(entry, x)) if x.dtype.kind == "f" else x
    return constant(x) if isinstance(x, float) else x


class ExactMathematics:
    """The vocabulary of the text for arrays of nodes, and for single ones."""

    pi = Pi()

    exp = staticmethod(lambda x: _apply(NodeMathematics.exp, x))
    log = staticmethod(lambda x: _apply(NodeMathematics.log, x))
    sqrt = staticmethod(lambda x: _apply(NodeMathematics.sqrt, x))
    tanh = staticmethod(lambda x: _apply(NodeMathematics.tanh, x))
    sigmoid = staticmethod(lambda x: _apply(NodeMathematics.sigmoid, x))
    sin = staticmethod(lambda x: _apply(NodeMathematics.sin, x))
    cos = staticmethod(lambda x: _apply(NodeMathematics.cos, x))
    erf = staticmethod(lambda x: _apply(NodeMathematics.erf, x))
    erfc = staticmethod(lambda x: _apply(NodeMathematics.erfc, x))
    power = staticmethod(lambda x, n: _apply(NodeMathematics.power, x, n))
    ratio = staticmethod(lambda a, b: _apply(NodeMathematics.ratio, a, b))

    @staticmethod
    def where(mask: Any, x: Any, y: Any) -> Any:
        return Exact(_objects(numpy.where(mask, _nodes(x), _nodes(y))))

    @staticmethod
    def like(x: Any, other: Any) -> Exact:
        return Exact(_each(nodes.entered, _nodes(x)))

    @staticmethod
    def constant(x: Exact) -> Exact:
        return Exact(_each(constant, x.values()))

    @staticmethod
    def sum(x: Exact, axis: int, keepdims: bool) -> Exact:
        terms = numpy.moveaxis(x.nodes, axis, -1)
        y = numpy.empty(terms.shape[:-1], object)
        for i in numpy.ndindex(y.shape):
            y[i] = total(terms[i])
        return Exact(numpy.expand_dims(y, axis) if keepdims else y)

    @staticmethod
    def top(x: Exact) -> Exact:
        y = numpy.empty((*x.shape[:-1], 1), object)
        for i in numpy.ndindex(x.shape[:-1]):
            largest = max((n.value for n in x.nodes[i]), default=-mp.inf)
            y[(*i, 0)] = constant(0 if largest == -mp.inf else largest)
        return Exact(y)

    @staticmethod
    def is_zero(x: Exact) -> Exact:
        return Exact(_each(NodeMathematics.is_zero, x.nodes))

    @staticmethod
    def nearest(x: Any) -> Any:
        return (
            _each(NodeMathematics.nearest, x.nodes).astype(int) if isinstance(x, Exact) else NodeMathematics.nearest(x)
        )

    @staticmethod
    def spread(x: Exact, shape: tuple[int, ...]) -> Exact:
        return Exact(numpy.broadcast_to(x.nodes, shape))

    @staticmethod
    def stack(parts: Sequence[Any], axis: int) -> Exact:
        return Exact(numpy.stack([_nodes(x) for x in parts], axis))

    @staticmethod
    def concatenate(parts: Sequence[Any], axis: int) -> Exact:
        return Exact(numpy.concatenate([_nodes(x) for x in parts], axis))

    @staticmethod
    def scatter_add(index: Array, x: Exact, size: int) -> Exact:
        rows = x.nodes.reshape(index.size, -1)
        y = numpy.empty((size, rows.shape[1]), object)
        for i in range(size):
            here = rows[index.reshape(-1) == i]
            y[i] = [total(column) for column in here.T]
        return Exact(y.reshape(size, *x.shape[index.ndim :]))


def _apply(f: Callable[..., Any], *arguments: Any) -> Any:
    """f of numbers that are no arrays, or element by element."""
    if not any(isinstance(x, Exact | numpy.ndarray) for x in arguments):
        return f(*arguments)
    arrays = [x.nodes if isinstance(x, Exact) else _objects(x) for x in arguments]
    return Exact(_each(f, *arrays))


@contextlib.contextmanager
def digits(count: int) -> Iterator[None]:
    """In this context exact numbers have so many decimal digits, and the text's plain numbers are exact too."""
    with mp.workdps(count), array.scalars(ExactMathematics):
        yield


def gradients(outputs: Sequence[Exact], cotangents: Sequence[Exact], inputs: Sequence[Exact]) -> list[Exact]:
    """The gradient of Σ cotangents · outputs for every input, by the tape of the outputs."""
    flat = [[n for x in arrays for n in x.nodes.flat] for arrays in (outputs, cotangents, inputs)]
    slopes = iter(nodes.gradients(*flat))
    return [Exact(_each(lambda _: next(slopes), x.nodes)) for x in inputs]
