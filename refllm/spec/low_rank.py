"""A linear map with a low-rank adapter (LoRA)."""

from refllm.spec.array import Array, Pullback, flat, swap


def low_rank_linear(x: Array, W: Array, A: Array, B: Array, *, alpha: float) -> tuple[Array, Pullback]:
    """FINETUNE, low-rank adapters: y = x W + (α / r) x A B

    W is the trained matrix, A and B the adapter of rank r. Here weights are (in, out), so that A comes first; the paper
    has columns for x, and B A.
    Source:  Hu et al. 2021 (arXiv:2106.09685) sec. 4.1.
    Shapes:  x (..., I); W (I, O); A (I, r); B (r, O) -> y (..., O)
    Back:    y = x (W + (α / r) A B)   hence, with dz = (α / r) dy Bᵀ,
             dx = dy Wᵀ + dz Aᵀ;   dW = xᵀ dy;   dA = xᵀ dz;   dB = (α / r) (x A)ᵀ dy

    >>> x, W, A, B = array([[1., 2.]]), zeros((2, 1)), array([[1., 0.], [0., 1.]]), array([[3.], [5.]])
    >>> low_rank_linear(x, W, A, B, alpha=4.)[0]  # 4 / 2 times 1 · 3 + 2 · 5
    array([[26.]])
    """
    scale = alpha / A.shape[-1]
    z = x @ A
    y = x @ W + scale * (z @ B)

    def low_rank_linear_back(dy: Array) -> tuple[Array, Array, Array, Array]:
        dB = scale * (swap(flat(z)) @ flat(dy))
        dz = scale * (dy @ swap(B))
        dA = swap(flat(x)) @ flat(dz)
        dW = swap(flat(x)) @ flat(dy)
        dx = dy @ swap(W) + dz @ swap(A)
        return dx, dW, dA, dB

    return y, low_rank_linear_back
