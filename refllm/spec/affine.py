"""Affine maps by the names of their parameters, which have a bias or not."""

from refllm.spec.array import Array, Pullback, Tree
from refllm.spec.linear import linear, matmul


def affine(x: Array, p: Tree, name: str) -> tuple[Array, Pullback]:
    """LINEAR: y = x W + b,   W = p["W" + name], b = p["b" + name]; y = x W where p has no such bias

    Source:  as `linear`; without biases T5 (Raffel et al. 2020, arXiv:1910.10683, sec. 2.1).
    Shapes:  x (..., I); W (I, O); b (O,) -> y (..., O)
    """
    W, b = f"W{name}", f"b{name}"
    if b not in p:
        y, matmul_back = matmul(x, p[W])

        def without_bias_back(dy: Array) -> tuple[Array, Tree]:
            dx, dW = matmul_back(dy)
            return dx, {W: dW}

        return y, without_bias_back

    y, linear_back = linear(x, p[W], p[b])

    def affine_back(dy: Array) -> tuple[Array, Tree]:
        dx, dW, db = linear_back(dy)
        return dx, {W: dW, b: db}

    return y, affine_back
