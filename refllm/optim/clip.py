"""Clipping by the global norm."""

from __future__ import annotations

from collections.abc import Sequence

from refllm.backend import Array, namespace


def clip_factor(gradients: Sequence[Array], *, limit: float) -> tuple[Array, Array]:
    """ADAMW (clipping): norm = √(Σ g² over all arrays),   factor = 1 / max(1, norm / limit)

    The clipped gradients are factor · g; both results are 0-d arrays, on a device not waited for.
    Source:  Pascanu et al. 2013 (arXiv:1211.5063) alg. 1.
    Shapes:  gradients: any -> norm (); factor ()
    Special: a norm of zero gives the factor 1, and so does an infinite limit, which switches clipping off. A gradient
             that is not finite gives a norm that is not.
    """
    xp = namespace(gradients[0])
    norm = xp.sqrt(sum(g.reshape(-1) @ g.reshape(-1) for g in gradients))
    return norm, (1 / xp.maximum(1, norm / limit)).astype(norm.dtype)
