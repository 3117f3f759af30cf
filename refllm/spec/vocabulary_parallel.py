"""The table of the vocabulary cut over ranks: the rows of an embedding, and the logits that a loss is made of."""

from refllm.spec.array import (
    Array,
    Pullback,
    everywhere,
    one_hot,
    pick,
    stack,
    sum,
    total,
    where,
    zeros,
)
from refllm.spec.embedding import embedding
from refllm.spec.log_sum_exp import log_sum_exp
from refllm.spec.shard import among_zeros, shard


def vocabulary_parallel_embedding(E: Array, *, ids: Array, ranks: int, rank: int) -> tuple[Array, Pullback]:
    """PAR, EMB: y = E[ids] where the row is one of the own, 0 elsewhere: a part, which is sent, of the sum E[ids]

    A rank may have no row: 0 everywhere.
    Source:  Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3.
    Shapes:  E (V, C); ids (...) in [0, V) -> y (..., C)
    Back:    that of `embedding` for the own rows, 0 for the others

    >>> vocabulary_parallel_embedding(array([[1.], [2.], [3.], [4.]]), ids=array([3, 0, 2]), ranks=2, rank=1)[0]
    array([[4.],
           [0.],
           [3.]])
    """
    own = shard(len(E), ranks=ranks, rank=rank)
    here = (ids >= own.start) & (ids < own.stop)
    rows = E[own] if own.start < own.stop else zeros((1, E.shape[-1]), E)  # a rank that has none reads zeros
    y, embedding_back = embedding(rows, ids=where(here, ids - own.start, 0))

    def vocabulary_parallel_embedding_back(dy: Array) -> Array:
        dE = embedding_back(where(here[..., None], dy, 0))
        return among_zeros(dE[: own.stop - own.start], own, len(E), axis=0)

    return where(here[..., None], y, 0), vocabulary_parallel_embedding_back


def vocabulary_parallel_sums(
    logits: Array, *, targets: Array, ranks: int, rank: int
) -> tuple[tuple[Array, Array], Pullback]:
    """PAR, CE: l = log Σ e^z over the own logits, and t = the logit of the target if it is one of them, else 0

    These two numbers of every place are sent, not the logits. A target that is no word belongs to nobody. A rank that
    has no word sends -∞ and 0.
    Source:  Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3, whose maximum, sum and target are these two.
    Shapes:  logits (..., V); targets (...) -> l (...), t (...)
    Back:    dlogits = softmax(own logits) dl + onehot(target) dt at the own places, 0 at the others

    >>> logits, targets = log(array([[1., 2., 3., 5.]])), array([3])
    >>> vocabulary_parallel_sums(logits, targets=targets, ranks=2, rank=1)[0]  # log 8 and log 5
    (array([2.07944154]), array([1.60943791]))
    """
    V = logits.shape[-1]
    own = shard(V, ranks=ranks, rank=rank)
    here = (targets >= own.start) & (targets < own.stop)
    index = where(here, targets - own.start, 0)
    nothing = zeros((*logits.shape[:-1], 1), logits) + float("-inf")
    z = logits[..., own] if own.start < own.stop else nothing
    l, log_sum_exp_back = log_sum_exp(z)
    t = where(here, pick(z, index), 0)

    def vocabulary_parallel_sums_back(dl: Array, dt: Array) -> Array:
        of_target = where(one_hot(index, own.stop - own.start), where(here, dt, 0)[..., None], 0)
        of_sum = log_sum_exp_back(dl)[..., : own.stop - own.start]
        return among_zeros(of_sum + of_target, own, V, axis=-1)

    return (l, t), vocabulary_parallel_sums_back


def vocabulary_parallel_cross_entropy(
    l: Array, t: Array, *, targets: Array, ignore: int | None
) -> tuple[Array, Pullback]:
    """PAR, CE: y = mean (log Σ_r e^{l_r} - Σ_r t_r) over the places whose target is not `ignore`; 0 if there is none

    l_r and t_r are what rank r sent (`vocabulary_parallel_sums`). Every rank computes the same y.
    Source:  Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3.
    Shapes:  l (R, ...); t (R, ...); targets (...) -> y ()
    Back:    with w = dy / count where it counts, 0 elsewhere:   dl_r = w softmax(l)_r,   dt_r = -w. A rank goes on with
             its own two, and multiplies them by nothing: y is one number, not one of each rank

    >>> l, t = log(array([[2.], [8.]])), log(array([[1.], [5.]]))
    >>> y = vocabulary_parallel_cross_entropy(l, t, targets=array([3]), ignore=None)[0]
    >>> array([exp(-y)])  # P = 5 / (2 + 8)
    array([0.5])
    """
    counted = everywhere(targets.shape) if ignore is None else targets != ignore
    count = max(1, int(counted.sum()))
    parts = stack([l[r] for r in range(len(l))], axis=-1)
    whole, log_sum_exp_back = log_sum_exp(parts)
    losses = where(counted, whole - sum(t, axis=0, keepdims=False), 0)

    def vocabulary_parallel_cross_entropy_back(dy: Array) -> tuple[Array, Array]:
        w = where(counted, dy / count, 0)
        dparts = log_sum_exp_back(w)
        return stack([dparts[..., r] for r in range(len(l))], axis=0), stack([-w for _ in range(len(t))], axis=0)

    return total(losses) / count, vocabulary_parallel_cross_entropy_back
