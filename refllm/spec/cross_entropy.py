"""Cross-entropy of a softmax, against class indices, smoothed ones, or a distribution; and the losses beside it."""

from refllm.spec.array import Array, Pullback, everywhere, exp, mean, one_hot, pick, spread, sum, total, where
from refllm.spec.softmax import log_softmax


def cross_entropy(logits: Array, *, targets: Array, ignore: int | None, reduction: str) -> tuple[Array, Pullback]:
    """CE, NLL: y = -log p[target],   p = softmax(logits), reduced by "mean", "sum" or "none"

    A place whose target is `ignore` costs nothing and is not counted by the mean; the mean over no place is 0.
    Source:  documents 001 ch. 4 sec. 3 (erratum E2: terms with a zero target vanish), 000 sec. 4.3, 002 sec. 3.3.
    Shapes:  logits (..., V); targets (...) in [0, V) -> y () or, for "none", (...)
    Back:    ∂(-log p_t)/∂z_i = p_i - [i = t]   hence   dlogits = w (p - onehot(target)),   w = dy / count

    >>> y, back = cross_entropy(array([[0., log(3.)]]), targets=array([1]), ignore=None, reduction="mean")
    >>> print(y, back(array(1.)))  # -log(3/4), and p - onehot
    0.28768207... [[ 0.25 -0.25]]
    """
    counted = everywhere(targets.shape) if ignore is None else targets != ignore
    index = where(counted, targets, 0)
    log_p, _ = log_softmax(logits)
    losses = where(counted, -pick(log_p, index), 0)
    y, reduced_back = reduced(losses, reduction, int(counted.sum()))

    def cross_entropy_back(dy: Array) -> Array:
        w = where(counted, reduced_back(dy), 0)[..., None]
        return where(counted[..., None], exp(log_p) * w - where(one_hot(index, logits.shape[-1]), w, 0), 0)

    return y, cross_entropy_back


def smoothed_cross_entropy(
    logits: Array, *, targets: Array, ignore: int | None, smoothing: float, reduction: str
) -> tuple[Array, Pullback]:
    """CE, label smoothing: y = -Σ_j t_j log p_j,   t = (1 - ε) onehot(target) + ε / V,   ε = smoothing

    Source:  Szegedy et al. 2016 (arXiv:1512.00567) sec. 7; Vaswani et al. 2017 (arXiv:1706.03762) sec. 5.4.
    Shapes:  logits (..., V); targets (...) in [0, V) -> y () or, for "none", (...)
    Back:    dlogits = w (p - t),   w = dy / count

    >>> how = {"targets": array([1]), "ignore": None, "smoothing": 0.5, "reduction": "mean"}
    >>> y, smoothed_cross_entropy_back = smoothed_cross_entropy(zeros((1, 2)), **how)
    >>> smoothed_cross_entropy_back(array(1.))  # p = (1/2, 1/2),   t = (1/4, 3/4)
    array([[ 0.25, -0.25]])
    """
    V = logits.shape[-1]
    counted = everywhere(targets.shape) if ignore is None else targets != ignore
    index = where(counted, targets, 0)
    log_p, _ = log_softmax(logits)
    nothing = (log_p == float("-inf")) & (smoothing == 0)  # 0 · ∞, whose limit is 0
    losses = -((1 - smoothing) * pick(log_p, index) + smoothing * mean(where(nothing, 0, log_p))[..., 0])
    y, reduced_back = reduced(where(counted, losses, 0), reduction, int(counted.sum()))

    def smoothed_cross_entropy_back(dy: Array) -> Array:
        w = where(counted, reduced_back(dy), 0)[..., None]
        t = where(one_hot(index, V), w * (1 - smoothing), 0) + w * smoothing / V
        return where(counted[..., None], w * exp(log_p) - t, 0)

    return y, smoothed_cross_entropy_back


def soft_cross_entropy(logits: Array, targets: Array, *, reduction: str) -> tuple[Array, Pullback]:
    """CE: y = -Σ_j t_j log p_j,   p = softmax(logits), t = targets; reduced by "mean", "sum" or "none" over the rows

    A term with t_j = 0 vanishes, also where log p_j = -∞ (erratum E2). Rows of t need not sum to 1.
    Source:  documents 001 ch. 4 sec. 3 (with a one-hot y), 000 sec. 4.3; label smoothing and distillation use it.
    Shapes:  logits (..., V); targets (..., V) -> y () or, for "none", (...)
    Back:    dlogits = w (p Σ_j t_j - t);   dtargets = -w log p,   w = dy / count

    >>> y, back = soft_cross_entropy(log(array([[0.1, 0.8, 0.1]])), array([[0., 1., 0.]]), reduction="sum")
    >>> print(y)  # erratum E2
    0.22314355...
    """
    log_p, log_softmax_back = log_softmax(logits)
    nothing = (targets == 0) & (log_p == float("-inf"))  # 0 · ∞, whose limit is 0
    losses = -sum(targets * where(nothing, 0, log_p), keepdims=False)
    y, reduced_back = reduced(losses, reduction, losses.size)

    def soft_cross_entropy_back(dy: Array) -> tuple[Array, Array]:
        w = reduced_back(dy)[..., None]
        return log_softmax_back(-w * targets), -w * log_p

    return y, soft_cross_entropy_back


def reduced(losses: Array, reduction: str, count: int) -> tuple[Array, Pullback]:
    """The losses themselves ("none"), their sum, or their sum divided by the count, 0 if that is 0."""

    def reduced_back(dy: Array) -> Array:
        share = dy / max(1, count) if reduction == "mean" else dy
        return spread(share, losses.shape) if reduction != "none" else share

    if reduction == "none":
        return losses, reduced_back
    return total(losses) / (max(1, count) if reduction == "mean" else 1), reduced_back


def chain_rule(logits: Array, *, ids: Array) -> tuple[Array, Pullback]:
    """CHAIN: log P(x_1 ... x_T) = Σ_t log P(x_t given x_<t); row t of the logits is the distribution of ids[t]

    Source:  Shannon 1948; documents 002 sec. 4.2 (erratum E4).
    Shapes:  logits (..., T, V); ids (..., T) in [0, V) -> y (...)
    Back:    that of the sum of -CE
    """
    losses, losses_back = cross_entropy(logits, targets=ids, ignore=None, reduction="none")

    def chain_rule_back(dy: Array) -> Array:
        return losses_back(spread(-dy[..., None], losses.shape))

    return -sum(losses, keepdims=False), chain_rule_back


def perplexity(logits: Array, *, ids: Array) -> tuple[Array, Pullback]:
    """PPL: y = e^(NLL / T), over all T predicted tokens

    Source:  Jelinek 1977; documents 004 sec. 3.3.
    Shapes:  logits (..., T, V); ids (..., T) in [0, V) -> y ()
    Back:    dlogits = y dy d(NLL / T)
    """
    nll, nll_back = cross_entropy(logits, targets=ids, ignore=None, reduction="mean")
    y = exp(nll)

    def perplexity_back(dy: Array) -> Array:
        return nll_back(y * dy)

    return y, perplexity_back
