"""The nonlinearities of the feed-forward layer, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable

from refllm.backend import Array, erfc, namespace, row_blocks
from refllm.differentiable import differentiable

_K0 = math.sqrt(2 / math.pi)  # math, not NumPy: a NumPy scalar would turn float32 arrays into float64
_K1 = 0.044715 * _K0


@differentiable
def relu(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """FFN: y = max(0, x)

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.3; documents 002 sec. 3.1 step 3.
    Shapes:  x (...) -> y (...)
    Back:    dx = dy where x > 0, else 0 (0 at x = 0, a choice the derivative leaves open)
    """
    return namespace(x).maximum(x, 0), lambda dy: dy * (x > 0)


@differentiable
def gelu_tanh(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """FFN: y = x s,   s = (1 + tanh u) / 2,   u = √(2/π) (x + 0.044715 x³)

    The form of GPT-2 and of the first BERT code: an approximation of `gelu_erf`, up to 5e-4 away from it.
    Source:  Hendrycks & Gimpel 2016 (arXiv:1606.08415) sec. 2; documents 000 sec. 2.1, 001 ch. 1 (GPT, BERT).
    Shapes:  x (...) -> y (...)
    Back:    dx = dy (s + 2 x s (1 - s) du/dx),   du/dx = √(2/π) (1 + 3 · 0.044715 x²)
    Special: tends to x and to 0 for x → ±∞, where s is exactly 1 and 0.
    """
    xp = namespace(x)
    y, slope = xp.empty(x.shape, x.dtype), xp.empty(x.shape, x.dtype)  # only the derivative is kept for `back`
    for xi, yi, slopei in row_blocks(x.reshape(-1), y.reshape(-1), slope.reshape(-1)):
        a = xi.clip(-10, 10)  # tanh u is exactly ±1 beyond; x² could overflow
        q = a * a
        q *= _K1
        q += _K0  # u = x q
        du = xp.multiply(q, 3, out=slopei)
        du -= 2 * _K0
        q *= a
        xp.tanh(q, out=q)
        xp.subtract(1, q, out=q)  # 2 (1 - s)
        du *= q
        q *= -0.5
        q += 1  # s
        v = xp.multiply(xi, q, out=yi)
        du *= v
        du += q
    return y, lambda dy: dy * slope


@differentiable
def gelu_erf(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """FFN: y = x Φ(x),   Φ(x) = (1 + erf(x / √2)) / 2, the normal distribution function

    The exact form, of BERT and BART.
    Source:  Hendrycks & Gimpel 2016 (arXiv:1606.08415) sec. 2; documents 000 sec. 2.1 (BERT).
    Shapes:  x (...) -> y (...)
    Back:    dx = dy (Φ(x) + x φ(x)),   φ(x) = exp(-x² / 2) / √(2π)
    Special: Φ is erfc(-x / √2) / 2, which keeps the small tail that 1 + erf loses.
    """
    xp = namespace(x)
    y, slope = xp.empty(x.shape, x.dtype), xp.empty(x.shape, x.dtype)
    for a, yi, slopei in row_blocks(x.reshape(-1), y.reshape(-1), slope.reshape(-1)):
        cdf = erfc(a * -math.sqrt(0.5))
        cdf *= 0.5
        xp.multiply(a, cdf, out=yi)
        c = a.clip(-40, 40)  # φ is 0 beyond; x² could overflow
        density = xp.exp(c * c * -0.5)
        density *= c
        density *= 1 / math.sqrt(2 * math.pi)
        xp.add(cdf, density, out=slopei)
    return y, lambda dy: dy * slope


@differentiable
def tanh(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """RNN, NNLM, BERT: y = tanh(x)

    Source:  documents 003 sec. 4.1 (the recurrent step); Devlin et al. 2019, code (the pooler).
    Shapes:  x (...) -> y (...)
    Back:    dx = dy (1 - y²)
    Special: exactly ±1 far from 0, where no gradient is left.
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
    """
    xp = namespace(x)
    y, slope = xp.empty(x.shape, x.dtype), xp.empty(x.shape, x.dtype)
    for a, yi, slopei in row_blocks(x.reshape(-1), y.reshape(-1), slope.reshape(-1)):
        small = xp.exp(-abs(a))  # σ and 1 - σ are 1 / (1 + small) and small / (1 + small)
        larger = 1 / (1 + small)
        small *= larger
        xp.multiply(a, xp.where(a < 0, small, larger), out=yi)
        s = xp.multiply(yi, xp.where(a < 0, larger, small), out=slopei)
        s += xp.where(a < 0, small, larger)
    return y, lambda dy: dy * slope
