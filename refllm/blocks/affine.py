"""Affine maps by the name of their parameters, with a bias where there is one, and with heads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from refllm.backend import Array
from refllm.differentiable import differentiable
from refllm.entries import FAULTS
from refllm.errors import KindError, UserError
from refllm.fit import require_array
from refllm.heads import cut, side_by_side
from refllm.ops.linear import linear, matmul
from refllm.parameters import Tree, named_gradients


def affine_shapes(maps: dict[str, tuple[int, int]], *, biases: bool) -> Tree:
    """Name to (inputs, outputs), as the shapes of W and b of each name."""
    tree: Tree = {}
    for name, (inputs, outputs) in maps.items():
        tree |= {f"W{name}": (inputs, outputs)} | ({f"b{name}": (outputs,)} if biases else {})
    return tree


def affine(x: Array, p: Tree, *, name: str) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """LINEAR: y = x W + b,   W = p["W" + name], b = p["b" + name]; y = x W where p has no such bias

    Source:  see `linear` and `matmul`.
    Shapes:  x (..., I); W (I, O); b (O,) -> y (..., O)

    >>> affine(array([[2.0]]), {"W1": array([[3.0]])}, name="1")[0].tolist()
    [[6.0]]
    >>> affine(array([[2.0]]), {"W1": array([[3.0]]), "b1": array([1.0])}, name="1")[0].tolist()
    [[7.0]]
    """
    W, b = f"W{name}", f"b{name}"
    try:
        y, back = linear(x, p[W], p[b]) if b in p else matmul(x, p[W])
    except FAULTS:
        _require_map(p, name)
        raise
    return y, partial(named_gradients, back, (W, b))


def _require_map(p: Tree, name: str) -> None:
    """UserError unless p is a dict with the matrix of that name, and the bias, if it has one, is an array too."""
    if not isinstance(p, dict):
        raise KindError(f"affine: the parameters must be a dict with W{name}, got {type(p).__name__}")
    if f"W{name}" not in p:
        raise UserError(f"affine: the parameters lack W{name}; they hold {', '.join(map(str, p)) or 'nothing'}")
    for entry in (f"W{name}", f"b{name}"):
        if entry in p:
            require_array("affine", entry, p[entry])


@differentiable
def project(
    x: Array, p: Tree, *, name: str, heads: int, parts: int
) -> tuple[tuple[Array, ...], Callable[..., tuple[Array, Tree]]]:
    """MHA: y = x W + b cut into `parts` arrays of H heads; as the operation `heads`, and without bias where p has none

    W = p["W" + name] (I, parts*heads*D), b = p["b" + name] (parts*heads*D,).
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.2.
    Shapes:  x (..., T, I) -> y[parts] (..., heads, T, D)

    >>> (q, k), back = project(array([[1.0, 2.0]]), {"Wqk": np.eye(2)}, name="qk", heads=1, parts=2)
    >>> q.tolist(), k.tolist()
    ([[[1.0]]], [[[2.0]]])
    """
    y, back_affine = affine(x, p, name=name)
    if y.shape[-1] % (heads * parts):
        raise UserError(f"project: W{name} has {y.shape[-1]} columns, and must have parts*heads*D of {parts}*{heads}*D")

    def back(*dparts: Array) -> tuple[Array, Tree]:
        return back_affine(side_by_side(dparts))

    return cut(y, heads=heads, parts=parts), back


def concatenated(a: Array, p: Tree, *, name: str) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """MHA: the heads side by side, then the output map: y = concat(a) W + b

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.2.
    Shapes:  a (..., H, T, D); W (H*D, C); b (C,) -> y (..., T, C)

    >>> a = array([[[1.0]], [[2.0]]])  # two heads of one number
    >>> concatenated(a, {"Wo": np.eye(2), "bo": zeros(2)}, name="o")[0].tolist()
    [[1.0, 2.0]]
    """
    y, back_affine = affine(side_by_side([a]), p, name=name)

    def back(dy: Array) -> tuple[Array, Tree]:
        da, dp = back_affine(dy)
        return *cut(da, heads=a.shape[-3]), dp

    return y, back
