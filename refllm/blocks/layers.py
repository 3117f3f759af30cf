"""Layers one after the other, and back through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from refllm.backend import Array
from refllm.borrowed import at_hand, handed_over, in_turn
from refllm.parameters import Tree
from refllm.watching import pass_by

# The layer of that number: its pullback gives the gradient of its input, then those of what it shares with the other
# layers, as a bias or a memory (None where there is none), and last that of its parameters.
Layer: TypeAlias = Callable[[Array, Tree, int], tuple[Array, Callable[[Array], tuple[Any, ...]]]]


def through(x: Array, layers: Sequence[Tree], f: Layer) -> tuple[Array, Callable[[Array], tuple[Any, ...]]]:
    """MHA, FFN: y = layer_L( ... layer_1(x)),   layer_n(x) = f(x, layers[n], n)

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1.
    Shapes:  x (..., C) -> y (..., C)
    Back:    from the last layer to the first. Gives dx, of whatever the layers share the sum of their gradients, and
             the list of the layers' gradients.

    >>> f = lambda x, layer, n: (layer * x, lambda dy: (layer * dy, x * dy))  # layer_n(x) = w_n x
    >>> y, back = through(array([5.0]), [array([2.0]), array([3.0])], f)
    >>> dx, dw = back(ones(1))
    >>> y.tolist(), dx.tolist(), [g.tolist() for g in dw]  # 30; 2 · 3; 3 · 5 and 2 · 5
    ([30.0], [6.0], [[15.0], [10.0]])
    """
    backs = []
    pass_by(x)
    for n, layer in enumerate(in_turn(layers)):
        x, back_layer = f(x, layer, n)
        pass_by(x)
        backs.append(back_layer)

    def back(dy: Array) -> tuple[Any, ...]:
        dx, dshared, dlayers = dy, list[Any](), []
        for n in reversed(range(len(backs))):
            with at_hand(layers, n):
                dx, *others, dlayer = backs[n](dx)
            dshared = _added(dshared, others)
            dlayers.append(handed_over(layers, n, dlayer))
        return dx, *dshared, dlayers[::-1]

    return x, back


def _added(sums: list[Any], gradients: list[Any]) -> list[Any]:
    """The sums of the layers so far with the gradients of one more. A sum is an array of its own from the first on, so
    that it can grow in place."""
    if not sums:
        sums = [None] * len(gradients)
    for n, gradient in enumerate(gradients):
        if gradient is None:
            continue
        if sums[n] is None:
            sums[n] = 0 + gradient
        else:
            sums[n] += gradient
    return sums
