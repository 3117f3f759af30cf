"""What attention adds to a score for the distance of key and query: learned by buckets, or falling linearly.

Entry i of r (H, T+S-1) is for the distance i - (S - 1) from the place of the query to that of the key, where the T
queries are the last of S places: see `biased_attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from refllm.backend import Array, namespace
from refllm.differentiable import differentiable


@differentiable
def t5_bias_causal(E: Array, *, queries: int, keys: int, farthest: int) -> tuple[Array, Callable[[Array], Array]]:
    """T5-REL: r[distance] = row b of E,   b = n for n < K/2, else K/2 + ⌊log(n / (K/2)) / log(farthest / (K/2)) K/2⌋

    with n = -distance, the places that the key lies before the query (0 for a later key), and b at most K - 1. Near
    keys have a bucket each; the others share buckets that grow like the distance, up to `farthest` and beyond.
    The bias of T5's decoder.
    Source:  Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1; the formula is that of the released code.
    Shapes:  E (K, H) -> r (H, queries+keys-1)
    Back:    dE[b] = Σ of dr over the distances of bucket b; a bucket that was not used gets zero.
    Special: for an odd K the first ⌊K/2⌋ buckets are those of one distance. Borders are found in whole numbers, so
             no rounding moves a distance into its neighbour's bucket.
    Raises:  ValueError if queries or keys is not positive, or farthest is not above K/2.

    >>> E = array([[0.0], [1.0], [2.0], [3.0]])  # the bias is the number of the bucket
    >>> t5_bias_causal(E, queries=1, keys=10, farthest=8)[0].tolist()  # 9 before, ..., 1 before, and its own
    [[3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 2.0, 2.0, 1.0, 0.0]]
    """
    before = _buckets("t5_bias_causal", len(E), farthest, length=keys)
    later = slice(keys, queries + keys - 1)  # keys that no causal query sees
    return _spread(E, queries + keys - 1, [*_mirrored(before, keys), (0, later)])


@differentiable
def t5_bias_bidirectional(
    E: Array, *, queries: int, keys: int, farthest: int
) -> tuple[Array, Callable[[Array], Array]]:
    """T5-REL: as `t5_bias_causal` with one half of the rows of E for keys before the query and at its place, and the
    other half for keys after it: r[distance] = row b of E, plus K for distance > 0, with n = |distance|

    The bias of T5's encoder.
    Source:  Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1; the formula is that of the released code.
    Shapes:  E (2*K, H) -> r (H, queries+keys-1)
    Back:    dE[b] = Σ of dr over the distances of bucket b; a bucket that was not used gets zero.
    Special: row K is not used, for no distance above 0 has n = 0 (unless K = 1).
    Raises:  ValueError if the number of rows is odd; else as `t5_bias_causal`.

    >>> E = array([[0.0], [1.0], [10.0], [11.0]])
    >>> t5_bias_bidirectional(E, queries=3, keys=3, farthest=8)[0].tolist()  # distances -2 ... 2
    [[1.0, 1.0, 0.0, 11.0, 11.0]]
    """
    rows = len(E)
    before, after = (
        _buckets("t5_bias_bidirectional", rows // 2, farthest, length=length) for length in (keys, queries)
    )
    ahead = [(rows // 2 + b, slice(max(n.start, 1) + keys - 1, n.stop + keys - 1)) for b, n in after if n.stop > 1]
    return _spread(E, queries + keys - 1, [*_mirrored(before, keys), *ahead])


@differentiable
def alibi(m: Array, *, queries: int, keys: int) -> tuple[Array, Callable[[Array], Array]]:
    """LONG, ALiBi: r[distance] = -m |distance|, one slope m per head

    Source:  Press et al. 2022 (arXiv:2108.12409) sec. 3.
    Shapes:  m (H,) -> r (H, queries+keys-1)
    Back:    dm = -Σ dr |distance|
    Raises:  ValueError if queries or keys is not positive.

    >>> alibi(array([0.5, 2.0]), queries=1, keys=3)[0].tolist()  # distances -2, -1, 0
    [[-1.0, -0.5, -0.0], [-4.0, -2.0, -0.0]]
    """
    distance = abs(namespace(m).arange(1 - keys, queries)).astype(m.dtype)
    return -m[:, None] * distance, lambda dr: -(dr @ distance)


def _spread(E: Array, length: int, places: list[tuple[int, slice]]) -> tuple[Array, Callable[[Array], Array]]:
    """r (H, length) with row b of E at the places of bucket b. Slices and not an index: the gradient of a row is then
    the sum of a slice, in an order that does not vary on a device."""
    xp = namespace(E)
    r = xp.empty((E.shape[1], length), E.dtype)
    for b, where in places:
        r[:, where] = E[b][:, None]

    def back(dr: Array) -> Array:
        dE = xp.zeros_like(E)
        for b, where in places:
            dE[b] += dr[:, where].sum(axis=1)
        return dE

    return r, back


def _mirrored(buckets: list[tuple[int, slice]], keys: int) -> list[tuple[int, slice]]:
    """Ranges of n, the places that a key lies before the query, as places of r."""
    return [(b, slice(keys - n.stop, keys - n.start)) for b, n in buckets]


def _buckets(operation: str, K: int, farthest: int, *, length: int) -> list[tuple[int, slice]]:
    """Every bucket that has a distance below `length`, with its range of distances."""
    if K < 1:
        raise ValueError(f"{operation}: E needs a row at least for every side, for its one bucket")
    if farthest <= K // 2:
        raise ValueError(f"{operation}: farthest must be above {K // 2}, half of the buckets; got {farthest}")
    starts = (*_first_distances(K, farthest), length)
    ranges = ((b, slice(starts[b], min(starts[b + 1], length))) for b in range(K))
    return [(b, n) for b, n in ranges if n.start < n.stop]


@lru_cache(maxsize=64)
def _first_distances(K: int, farthest: int) -> tuple[int, ...]:
    """The smallest distance of every bucket: 0 ... K/2 - 1, then the first n >= (K/2) (farthest / (K/2))^(j / (K/2)),
    that is n^m >= half^(m-j) farthest^j for m = K - half, which whole numbers decide exactly."""
    half = K // 2
    m = K - half
    starts = list(range(half))
    for j in range(m):
        starts.append(_root_above(half ** (m - j) * int(farthest) ** j, m, least=starts[-1] if starts else 0))
    return tuple(starts)


def _root_above(power: int, m: int, *, least: int) -> int:
    """The smallest n >= least with n^m >= power, by halving the interval: in whole numbers, however large these are."""
    low, high = least, max(least, 1 << -(-power.bit_length() // m))
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if middle**m >= power else (middle + 1, high)
    return low
