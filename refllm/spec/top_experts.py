"""The weights of the experts of a token, where several serve it; the load on the router's scores."""

from refllm.spec.array import Array, Pullback, arange, everywhere, is_zero, sum, total, where
from refllm.spec.log_sum_exp import log_sum_exp
from refllm.spec.softmax import softmax


def top_experts(scores: Array, *, k: int, renormalise: bool) -> tuple[Array, Pullback]:
    """TOPK: y_e = P_e for the k experts with the largest scores, 0 for the others,   P = softmax(scores);
    with `renormalise` divided by their sum, so that the weights of a token sum to 1

    Of equal scores the first is the larger one. With `renormalise` it is the softmax of the k scores alone.
    Source:  Shazeer et al. 2017 (arXiv:1701.06538) sec. 2.1; Jiang et al. 2024 (arXiv:2401.04088) sec. 2.1 renormalise,
             Fedus et al. 2021 (arXiv:2101.03961) sec. 2.1 do not.
    Shapes:  scores (..., E) -> y (..., E)
    Back:    the choice is a constant. y = K / s, K = P of the chosen ones, s = Σ K   hence
             dP_e = (dy_e - Σ dy y) / s for a chosen expert, 0 for the others; without `renormalise` dP_e = dy_e

    >>> top_experts(log(array([[0.5, 0.1, 0.3, 0.1]])), k=2, renormalise=True)[0]
    array([[0.625, 0.   , 0.375, 0.   ]])
    """
    P, softmax_back = softmax(scores)
    chosen = among_largest(scores, k)
    K = where(chosen, P, 0)
    s = sum(K) + is_zero(sum(K))
    y = K / s if renormalise else K

    def top_experts_back(dy: Array) -> Array:
        dK = (dy - sum(dy * y)) / s if renormalise else dy
        return softmax_back(where(chosen, dK, 0))

    return y, top_experts_back


def among_largest(x: Array, k: int) -> Array:
    """True at the k largest of every row; of equal ones the first is the larger one."""
    one, other = x[..., :, None], x[..., None, :]
    place = arange(x.shape[-1])
    larger = (other > one) | ((other == one) & (place < place[:, None]))
    return larger.sum(axis=-1) < k


def z_loss(logits: Array, *, token_mask: Array | None, strength: float) -> tuple[Array, Pullback]:
    """ZLOSS: y = strength mean_t (log Z_t)²,   Z_t = Σ_j e^(logits[t, j])

    It keeps log Z near 0, so that the logits stay small. A token where token_mask is false does not count; with no
    token to count, y is 0.
    Source:  Zoph et al. 2022 (arXiv:2202.08906) sec. 3.3 on the scores of a router; Chowdhery et al. 2022
             (arXiv:2204.02311) sec. 5 on the logits of the vocabulary, with strength 1e-4.
    Shapes:  logits (..., V); token_mask bool (...) -> y ()
    Back:    l = log Z   hence   dl = dy 2 strength l / count, and that of `log_sum_exp`: dlogits = p dl

    >>> y, back = z_loss(array([[log(2.), log(2.)]]), token_mask=None, strength=0.5)
    >>> print(y)  # (log 4)² / 2
    0.96090602...
    """
    counted = everywhere(logits.shape[:-1]) if token_mask is None else token_mask
    count = max(1, int(counted.sum()))
    l, log_sum_exp_back = log_sum_exp(logits)

    def z_loss_back(dy: Array) -> Array:
        dl = where(counted, dy * (2 * strength / count) * l, 0)
        return where(counted[..., None], log_sum_exp_back(dl), 0)

    return strength * total(where(counted, l * l, 0)) / count, z_loss_back
