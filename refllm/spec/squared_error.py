"""The mean squared error, and the penalty on large weights."""

from refllm.spec.array import Array, Pullback, total


def mean_squared_error(x: Array, t: Array) -> tuple[Array, Pullback]:
    """MSE: y = mean over all N elements of (x - t)²

    Source:  documents 000 sec. 4.1.
    Shapes:  x (...); t (...) -> y ()
    Back:    dx = 2 (x - t) dy / N;   dt = -dx

    >>> y, mean_squared_error_back = mean_squared_error(array([1., 2.]), array([1., 4.]))
    >>> print(y, mean_squared_error_back(array(1.))[0])
    2.0 [ 0. -2.]
    """

    def mean_squared_error_back(dy: Array) -> tuple[Array, Array]:
        dx = 2 * (x - t) * dy / x.size
        return dx, -dx

    return total((x - t) * (x - t)) / x.size, mean_squared_error_back


def l2_penalty(w: Array, *, strength: float) -> tuple[Array, Pullback]:
    """L2: y = strength / 2 Σ w²

    Its gradient, strength w, is what `sgd` and `adam` add to a gradient as `decay`; `adamw` does otherwise.
    Source:  documents 000 sec. 4.4; Krogh & Hertz 1992; Loshchilov & Hutter 2019 (arXiv:1711.05101) for the difference.
    Shapes:  w (...) -> y ()
    Back:    dw = strength w dy

    >>> y, l2_penalty_back = l2_penalty(array([1., 2.]), strength=0.5)
    >>> print(y, l2_penalty_back(array(1.)))
    1.25 [0.5 1. ]
    """

    def l2_penalty_back(dy: Array) -> Array:
        return strength * w * dy

    return strength / 2 * total(w * w), l2_penalty_back
