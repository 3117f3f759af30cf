"""The switch layer's operations: each token goes to one expert, and an expert has room for so many of them.

Which expert takes a token, and at which place, are integers and have no gradient: `chosen` and `slots` are data. Slot
e * capacity + k is place k of expert e, and experts * capacity means that a token has none. A text is a group with
slots of its own.
"""

from refllm.spec.array import (
    Array,
    Pullback,
    arange,
    concatenate,
    everywhere,
    like,
    one_hot,
    pick,
    rows,
    scatter_add,
    sum,
    swap,
    where,
    zeros,
)  # fmt: skip


def gate(p: Array, *, chosen: Array) -> tuple[Array, Pullback]:
    """MOE: y = p[chosen], the probability of the expert that takes the token

    The expert's output is multiplied by it, which is how the router learns.
    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1, eq. 2 with one expert; documents 002 sec. 1.1.
    Shapes:  p (..., E); chosen (...) in [0, E) -> y (...)
    Back:    dp = dy at the chosen expert, 0 at the others

    >>> gate(array([[0.25, 0.75], [0.9, 0.1]]), chosen=array([1, 0]))[0]
    array([0.75, 0.9 ])
    """

    def gate_back(dy: Array) -> Array:
        return where(one_hot(chosen, p.shape[-1]), dy[..., None], 0)

    return pick(p, chosen), gate_back


def load_balance(p: Array, *, chosen: Array, token_mask: Array | None) -> tuple[Array, Pullback]:
    """MOE: y = E Σ_e f_e P_e,   f_e the share of the tokens whose expert is e, P_e the mean probability of e

    A token where token_mask is false does not count; with no token to count, y is 0.
    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.2, eq. 4 to 6; documents 002 sec. 1.1.
    Shapes:  p (..., T, E); chosen (..., T) in [0, E); token_mask bool (..., T) -> y (...)
    Back:    dp[t, e] = dy E f_e / count: f counts choices and has no gradient

    >>> p = array([[[0.5, 0.5], [0.5, 0.5]], [[1., 0.], [1., 0.]]])
    >>> load_balance(p, chosen=array([[0, 1], [0, 0]]), token_mask=None)[0]  # evenly spread: 1; all to one of two: 2
    array([1., 2.])
    """
    E = p.shape[-1]
    counted = (everywhere(chosen.shape) if token_mask is None else token_mask)[..., None]
    count = like(counted.sum(axis=-2).clip(1), p)
    f = like((one_hot(chosen, E) & counted).sum(axis=-2), p) / count
    P = sum(where(counted, p, 0), axis=-2, keepdims=False) / count

    def load_balance_back(dy: Array) -> Array:
        return where(counted, (dy[..., None] * E * f / count)[..., None, :], 0)

    return E * sum(f * P, keepdims=False), load_balance_back


def dispatch(x: Array, *, slots: Array, experts: int, capacity: int) -> tuple[Array, Pullback]:
    """MOE: y[e, k] = the token x[t] that has the slot of place k of expert e; zeros for a slot without a token

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.2 and fig. 3; documents 002 sec. 1.1.
    Shapes:  x (..., T, C); slots (..., T) in [0, experts*capacity+1) -> y (..., experts, capacity, C)
    Back:    dx[t] = dy at its slot, 0 for a token that has none

    >>> y = dispatch(array([[1.], [2.], [3.]]), slots=array([2, 4, 0]), experts=2, capacity=2)[0]
    >>> y[..., 0]  # a row for each expert; the second token has no place
    array([[3., 0.],
           [1., 0.]])
    """
    size = experts * capacity
    index = _through_all_groups(slots, size)
    y = scatter_add(index, x, index.size // max(1, slots.shape[-1]) * size)

    def dispatch_back(dy: Array) -> Array:
        return _taken(dy.reshape(y.shape), index)

    return y.reshape(*x.shape[:-2], experts, capacity, x.shape[-1]), dispatch_back


def combine(z: Array, g: Array, *, slots: Array) -> tuple[Array, Pullback]:
    """MOE: y[t] = g[t] z[e, k],   place k of expert e being the slot of token t; zeros for a token without a slot

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1, eq. 2, and 2.2; documents 002 sec. 1.1.
    Shapes:  z (..., E, K, C); g (..., T); slots (..., T) in [0, E*K+1) -> y (..., T, C)
    Back:    dz[e, k] = g[t] dy[t];   dg[t] = Σ_c dy[t] z[e, k]

    >>> combine(array([[[3.]], [[5.]]]), array([0.5, 1., 1.]), slots=array([1, 2, 0]))[0]  # the second token has none
    array([[2.5],
           [0. ],
           [3. ]])
    """
    index = _through_all_groups(slots, z.shape[-3] * z.shape[-2])
    by_slot = z.reshape(z.size // z.shape[-1], z.shape[-1])
    taken = _taken(by_slot, index)

    def combine_back(dy: Array) -> tuple[Array, Array]:
        dz = scatter_add(index, g[..., None] * dy, len(by_slot))
        return dz.reshape(z.shape), sum(dy * taken, keepdims=False)

    return g[..., None] * taken, combine_back


def _through_all_groups(slots: Array, size: int) -> Array:
    """The slots of all groups numbered through; the number after the last for a token without one."""
    groups = slots.size // max(1, slots.shape[-1])
    offset = (size * arange(groups)).reshape(*slots.shape[:-1], 1)
    return where(slots < size, slots + offset, groups * size)


def _taken(z: Array, index: Array) -> Array:
    """z[index], and zeros for the index after the last."""
    return concatenate([z, zeros((1, z.shape[-1]), z)], axis=0)[index]


def expert_matmul(x: Array, W: Array) -> tuple[Array, Pullback]:
    """MOE, LINEAR without bias: y[e] = x[e] W[e], each expert with a matrix of its own

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1 and fig. 2; documents 002 sec. 1.1.
    Shapes:  x (..., E, K, I); W (E, I, O) -> y (..., E, K, O)
    Back:    dx[e] = dy[e] W[e]ᵀ;   dW[e] = Σ over rows of x[e]ᵀ dy[e]

    >>> expert_matmul(array([[[1.]], [[10.]]]), array([[[2.]], [[3.]]]))[0]
    array([[[ 2.]],
           [[30.]]])
    """

    def expert_matmul_back(dy: Array) -> tuple[Array, Array]:
        per_group = (swap(x) @ dy).reshape(-1, W.size)
        return dy @ swap(W), rows(per_group).reshape(W.shape)

    return x @ W, expert_matmul_back


def expert_linear(x: Array, W: Array, b: Array) -> tuple[Array, Pullback]:
    """MOE, LINEAR: y[e] = x[e] W[e] + b[e], each expert with a matrix and a bias of its own

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1 and fig. 2; documents 002 sec. 1.1.
    Shapes:  x (..., E, K, I); W (E, I, O); b (E, O) -> y (..., E, K, O)
    Back:    that of `expert_matmul`;   db[e] = Σ over rows of dy[e]

    >>> expert_linear(array([[[1.]], [[10.]]]), array([[[2.]], [[3.]]]), array([[5.], [6.]]))[0]
    array([[[ 7.]],
           [[36.]]])
    """
    y, expert_matmul_back = expert_matmul(x, W)

    def expert_linear_back(dy: Array) -> tuple[Array, Array, Array]:
        db = rows(sum(dy, axis=-2, keepdims=False).reshape(-1, b.size))
        return *expert_matmul_back(dy), db.reshape(b.shape)

    return y + b[:, None, :], expert_linear_back
