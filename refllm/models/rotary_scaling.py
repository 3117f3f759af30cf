"""The angles of rotary positions at position 1, in the forms in which models for longer texts are published.

Source: refllm/spec/rotary_scaling.py has the formulas (ROPE-SCALE).
"""

from __future__ import annotations

import math
from typing import Any

from refllm.ops.rotary import Frequencies

SCALINGS = ("none", "linear", "dynamic", "yarn", "llama3")


def frequencies(config: Any, *, length: int) -> Frequencies:
    """The base of the rotation, or the angles of position 1 where the configuration scales them, for a text that is so
    long by now."""
    if config.scaling == "dynamic":
        return dynamic_frequencies(
            width=config.head_width, base=config.base, factor=config.scaling_factor, original=config.scaling_original,
            length=length,
        )  # fmt: skip
    if config.scaling == "yarn":
        return yarn_frequencies(
            width=config.head_width, base=config.base, factor=config.scaling_factor, original=config.scaling_original,
            beta_fast=config.scaling_high, beta_slow=config.scaling_low, rounded=config.scaling_rounded,
        )  # fmt: skip
    if config.scaling == "linear":
        return linear_frequencies(width=config.head_width, base=config.base, factor=config.scaling_factor)
    if config.scaling == "llama3":
        return llama3_frequencies(
            width=config.head_width, base=config.base, factor=config.scaling_factor, original=config.scaling_original,
            low_factor=config.scaling_low, high_factor=config.scaling_high,
        )  # fmt: skip
    return config.base


def linear_frequencies(*, width: int, base: float, factor: float) -> tuple[float, ...]:
    """ROPE-SCALE: θ_i = base^(-2i/D) / factor

    Source:  Chen et al. 2023 (arXiv:2306.15595) sec. 2.3.

    >>> [round(θ, 12) for θ in linear_frequencies(width=4, base=100.0, factor=2.0)]
    [0.5, 0.05]
    """
    return tuple(f / factor for f in trained_frequencies(width, base))


def dynamic_frequencies(*, width: int, base: float, factor: float, original: int, length: int) -> tuple[float, ...]:
    """ROPE-SCALE: the "NTK-aware" frequencies with the factor that a text of this length asks for,
    1 + factor · (length / original - 1); up to the trained length they are those of the training

    Source:  Peng et al. 2023 (arXiv:2309.00071) sec. 3.3, and the code of transformers (modeling_rope_utils.py).

    >>> how = {"width": 4, "base": 100.0, "factor": 2.0, "original": 8}
    >>> dynamic_frequencies(length=8, **how) == trained_frequencies(4, 100.0)
    True
    >>> fast, slow = dynamic_frequencies(length=16, **how)  # the factor is 1 + 2 (16 / 8 - 1) = 3
    >>> fast, round(0.1 / slow, 12)  # the fastest stays, the slowest is divided by the factor
    (1.0, 3.0)
    """
    stretched = 1 + factor * (max(length, original) / original - 1)
    return trained_frequencies(width, base * stretched ** (width / (width - 2)))


def yarn_frequencies(
    *, width: int, base: float, factor: float, original: int, beta_fast: float, beta_slow: float, rounded: bool
) -> tuple[float, ...]:
    """ROPE-SCALE: θ_i = (1 - r_i) f_i + r_i f_i / factor,   r a line in i from 0, where a pair makes beta_fast turns
    over the trained length, to 1, where it makes beta_slow

    `rounded`: its ends are the last pair with at least beta_fast turns and the first with at most beta_slow, as in the
    text. Otherwise they lie between pairs, as configurations with `truncate` false ask.
    Source:  Peng et al. 2023 (arXiv:2309.00071) sec. 3.2, in the form of the authors' code.

    >>> how = {"beta_fast": 32.0, "beta_slow": 1.0, "rounded": True}
    >>> θ = yarn_frequencies(width=8, base=1e4, factor=4.0, original=64, **how)
    >>> (array(trained_frequencies(8, 1e4)) / θ).round(12).tolist()[-1]  # the slowest never turns once
    4.0
    """
    low, high = (
        width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (beta_fast, beta_slow)
    )
    if rounded:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    length = high - low or 0.001
    found = []
    for i, f in enumerate(trained_frequencies(width, base)):
        share = min(1.0, max(0.0, (i - low) / length))
        found.append(share * f / factor + (1 - share) * f)
    return tuple(found)


def yarn_scale(factor: float, mscale: float = 1.0) -> float:
    """ROPE-SCALE: what queries and keys are multiplied by: 0.1 · mscale · ln(factor) + 1, and 1 for a factor up to 1

    Source:  Peng et al. 2023 (arXiv:2309.00071) sec. 3.4; mscale is of the code of transformers.

    >>> yarn_scale(1.0), round(yarn_scale(math.e), 12)
    (1.0, 1.1)
    """
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def llama3_frequencies(
    *, width: int, base: float, factor: float, original: int, low_factor: float, high_factor: float
) -> tuple[float, ...]:
    """ROPE-SCALE: a pair that turns fewer than low_factor times over the trained length is divided by the factor, one
    that turns more than high_factor times stays, and between them it is a mixture by the number of turns

    Source:  the code of Llama 3.1, which Dubey et al. 2024 (arXiv:2407.21783) describe.

    >>> θ = llama3_frequencies(width=4, base=1e8, factor=8.0, original=8192, low_factor=1.0, high_factor=4.0)
    >>> [round(a / b, 12) for a, b in zip(trained_frequencies(4, 1e8), θ)]  # 1,304 turns, and less than one
    [1.0, 8.0]
    """
    found = []
    for f in trained_frequencies(width, base):
        turns = original * f / (2 * math.pi)
        share = min(1.0, max(0.0, (turns - low_factor) / (high_factor - low_factor)))
        found.append((1 - share) * f / factor + share * f)
    return tuple(found)


def trained_frequencies(width: int, base: float) -> tuple[float, ...]:
    """base^(-2i/D) for every pair i < D/2.

    >>> [round(θ, 12) for θ in trained_frequencies(4, 100.0)]  # 100^0 and 100^(-1/2)
    [1.0, 0.1]
    """
    return tuple(math.exp(-2 * i / width * math.log(base)) for i in range(width // 2))
