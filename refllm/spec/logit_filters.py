"""What is done to the logits before a token is drawn: tokens that are too improbable, tokens that were there before."""

from refllm.spec.array import Array, exp, one_hot, top, where


def min_p(logits: Array, *, share: float) -> Array:
    """MINP: y_i = z_i where p_i >= share max_j p_j, -∞ elsewhere,   p = softmax(z), z = logits

    The surer the model, the fewer tokens stay. The most probable one always stays, for a share up to 1. The
    probabilities of what stays are the softmax of y. The share p_i / max p is e^(z_i - max z).
    Source:  Nguyen et al. 2024 (arXiv:2407.01082).
    Shapes:  logits (..., V) -> y (..., V)

    >>> min_p(array([0., 3., 2., 1.]), share=0.2)  # e^-1 = 0.37 and e^-2 = 0.14 of the largest
    array([-inf,   3.,   2., -inf])
    """
    relative = exp(logits - top(logits))
    return where(relative >= share, logits, float("-inf"))


def repetition_penalty(logits: Array, *, ids: Array, penalty: float) -> Array:
    """REP: y_i = z_i / penalty where z_i > 0, z_i penalty where not, for a token i that is among `ids`; z_i for the
    others

    So a penalty above 1 lowers the logit of each, whatever its sign. A token is penalised once, however often it was
    there. An id below 0 stands for no token.
    Source:  Keskar et al. 2019 (arXiv:1909.05858) sec. 4.1, which always divides; this form, customary since, is that
             of issue 2302 of the library transformers.
    Shapes:  logits (..., V); ids (..., T) -> y (..., V)

    >>> repetition_penalty(array([4., -4., 1.]), ids=array([0, 1, 0]), penalty=2.)
    array([ 2., -8.,  1.])
    """
    seen = one_hot(ids, logits.shape[-1]).any(axis=-2)
    return where(seen, where(logits > 0, logits / penalty, logits * penalty), logits)
