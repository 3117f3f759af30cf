"""Cross-entropy of a softmax, against class indices, smoothed ones, or a distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

from refllm.backend import Array, known, namespace, zero_where_not
from refllm.differentiable import differentiable
from refllm.fit import require_indices
from refllm.kinds import OneOf
from refllm.ops.softmax import _finite_for_nothing, _row_maximum, log_softmax

Reduction: TypeAlias = Annotated[str, OneOf(("mean", "sum", "none"))]


@differentiable
def cross_entropy(
    logits: Array, *, targets: Array, ignore: int | None, reduction: Reduction
) -> tuple[Array, Callable[[Array], Array]]:
    """CE, NLL: y = -log p[target] = log Σ_j exp(z_j) - z[target],   p = softmax(z), z = logits

    reduced by "mean", "sum" or "none" over the places; a place whose target is `ignore` does not count.
    Source:  documents 001 ch. 4 sec. 3 (erratum E2: terms with a zero target vanish), 000 sec. 4.3, 002 sec. 3.3.
    Shapes:  logits (..., V); targets (...) in [0, V) or `ignore` -> y () or, for "none", (...)
    Back:    dlogits = w (p - onehot(target)),   w = dy / (number of counted places) for "mean", dy else
    Special: where target = ignore, loss and gradient are 0, whatever the logits there; the mean over no place is 0.
             A target with a logit of -inf costs inf. Never log(softmax(z)): a loss of 1e4 keeps its digits.
    Raises:  ValueError for another reduction, IndexError if a target is neither ignored nor in [0, V).

    >>> y, back = cross_entropy(zeros((2, 4)), targets=array([1, -1]), ignore=-1, reduction="mean")
    >>> round(float(y / np.log(4)), 12), back(array(1.0)).tolist()
    (1.0, [[0.25, -0.75, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]])
    """
    V = logits.shape[-1]
    xp = namespace(logits)
    counted = xp.ones(targets.shape, bool) if ignore is None else targets != ignore
    index = xp.where(counted, targets, 0)
    require_indices("cross_entropy", targets=(index, V))

    z, top = _with_row_maximum(xp, logits, counted, ignore, "cross_entropy")
    e = xp.exp(z - top)
    total = _sum_of_exponentials(xp, e)
    at_target = xp.take_along_axis(z, index[..., None], axis=-1)
    loss = xp.log(total) + (top - at_target)[..., 0]
    loss = loss if ignore is None else zero_where_not(counted, loss)
    count = xp.maximum(counted.sum(), 1).astype(loss.dtype) if reduction == "mean" else 1

    def back(dy: Array) -> Array:
        w = zero_where_not(counted, dy / count)
        rows = (e * (w / total)[..., None]).reshape(-1, V)
        rows[xp.arange(len(rows)), index.reshape(-1)] -= w.reshape(-1)
        return rows.reshape(logits.shape)

    return loss if reduction == "none" else loss.sum() / count, back


@differentiable
def soft_cross_entropy(
    logits: Array, targets: Array, *, reduction: Reduction
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """CE: y = -Σ_j t_j log p_j,   p = softmax(logits), t = targets; reduced by "mean", "sum" or "none" over the rows

    Source:  documents 001 ch. 4 sec. 3 (with a one-hot y), 000 sec. 4.3; label smoothing and distillation use it.
    Shapes:  logits (..., V); targets (..., V) -> y () or, for "none", (...)
    Back:    dlogits = w (p Σ_j t_j - t);  dtargets = -w log p,   w = dy / (number of rows) for "mean", dy else
    Special: a term with t_j = 0 vanishes, also where log p_j = -inf (erratum E2). Rows of t need not sum to 1.
    Raises:  ValueError for another reduction.

    >>> t = array([[0.5, 0.5, 0.0]])
    >>> z = array([[0.0, 0.0, -np.inf]])  # impossible, and not wanted
    >>> round(float(soft_cross_entropy(z, t, reduction="sum")[0] / np.log(2)), 12)
    1.0
    """
    V = logits.shape[-1]
    xp = namespace(logits)
    log_p, back_log_softmax = log_softmax(logits)
    loss = -(targets * xp.where(targets == 0, 0, log_p)).sum(axis=-1)
    count = max(1, logits.size // V) if reduction == "mean" else 1

    def back(dy: Array) -> tuple[Array, Array]:
        w = (xp.asarray(dy) / count)[..., None]
        return back_log_softmax(targets * -w), log_p * -w

    return loss if reduction == "none" else loss.sum() / count, back


@differentiable
def smoothed_cross_entropy(
    logits: Array, *, targets: Array, ignore: int | None, smoothing: float, reduction: Reduction
) -> tuple[Array, Callable[[Array], Array]]:
    """CE, label smoothing: y = -Σ_j t_j log p_j,   t = (1 - ε) onehot(target) + ε / V,   ε = smoothing

    = log Σ_j exp(z_j) - (1 - ε) z[target] - ε mean(z);   reduced as `cross_entropy`, places that are ignored likewise.
    Source:  Szegedy et al. 2016 (arXiv:1512.00567) sec. 7; Vaswani et al. 2017 (arXiv:1706.03762) sec. 5.4.
    Shapes:  logits (..., V); targets (...) in [0, V) or `ignore` -> y () or, for "none", (...)
    Back:    dlogits = w (p - t),   w = dy / (number of counted places) for "mean", dy else
    Special: ε = 0 is `cross_entropy`, to the bit. Else every class has a share of t, so a logit of -inf costs inf.
    Raises:  ValueError if ε is not in [0, 1); else as `cross_entropy`.

    >>> how = {"targets": array([1]), "ignore": None, "reduction": "mean"}
    >>> y, back = smoothed_cross_entropy(zeros((1, 4)), smoothing=0.4, **how)  # t = 0.1, 0.7, 0.1, 0.1 against 1/4
    >>> back(array(1.0)).round(12).tolist()
    [[0.15, -0.45, 0.15, 0.15]]
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothed_cross_entropy: smoothing must be at least 0 and below 1, got {smoothing}")
    if smoothing == 0:  # not the formula below: 0 · -inf is not 0
        return cross_entropy(logits, targets=targets, ignore=ignore, reduction=reduction)
    V = logits.shape[-1]
    xp = namespace(logits)
    counted = xp.ones(targets.shape, bool) if ignore is None else targets != ignore
    index = xp.where(counted, targets, 0)
    require_indices("smoothed_cross_entropy", targets=(index, V))

    z, top = _with_row_maximum(xp, logits, counted, ignore, "smoothed_cross_entropy")
    shifted = z - top
    e = xp.exp(shifted)
    total = _sum_of_exponentials(xp, e)
    at_target = xp.take_along_axis(shifted, index[..., None], axis=-1)[..., 0]
    expected = at_target * (1 - smoothing) + shifted.sum(axis=-1) * (smoothing / V)  # Σ_j t_j z_j
    loss = xp.where(counted, xp.log(total) - expected, 0).astype(logits.dtype)
    count = xp.maximum(counted.sum(), 1).astype(loss.dtype) if reduction == "mean" else 1

    def back(dy: Array) -> Array:
        w = zero_where_not(counted, dy / count)
        rows = (e * (w / total)[..., None] - (w * (smoothing / V))[..., None]).reshape(-1, V)
        rows[xp.arange(len(rows)), index.reshape(-1)] -= (w * (1 - smoothing)).reshape(-1)
        return rows.reshape(logits.shape)

    return loss if reduction == "none" else loss.sum() / count, back


def _with_row_maximum(
    xp: Any, logits: Array, counted: Array, ignore: int | None, operation: str
) -> tuple[Array, Array]:
    """The logits and the maximum of each row. A row that does not count is zeros if its maximum is not finite: 0 times
    what would come of it would not be 0."""
    top = _row_maximum(logits, operation)
    if ignore is None or known(xp.isfinite(top).all()):
        return logits, _finite_for_nothing(xp, top)
    z = zero_where_not(counted[..., None], logits)
    return z, _finite_for_nothing(xp, z.max(axis=-1, keepdims=True))


def _sum_of_exponentials(xp: Any, e: Array) -> Array:
    """Z of every row; 1 for a row of only -inf, as in `log_softmax`."""
    total = e.sum(axis=-1)
    return xp.where(total == 0, 1, total).astype(e.dtype)
