"""The nonlinearities of the feed-forward layer, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable

from refllm.backend import Array, erfc, known, namespace, row_blocks
from refllm.differentiable import differentiable

_K0 = math.sqrt(2 / math.pi)  # math, not NumPy: a NumPy scalar would turn float32 arrays into float64
_K1 = 0.044715 * _K0
_FEW = 4096
_MILD = 1e4  # a sum of squares: no number is above 100, whose cube is within float16 too


@differentiable
def relu(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """FFN: y = max(0, x)

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.3; documents 002 sec. 3.1 step 3.
    Shapes:  x (...) -> y (...)
    Back:    dx = dy where x > 0, else 0 (0 at x = 0, a choice the derivative leaves open)

    >>> y, back = relu(array([-2.0, 0.0, 3.0]))
    >>> y.tolist(), back(ones(3)).tolist()
    ([0.0, 0.0, 3.0], [0.0, 0.0, 1.0])
    """
    return namespace(x).maximum(x, 0), lambda dy: dy * (x > 0)


def _without_overflow(x: Array, enough: float) -> Array:
    """x (N,), or x between ±enough where its powers may overflow. Of few numbers, as in decoding, their squares tell in
    a fifth of the time that `clip` takes."""
    return x if x.size <= _FEW and known(namespace(x).vdot(x, x) < _MILD) else x.clip(-enough, enough)


@differentiable
def gelu_tanh(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """FFN: y = x s,   s = (1 + tanh u) / 2,   u = √(2/π) (x + 0.044715 x³)

    The form of GPT-2 and of the first BERT code: an approximation of `gelu_erf`, up to 5e-4 away from it.
    Source:  Hendrycks & Gimpel 2016 (arXiv:1606.08415) sec. 2; documents 000 sec. 2.1, 001 ch. 1 (GPT, BERT).
    Shapes:  x (...) -> y (...)
    Back:    dx = dy (s + 2 x s (1 - s) du/dx),   du/dx = √(2/π) (1 + 3 · 0.044715 x²)
    Special: tends to x and to 0 for x → ±∞, where s is exactly 1 and 0.

    >>> x = array([0.5, 1.0, 2.0])
    >>> (gelu_tanh(x)[0] - gelu_tanh(-x)[0]).round(12).tolist()  # s(x) + s(-x) = 1, so x itself is left
    [0.5, 1.0, 2.0]
    """
    xp = namespace(x)
    y, slope = xp.empty(x.shape, x.dtype), xp.empty(x.shape, x.dtype)  # slope = dy/dx, all that `back` needs
    # In place, in blocks that a cache holds. With w = 2 (1 - s) = 1 - tanh u the text's formulas are
    #   s = 1 - w / 2,   y = x s,   slope = s + y w du/dx   (since 2 x s (1 - s) = y w).
    for xi, yi, slopei in row_blocks(x.reshape(-1), y.reshape(-1), slope.reshape(-1)):
        a = _without_overflow(xi, 10)  # tanh u is exactly ±1 beyond
        q = a * a
        q *= _K1
        q += _K0  # q = u / x = k0 + k1 x²
        d = xp.multiply(q, 3, out=slopei)
        d -= 2 * _K0  # d = du/dx = k0 + 3 k1 x² = 3 q - 2 k0
        q *= a  # u
        xp.tanh(q, out=q)
        w = xp.subtract(1, q, out=q)
        d *= w  # w du/dx
        w *= -0.5
        w += 1
        s = w  # in the place of w
        xp.multiply(xi, s, out=yi)  # y = x s
        d *= yi
        d += s  # slope = s + y w du/dx
    return y, lambda dy: dy * slope


@differentiable
def gelu_erf(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """FFN: y = x Φ(x),   Φ(x) = (1 + erf(x / √2)) / 2, the normal distribution function

    The exact form, of BERT and BART.
    Source:  Hendrycks & Gimpel 2016 (arXiv:1606.08415) sec. 2; documents 000 sec. 2.1 (BERT).
    Shapes:  x (...) -> y (...)
    Back:    dx = dy (Φ(x) + x φ(x)),   φ(x) = exp(-x² / 2) / √(2π)
    Special: Φ is erfc(-x / √2) / 2, which keeps the small tail that 1 + erf loses.

    >>> x = array([0.5, 1.0, 2.0])
    >>> (gelu_erf(x)[0] - gelu_erf(-x)[0]).round(12).tolist()  # Φ(x) + Φ(-x) = 1, so x itself is left
    [0.5, 1.0, 2.0]
    """
    xp = namespace(x)
    y, slope = xp.empty(x.shape, x.dtype), xp.empty(x.shape, x.dtype)
    for xi, yi, slopei in row_blocks(x.reshape(-1), y.reshape(-1), slope.reshape(-1)):
        Phi = erfc(xi * -math.sqrt(0.5))
        Phi *= 0.5
        xp.multiply(xi, Phi, out=yi)  # y = x Φ
        a = _without_overflow(xi, 40)  # φ is 0 beyond
        x_phi = xp.exp(a * a * -0.5)
        x_phi *= a
        x_phi *= 1 / math.sqrt(2 * math.pi)
        xp.add(Phi, x_phi, out=slopei)  # slope = Φ + x φ
    return y, lambda dy: dy * slope


@differentiable
def tanh(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """RNN, NNLM, BERT: y = tanh(x)

    Source:  documents 003 sec. 4.1 (the recurrent step); Devlin et al. 2019, code (the pooler).
    Shapes:  x (...) -> y (...)
    Back:    dx = dy (1 - y²)
    Special: exactly ±1 far from 0, where no gradient is left.

    >>> y, back = tanh(array([0.0, 1000.0]))
    >>> y.tolist(), back(ones(2)).tolist()
    ([0.0, 1.0], [1.0, 0.0])
    """
    y = namespace(x).tanh(x)
    slope = 1 - y * y
    return y, lambda dy: dy * slope


@differentiable
def silu(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """FFN: y = x σ(x),   σ(x) = 1 / (1 + e^-x)

    Also called swish: the gate of SwiGLU.
    Source:  Hendrycks & Gimpel 2016 (arXiv:1606.08415) sec. 2; Ramachandran et al. 2017 (arXiv:1710.05941).
    Shapes:  x (...) -> y (...)
    Back:    dx = dy σ (1 + x (1 - σ))
    Special: tends to x and to 0 for x → ±∞. Only e^-|x| is formed, which neither overflows nor loses a small σ.

    >>> y, back = silu(array([0.0, math.log(3)]))  # σ(0) = 1/2, σ(log 3) = 3/4
    >>> (y / array([1, math.log(3)])).round(12).tolist(), float(back(ones(2))[0])
    ([0.0, 0.75], 0.5)
    """
    xp = namespace(x)
    y, slope = xp.empty(x.shape, x.dtype), xp.empty(x.shape, x.dtype)
    for a, yi, slopei in row_blocks(x.reshape(-1), y.reshape(-1), slope.reshape(-1)):
        small = xp.exp(-abs(a))
        larger = 1 / (1 + small)
        small *= larger  # σ(x) and 1 - σ(x) are the larger and the small of the two, for x < 0 the other way round
        s = xp.where(a < 0, small, larger)
        xp.multiply(a, s, out=yi)  # y = x σ
        slope_i = xp.multiply(yi, xp.where(a < 0, larger, small), out=slopei)
        slope_i += s  # slope = σ + y (1 - σ)
    return y, lambda dy: dy * slope
