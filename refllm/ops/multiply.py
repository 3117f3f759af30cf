"""The product of two arrays, element by element."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array
from refllm.differentiable import differentiable


@differentiable
def multiply(a: Array, b: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """FFN, gate: y = a b, element by element

    How a gated feed-forward layer opens and closes its units.
    Source:  Shazeer 2020 (arXiv:2002.05202) sec. 2.
    Shapes:  a (...); b (...) -> y (...)
    Back:    da = dy b;  db = dy a
    Raises:  ValueError if the shapes differ.

    >>> y, back = multiply(array([2.0, 3.0]), array([5.0, 7.0]))
    >>> y.tolist(), [g.tolist() for g in back(ones(2))]
    ([10.0, 21.0], [[5.0, 7.0], [2.0, 3.0]])
    """
    return a * b, lambda dy: (dy * b, dy * a)
