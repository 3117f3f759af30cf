"""What attention adds to a score for the distance of key and query: learned by buckets, or falling linearly.

Entry i of r (H, T+S-1) is for the distance i - (S - 1) from the place of the query to that of the key, where the T
queries are the last of S places: see `biased_attention`.
"""

from refllm.spec.array import Array, Pullback, arange, integers, like, scatter_add, sum


def t5_bias_causal(E: Array, *, queries: int, keys: int, farthest: int) -> tuple[Array, Pullback]:
    """T5-REL: r[distance] = row `bucket(-distance)` of E; a later key shares row 0

    Source:  Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1, the decoder; the formula is that of the released code.
    Shapes:  E (K, H) -> r (H, queries+keys-1)
    Back:    dE[b] = Σ of dr over the distances of bucket b

    >>> buckets = array([[0.], [1.], [2.], [3.]])
    >>> t5_bias_causal(buckets, queries=2, keys=6, farthest=8)[0]  # 5, 4, 3, 2, 1, 0 places back, and a later key
    array([[3., 3., 2., 2., 1., 0., 0.]])
    """
    buckets = [bucket(max(-d, 0), len(E), farthest) for d in distances(queries, keys)]
    return _rows_for(E, buckets)


def t5_bias_bidirectional(E: Array, *, queries: int, keys: int, farthest: int) -> tuple[Array, Pullback]:
    """T5-REL: one half of the rows of E for keys before the query and at its place, the other half for keys after it

    Source:  Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1, the encoder; the formula is that of the released code.
    Shapes:  E (2*K, H) -> r (H, queries+keys-1)
    Back:    dE[b] = Σ of dr over the distances of bucket b

    >>> buckets = array([[0.], [1.], [2.], [3.]])
    >>> t5_bias_bidirectional(buckets, queries=3, keys=3, farthest=8)[0]  # row 2 would be a later key 0 places away
    array([[1., 1., 0., 3., 3.]])
    """
    half = len(E) // 2
    buckets = [bucket(abs(d), half, farthest) + half * (d > 0) for d in distances(queries, keys)]
    return _rows_for(E, buckets)


def _rows_for(E: Array, buckets: list[int]) -> tuple[Array, Pullback]:
    index = integers(buckets)

    def bias_back(dr: Array) -> Array:
        return scatter_add(index, dr.T, len(E))

    return E[index].T, bias_back


def bucket(n: int, K: int, farthest: int) -> int:
    """n for n < K/2, else K/2 + ⌊log(n / (K/2)) / log(farthest / (K/2)) (K - K/2)⌋, and at most K - 1

    Near distances have a bucket each; the others share buckets that grow like the distance, up to `farthest`. Decided
    in whole numbers, so that no rounding of a logarithm moves a border.
    """
    near = K // 2
    if n < near:
        return n
    wide = K - near
    steps = [s for s in range(1, wide) if farthest**s * near**wide <= n**wide * near**s]
    return near + max(steps, default=0)


def distances(queries: int, keys: int) -> Array:
    """From the place of a query to that of a key, for every entry of r."""
    return [d - (keys - 1) for d in range(queries + keys - 1)]


def alibi(m: Array, *, queries: int, keys: int) -> tuple[Array, Pullback]:
    """LONG, ALiBi: r[distance] = -m |distance|, one slope m per head

    Source:  Press et al. 2022 (arXiv:2108.12409) sec. 3.
    Shapes:  m (H,) -> r (H, queries+keys-1)
    Back:    dm = -Σ dr |distance|

    >>> alibi(array([0.5]), queries=1, keys=3)[0]
    array([[-1. , -0.5, -0. ]])
    """
    far = like(abs(arange(1 - keys, queries)), m)

    def alibi_back(dr: Array) -> Array:
        return -sum(dr * far, keepdims=False)

    return -(m[:, None] * far), alibi_back
