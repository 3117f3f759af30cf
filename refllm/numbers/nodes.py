"""One exact number: its value in hundreds of digits, the numbers it was made from, and the rule of its derivatives.

`gradients` makes nodes itself, so a gradient is an ordinary formula whose own condition can be asked for.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
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
    for a sum, where every derivative is 1."""

    __slots__ = ("order", "parents", "rule", "value")

    def __init__(self, value: Any, parents: tuple[Node, ...] = (), rule: Rule | None = None) -> None:
        self.value, self.parents, self.rule = value, parents, rule
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
            return f(a, constant(b)) if _is_number(b) else NotImplemented

        def reflected(a: Node, b: Any) -> Any:
            return f(constant(b), a) if _is_number(b) else NotImplemented

        return forward, reflected

    @staticmethod
    def _comparison(f: Callable[[Any, Any], bool]) -> Any:
        return lambda a, b: f(a.value, number(b)) if _is_number(b) else NotImplemented

    __add__, __radd__ = _operator(lambda a, b: total((a, b)))
    __sub__, __rsub__ = _operator(lambda a, b: Node(a.value - b.value, (a, b), lambda a, b, y: (1, -1)))
    __mul__, __rmul__ = _operator(lambda a, b: Node(a.value * b.value, (a, b), lambda a, b, y: (b, a)))
    __truediv__, __rtruediv__ = _operator(
        lambda a, b: Node(a.value / b.value, (a, b), lambda a, b, y: (1 / b, -(y / b)))
    )
    __eq__, __ne__ = _comparison(operator.eq), _comparison(operator.ne)
    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)
    __hash__ = object.__hash__


def _is_number(x: Any) -> bool:
    return isinstance(x, Node | int | float | mpf | numpy.number | numpy.bool_)


def constant(x: Any) -> Node:
    """A leaf: a float or an int becomes the number that it is, without rounding."""
    if isinstance(x, Node):
        return x
    return Node(mpf(x.item() if isinstance(x, numpy.generic) else x))


def number(x: Any) -> Any:
    """The value of a node; a plain number is its own value."""
    return x.value if isinstance(x, Node) else x


def total(terms: Iterable[Node]) -> Node:
    """A sum of any number of terms is one node, so that no order of summation is preferred."""
    parents = tuple(terms)
    return Node(sum((p.value for p in parents), mpf(0)), parents)


def settled(x: Node, digits: int) -> Node:
    """x, or zero if it is only what is left of a sum that cancels exactly: then so much as its root is defined."""
    return Node(x.value if abs(x.value) > mpf(10) ** -digits else mpf(0), (x,))


def _function(name: str, f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """f of a node is a node, of a whole number or a float too; of mpmath's numbers it is one of these."""
    derivative = DERIVATIVES[name]
    rule = lambda x, y: (derivative(x, y),)

    def of(x: Any) -> Any:
        if isinstance(x, mpf):
            return f(x)
        x = constant(x)
        return Node(f(x.value), (x,), rule)

    return of


class Pi:
    """π to the digits of the moment at which it is asked for."""

    def __get__(self, instance: object, owner: object) -> Node:
        return Node(+mp.pi)


class NodeMathematics:
    """The functions of single exact numbers.

    A gradient that cancels exactly leaves some 10^-390, and Adam takes the root of its square, whose derivative would
    be beyond float64. So the root of what the digits cannot tell from zero is zero: it is far below the square of the
    least double.
    """

    exp = _function("exp", lambda x: mp.exp(x) if x != -mp.inf else mpf(0))
    log = _function("log", mp.log)
    tanh = _function("tanh", mp.tanh)
    sigmoid = _function("sigmoid", lambda x: 1 / (1 + mp.exp(-x)))
    sin = _function("sin", mp.sin)
    cos = _function("cos", mp.cos)
    erfc = _function("erfc", mp.erfc)
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

    pi = Pi()


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


def conditions(outputs: Sequence[Node]) -> Array:
    """S_i = Σ over all nodes n of |d output_i / d n| |n|: the first-order error of output i, in units of roundoff, if
    every input, constant and intermediate were rounded. One reverse sweep in float64, vectorised over outputs."""
    result = numpy.zeros(len(outputs))
    for start in range(0, len(outputs), CHUNK):
        chunk = outputs[start : start + CHUNK]
        nodes = ancestors(chunk)
        adjoints: dict[int, Array] = {}
        for i, node in enumerate(chunk):
            adjoints.setdefault(node.order, numpy.zeros(len(chunk)))[i] += 1
        S = result[start : start + CHUNK]
        for node in reversed(nodes):
            adjoint = adjoints.pop(node.order)
            if mp.isfinite(node.value):  # a forbidden score, -inf, is not rounded
                S += numpy.abs(adjoint) * abs(float(node.value))
            values = [parent.value for parent in node.parents]
            for parent, derivative in zip(node.parents, _derivatives(node, values, node.value), strict=True):
                flow = adjoint * float(derivative)
                if parent.order in adjoints:
                    adjoints[parent.order] += flow
                else:
                    adjoints[parent.order] = flow
    if not numpy.isfinite(result).all():
        raise ArithmeticError("a condition is not finite: an intermediate value leaves the range of float64")
    return result
