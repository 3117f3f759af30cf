"""The nonlinearities of the feed-forward layer, element by element, and the gate."""

from refllm.spec.array import Array, Pullback, erfc, exp, pi, sigmoid, sqrt, where
from refllm.spec.array import tanh as _tanh


def relu(x: Array) -> tuple[Array, Pullback]:
    """FFN: y = max(0, x)

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.3; documents 002 sec. 3.1 step 3.
    Shapes:  x (...) -> y (...)
    Back:    dx = dy where x > 0, else 0 (0 at x = 0, a choice that the derivative leaves open)

    >>> y, relu_back = relu(array([-1., 0., 2.]))
    >>> y, relu_back(ones(3))
    (array([0., 0., 2.]), array([0., 0., 1.]))
    """

    def relu_back(dy: Array) -> Array:
        return where(x > 0, dy, 0)

    return where(x > 0, x, 0), relu_back


def gelu_erf(x: Array) -> tuple[Array, Pullback]:
    """FFN: y = x Φ(x),   Φ(x) = erfc(-x / √2) / 2, the normal distribution function

    The exact form, of BERT and BART. (1 + erf(x / √2)) / 2 is the same number and loses the small tail.
    Source:  Hendrycks & Gimpel 2016 (arXiv:1606.08415) sec. 2; documents 000 sec. 2.1 (BERT).
    Shapes:  x (...) -> y (...)
    Back:    dx = dy (Φ(x) + x φ(x)),   φ(x) = Φ'(x) = exp(-x² / 2) / √(2π)

    >>> gelu_erf(array([-1., 0., 1.]))[0]
    array([-0.15865525,  0.        ,  0.84134475])
    """
    Phi = erfc(-x / sqrt(2)) / 2

    def gelu_erf_back(dy: Array) -> Array:
        phi = exp(-(x * x) / 2) / sqrt(2 * pi())
        return dy * (Phi + x * phi)

    return x * Phi, gelu_erf_back


def gelu_tanh(x: Array) -> tuple[Array, Pullback]:
    """FFN: y = x s,   s = (1 + tanh u) / 2,   u = √(2/π) (x + 0.044715 x³)

    The form of GPT-2 and of the first BERT code: an approximation of `gelu_erf`, up to 5e-4 away from it.
    Source:  Hendrycks & Gimpel 2016 (arXiv:1606.08415) sec. 2; documents 000 sec. 2.1, 001 ch. 1 (GPT, BERT).
    Shapes:  x (...) -> y (...)
    Back:    dx = dy (s + x ds/dx),   ds/dx = (1 - tanh² u) / 2 · du/dx,   du/dx = √(2/π) (1 + 3 · 0.044715 x²)

    >>> gelu_tanh(array([-1., 0., 1.]))[0]
    array([-0.15880801,  0.        ,  0.84119199])
    """
    k = sqrt(2 / pi())
    t = _tanh(k * (x + x * x * x * 44715 / 10**6))
    s = (1 + t) / 2

    def gelu_tanh_back(dy: Array) -> Array:
        du = k * (1 + x * x * (3 * 44715) / 10**6)
        return dy * (s + x * (1 - t * t) / 2 * du)

    return x * s, gelu_tanh_back


def silu(x: Array) -> tuple[Array, Pullback]:
    """FFN: y = x σ(x),   σ(x) = 1 / (1 + e^-x)

    Source:  Hendrycks & Gimpel 2016 (arXiv:1606.08415) sec. 2; Ramachandran et al. 2017 (arXiv:1710.05941).
    Shapes:  x (...) -> y (...)
    Back:    dx = dy (σ + x σ (1 - σ)),   since σ' = σ (1 - σ)

    >>> silu(array([-log(3.), 0., log(3.)]))[0] / log(3.)  # σ is 1/4, 1/2 and 3/4
    array([-0.25,  0.  ,  0.75])
    """
    s = sigmoid(x)

    def silu_back(dy: Array) -> Array:
        return dy * (s + x * s * (1 - s))

    return x * s, silu_back


def tanh(x: Array) -> tuple[Array, Pullback]:
    """RNN, NNLM, BERT: y = tanh(x)

    Source:  documents 003 sec. 4.1 (the recurrent step); Devlin et al. 2019, code (the pooler).
    Shapes:  x (...) -> y (...)
    Back:    dx = dy (1 - y²)

    >>> y, tanh_back = tanh(array([0., log(2.)]))  # tanh(log 2) = (2 - 1/2) / (2 + 1/2)
    >>> y, tanh_back(ones(2))
    (array([0. , 0.6]), array([1.  , 0.64]))
    """
    y = _tanh(x)

    def tanh_back(dy: Array) -> Array:
        return dy * (1 - y * y)

    return y, tanh_back


def multiply(a: Array, b: Array) -> tuple[Array, Pullback]:
    """FFN, gate: y = a b, element by element

    Source:  Shazeer 2020 (arXiv:2002.05202) sec. 2.
    Shapes:  a (...); b (...) -> y (...)
    Back:    da = dy b;   db = dy a

    >>> y, multiply_back = multiply(array([2., 3.]), array([5., 0.]))
    >>> y, multiply_back(ones(2))
    (array([10.,  0.]), (array([5., 0.]), array([2., 3.])))
    """

    def multiply_back(dy: Array) -> tuple[Array, Array]:
        return dy * b, dy * a

    return a * b, multiply_back


def dropout(x: Array, *, dropout_mask: Array, rate: float) -> tuple[Array, Pullback]:
    """DROP: y = x m / (1 - rate), the inverted form: the expectation of y is x, and inference does nothing

    Randomness is data: m is `dropout_mask`, a boolean array, true with probability 1 - rate, drawn by the caller.
    Source:  Srivastava et al. 2014; documents 000 sec. 4.4 Q3.
    Shapes:  x (...); dropout_mask bool (...) -> y (...)
    Back:    dx = dy m / (1 - rate)

    >>> dropout(array([1., 2., 3.]), dropout_mask=array([True, False, True]), rate=0.5)[0]
    array([2., 0., 6.])
    """

    def dropout_back(dy: Array) -> Array:
        return where(dropout_mask, dy / (1 - rate), 0)

    return where(dropout_mask, x / (1 - rate), 0), dropout_back
