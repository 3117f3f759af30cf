"""Texts as vectors: those that belong together near each other, and far from the rest."""

from refllm.spec.array import Array, Pullback, arange, everywhere, is_zero, like, sqrt, sum, swap, where
from refllm.spec.cross_entropy import cross_entropy


def mean_pool(h: Array, *, token_mask: Array | None) -> tuple[Array, Pullback]:
    """CTR: y = mean of h over the tokens that token_mask marks, one vector for a text; zeros for a text without one

    Source:  Reimers & Gurevych 2019 (arXiv:1908.10084) sec. 3 (MEAN); documents 002 sec. 3.3.
    Shapes:  h (..., T, C); token_mask bool (..., T) -> y (..., C)
    Back:    dh[t] = dy / count, 0 where token_mask is false

    >>> mean_pool(array([[1.], [3.], [100.]]), token_mask=array([True, True, False]))[0]
    array([2.])
    """
    counted = (everywhere(h.shape[:-1]) if token_mask is None else token_mask)[..., None]
    count = like(counted.sum(axis=-2).clip(1), h)

    def mean_pool_back(dy: Array) -> Array:
        return where(counted, (dy / count)[..., None, :], 0)

    return sum(where(counted, h, 0), axis=-2, keepdims=False) / count, mean_pool_back


def info_nce(a: Array, b: Array, *, temperature: float) -> tuple[Array, Pullback]:
    """CTR: y = mean over i of -log( exp(s_ii) / Σ_j exp(s_ij) ),   s_ij = cos(a_i, b_j) / temperature

    Row i of b is the positive of row i of a; the other rows of b are its negatives.
    Source:  van den Oord et al. 2018 (arXiv:1807.03748) eq. 4, with exp(s) for f; Chen et al. 2020 (arXiv:2002.05709)
             sec. 2.1 for the cosine and the temperature; documents 002 sec. 3.3.
    Shapes:  a (N, C); b (N, C) -> y ()
    Back:    s = n mᵀ / temperature   hence   dn = ds m / temperature,   dm = dsᵀ n / temperature,   n, m the
             directions of a and b: each row divided by its norm

    >>> a = array([[1., 0.], [0., 1.]])
    >>> y = info_nce(a, 2 * a, temperature=1 / log(3.))[0]
    >>> array([exp(-y)])  # e^s is 3 for the positive and 1 for the other; the lengths of the rows do not matter
    array([0.75])
    """
    (n, n_back), (m, m_back) = direction(a), direction(b)
    s = n @ swap(m) / temperature
    y, loss_back = cross_entropy(s, targets=arange(len(a)), ignore=None, reduction="mean")

    def info_nce_back(dy: Array) -> tuple[Array, Array]:
        ds = loss_back(dy) / temperature
        return n_back(ds @ m), m_back(swap(ds) @ n)

    return y, info_nce_back


def direction(x: Array) -> tuple[Array, Pullback]:
    """n = x / |x|; a row of zeros has no direction and stays zeros

    Back:    ∂n_j/∂x_i = ([i = j] - n_i n_j) / |x|   hence   dx = (dn - n Σ_j n_j dn_j) / |x|
    """
    squares = sum(x * x)
    size = sqrt(squares + is_zero(squares))
    n = x / size

    def direction_back(dn: Array) -> Array:
        return where(squares == 0, 0, (dn - n * sum(n * dn)) / size)

    return n, direction_back
