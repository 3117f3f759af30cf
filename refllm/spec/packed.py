"""Several documents one after the other in one row."""

from itertools import pairwise

from refllm.spec.array import Array, Pullback, arange, everywhere, integers
from refllm.spec.attention import attention


def packed_attention(
    q: Array, k: Array, v: Array, *, borders: Array, key_borders: Array, causal: bool
) -> tuple[Array, Pullback]:
    """PACK: attention within each document: queries borders[n] to borders[n+1] see keys key_borders[n] to [n+1]

    Borders are the sums of the documents' lengths, from 0 on. Causal: as in `attention` in each document by itself, so
    that its last query sees its last key. A place after the last border belongs to no document and gives zeros.
    Source:  Raffel et al. 2020 (arXiv:1910.10683) pack texts; Krell et al. 2021 (arXiv:2107.02027) keep them apart.
    Shapes:  q (..., T, D); k (..., S, D); v (..., S, E) -> y (..., T, E)
    Back:    a mask has no gradient:   dq, dk, dv as in `attention`

    >>> q, k, v = zeros((3, 1)), zeros((3, 1)), array([[2.], [4.], [8.]])
    >>> packed_attention(q, k, v, borders=integers([0, 2, 3]), key_borders=integers([0, 2, 3]), causal=False)[0]
    array([[3.],
           [3.],
           [8.]])
    """
    T, S = q.shape[-2], k.shape[-2]
    seen = ~everywhere((T, S))
    for (first, end), (key_first, key_end) in zip(pairwise(borders), pairwise(key_borders), strict=True):
        queries, keys = arange(end - first)[:, None], arange(key_end - key_first)
        past = keys <= queries + len(keys) - len(queries)
        seen[first:end, key_first:key_end] = past if causal else everywhere(past.shape)
    y, attention_back = attention(q, k, v, causal=False, attention_mask=seen)

    def packed_attention_back(dy: Array) -> tuple[Array, Array, Array]:
        return attention_back(dy)

    return y, packed_attention_back


def packed_positions(*, borders: Array, places: int) -> Array:
    """PACK: the place of each token in its own document: positions begin anew at every border; 0 after the last

    Source:  Krell et al. 2021 (arXiv:2107.02027).
    Shapes:  -> positions (places,)

    >>> packed_positions(borders=integers([0, 2, 5]), places=6)
    array([0, 1, 0, 1, 2, 0])
    """
    positions = [0] * places
    for first, end in pairwise(borders):
        for t in range(first, end):
            positions[t] = t - first
    return integers(positions)
