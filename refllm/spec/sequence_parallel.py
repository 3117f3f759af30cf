"""The places of a text cut over ranks: what acts on each place by itself, and attention, for which keys go round."""

from refllm.spec.activation import dropout
from refllm.spec.array import Array, Pullback, arange, everywhere, zeros
from refllm.spec.layer_norm import layer_norm
from refllm.spec.log_sum_exp import attention_with_lse, merge_attention
from refllm.spec.shard import among_zeros, shard


def sequence_parallel_norm(
    x: Array, g: Array, b: Array, *, eps: float, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    """PAR, LN: the layer norm of the own places

    Source:  Korthikanti et al. 2022 (arXiv:2205.05198) sec. 4.2.2.
    Shapes:  x (..., T, C); g (C,); b (C,) -> y (..., own, C)
    Back:    that of `layer_norm` for the own places, 0 for the others. Every rank has g and b, and sees some of the
             places: dg and db are parts, which are sent; the gradient is their sum

    >>> sequence_parallel_norm(array([[0., 2.], [9., 5.]]), ones(2), zeros(2), eps=0., ranks=2, rank=1)[0]
    array([[ 1., -1.]])
    """
    T = x.shape[-2]
    own = shard(T, ranks=ranks, rank=rank)
    y, layer_norm_back = layer_norm(x[..., own, :], g, b, eps=eps)

    def sequence_parallel_norm_back(dy: Array) -> tuple[Array, Array, Array]:
        dx, dg, db = layer_norm_back(dy)
        return among_zeros(dx, own, T, axis=-2), dg, db

    return y, sequence_parallel_norm_back


def sequence_parallel_dropout(
    x: Array, *, dropout_mask: Array, rate: float, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    """PAR, DROP: dropout of the own places, with their part of the draws for all places

    So the draws do not depend on the number of ranks, and no two ranks have the same.
    Source:  Korthikanti et al. 2022 (arXiv:2205.05198) sec. 4.2.2; Srivastava et al. 2014.
    Shapes:  x (..., T, C); dropout_mask bool (..., T, C) -> y (..., own, C)
    Back:    that of `dropout` for the own places, 0 for the others

    >>> x, mask = array([[1.], [2.], [3.], [4.]]), array([[True], [True], [False], [True]])
    >>> sequence_parallel_dropout(x, dropout_mask=mask, rate=0.5, ranks=2, rank=1)[0]
    array([[0.],
           [8.]])
    """
    T = x.shape[-2]
    own = shard(T, ranks=ranks, rank=rank)
    y, dropout_back = dropout(x[..., own, :], dropout_mask=dropout_mask[..., own, :], rate=rate)

    def sequence_parallel_dropout_back(dy: Array) -> Array:
        return among_zeros(dropout_back(dy), own, T, axis=-2)

    return y, sequence_parallel_dropout_back


def ring_attention(
    q: Array, k: Array, v: Array, *, causal: bool, attention_mask: Array | None, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    """PAR, ATT, LSE: the attention of the own queries, to which the keys and values of all ranks come in turn

    A rank begins with its own keys and values and passes them on to the next: turn n brings those of rank - n. What
    each turn gives is merged by its log-sum-exp. Causal: place t attends the places up to t, counted in the whole text.
    Source:  Liu et al. 2023 (arXiv:2310.01889) sec. 3.
    Shapes:  q (..., T, D); k (..., T, D); v (..., T, E); attention_mask bool (..., T, T) -> y (..., own, E)
    Back:    the turns in reverse: that of `merge_attention` gives the gradients of both of its parts, and a turn's own
             that of the keys and values it was made with, which go round with them. l is no output: it begins with 0

    >>> q, k, v = zeros((4, 1)), zeros((4, 1)), array([[2.], [4.], [6.], [8.]])
    >>> ring_attention(q, k, v, causal=True, attention_mask=None, ranks=2, rank=1)[0]  # means of three and of four
    array([[4.],
           [5.]])
    """
    T = q.shape[-2]
    own = shard(T, ranks=ranks, rank=rank)
    blocks = [shard(T, ranks=ranks, rank=(rank - turn) % ranks) for turn in range(ranks)]
    seen = arange(T) <= arange(T)[:, None] if causal else everywhere((T, T))
    if attention_mask is not None:
        seen = seen & attention_mask
    turns = [
        attention_with_lse(
            q[..., own, :], k[..., keys, :], v[..., keys, :], causal=False, attention_mask=seen[..., own, keys]
        )
        for keys in blocks
    ]
    (y, l), merges = turns[0][0], []
    for (next_y, next_l), _ in turns[1:]:
        (y, l), merge_back = merge_attention(y, l, next_y, next_l)
        merges.append(merge_back)

    def ring_attention_back(dy: Array) -> tuple[Array, Array, Array]:
        dl = zeros(dy.shape[:-1], dy)
        dq, dk, dv = 0 * q, 0 * k, 0 * v
        for turn in reversed(range(ranks)):
            dturn, dl_turn = dy, dl
            if turn > 0:
                dy, dl, dturn, dl_turn = merges[turn - 1](dy, dl)
            dq_turn, dk_turn, dv_turn = turns[turn][1](dturn, dl_turn)
            dq = dq + among_zeros(dq_turn, own, T, axis=-2)
            dk = dk + among_zeros(dk_turn, blocks[turn], T, axis=-2)
            dv = dv + among_zeros(dv_turn, blocks[turn], T, axis=-2)
        return dq, dk, dv

    return y, ring_attention_back
