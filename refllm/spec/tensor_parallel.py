"""A layer cut over ranks: each has some columns, rows or heads of the weights, and all have the whole input."""

from refllm.spec.array import Array, Pullback, Tree, rows
from refllm.spec.feed_forward import feed_forward
from refllm.spec.linear import linear, matmul
from refllm.spec.self_attention import self_attention
from refllm.spec.shard import among_zeros, shard


def column_parallel_linear(x: Array, W: Array, b: Array, *, ranks: int, rank: int) -> tuple[Array, Pullback]:
    """PAR, LINEAR: y = (x W + b)[own]: the rank has a part of the columns, and needs nothing of the others

    The parts of all ranks beside each other are x W + b.
    Source:  Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3.
    Shapes:  x (..., I); W (I, O); b (O,) -> y (..., own)
    Back:    that of `linear` for the own columns, 0 for the others. x goes into all columns, so dx is a part, which is
             sent: the gradient is the sum of those of all ranks

    >>> column_parallel_linear(array([[1., 2.]]), array([[3., 5.], [4., 6.]]), zeros(2), ranks=2, rank=1)[0]
    array([[17.]])
    """
    own = shard(W.shape[-1], ranks=ranks, rank=rank)
    y, linear_back = linear(x, W[:, own], b[own])

    def column_parallel_linear_back(dy: Array) -> tuple[Array, Array, Array]:
        dx, dW, db = linear_back(dy)
        return dx, among_zeros(dW, own, W.shape[-1], axis=-1), among_zeros(db, own, len(b), axis=0)

    return y, column_parallel_linear_back


def row_parallel_linear(x: Array, W: Array, b: Array, *, ranks: int, rank: int) -> tuple[Array, Pullback]:
    """PAR, LINEAR: y = x[own] W[own], and b on the first rank alone: a part, which is sent, of the sum x W + b

    Source:  Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3.
    Shapes:  x (..., I); W (I, O); b (O,) -> y (..., O)
    Back:    dx = dy W[own]ᵀ and dW = x[own]ᵀ dy at the own places, 0 at the others;   db of the first rank alone

    >>> [row_parallel_linear(array([[1., 2.]]), array([[3.], [4.]]), array([5.]), ranks=2, rank=n)[0] for n in (0, 1)]
    [array([[8.]]), array([[8.]])]
    """
    own = shard(len(W), ranks=ranks, rank=rank)
    product, matmul_back = matmul(x[..., own], W[own])
    y = product + b * int(rank == 0)

    def row_parallel_linear_back(dy: Array) -> tuple[Array, Array, Array]:
        dx, dW = matmul_back(dy)
        db = rows(dy) * int(rank == 0)
        return among_zeros(dx, own, len(W), axis=-1), among_zeros(dW, own, len(W), axis=0), db

    return y, row_parallel_linear_back


def parallel_feed_forward(x: Array, p: Tree, *, activation: str, ranks: int, rank: int) -> tuple[Array, Pullback]:
    """PAR, FFN: y = f(x W1[own] + b1[own]) W2[own], and b2 on the first rank alone: a part, which is sent, of the sum

    The first map is cut by columns and the second by rows, so nothing is sent between them: f acts on each number.
    Source:  Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3 and fig. 3a.
    Shapes:  x (..., C); W1 (C, F); b1 (F,); W2 (F, C); b2 (C,) -> y (..., C)
    Back:    that of `feed_forward` with the own weights; dx is a part, which is sent

    >>> p = {"W1": array([[2., 3.]]), "b1": zeros(2), "W2": array([[1.], [10.]]), "b2": array([5.])}
    >>> [parallel_feed_forward(array([[1.]]), p, activation="relu", ranks=2, rank=n)[0] for n in (0, 1)]  # 2 + 5, 30
    [array([[7.]]), array([[30.]])]
    """
    F = len(p["b1"])
    own = shard(F, ranks=ranks, rank=rank)
    mine = {"W1": p["W1"][:, own], "b1": p["b1"][own], "W2": p["W2"][own], "b2": p["b2"] * int(rank == 0)}
    y, feed_forward_back = feed_forward(x, mine, activation=activation)

    def parallel_feed_forward_back(dy: Array) -> tuple[Array, Tree]:
        dx, d = feed_forward_back(dy)
        first = {"W1": among_zeros(d["W1"], own, F, axis=-1), "b1": among_zeros(d["b1"], own, F, axis=0)}
        return dx, {**first, "W2": among_zeros(d["W2"], own, F, axis=0), "b2": d["b2"] * int(rank == 0)}

    return y, parallel_feed_forward_back


def head_parallel_attention(
    x: Array, p: Tree, *, heads: int, causal: bool, attention_mask: Array | None, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    """PAR, MHA: self-attention with the own heads, and bo on the first rank alone: a part, which is sent, of the sum

    The columns of Wqkv run over queries, keys and values, then heads: the own heads are three pieces of them.
    Source:  Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3 and fig. 3b.
    Shapes:  x (..., T, C); Wqkv (C, 3*C); bqkv (3*C,); Wo (C, C); bo (C,); attention_mask bool (..., 1, T) -> y
             (..., T, C)
    Back:    that of `self_attention` with the own weights; dx is a part, which is sent

    >>> I, how = array([[1., 0.], [0., 1.]]), {"heads": 2, "causal": True, "attention_mask": None, "ranks": 2}
    >>> p = {"Wqkv": concatenate([zeros((2, 4)), I], axis=-1), "bqkv": zeros(6), "Wo": I, "bo": zeros(2)}
    >>> [head_parallel_attention(array([[3., 5.]]), p, **how, rank=n)[0] for n in (0, 1)]  # of one token, its value
    [array([[3., 0.]]), array([[0., 5.]])]
    """
    C, D = len(p["Wo"]), len(p["Wo"]) // heads
    own = shard(heads, ranks=ranks, rank=rank)
    rows_of_own = slice(own.start * D, own.stop * D)
    Wqkv, bqkv = p["Wqkv"].reshape(C, 3, C), p["bqkv"].reshape(3, C)
    mine = {"Wqkv": Wqkv[:, :, rows_of_own].reshape(C, -1), "bqkv": bqkv[:, rows_of_own].reshape(-1)}
    mine = {**mine, "Wo": p["Wo"][rows_of_own], "bo": p["bo"] * int(rank == 0)}
    y, attention_back = self_attention(
        x, mine, heads=own.stop - own.start, causal=causal, attention_mask=attention_mask
    )

    def head_parallel_attention_back(dy: Array) -> tuple[Array, Tree]:
        dx, d = attention_back(dy)
        dWqkv = among_zeros(d["Wqkv"].reshape(C, 3, -1), rows_of_own, C, axis=-1).reshape(C, -1)
        dbqkv = among_zeros(d["bqkv"].reshape(3, -1), rows_of_own, C, axis=-1).reshape(-1)
        dWo = among_zeros(d["Wo"], rows_of_own, C, axis=0)
        return dx, {"Wqkv": dWqkv, "bqkv": dbqkv, "Wo": dWo, "bo": d["bo"] * int(rank == 0)}

    return y, head_parallel_attention_back
