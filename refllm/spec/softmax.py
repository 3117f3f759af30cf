"""Softmax, and its logarithm."""

from refllm.spec.array import Array, Pullback, exp, is_zero, log, sum, top, where


def softmax(x: Array) -> tuple[Array, Pullback]:
    """SMX: p_i = e^{x_i} / Σ_j e^{x_j}

    The shift by the row's largest number cancels; it keeps the exponentials finite. A row of only -∞ gives zeros.
    Source:  Bridle 1990; documents 001 ch. 4 sec. 1, 002 sec. 4.2.
    Shapes:  x (..., N) -> p (..., N)
    Back:    dx_i = Σ_j dp_j ∂p_j/∂x_i,   ∂p_j/∂x_i = p_j ([i = j] - p_i)   hence   dx = p (dp - Σ_j p_j dp_j)

    >>> softmax(array([[0., log(3.)]]))[0]
    array([[0.25, 0.75]])
    """
    e = exp(x - top(x))
    Z = sum(e)
    p = e / (Z + is_zero(Z))

    def softmax_back(dp: Array) -> Array:
        return p * (dp - sum(p * dp))

    return p, softmax_back


def log_softmax(x: Array) -> tuple[Array, Pullback]:
    """SMX: y_i = x_i - log Σ_j e^{x_j};   a row of only -∞ stays so

    Source:  as `softmax`.
    Shapes:  x (..., N) -> y (..., N)
    Back:    ∂y_j/∂x_i = [i = j] - p_i   hence   dx = dy - p Σ_j dy_j,   p = e^y

    >>> log_softmax(array([[0., 1000.]]))[0]
    array([[-1000.,     0.]])
    """
    c = x - top(x)
    Z = sum(exp(c))
    y = c - log(where(Z == 0, 1, Z))

    def log_softmax_back(dy: Array) -> Array:
        return dy - exp(y) * sum(dy)

    return y, log_softmax_back
