"""Heads: one array cut into several narrow ones, each of which attends by itself, and joined again."""

from refllm.spec.array import Array


def cut(y: Array, heads: int) -> Array:
    """MHA: columns h D ... h D + D - 1 of y become head h. It only moves numbers, so its pullback is `joined`.

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.2.
    Shapes:  y (..., T, heads*D) -> (..., heads, T, D)

    >>> cut(array([[1, 2, 3, 4], [5, 6, 7, 8]]), 2)
    array([[[1, 2],
            [5, 6]],
           [[3, 4],
            [7, 8]]])
    """
    return y.reshape(*y.shape[:-1], heads, y.shape[-1] // heads).swapaxes(-2, -3)


def joined(a: Array) -> Array:
    """MHA: the heads side by side. It only moves numbers, so its pullback is `cut`.

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.2.
    Shapes:  a (..., H, T, D) -> (..., T, H*D)
    """
    side_by_side = a.swapaxes(-2, -3)
    return side_by_side.reshape(*side_by_side.shape[:-2], a.shape[-3] * a.shape[-1])
