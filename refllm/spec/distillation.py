"""A small model that learns from the probabilities of a large one, beside the labels."""

from refllm.spec.array import Array, Pullback, like
from refllm.spec.cross_entropy import smoothed_cross_entropy, soft_cross_entropy
from refllm.spec.softmax import softmax


def distillation_loss(
    logits: Array, *, teacher: Array, targets: Array, smoothing: float, temperature: float, share: float
) -> tuple[Array, Pullback]:
    """COMPRESS, distillation: y = -(1 - λ) log p[target] - λ T² Σ_j q_j log p'_j,   p' = softmax(z / T)

    One number per row; z = logits, q = softmax(teacher / T), λ = share, T = temperature. The gradients of the soft part
    shrink with 1/T², which T² makes good. With smoothing the first part is that of `smoothed_cross_entropy`.
    Source:  Hinton et al. 2015 (arXiv:1503.02531) sec. 2.
    Shapes:  logits (..., V); teacher (..., V); targets (...) in [0, V) -> y (...)
    Back:    dz = (1 - λ) dhard + λ T² dsoft / T

    >>> z = array([[0., log(3.)]])
    >>> y, _ = distillation_loss(z, teacher=z, targets=array([1]), smoothing=0., temperature=1., share=0.5)
    >>> print(y)  # half of -log 3/4, and half of the entropy of (1/4, 3/4)
    [0.42500861]
    """
    hard, hard_back = smoothed_cross_entropy(
        logits, targets=targets, ignore=None, smoothing=smoothing, reduction="none"
    )
    q, _ = softmax(like(teacher, logits) / temperature)
    soft, soft_back = soft_cross_entropy(logits / temperature, q, reduction="none")
    y = (1 - share) * hard + share * temperature**2 * soft

    def distillation_loss_back(dy: Array) -> Array:
        dscaled, _ = soft_back(share * temperature**2 * dy)
        return hard_back((1 - share) * dy) + dscaled / temperature

    return y, distillation_loss_back
