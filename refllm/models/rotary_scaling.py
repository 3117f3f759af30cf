"""The angles of rotary positions at position 1, in the forms in which models for longer texts are published.

Source: refllm/spec/rotary_scaling.py has the formulas (ROPE-SCALE).
"""

from __future__ import annotations

import math

SCALINGS = ("none", "linear", "llama3")


def linear_frequencies(*, width: int, base: float, factor: float) -> tuple[float, ...]:
    """ROPE-SCALE: θ_i = base^(-2i/D) / factor

    Source:  Chen et al. 2023 (arXiv:2306.15595) sec. 2.3.
    """
    return tuple(f / factor for f in trained_frequencies(width, base))


def llama3_frequencies(
    *, width: int, base: float, factor: float, original: int, low_factor: float, high_factor: float
) -> tuple[float, ...]:
    """ROPE-SCALE: a pair that turns fewer than low_factor times over the trained length is divided by the factor, one
    that turns more than high_factor times stays, and between them it is a mixture by the number of turns

    Source:  the code of Llama 3.1, which Dubey et al. 2024 (arXiv:2407.21783) describe.
    """
    found = []
    for f in trained_frequencies(width, base):
        turns = original * f / (2 * math.pi)
        share = min(1.0, max(0.0, (turns - low_factor) / (high_factor - low_factor)))
        found.append((1 - share) * f / factor + share * f)
    return tuple(found)


def trained_frequencies(width: int, base: float) -> tuple[float, ...]:
    """base^(-2i/D) for every pair i < D/2."""
    return tuple(math.exp(-2 * i / width * math.log(base)) for i in range(width // 2))
