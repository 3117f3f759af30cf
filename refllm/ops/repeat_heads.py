"""One head of keys or values for several heads of queries."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array, namespace
from refllm.differentiable import differentiable


@differentiable
def repeat_heads(k: Array, *, groups: int) -> tuple[Array, Callable[[Array], Array]]:
    """LONG, grouped queries: head h of y is head h // groups of k

    With one head in k this is multi-query attention, with groups = 1 the ordinary multi-head attention.
    Source:  Ainslie et al. 2023 (arXiv:2305.13245) sec. 2.2; Shazeer 2019 (arXiv:1911.02150) for one head.
    Shapes:  k (..., G, S, D) -> y (..., G*groups, S, D)
    Back:    dk[g] = Σ of dy over the heads h with h // groups = g
    Raises:  ValueError if groups is not positive.

    >>> y, back = repeat_heads(array([[[1.0]], [[2.0]]]), groups=2)
    >>> y[:, 0, 0].tolist(), back(ones((4, 1, 1)))[:, 0, 0].tolist()
    ([1.0, 1.0, 2.0, 2.0], [2.0, 2.0])
    """
    G, S, D = k.shape[-3:]

    def back(dy: Array) -> Array:
        return dy.reshape(*k.shape[:-3], G, groups, S, D).sum(axis=-3)

    return namespace(k).repeat(k, groups, axis=-3), back
