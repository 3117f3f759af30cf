"""One step of Lion for one array."""

from refllm.spec.array import Array, like


def lion(
    p: Array, g: Array, m: Array, *, lr: float, beta1: float, beta2: float, decay: float
) -> tuple[Array, Array]:  # fmt: skip
    """LION: p' = p - lr (sign(β1 m + (1-β1) g) + λ p),   m' = β2 m + (1-β2) g

    The step is taken with β1, the momentum is kept with β2. The sign of 0 is 0. λ is `decay`.
    Source:  Chen et al. 2023 (arXiv:2302.06675) alg. 2.
    Shapes:  p (...); g (...); m (...) -> p' (...); m' (...)

    >>> lion(array([1., 1.]), array([0.5, -2.]), array([0., 0.]), lr=0.25, beta1=0.5, beta2=0.75, decay=0.)
    (array([0.75, 1.25]), array([ 0.125, -0.5  ]))
    """
    c = beta1 * m + (1 - beta1) * g
    sign = like(1 * (c > 0) - 1 * (c < 0), c)
    return p - lr * (sign + decay * p), beta2 * m + (1 - beta2) * g
