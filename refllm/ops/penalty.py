"""The penalty on large weights."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array
from refllm.differentiable import differentiable


@differentiable
def l2_penalty(w: Array, *, strength: float) -> tuple[Array, Callable[[Array], Array]]:
    """L2: y = strength / 2 Σ w²

    Its gradient, strength w, is what `sgd` and `adam` add to a gradient as `decay`. `adamw` does otherwise: it shrinks
    the weights apart from Adam's step, which is the gradient of no penalty.
    Source:  documents 000 sec. 4.4; Krogh & Hertz 1992; Loshchilov & Hutter 2019 (arXiv:1711.05101) for the difference.
    Shapes:  w (...) -> y ()
    Back:    dw = dy strength w
    Raises:  ValueError if the strength is negative.

    >>> y, back = l2_penalty(array([3.0, 4.0]), strength=0.5)
    >>> float(y), back(array(1.0)).tolist()
    (6.25, [1.5, 2.0])
    """
    if not strength >= 0:
        raise ValueError(f"l2_penalty: strength must be at least 0, got {strength}")
    return (w * (w * (strength / 2))).sum(), lambda dy: w * (dy * strength)
