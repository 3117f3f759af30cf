"""The switch layer's operations: each token goes to one expert, and an expert has room for so many of them.

Which expert takes a token, and at which place, are integers and have no gradient: here `chosen` and `slots` are data,
found by `blocks/switch_layer.py`. Slot e * capacity + k is place k of expert e. The number after the last slot,
experts * capacity, is that of a token without a place. The tokens of a text are a group: each has slots of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from refllm.backend import Array, namespace, scatter_add, zero_where_not
from refllm.differentiable import differentiable
from refllm.fit import require_indices


@differentiable
def gate(p: Array, *, chosen: Array) -> tuple[Array, Callable[[Array], Array]]:
    """MOE: y = p[chosen], the probability of the expert that takes the token

    The expert's output is multiplied by it, which is how the router learns.
    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1, eq. 2 with one expert; documents 002 sec. 1.1.
    Shapes:  p (..., E); chosen (...) in [0, E) -> y (...)
    Back:    dp = dy at the chosen expert, 0 at the others
    Raises:  IndexError if a choice is not in [0, E).

    >>> y, back = gate(array([[0.25, 0.75]]), chosen=array([1]))
    >>> y.tolist(), back(ones(1)).tolist()
    ([0.75], [[0.0, 1.0]])
    """
    E = p.shape[-1]
    require_indices("gate", chosen=(chosen, E))
    xp = namespace(p)

    def back(dy: Array) -> Array:
        return (xp.arange(E) == chosen[..., None]) * dy[..., None]

    return xp.take_along_axis(p, chosen[..., None], axis=-1)[..., 0], back


@differentiable
def load_balance(p: Array, *, chosen: Array, token_mask: Array | None) -> tuple[Array, Callable[[Array], Array]]:
    """MOE: y = E Σ_e f_e P_e,   f_e the share of the tokens whose expert is e, P_e the mean probability of e

    1 when the tokens are spread evenly, E when all of them, surely, go to one expert. The factor α is the objective's.
    A text is a group with a value of its own, so that a batch may be cut into shards.
    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.2, eq. 4 to 6; documents 002 sec. 1.1.
    Shapes:  p (..., T, E); chosen (..., T) in [0, E); token_mask bool (..., T), or None -> y (...)
    Back:    dp[t, e] = dy E f_e / T: f counts choices and has no gradient
    Special: where token_mask is false a token does not count, nor in T; None counts all. A token that overflows counts.
             With no token to count, y is 0.
    Raises:  IndexError if a choice is not in [0, E).

    >>> load_balance(array([[1.0, 0.0], [0.0, 1.0]]), chosen=array([0, 1]), token_mask=None)[0].tolist()
    1.0
    >>> load_balance(array([[1.0, 0.0], [1.0, 0.0]]), chosen=array([0, 0]), token_mask=None)[0].tolist()
    2.0
    """
    E = p.shape[-1]
    require_indices("load_balance", chosen=(chosen, E))
    xp = namespace(p)
    counts = (xp.ones(chosen.shape, p.dtype) if token_mask is None else token_mask.astype(p.dtype))[
        ..., None
    ]  # (..., T, 1)
    tokens = xp.maximum(counts.sum(axis=-2), 1)  # (..., 1)
    f = ((xp.arange(E) == chosen[..., None]) * counts).sum(axis=-2) / tokens  # (..., E)
    mean = ((p if token_mask is None else zero_where_not(token_mask[..., None], p)) * counts).sum(axis=-2) / tokens

    def back(dy: Array) -> Array:
        return counts * (E * dy[..., None] * f / tokens)[..., None, :]

    return E * (f * mean).sum(axis=-1), back


@differentiable
def dispatch(x: Array, *, slots: Array, experts: int, capacity: int) -> tuple[Array, Callable[[Array], Array]]:
    """MOE: y[e, k] = the token x[t] that has the slot of place k of expert e

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.2 and fig. 3; documents 002 sec. 1.1.
    Shapes:  x (..., T, C); slots (..., T) in [0, experts*capacity+1) -> y (..., experts, capacity, C)
    Back:    dx[t] = dy at its slot, 0 for a token that has none
    Special: a slot without a token holds zeros; of several tokens with one slot y holds the sum.
    Raises:  ValueError if the capacity is zero, IndexError if a slot does not exist.

    >>> x = array([[1.0], [2.0], [3.0]])  # places 1 of expert 1, 0 of expert 0, and none
    >>> dispatch(x, slots=array([3, 0, 4]), experts=2, capacity=2)[0].tolist()
    [[[2.0], [0.0]], [[0.0], [1.0]]]
    """
    C = x.shape[-1]
    rows = _numbered_through("dispatch", slots, experts * capacity)
    groups = math.prod(x.shape[:-2])
    y = namespace(x).zeros((groups * experts * capacity + 1, C), x.dtype)
    scatter_add(y, rows, x.reshape(len(rows), C))

    def back(dy: Array) -> Array:
        return _taken(dy.reshape(len(y) - 1, C), rows).reshape(x.shape)

    return y[:-1].reshape(*x.shape[:-2], experts, capacity, C), back


@differentiable
def combine(z: Array, g: Array, *, slots: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """MOE: y[t] = g[t] z[e, k],   place k of expert e being the slot of token t

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1, eq. 2, and 2.2; documents 002 sec. 1.1.
    Shapes:  z (..., E, K, C); g (..., T); slots (..., T) in [0, E*K+1) -> y (..., T, C)
    Back:    dz[e, k] = g[t] dy[t];  dg[t] = Σ_c dy[t] z[e, k]
    Special: a token without a slot gets zeros, and only the residual connection passes it on.
    Raises:  IndexError if a slot does not exist.

    >>> z = array([[[2.0], [0.0]], [[0.0], [1.0]]])
    >>> combine(z, array([0.5, 1.0, 1.0]), slots=array([3, 0, 4]))[0].tolist()
    [[0.5], [2.0], [0.0]]
    """
    E, K, C = z.shape[-3:]
    rows = _numbered_through("combine", slots, E * K)
    taken = _taken(z.reshape(math.prod(z.shape[:-1]), C), rows).reshape(*g.shape, C)

    def back(dy: Array) -> tuple[Array, Array]:
        dz = namespace(z).zeros((math.prod(z.shape[:-1]) + 1, C), z.dtype)
        scatter_add(dz, rows, (g[..., None] * dy).reshape(len(rows), C))
        return dz[:-1].reshape(z.shape), (dy * taken).sum(axis=-1)

    return g[..., None] * taken, back


@differentiable
def expert_matmul(x: Array, W: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """MOE, LINEAR without bias: y[e] = x[e] W[e], each expert with a matrix of its own

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1 and fig. 2; documents 002 sec. 1.1.
    Shapes:  x (..., E, K, I); W (E, I, O) -> y (..., E, K, O)
    Back:    dx[e] = dy[e] W[e]ᵀ;  dW[e] = Σ over rows of x[e]ᵀ dy[e]
    Raises:  ValueError if x and W differ in the number of experts, or the width of x is not the height of W.

    >>> expert_matmul(ones((2, 1, 1)), array([[[3.0]], [[5.0]]]))[0].tolist()
    [[[3.0]], [[5.0]]]
    """
    rows = _by_expert(x)

    def back(dy: Array) -> tuple[Array, Array]:
        drows = _by_expert(dy)
        return _by_group(drows @ W.swapaxes(1, 2), x.shape), rows.swapaxes(1, 2) @ drows

    return _by_group(rows @ W, (*x.shape[:-1], W.shape[-1])), back


@differentiable
def expert_linear(x: Array, W: Array, b: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """MOE, LINEAR: y[e] = x[e] W[e] + b[e], each expert with a matrix and a bias of its own

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1 and fig. 2; documents 002 sec. 1.1.
    Shapes:  x (..., E, K, I); W (E, I, O); b (E, O) -> y (..., E, K, O)
    Back:    dx[e] = dy[e] W[e]ᵀ;  dW[e] = Σ over rows of x[e]ᵀ dy[e];  db[e] = Σ over rows of dy[e]
    Special: a slot without a token gets the bias; `combine` does not read it.
    Raises:  ValueError if x, W and b differ in the number of experts, or their widths do not fit.

    >>> expert_linear(ones((2, 1, 1)), array([[[3.0]], [[5.0]]]), array([[10.0], [20.0]]))[0].tolist()
    [[[13.0]], [[25.0]]]
    """
    y, back_product = expert_matmul(x, W)
    y += b[:, None, :]

    def back(dy: Array) -> tuple[Array, Array, Array]:
        return *back_product(dy), _by_expert(dy).sum(axis=1)

    return y, back


def _numbered_through(operation: str, slots: Array, size: int) -> Array:
    """The slots of all groups as rows of one matrix, (N,); the row after the last for every token without a slot."""
    require_indices(operation, slots=(slots, size + 1))
    xp = namespace(slots)
    groups = math.prod(slots.shape[:-1])
    by_group = slots.reshape(groups, slots.shape[-1]).astype("int64")  # unsigned ones added to signed would be floats
    return xp.where(by_group < size, by_group + size * xp.arange(groups)[:, None], groups * size).reshape(-1)


def _taken(z: Array, rows: Array) -> Array:
    """z[rows], and zeros for the row after the last."""
    xp = namespace(z)
    there = (rows < len(z))[:, None]
    return xp.where(there, z[xp.minimum(rows, len(z) - 1)], 0).astype(z.dtype, copy=False)


def _by_expert(x: Array) -> Array:
    """(..., E, K, I) as (E, rows, I): the rows of an expert side by side, so that it takes one product."""
    *groups, E, K, width = x.shape
    G = math.prod(groups)
    return x.reshape(G, E, K, width).swapaxes(0, 1).reshape(E, G * K, width)


def _by_group(rows: Array, shape: tuple[int, ...]) -> Array:
    """What `_by_expert` gave, in the shape (..., E, K, O)."""
    *groups, E, K, width = shape
    return rows.reshape(E, math.prod(groups), K, width).swapaxes(0, 1).reshape(shape)
