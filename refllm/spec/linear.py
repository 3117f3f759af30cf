"""Affine maps of the last axis: with a bias, without one, and cut into heads."""

from refllm.spec.array import Array, Pullback, flat, rows, stack


def matmul(x: Array, W: Array) -> tuple[Array, Pullback]:
    """LMHEAD, LINEAR without bias: y = x W

    Source:  documents 002 sec. 4.2 (h_t W); Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.4 for a tied W = Eᵀ.
    Shapes:  x (..., I); W (I, O) -> y (..., O)
    Back:    y_o = Σ_i x_i W_io   hence   dx_i = Σ_o dy_o W_io, that is dx = dy Wᵀ;   dW_io = x_i dy_o, summed over rows

    >>> matmul(array([[1., 2.]]), array([[3.], [4.]]))[0]
    array([[11.]])
    """

    def matmul_back(dy: Array) -> tuple[Array, Array]:
        return dy @ W.T, flat(x).T @ flat(dy)

    return x @ W, matmul_back


def linear(x: Array, W: Array, b: Array) -> tuple[Array, Pullback]:
    """LINEAR: y = x W + b

    Source:  documents 002 sec. 3.1 step 3 (the two maps of the FFN), sec. 4.2 (h_t W + b).
    Shapes:  x (..., I); W (I, O); b (O,) -> y (..., O)
    Back:    dx = dy Wᵀ;   dW = Σ over rows of xᵀ dy;   db = Σ over rows of dy

    >>> linear(array([[1., 2.]]), array([[3.], [4.]]), array([5.]))[0]
    array([[16.]])
    """

    def linear_back(dy: Array) -> tuple[Array, Array, Array]:
        return dy @ W.T, flat(x).T @ flat(dy), rows(dy)

    return x @ W + b, linear_back


def heads(x: Array, W: Array, b: Array, *, heads: int, parts: int) -> tuple[tuple[Array, ...], Pullback]:
    """MHA: the projection to queries, keys and values, y = x W + b cut into `parts` arrays of `heads` heads

    Column p H D + h D + d of y is entry d of head h of part p: parts = 3 gives q, k, v in that order.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.2; documents 002 sec. 5 (the code's view and transpose).
    Shapes:  x (..., T, I); W (I, parts*heads*D); b (parts*heads*D,) -> y[parts] (..., heads, T, D)
    Back:    that of `linear`, after the heads are put side by side again

    >>> q, k = heads(array([[1.]]), array([[1., 2., 3., 4.]]), zeros(4), heads=2, parts=2)[0]
    >>> q[:, 0, 0], k[:, 0, 0]  # of the one token, a number for each head
    (array([1., 2.]), array([3., 4.]))
    """
    y, linear_back = linear(x, W, b)
    cut = y.reshape(*y.shape[:-1], parts, heads, y.shape[-1] // (parts * heads))

    def heads_back(*dparts: Array) -> tuple[Array, Array, Array]:
        dcut = stack([dpart.swapaxes(-2, -3) for dpart in dparts], axis=-3)
        return linear_back(dcut.reshape(y.shape))

    return tuple(cut[..., n, :, :].swapaxes(-2, -3) for n in range(parts)), heads_back
