"""A batch cut over ranks: the loss of a share, the norm of gradients that are cut, and a step of a cut optimiser."""

from refllm.spec.array import Array, Pullback, sqrt, sum, total, where
from refllm.spec.cross_entropy import cross_entropy
from refllm.spec.shard import among_zeros, shard
from refllm.spec.update import adamw


def data_parallel_cross_entropy(
    logits: Array, *, targets: Array, ignore: int | None, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    """PAR, CE: y = (sum of the losses of the own texts) / (count of all targets of all ranks that are not `ignore`)

    The count is sent before the loss is known. The mean over the batch is the sum of y over the ranks, and so is the
    gradient: whoever averages gradients instead multiplies y by the number of ranks.
    Source:  issue 34191 of the library transformers.
    Shapes:  logits (B, ..., V); targets (B, ...) in [0, V) -> y ()
    Back:    that of CE's sum for the own texts, begun with dy / count; 0 for the others

    >>> how = {"targets": array([[0, 1, 1], [0, -1, -1]]), "ignore": -1, "ranks": 2}
    >>> y = array([data_parallel_cross_entropy(zeros((2, 3, 2)), **how, rank=n)[0] for n in (0, 1)])
    >>> y / log(2.)  # the losses are log 2 each: three of four, and one of four
    array([0.75, 0.25])
    """
    B = len(logits)
    own = shard(B, ranks=ranks, rank=rank)
    counted = targets.size if ignore is None else int((targets != ignore).sum())
    count = max(1, counted)
    loss, loss_back = cross_entropy(logits[own], targets=targets[own], ignore=ignore, reduction="sum")

    def data_parallel_cross_entropy_back(dy: Array) -> Array:
        return among_zeros(loss_back(dy / count), own, B, axis=0)

    return loss / count, data_parallel_cross_entropy_back


def sharded_squares(g: list[Array], *, cut: Array, ranks: int, rank: int) -> Array:
    """PAR, ADAMW (clipping): s = Σ g² over the own rows of the gradients that are cut, and on the first rank over those
    that all ranks have

    s is sent. `cut` says of each gradient whether its rows are cut over the ranks. What all have counts once.
    Source:  Pascanu et al. 2013 (arXiv:1211.5063) alg. 1; Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3.
    Shapes:  g: any; cut bool (N,) -> s ()

    >>> g, cut = [array([3., 4.]), array([1.])], array([True, False])
    >>> print(*(sharded_squares(g, cut=cut, ranks=2, rank=n) for n in (0, 1)))  # 9 + 1, and 16
    10.0 16.0
    """
    squares = 0 * total(g[0])
    for x, is_cut in zip(g, cut, strict=True):
        own = shard(len(x), ranks=ranks, rank=rank)
        if is_cut:
            squares = squares + total(x[own] * x[own])
        elif rank == 0:
            squares = squares + total(x * x)
    return squares


def sharded_clip(g: list[Array], squares: Array, *, clip: float) -> tuple[Array, list[Array]]:
    """PAR, ADAMW (clipping): norm = √(Σ_r s_r),   g' = g min(1, clip / norm)

    s_r is what rank r sent (`sharded_squares`), g what this rank has. All ranks scale by the same number.
    Source:  as `sharded_squares`.
    Shapes:  g: any; squares (R,) -> norm (); g' as g

    >>> print(*sharded_clip([array([3.])], array([9., 16.]), clip=2.5))
    5.0 [array([1.5])]
    """
    norm = sqrt(total(squares))
    scale = 1 if norm <= clip else clip / norm
    return norm, [x * scale for x in g]


def sharded_adamw(
    p: Array, g: Array, m: Array, v: Array, *,
    decayed: Array, step: int, lr: float, beta1: float, beta2: float, eps: float, decay: float, ranks: int, rank: int,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """PAR, ADAMW: one step of the own stretch of all parameters p, with the own stretch of the moments

    g holds the gradients of all ranks, whose sum is that of the batch. `decayed` says which parameters decay. The
    stretches of p' are sent to all; the moments stay where they are.
    Source:  Rajbhandari et al. 2020 (arXiv:1910.02054) sec. 5.1; Loshchilov & Hutter 2019 (arXiv:1711.05101) alg. 2.
    Shapes:  p (N,); g (R, N); m (own,); v (own,); decayed bool (N,) -> p' (own,); m' (own,); v' (own,)

    >>> how = {"step": 1, "lr": 0.25, "beta1": 0.5, "beta2": 0.75, "eps": 0., "decay": 1.}
    >>> g, decayed = array([[1., 1.], [1., -3.]]), array([True, False])  # the own sum of gradients is -2
    >>> sharded_adamw(ones(2), g, zeros(1), zeros(1), decayed=decayed, **how, ranks=2, rank=1)
    (array([1.25]), array([-1.]), array([1.]))
    """
    own = shard(len(p), ranks=ranks, rank=rank)
    mine = sum(g, axis=0, keepdims=False)[own]
    shrunk = where(decayed[own], p[own] * (1 - lr * decay), p[own])
    return adamw(shrunk, mine, m, v, step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps, decay=0)
