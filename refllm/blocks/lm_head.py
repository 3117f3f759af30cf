"""From hidden states to the distribution over the vocabulary, and to the loss without the whole of it."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array, known, namespace, zero_where_not
from refllm.differentiable import differentiable
from refllm.ops.cross_entropy import smoothed_cross_entropy
from refllm.ops.linear import matmul
from refllm.ops.soft_cap import soft_cap

LOGITS = 1 << 21  # numbers in a block of logits: 8 MB in float32


@differentiable
def lm_loss(
    h: Array, W: Array, *, targets: Array, ignore: int | None, cap: float | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """LMHEAD, NLL: y = Σ over places of -log softmax(h W)[target]

    Source:  documents 002 sec. 4.2; Press & Wolf 2017 (arXiv:1608.05859) for W = Eᵀ.
    Shapes:  h (..., C); W (C, V); targets (...) in [0, V) or `ignore` -> y ()
    Back:    dh = dy Σ_v dlogits Wᵀ;  dW = dy hᵀ dlogits
    Special: rows go through in blocks, and a block's gradient is formed while its logits are there, so that never more
             than a block of logits exists. A use that needs no gradient calls `matmul` and `cross_entropy`. With a cap
             the logits are cap tanh(h W / cap), as in Gemma 2 (CAP).

    >>> y, back = lm_loss(ones((2, 3)), zeros((3, 4)), targets=array([0, -1]), ignore=-1, cap=None)
    >>> round(float(y / math.log(4)), 12)  # one place counts, and four tokens are as likely
    1.0
    """
    return smoothed_lm_loss(h, W, targets=targets, ignore=ignore, smoothing=0.0, cap=cap)


@differentiable
def smoothed_lm_loss(
    h: Array, W: Array, *, targets: Array, ignore: int | None, smoothing: float, cap: float | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """LMHEAD, NLL, label smoothing: y = Σ over places of -Σ_v t_v log softmax(h W)_v

    t = (1 - ε) onehot(target) + ε / V,   ε = smoothing; ε = 0 is `lm_loss`.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 5.4.
    Shapes:  h (..., C); W (C, V); targets (...) in [0, V) or `ignore` -> y ()
    Back:    dh = dy Σ_v dlogits Wᵀ;  dW = dy hᵀ dlogits
    Special: as `lm_loss`.

    >>> how = {"targets": array([0, 1]), "ignore": None, "cap": None}
    >>> y, back = smoothed_lm_loss(ones((2, 3)), zeros((3, 4)), smoothing=0.1, **how)
    >>> round(float(y / math.log(4)), 12)  # where all are as likely, what the targets are does not matter
    2.0
    """
    xp = namespace(h)
    C, V = W.shape
    rows, flat_targets = h.reshape(-1, C), targets.reshape(-1)
    if ignore is not None and not known(xp.isfinite(rows).all()):  # in dW, 0 times such a row would not be 0
        rows = zero_where_not((flat_targets != ignore)[:, None], rows)
    size = max(1, LOGITS // V)
    loss, dh, dW = xp.zeros((), h.dtype), xp.empty(rows.shape, h.dtype), None
    one = xp.ones((), h.dtype)
    for start in range(0, len(rows), size):
        n = slice(start, start + size)
        logits, back_logits = matmul(rows[n], W)
        logits, back_cap = maybe_capped(logits, cap=cap)
        nll, back_nll = smoothed_cross_entropy(
            logits, targets=flat_targets[n], ignore=ignore, smoothing=smoothing, reduction="sum"
        )
        loss = loss + nll
        dh[n], dW_block = back_logits(back_cap(back_nll(one)))
        dW = dW_block if dW is None else xp.add(dW, dW_block, out=dW)
    gradient = xp.zeros_like(W) if dW is None else dW

    def back(dy: Array) -> tuple[Array, Array]:
        return (dh * dy).reshape(h.shape), gradient * dy

    return loss, back


def maybe_capped(x: Array, *, cap: float | None) -> tuple[Array, Callable[[Array], Array]]:
    """CAP where there is a cap

    Source:  see `soft_cap`.
    Shapes:  x (...) -> y (...)

    >>> maybe_capped(array([1e9]), cap=None)[0].tolist(), maybe_capped(array([1e9]), cap=30.0)[0].tolist()
    ([1000000000.0], [30.0])
    """
    return (x, lambda dy: dy) if cap is None else soft_cap(x, cap=cap)
