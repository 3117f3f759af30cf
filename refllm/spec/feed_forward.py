"""The feed-forward layer of every place: two maps with a nonlinearity between them, and the same with a gate."""

from refllm.spec.activation import gelu_erf, gelu_tanh, multiply, relu, silu
from refllm.spec.affine import affine
from refllm.spec.array import Array, Pullback, Tree


def activated(x: Array, *, activation: str) -> tuple[Array, Pullback]:
    """FFN: y = f(x), f the nonlinearity of that name

    Source:  as `relu`, `gelu_tanh`, `gelu_erf` and `silu`.
    Shapes:  x (...) -> y (...)
    """
    return {"relu": relu, "gelu_tanh": gelu_tanh, "gelu_erf": gelu_erf, "silu": silu}[activation](x)


def feed_forward(x: Array, p: Tree, *, activation: str) -> tuple[Array, Pullback]:
    """FFN: y = f(x W1 + b1) W2 + b2;   without b1 and b2 where p has none

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.3; documents 002 sec. 3.1 step 3.
    Shapes:  x (..., C); W1 (C, F); b1 (F,); W2 (F, C); b2 (C,) -> y (..., C)

    >>> p = {"W1": array([[2., -3.]]), "W2": array([[1.], [10.]])}
    >>> feed_forward(array([[1.], [-1.]]), p, activation="relu")[0]  # each unit is open for one of the two
    array([[ 2.],
           [30.]])
    """
    h, first_back = affine(x, p, "1")
    a, activation_back = activated(h, activation=activation)
    y, second_back = affine(a, p, "2")

    def feed_forward_back(dy: Array) -> tuple[Array, Tree]:
        da, dsecond = second_back(dy)
        dh = activation_back(da)
        dx, dfirst = first_back(dh)
        return dx, {**dfirst, **dsecond}

    return y, feed_forward_back


def gated_feed_forward(x: Array, p: Tree, *, activation: str) -> tuple[Array, Pullback]:
    """FFN, gate: y = (f(x Wg) · (x W1)) W2

    Source:  Shazeer 2020 (arXiv:2002.05202) sec. 2; SwiGLU is the one with f = silu.
    Shapes:  x (..., C); Wg (C, F); W1 (C, F); W2 (F, C) -> y (..., C)
    Back:    x is used twice, so dx is the sum of what comes back through the gate and through W1

    >>> p = {"Wg": array([[2., -3.]]), "W1": array([[5., 7.]]), "W2": ones((2, 1))}
    >>> gated_feed_forward(array([[1.]]), p, activation="relu")[0]  # 2 · 5 + 0 · 7
    array([[10.]])
    """
    g, gate_back = affine(x, p, "g")
    f, activation_back = activated(g, activation=activation)
    h, first_back = affine(x, p, "1")
    a, multiply_back = multiply(f, h)
    y, second_back = affine(a, p, "2")

    def gated_feed_forward_back(dy: Array) -> tuple[Array, Tree]:
        da, dsecond = second_back(dy)
        df, dh = multiply_back(da)
        dx, dfirst = first_back(dh)
        dx_gate, dgate = gate_back(activation_back(df))
        return dx + dx_gate, {**dgate, **dfirst, **dsecond}

    return y, gated_feed_forward_back
