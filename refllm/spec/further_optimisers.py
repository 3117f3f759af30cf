"""One step of Lion and of Muon, the running mean of the weights, and a gradient collected over micro-batches."""

from refllm.spec.array import Array, Pullback, like, ratio, sqrt, stack, total
from refllm.spec.cross_entropy import cross_entropy

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def lion(
    p: Array, g: Array, m: Array, *, lr: float, beta1: float, beta2: float, decay: float
) -> tuple[Array, Array]:  # fmt: skip
    """LION: p' = p - lr (sign(β1 m + (1-β1) g) + λ p),   m' = β2 m + (1-β2) g

    The step is taken with β1, the momentum is kept with β2. The sign of 0 is 0. λ is `decay`.
    Source:  Chen et al. 2023 (arXiv:2302.06675) alg. 2.
    Shapes:  p (...); g (...); m (...) -> p' (...); m' (...)

    >>> lion(array([1., 1.]), array([0.5, -2.]), array([0., 0.]), lr=0.25, beta1=0.5, beta2=0.75, decay=0.)
    (array([0.75, 1.25]), array([ 0.125, -0.5  ]))
    """
    c = beta1 * m + (1 - beta1) * g
    sign = like(1 * (c > 0) - 1 * (c < 0), c)
    return p - lr * (sign + decay * p), beta2 * m + (1 - beta2) * g


def muon(
    p: Array, g: Array, v: Array, *, lr: float, momentum: float, nesterov: bool, decay: float
) -> tuple[Array, Array]:
    """MUON: v' = μ v + g,   u = g + μ v' with `nesterov`, v' without,   p' = (1 - lr λ) p - lr √max(1, O / I) N(u)

    N is `orthogonalised`: nearly the orthogonal matrix nearest to u. For one matrix of O rows and I columns, in the
    source's orientation: a row of p makes an entry of the output. The text's own weights are (in, out), so pass theirs
    transposed. λ is `decay`.
    Source:  Jordan et al. 2024; Liu et al. 2025 (arXiv:2502.16982) for the decay.
    Shapes:  p (O, I); g (O, I); v (O, I) -> p' (O, I); v' (O, I)
    """
    v = momentum * v + g
    u = g + momentum * v if nesterov else v
    O, I = p.shape
    scale = sqrt(ratio(max(O, I), I))
    return p * (1 - lr * decay) - lr * scale * orthogonalised(u), v


def orthogonalised(u: Array) -> Array:
    """Five Newton-Schulz steps X' = a X + b A X + c A² X,   A = X Xᵀ,   from X = u / (|u| + 1e-7), |u| = √Σ u²

    Each step is a polynomial of every singular value, which moves it towards 1. A is of the shorter side.
    """
    tall = u.shape[0] > u.shape[1]
    X = u / (sqrt(total(u * u)) + 1e-7)
    X = X.T if tall else X
    a, b, c = COEFFICIENTS
    for _ in range(5):
        A = X @ X.T
        X = a * X + (b * A + c * (A @ A)) @ X
    return X.T if tall else X


def average_weights(a: Array, p: Array, *, step: int, decay: float, warmup: bool) -> Array:
    """EMA: a' = β a + (1 - β) p,   β = decay, with `warmup` min(decay, (1 + step) / (10 + step))

    To be taken after every step, with the weights p that it left; `step` counts from 1. The warm-up lets the average
    forget the weights with which training began.
    Source:  Polyak & Juditsky 1992; the warm-up as in TensorFlow's ExponentialMovingAverage.
    Shapes:  a (...); p (...) -> a' (...)

    >>> average_weights(array([8.]), array([0.]), step=6, decay=0.75, warmup=True)  # β = 7/16
    array([3.5])
    """
    beta = decay
    if warmup:
        early = ratio(1 + step, 10 + step)
        beta = early if early < decay else decay
    return beta * a + (1 - beta) * p


def accumulated_cross_entropy(logits: Array, *, targets: Array, ignore: int | None) -> tuple[Array, Pullback]:
    """ACCUM, CE: y = Σ_m (sum of the losses of micro-batch m) / (count of all counted targets)

    So it is the mean over the whole batch, however the targets spread over the micro-batches. The mean of the
    micro-batches' means is another number where their counts differ.
    Source:  issue 34191 of the library transformers.
    Shapes:  logits (M, ..., V); targets (M, ...) in [0, V) -> y ()
    Back:    that of CE's sum for each micro-batch, begun with dy / count
    """
    counted = targets.size if ignore is None else int((targets != ignore).sum())
    count = max(1, counted)
    parts = [cross_entropy(z, targets=t, ignore=ignore, reduction="sum") for z, t in zip(logits, targets, strict=True)]

    def accumulated_cross_entropy_back(dy: Array) -> Array:
        return stack([part_back(dy / count) for _, part_back in parts], axis=0)

    return total(stack([loss for loss, _ in parts], axis=0)) / count, accumulated_cross_entropy_back
