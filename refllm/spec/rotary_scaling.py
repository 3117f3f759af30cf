"""The frequencies of rotary positions for texts that are longer than those of training.

Each function takes what stands in a model's configuration and gives the angle of each pair at position 1, in the place
of base^(-2i/D).
"""

from refllm.spec.array import Array, arange, log, pi, power, ratio, tap, where
from refllm.spec.rotary import angles


def linear_frequencies(*, width: int, base: float, factor: float) -> Array:
    """ROPE-SCALE: θ_i = base^(-2i/D) / factor: position interpolation, as if positions were divided by the factor

    Source:  Chen et al. 2023 (arXiv:2306.15595) sec. 2.3.
    Shapes:  -> frequencies (width/2,)

    >>> linear_frequencies(width=4, base=100., factor=4.)
    array([0.25 , 0.025])
    """
    return trained_frequencies(width, base) / factor


def ntk_frequencies(*, width: int, base: float, factor: float) -> Array:
    """ROPE-SCALE: θ_i = b^(-2i/D),   b = base · factor^(D / (D - 2))

    The first pair keeps its frequency, and the last, i = D/2 - 1, has its own divided by the factor.
    Source:  Peng et al. 2023 (arXiv:2309.00071) sec. 3.1 ("NTK-aware" interpolation), definition 1.
    Shapes:  -> frequencies (width/2,), width > 2

    >>> ntk_frequencies(width=4, base=100., factor=4.)
    array([1.   , 0.025])
    """
    return trained_frequencies(width, base * power(factor, ratio(width, width - 2)))


def yarn_frequencies(
    *, width: int, base: float, factor: float, original: int, beta_fast: float, beta_slow: float
) -> tuple[Array, Array]:
    """ROPE-SCALE: θ_i = (1 - r_i) f_i + r_i f_i / factor,   f_i = base^(-2i/D),   and the scale 0.1 ln(factor) + 1

    Pair i makes `original` · f_i / 2π turns over the trained length. r is 0 up to the last pair with at least beta_fast
    turns (pair 0, if none has), 1 from the first with at most beta_slow, and between them a line in i. The paper has a
    line in the turns; its code, which models are trained with, has this one. Some configurations leave the ends of the
    line where exactly so many turns would be made, between two pairs (`truncate` false in transformers): that form is
    in refllm/models/rotary_scaling.py. Queries and keys are both multiplied by the scale after they are turned, so the
    scores by its square; the scale is 1 for a factor of at most 1.
    Source:  Peng et al. 2023 (arXiv:2309.00071) sec. 3.2 and 3.4, and the authors' code.
    Shapes:  -> frequencies (width/2,), scale ()

    >>> yarn_frequencies(width=4, base=100., factor=4., original=64, beta_fast=8., beta_slow=2.)[0]
    array([1.   , 0.025])
    """
    f = trained_frequencies(width, base)
    turns = tap("turns", original * power(base, -ratio(2 * arange(width - 1), width)) / (2 * pi()))
    low = max(0, int((turns >= beta_fast).sum()) - 1)
    high = int((turns > beta_slow).sum())
    length = max(high - low, 1)
    line = arange(width // 2) - low
    r = ratio(where(line < 0, 0, where(line > length, length, line)), length)
    scale = 1 + log(max(factor, 1.0)) / 10
    return (1 - r) * f + r * f / factor, scale


def llama3_frequencies(
    *, width: int, base: float, factor: float, original: int, low_factor: float, high_factor: float
) -> Array:
    """ROPE-SCALE: θ_i = (1 - m_i) f_i / factor + m_i f_i,   f_i = base^(-2i/D),   m_i = (turns_i - low) / (high - low)

    turns_i = `original` · f_i / 2π is how often pair i turns over the trained length. m is cut off at 0 and 1: a pair
    with fewer turns than low_factor is divided by the factor, one with more than high_factor stays.
    Source:  the code of Llama 3.1, which Dubey et al. 2024 (arXiv:2407.21783) describe.
    Shapes:  -> frequencies (width/2,)

    >>> llama3_frequencies(width=4, base=100., factor=8., original=64, low_factor=2., high_factor=4.)
    array([1.    , 0.0125])
    """
    f = trained_frequencies(width, base)
    turns = original * f / (2 * pi())
    m = (turns - low_factor) / (high_factor - low_factor)
    m = where(m < 0, 0, where(m > 1, 1, m))
    return (1 - m) * f / factor + m * f


def trained_frequencies(width: int, base: float) -> Array:
    """base^(-2i/D) for every pair i < D/2: the angles of position 1"""
    return angles(arange(1, 2), width, base)[0]
