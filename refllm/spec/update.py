"""One step of SGD, Adam and AdamW for one array, clipping by the global norm, and the learning rate's schedule."""

from refllm.spec.array import Array, cos, pi, power, ratio, sqrt, total, where


def sgd(p: Array, g: Array, v: Array, *, lr: float, momentum: float) -> tuple[Array, Array]:
    """SGD: v' = μ v + g,   p' = p - lr v'

    Source:  Sutskever et al. 2013, in the form of most frameworks (lr outside the velocity); documents 004 sec. 3.2.
    Shapes:  p (...); g (...); v (...) -> p' (...); v' (...)

    >>> sgd(array([1., 1.]), array([2., -4.]), array([0., 4.]), lr=0.25, momentum=0.5)
    (array([0.5, 1.5]), array([ 2., -2.]))
    """
    v = momentum * v + g
    return p - lr * v, v


def adam(
    p: Array, g: Array, m: Array, v: Array, *,
    step: int, lr: float, beta1: float, beta2: float, eps: float, decay: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """ADAM: m' = β1 m + (1-β1) g,   v' = β2 v + (1-β2) g²,   p' = p - lr m̂ / (√v̂ + eps),
             m̂ = m' / (1-β1^step),   v̂ = v' / (1-β2^step)

    `decay` is the L2 penalty λ: its gradient λ p joins g, and so enters both moments. `step` counts from 1.
    Source:  Kingma & Ba 2015 (arXiv:1412.6980) alg. 1; documents 000 sec. 4.3, 003 sec. 5.2.
    Shapes:  p (...); g (...); m (...); v (...) -> p' (...); m' (...); v' (...)

    >>> how = {"step": 1, "lr": 0.25, "beta1": 0.5, "beta2": 0.75, "eps": 0., "decay": 0.}
    >>> adam(ones(2), array([0.5, -2.]), zeros(2), zeros(2), **how)  # the first step is lr, however large g is
    (array([0.75, 1.25]), array([ 0.25, -1.  ]), array([0.0625, 1.    ]))
    """
    change, m, v = _adam(g + decay * p, m, v, step, beta1, beta2, eps)
    return p - lr * change, m, v


def adamw(
    p: Array, g: Array, m: Array, v: Array, *,
    step: int, lr: float, beta1: float, beta2: float, eps: float, decay: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """ADAMW: p' = (1 - lr λ) p - lr m̂ / (√v̂ + eps): the decay acts on the parameter alone, the moments never see it

    Source:  Loshchilov & Hutter 2019 (arXiv:1711.05101) alg. 2, with the schedule's factor inside lr; documents 000
             sec. 5.2 (code).
    Shapes:  p (...); g (...); m (...); v (...) -> p' (...); m' (...); v' (...)

    >>> how = {"step": 1, "lr": 0.25, "beta1": 0.5, "beta2": 0.75, "eps": 0., "decay": 1.}
    >>> adamw(ones(2), array([0.5, -2.]), zeros(2), zeros(2), **how)  # 0.75 - 0.25 and 0.75 + 0.25
    (array([0.5, 1. ]), array([ 0.25, -1.  ]), array([0.0625, 1.    ]))
    """
    change, m, v = _adam(g, m, v, step, beta1, beta2, eps)
    return p * (1 - lr * decay) - lr * change, m, v


def _adam(
    g: Array, m: Array, v: Array, step: int, beta1: float, beta2: float, eps: float
) -> tuple[Array, Array, Array]:
    """m̂ / (√v̂ + eps), m' and v'"""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g * g)
    corrected_m = m / (1 - power(beta1, step))
    corrected_v = v / (1 - power(beta2, step))
    return corrected_m / (sqrt(corrected_v) + eps), m, v


def clip_by_global_norm(g: list[Array], *, clip: float) -> tuple[Array, list[Array]]:
    """ADAMW (clipping): norm = √(Σ g² over all arrays);   g' = g min(1, clip / norm), in new arrays

    Source:  Pascanu et al. 2013 (arXiv:1211.5063) alg. 1.
    Shapes:  g: any -> norm (); g' as g

    >>> print(*clip_by_global_norm([array([3.]), array([4.])], clip=2.5))
    5.0 [array([1.5]), array([2.])]
    """
    squares = total(g[0] * g[0])
    for x in g[1:]:
        squares = squares + total(x * x)
    norm = sqrt(squares)
    factor = 1 if norm <= clip else clip / norm
    return norm, [where(norm <= clip, x, x * factor) for x in g]


def warmup_cosine(*, step: int, max_lr: float, warmup: int, total: int, min_lr: float) -> float:
    """ADAMW (schedule): linear from max_lr / warmup at step 1 to max_lr at step `warmup`, then half a cosine down to
    `min_lr` at step `total`, and `min_lr` after

    Source:  Loshchilov & Hutter 2017 (arXiv:1608.03983) eq. 5 without restarts; warm-up as Vaswani et al. 2017
             (arXiv:1706.03762) sec. 5.3. Steps count from 1, so that the first step moves.

    >>> [warmup_cosine(step=n, max_lr=1., warmup=2, total=6, min_lr=0.) for n in (1, 2, 4, 6)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return max_lr * step / warmup
    if step >= total:
        return min_lr
    return min_lr + (max_lr - min_lr) * (1 + cos(pi() * ratio(step - warmup, total - warmup))) / 2
