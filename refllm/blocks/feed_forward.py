"""The position-wise feed-forward layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeAlias

from refllm.backend import Array
from refllm.differentiable import differentiable
from refllm.kinds import OneOf
from refllm.ops.activation import gelu_erf, gelu_tanh, relu
from refllm.ops.linear import linear, matmul
from refllm.parameters import Tree

ACTIVATIONS = {"relu": relu, "gelu_tanh": gelu_tanh, "gelu_erf": gelu_erf}
Activation: TypeAlias = Annotated[str, OneOf(ACTIVATIONS)]


def feed_forward_shapes(width: int, hidden: int) -> Tree:
    return {"W1": (width, hidden), "b1": (hidden,), "W2": (hidden, width), "b2": (width,)}


@differentiable
def feed_forward(x: Array, p: Tree, *, activation: Activation) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """FFN: y = f(x W1 + b1) W2 + b2,   f = relu, gelu_tanh or gelu_erf

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.3; documents 002 sec. 3.1 step 3.
    Shapes:  x (..., C); W1 (C, F); b1 (F,); W2 (F, C); b2 (C,) -> y (..., C)

    >>> p = {"W1": array([[1.0, -1.0]]), "b1": zeros(2), "W2": array([[1.0], [1.0]]), "b2": zeros(1)}
    >>> feed_forward(array([[3.0], [-3.0]]), p, activation="relu")[0].tolist()  # relu(x) + relu(-x) = |x|
    [[3.0], [3.0]]
    """
    h, back1 = linear(x, p["W1"], p["b1"])
    a, back_f = ACTIVATIONS[activation](h)
    y, back2 = linear(a, p["W2"], p["b2"])

    def back(dy: Array) -> tuple[Array, Tree]:
        da, dW2, db2 = back2(dy)
        dx, dW1, db1 = back1(back_f(da))
        return dx, {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}

    return y, back


@differentiable
def feed_forward_without_biases(
    x: Array, p: Tree, *, activation: Activation
) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """FFN: y = f(x W1) W2,   f = relu, gelu_tanh or gelu_erf

    Source:  Raffel et al. 2020 (arXiv:1910.10683), code (T5).
    Shapes:  x (..., C); W1 (C, F); W2 (F, C) -> y (..., C)

    >>> p = {"W1": array([[1.0, -1.0]]), "W2": array([[1.0], [1.0]])}
    >>> feed_forward_without_biases(array([[3.0], [-3.0]]), p, activation="relu")[0].tolist()  # |x|
    [[3.0], [3.0]]
    """
    h, back1 = matmul(x, p["W1"])
    a, back_f = ACTIVATIONS[activation](h)
    y, back2 = matmul(a, p["W2"])

    def back(dy: Array) -> tuple[Array, Tree]:
        da, dW2 = back2(dy)
        dx, dW1 = back1(back_f(da))
        return dx, {"W1": dW1, "W2": dW2}

    return y, back
