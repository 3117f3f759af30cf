"""Clipping by the global norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from refllm.backend import Array, known, namespace, overflow_is_expected
from refllm.differentiable import declared_kinds
from refllm.errors import KindError
from refllm.fit import require_array


@declared_kinds
def clip_factor(gradients: Sequence[Array], *, limit: float) -> tuple[Array, Array]:
    """ADAMW (clipping): norm = √(Σ g² over all arrays),   factor = 1 / max(1, norm / limit)

    The clipped gradients are factor · g; both results are 0-d arrays, on a device not waited for.
    Source:  Pascanu et al. 2013 (arXiv:1211.5063) alg. 1.
    Shapes:  gradients: any -> norm (); factor ()
    Special: a norm of zero gives the factor 1, and so does an infinite limit, which switches clipping off. A gradient
             that is not finite gives a norm that is not. Gradients whose squares overflow are scaled first.
    Raises:  ValueError without an array, for one that is not of real floating-point numbers, or for a limit that is not
             above 0.

    >>> norm, factor = clip_factor([array([3.0]), array([4.0])], limit=1.0)
    >>> float(norm), float(factor)
    (5.0, 0.2)
    """
    if not isinstance(gradients, (list, tuple)):
        raise KindError(f"clip_factor: gradients must be a list of arrays, got {type(gradients).__name__}")
    if not gradients or not limit > 0:
        raise ValueError(
            f"clip_factor: needs an array or more and a limit above 0; got {len(gradients)} arrays and {limit}"
        )
    for g in gradients:
        require_array("clip_factor", "a gradient", g)
        if g.dtype.kind != "f":
            raise ValueError(f"clip_factor: gradients must be floating-point numbers; got {g.dtype}")
    flat = [g.reshape(-1) for g in gradients]
    return factor_of_parts(
        lambda scale: [square(g, scale) for g in flat], lambda: [largest(g) for g in flat], limit=limit
    )


def factor_of_parts(
    squares: Callable[[Array | None], list[Array]], largest: Callable[[], list[Array]], *, limit: float
) -> tuple[Array, Array]:
    """ADAMW (clipping): as `clip_factor`, of gradients that lie with several processes: s = squares(a) are the sums of
    (g / a)² of each, a is 1 where it is None

        norm = √(Σ s),   factor = 1 / max(1, norm / limit)

    The sums are added in their order. `largest`, the largest absolute number of each, is asked for where squares
    overflow.
    Source:  as `clip_factor`; Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3.

    >>> norm, factor = factor_of_parts(lambda scale: [array(9.0), array(16.0)], lambda: [array(4.0)], limit=1.0)
    >>> float(norm), float(factor)
    (5.0, 0.2)
    """
    parts = squares(None)
    xp = namespace(parts[0])
    with overflow_is_expected():
        norm = xp.sqrt(sum(parts))
        if not known(norm < math.inf):
            most = xp.stack(largest()).max()
            scale = xp.where((norm < math.inf) | ~xp.isfinite(most), 1, most).astype(norm.dtype)
            norm = scale * xp.sqrt(sum(squares(scale)))
    return norm, (1 / xp.maximum(1, norm / limit)).astype(norm.dtype)


def square(g: Array, scale: Array | None) -> Array:
    """Σ (g / scale)² of a vector

    >>> float(square(array([3.0, 4.0]), None)), float(square(array([3.0, 4.0]), array(5.0)).round(12))
    (25.0, 1.0)
    """
    with overflow_is_expected():
        part = g if scale is None else g / scale
        return part @ part


def largest(g: Array) -> Array:
    """The largest absolute number of a vector, 0 of none

    >>> float(largest(array([3.0, -4.0]))), float(largest(zeros(0)))
    (4.0, 0.0)
    """
    return abs(g).max() if g.size else namespace(g).zeros((), g.dtype)
