"""One exact number: its value in hundreds of digits, the numbers it was made from, and the rule of its derivatives.

`gradients` makes nodes itself, so a gradient is an ordinary formula whose own condition can be asked for.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy
from mpmath import mp, mpf

from refllm.backend import Array
from refllm.numbers.rules import DERIVATIVES

CHUNK = 1024  # outputs that `conditions` sweeps together; it bounds the memory
ZERO, ONE = 0, 1  # what a rule returns for "nothing flows" and "passes unchanged"

Rule = Callable[..., tuple[Any, ...]]
_order = itertools.count()


class Node:
    """The rule maps (parents..., value) to one derivative a parent, of plain numbers and of nodes alike. None stands
    for a sum, where every derivative is 1. What is `wide` is formed in float64 by everybody, whatever the dtype of the
    arrays."""

    __slots__ = ("order", "parents", "rule", "value", "wide")

    def __init__(
        self, value: Any, parents: tuple[Node, ...] = (), rule: Rule | None = None, *, wide: bool = False
    ) -> None:
        self.value, self.parents, self.rule, self.wide = value, parents, rule, wide
        self.order = next(_order)

    @property
    def mathematics(self) -> Any:
        return NodeMathematics

    def __neg__(self) -> Node:
        return Node(-self.value, (self,), lambda a, y: (-1,))

    def __float__(self) -> float:
        return float(self.value)

    def __pow__(self, n: int) -> Node:
        return Node(self.value**n, (self,), lambda a, y: (n * a ** (n - 1),))

    @staticmethod
    def _operator(f: Callable[[Node, Node], Node]) -> tuple[Any, Any]:
        """A binary operator and its reflection; an array beside a node goes element by element."""

        def forward(a: Node, b: Any) -> Any:
            if isinstance(b, Node):
                return f(a, b)
            return f(a, constant(b)) if _is_number(b) else NotImplemented

        def reflected(a: Node, b: Any) -> Any:
            return f(constant(b), a) if _is_number(b) else NotImplemented

        return forward, reflected

    @staticmethod
    def _comparison(f: Callable[[Any, Any], bool]) -> Any:
        return lambda a, b: f(a.value, number(b)) if _is_number(b) else NotImplemented

    @staticmethod
    def _product(a: Node, b: Node) -> Node:
        for zero, other in ((a, b), (b, a)):
            if _is_nothing(zero) and mp.isfinite(other.value):
                return zero
        return Node(a.value * b.value, (a, b), lambda a, b, y: (b, a))

    @staticmethod
    def _quotient(a: Node, b: Node) -> Node:
        if _is_nothing(a) and b.value and mp.isfinite(b.value):
            return a
        return Node(a.value / b.value, (a, b), lambda a, b, y: (1 / b, -(y / b)))

    __add__, __radd__ = _operator(lambda a, b: total((a, b)))
    __sub__, __rsub__ = _operator(lambda a, b: Node(a.value - b.value, (a, b), lambda a, b, y: (1, -1)))
    __mul__, __rmul__ = _operator(_product)
    __truediv__, __rtruediv__ = _operator(_quotient)
    __eq__, __ne__ = _comparison(operator.eq), _comparison(operator.ne)
    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)
    __hash__ = object.__hash__


def _is_nothing(x: Node) -> bool:
    """Whether this is a zero that was put in a place: nothing flows through its products, which are it again."""
    return not x.parents and not isinstance(x, Entry) and not x.value


def _is_number(x: Any) -> bool:
    return isinstance(x, Node | int | float | mpf | numpy.number | numpy.bool_)


def constant(x: Any) -> Node:
    """A leaf: a float or an int becomes the number that it is, without rounding."""
    if isinstance(x, Node):
        return x
    return Node(mpf(x.item() if isinstance(x, numpy.generic) else x))


class Entry(Node):
    """A leaf in an array that was given: it has the dtype of the array, as what is made from it."""

    __slots__ = ()


def entry(x: Any) -> Entry:
    return Entry(mpf(x.item() if isinstance(x, numpy.generic) else x))


def number(x: Any) -> Any:
    """The value of a node; a plain number is its own value."""
    return x.value if isinstance(x, Node) else x


def total(terms: Iterable[Node]) -> Node:
    """A sum of any number of terms is one node, so that no order of summation is preferred; of one term it is that."""
    parents = tuple(terms)
    if len(parents) == 1:
        return parents[0]
    return Node(mp.fsum(p.value for p in parents), parents)


def settled(x: Node, digits: int) -> Node:
    """x, or zero if it is only what is left of a sum that cancels exactly: then so much as its root is defined."""
    return Node(x.value if abs(x.value) > mpf(10) ** -digits else mpf(0), (x,))


def _function(name: str, f: Callable[[Any], Any]) -> Any:
    """f of a node is a node, of a whole number or a float too; of mpmath's numbers it is one of these. It has the rule
    of its derivative."""
    derivative = DERIVATIVES[name]
    rule = lambda x, y: (derivative(x, y),)

    def of(x: Any) -> Any:
        if isinstance(x, mpf):
            return f(x)
        x = constant(x)
        return Node(f(x.value), (x,), rule)

    of.rule = rule  # type: ignore[attr-defined]
    return of


class Pi:
    """π to the digits of the moment at which it is asked for."""

    def __get__(self, instance: object, owner: object) -> Node:
        return Node(+mp.pi)


class NodeMathematics:
    """The functions of single exact numbers.

    A gradient that cancels exactly leaves some 10^-390, and Adam takes the root of its square, whose derivative would
    be beyond float64. So the root of what the digits cannot tell from zero is zero: it is far below the square of the
    least double. And erfc is zero where beside 1 there is no digit left for it.
    """

    @staticmethod
    def exp(x: Any) -> Any:
        """Of -inf it is the zero of a place that is left out."""
        value = number(x)
        if value == -mp.inf:
            return constant(0) if isinstance(x, Node) else mpf(0)
        return NodeMathematics._exp(x)

    _exp = _function("exp", mp.exp)
    log = _function("log", mp.log)
    tanh = _function("tanh", mp.tanh)
    sigmoid = _function("sigmoid", lambda x: 1 / (1 + mp.exp(-x)))
    sin = _function("sin", mp.sin)
    cos = _function("cos", mp.cos)
    erf = _function("erf", mp.erf)
    erfc = _function("erfc", lambda x: y if (y := mp.erfc(x)) > mpf(10) ** -mp.dps else mpf(0))
    sqrt = _function("sqrt", lambda x: mpf(0) if abs(x) <= mpf(10) ** (-7 * mp.dps // 4) else mp.sqrt(x))

    @staticmethod
    def power(x: Any, n: Any) -> Node:
        """The exponent takes no gradient."""
        base, exponent = constant(x), number(n)
        return Node(mp.power(base.value, exponent), (base,), lambda x, y: (exponent * y / x if number(x) != 0 else 0,))

    @staticmethod
    def ratio(a: Any, b: Any) -> Node:
        return constant(a) / constant(b)

    @staticmethod
    def where(mask: bool, x: Any, y: Any) -> Node:
        return constant(x if mask else y)

    @staticmethod
    def is_zero(x: Node) -> Node:
        return constant(int(x.value == 0))

    @staticmethod
    def nearest(x: Any) -> int:
        return int(mp.nint(number(x)))

    pi = Pi()


# --- what is formed in float64 ----------------------------------------------------------------------------------------

FAR = 64  # radians, ten turns


def entered(x: Node) -> Node:
    """A number formed from plain ones alone, as it enters an array. A small angle is a number like others. A large one
    loses its turn in a narrow dtype and so is formed in float64, from its position and its rate on."""
    if x.rule in TURNING and abs(x.parents[0].value) > FAR and not _of_arrays(x):
        return Node(x.value, (_wide(x.parents[0]),), x.rule)
    return x if x.parents or isinstance(x, Entry) else Entry(x.value)


def _of_arrays(x: Node) -> bool:
    return any(isinstance(node, Entry) for node in ancestors([x]))


@cache
def _wide(x: Node) -> Node:
    """The same number, itself and all that it is made from formed in float64. The sine and the cosine of an angle have
    one of these between them."""
    return Node(x.value, tuple(_wide(parent) for parent in x.parents), x.rule, wide=True)


TURNING = (NodeMathematics.sin.rule, NodeMathematics.cos.rule)

# --- the tape --------------------------------------------------------------------------------------------------------


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


def _derivatives(node: Node, parents: Sequence[Any], value: Any) -> tuple[Any, ...]:
    return (ONE,) * len(node.parents) if node.rule is None else node.rule(*parents, value)


def conditions(outputs: Sequence[Node]) -> tuple[Array, Array]:
    """S_i = Σ over all nodes n of |d output_i / d n| |n|: the first-order error of output i, in units of roundoff, if
    every input, constant and intermediate were rounded; and beside it the same sum over the wide nodes, in units of
    float64's roundoff. One reverse sweep in float64, vectorised over outputs."""
    result = numpy.zeros((2, len(outputs)))
    for start in range(0, len(outputs), CHUNK):
        chunk = outputs[start : start + CHUNK]
        adjoints: dict[int, Array] = {}
        for i, node in enumerate(chunk):
            adjoints.setdefault(node.order, numpy.zeros(len(chunk)))[i] += 1
        S, W = result[:, start : start + CHUNK]
        term = numpy.empty(len(chunk))  # one for all products, each of which is added to another array at once
        for node in reversed(ancestors(chunk)):
            adjoint = adjoints.pop(node.order, None)
            if adjoint is None or not _is_finite(node.value):
                continue  # a forbidden score, -inf, is not rounded, nor is NaN a rounding
            part = W if node.wide else S
            part += numpy.multiply(numpy.abs(adjoint, out=term), abs(float(node.value)), out=term)
            values = [parent.value for parent in node.parents]
            for parent, derivative in zip(node.parents, _derivatives(node, values, node.value), strict=True):
                slope = float(derivative)
                if slope == 0 or not _is_finite(parent.value):
                    continue
                if parent.order in adjoints:
                    adjoints[parent.order] += numpy.multiply(adjoint, slope, out=term)
                else:
                    adjoints[parent.order] = adjoint * slope
    if not numpy.isfinite(result).all():
        raise ArithmeticError("a condition is not finite: an intermediate value leaves the range of float64")
    return result[0], result[1]


def _is_finite(x: Any) -> bool:
    """mp.isfinite, which is called more than anything else: inf and NaN have no mantissa, but an exponent."""
    _, mantissa, exponent, _ = x._mpf_
    return bool(mantissa) or not exponent
