"""One head of keys or values for several heads of queries."""

from refllm.spec.array import Array, Pullback, arange, sum


def repeat_heads(k: Array, *, groups: int) -> tuple[Array, Pullback]:
    """LONG, grouped queries: head h of y is head h // groups of k

    Source:  Ainslie et al. 2023 (arXiv:2305.13245) sec. 2.2; Shazeer 2019 (arXiv:1911.02150) for one head.
    Shapes:  k (..., G, S, D) -> y (..., G*groups, S, D)
    Back:    dk[g] = Σ of dy over the heads h with h // groups = g

    >>> repeat_heads(array([[[1.]], [[2.]]]), groups=2)[0][:, 0, 0]
    array([1., 1., 2., 2.])
    """
    *lead, G, S, D = k.shape

    def repeat_heads_back(dy: Array) -> Array:
        return sum(dy.reshape(*lead, G, groups, S, D), axis=-3, keepdims=False)

    return k[..., arange(G * groups) // groups, :, :], repeat_heads_back
