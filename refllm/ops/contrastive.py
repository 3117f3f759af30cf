"""Texts as vectors: those that belong together near each other, and far from the rest."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array, namespace, zero_where_not
from refllm.differentiable import differentiable
from refllm.ops.cross_entropy import cross_entropy


@differentiable
def mean_pool(h: Array, *, token_mask: Array | None) -> tuple[Array, Callable[[Array], Array]]:
    """CTR: y = mean of h over the tokens that token_mask marks, one vector for a text

    Source:  Reimers & Gurevych 2019 (arXiv:1908.10084) sec. 3 (MEAN); documents 002 sec. 3.3.
    Shapes:  h (..., T, C); token_mask bool (..., T), or None -> y (..., C)
    Back:    dh[t] = dy / (number of these tokens), 0 at the others
    Special: token_mask = None takes every token. A text without a token gives zeros.

    >>> h = array([[[1.0], [3.0], [99.0]]])
    >>> mean_pool(h, token_mask=array([[True, True, False]]))[0].tolist()
    [[2.0]]
    """
    xp = namespace(h)
    counts = xp.ones(h.shape[:-1], h.dtype) if token_mask is None else token_mask.astype(h.dtype)
    weight = (counts / xp.maximum(counts.sum(axis=-1, keepdims=True), 1))[..., None]  # (..., T, 1)
    taken = h if token_mask is None else zero_where_not(token_mask[..., None], h)

    return (taken * weight).sum(axis=-2), lambda dy: weight * dy[..., None, :]


@differentiable
def info_nce(a: Array, b: Array, *, temperature: float) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """CTR: y = mean over i of -log( exp(s_ii) / Σ_j exp(s_ij) ),   s_ij = cos(a_i, b_j) / temperature

    Row i of b is the positive of row i of a; the other rows of b are its (in-batch) negatives.
    One direction, as published: a is asked, b answers.
    Source:  van den Oord et al. 2018 (arXiv:1807.03748) eq. 4, with exp(s) for f; Chen et al. 2020 (arXiv:2002.05709)
             sec. 2.1 for the cosine and the temperature; documents 002 sec. 3.3.
    Shapes:  a (N, C); b (N, C) -> y ()
    Back:    ds = dy (softmax(s) - 1) / N, the 1 on the diagonal;  dn = Σ_j ds_j m_j / temperature for the directions
             n = a / |a|, m = b / |b|;  da = (dn - n Σ n dn) / |a|;  likewise db
    Special: a row of zeros has no direction: its cosines and its gradient are 0. One pair alone has the loss 0.
    Raises:  ValueError if there is no pair, the shapes differ, or the temperature is not positive.

    >>> y, back = info_nce(ones((4, 2)), ones((4, 2)), temperature=0.1)  # all alike: one of four is guessed
    >>> round(float(y / math.log(4)), 12)
    1.0
    """
    N = len(a)
    if N == 0 or not temperature > 0:
        raise ValueError(f"info_nce: needs a pair and a temperature above 0; got {N} pairs, temperature {temperature}")
    (n, back_n), (m, back_m) = _directions(a), _directions(b)
    y, back_loss = cross_entropy(
        n @ m.T / temperature, targets=namespace(a).arange(N), ignore=None, reduction="mean"
    )  # fmt: skip

    def back(dy: Array) -> tuple[Array, Array]:
        ds = back_loss(dy) / temperature
        return back_n(ds @ m), back_m(ds.T @ n)

    return y, back


def _directions(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Each row divided by its norm. Scaled by its largest entry first, so that no square overflows."""
    xp = namespace(x)
    largest = xp.maximum(abs(x).max(axis=-1, keepdims=True), 0)
    scale = xp.where(largest == 0, 1, largest).astype(x.dtype)
    scaled = x / scale
    norm = xp.sqrt((scaled * scaled).sum(axis=-1, keepdims=True))
    n = scaled / xp.where(norm == 0, 1, norm).astype(x.dtype)

    def back(dn: Array) -> Array:
        inverse = (norm > 0) / xp.maximum(norm, 1)  # the norm of what was scaled is at least 1, or 0
        return ((dn - n * (n * dn).sum(axis=-1, keepdims=True)) * inverse.astype(x.dtype)) / scale

    return n, back
