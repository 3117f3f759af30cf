"""Mistakes of what attention adds for the distance of key and query: T5's buckets, ALiBi, and the adding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.ops.attention import biased_attention
from refllm.ops.relative import alibi, t5_bias_bidirectional, t5_bias_causal
from refllm.verify.mutants import attention as parts
from refllm.verify.mutants.autodiff import Node, constant, differentiable
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.mutants.linear import gradients

Index = Callable[[int, int], Array]
Seen = Callable[[Node, Node, bool, Array | None], Array]


def _places(T: int, S: int) -> Array:
    """The entry of r for query t and key s, (T, S)."""
    return numpy.arange(S) - numpy.arange(T)[:, None] + T - 1


def biased(
    *,
    places: Index = _places,
    use: Callable[[Node], Node] = lambda b: b,
    join: Callable[[Node, Node, Node], Node] = lambda s, b, q: s + b,
    after: Callable[[Node, Node], Node] = lambda P, b: P,
    seen: Seen = parts.seen,
) -> Function:
    """Attention with a bias, with a part of it exchanged, and the true gradient of what then is computed."""

    @differentiable
    def changed(q: Node, k: Node, v: Node, r: Node, *, causal: bool, attention_mask: Array | None) -> Node:
        s = parts.scores(q, k)
        b = use(r)[:, places(q.shape[-2], k.shape[-2])]
        m = numpy.broadcast_to(seen(q, k, causal, attention_mask), s.shape)
        return after(parts.weights(parts.masked(join(s, b, q), m)), b) @ v

    return changed


def _of_the_last_query(d: tuple[Array, ...], a: tuple[Array, ...], dy: tuple[Array]) -> tuple[Array, ...]:
    """dr divided by the number of scores that share an entry."""
    T, S = a[0].shape[-2], a[1].shape[-2]
    shared = numpy.bincount(_places(T, S).reshape(-1), minlength=T + S - 1)
    return (*d[:3], d[3] / shared)


def _over_batch(d: tuple[Array, ...], a: tuple[Array, ...], dy: tuple[Array]) -> tuple[Array, ...]:
    return (*d[:3], d[3] / math.prod(a[0].shape[:-3]))


# --- buckets ----------------------------------------------------------------------------------------------------------


def _distances(queries: int, keys: int) -> Array:
    return numpy.arange(1 - keys, queries)


def bucket(
    n: Array, K: int, farthest: int, *, exact: int | None = None, whole: Callable[[Array], Array] = numpy.floor
) -> Array:
    """The bucket of every distance n. The logarithms are raised by a hair, so that a border is reached on it."""
    exact = K // 2 if exact is None else exact
    steps = numpy.log(numpy.maximum(n, 1) / max(exact, 1)) / math.log(farthest / max(exact, 1)) * (K - exact)
    return numpy.where(n < exact, n, numpy.minimum(exact + whole(steps + 1e-9).astype(int), K - 1))


Rows = Callable[[Array, int, int], Array]


def _causal(d: Array, K: int, farthest: int) -> Array:
    return bucket(numpy.maximum(-d, 0), K, farthest)


def _bidirectional(d: Array, K: int, farthest: int) -> Array:
    return bucket(abs(d), K // 2, farthest) + K // 2 * (d > 0)


def table(rows: Rows, distances: Index = _distances, use: Callable[[Node], Node] = lambda r: r) -> Function:
    """The bias of T5 with other rows of the table for the distances."""

    @differentiable
    def changed(E: Node, *, queries: int, keys: int, farthest: int) -> Node:
        chosen = rows(distances(queries, keys), E.shape[0], farthest)
        return use(E[numpy.clip(chosen, 0, E.shape[0] - 1)].swap())

    return changed


def assigned(rows: Rows, change: Callable[[Array, Array, Array], None]) -> Function:
    """The right value; the table's gradient is written by change(dE, rows, dr transposed)."""

    def changed(E: Array, *, queries: int, keys: int, farthest: int) -> tuple[Array, Function]:
        chosen = rows(_distances(queries, keys), len(E), farthest)

        def back(dr: Array) -> Array:
            dE = numpy.zeros_like(E)
            change(dE, chosen, dr.T)
            return dE

        return E[chosen].T.copy(), back

    return changed


def _overwrite(dE: Array, rows: Array, dr: Array) -> None:
    for row, d in zip(rows, dr, strict=True):
        dE[row] = d


def _average(dE: Array, rows: Array, dr: Array) -> None:
    numpy.add.at(dE, rows, dr)
    dE /= numpy.maximum(numpy.bincount(rows, minlength=len(dE)), 1)[:, None]


def _from_the_first(queries: int, keys: int) -> Array:
    """Distances as if query t stood at place t, whatever the cache holds."""
    return numpy.arange(queries + keys - 1) - (queries - 1)


def _t5(name: str, original: Function, rows: Rows, other: Rows, buckets: Callable[[int], int]) -> list[Mutant]:
    """The mistakes that both forms have in common: `buckets` of K rows are those of one side."""
    this = f"T5's bias ({name})"

    def cut(change: Callable[..., Array]) -> Rows:
        """The right sides, with other buckets in them."""

        def changed(d: Array, K: int, farthest: int) -> Array:
            offset = rows(d, K, farthest) // buckets(K) * buckets(K)
            near = numpy.maximum(-d, 0) if buckets(K) == K else abs(d)
            return offset + change(near, buckets(K), farthest)

        return changed

    found: list[tuple[str, str, Function]] = [
        ("other-form", "in the other form", table(other)),
        ("past-and-future-swapped", "with past and future swapped", table(lambda d, K, far: rows(-d, K, far))),
        ("from-the-first", "with distances from the first place: the cache is forgotten", table(rows, _from_the_first)),
        ("one-off", "with distances one too large", table(cut(lambda n, K, far: bucket(n + 1, K, far)))),
        ("exact-one-more", "with one more bucket of a single distance: the border is not below but at half",
         table(cut(lambda n, K, far: numpy.where(n == K // 2, numpy.minimum(n + 1, K - 1), bucket(n, K, far))))),
        ("rounded", "with the logarithm rounded to the nearest bucket instead of down",
         table(cut(lambda n, K, far: bucket(n, K, far, whole=numpy.rint)))),
        ("rounded-up", "with the logarithm rounded up",
         table(cut(lambda n, K, far: bucket(n, K, far, whole=numpy.ceil)))),
        ("linear", "with buckets that grow linearly up to `farthest`",
         table(cut(lambda n, K, far: numpy.minimum(n * K // far, K - 1)))),
        ("clipped", "with a bucket for every distance, the far ones in the last",
         table(cut(lambda n, K, far: numpy.minimum(n, K - 1)))),
        ("log-of-distance", "with ln(n) / ln(farthest), not both divided by half of the buckets",
         table(cut(lambda n, K, far: bucket(n, K, far * (K // 2)) if K < 4 else _log_of_distance(n, K, far)))),
        ("farthest-fixed", "with 128 for the farthest distance whatever is asked for",
         table(lambda d, K, far: rows(d, K, 128))),
        ("quarter-exact", "with a quarter of the buckets for single distances instead of half",
         table(cut(lambda n, K, far: bucket(n, K, far, exact=max(1, K // 4))))),
        ("heads-reversed", "with the columns of the table for the heads from the last to the first",
         table(rows, use=lambda r: r[::-1])),
        ("back-assigned", "whose table's gradient is assigned, not added: the last distance of a bucket alone counts",
         assigned(rows, _overwrite)),
        ("back-averaged", "whose table's gradient is averaged over the distances of a bucket",
         assigned(rows, _average)),
    ]  # fmt: skip
    return [Mutant(f"T5-REL/{name}-{slug}", original, f"{this} {about}", f) for slug, about, f in found]


def _log_of_distance(n: Array, K: int, farthest: int) -> Array:
    exact = K // 2
    steps = numpy.log(numpy.maximum(n, 1)) / math.log(farthest) * (K - exact)
    return numpy.where(n < exact, n, numpy.minimum(exact + (steps + 1e-9).astype(int), K - 1))


def slopes(f: Callable[[Node, Array], Node], distances: Index = _distances) -> Function:
    """ALiBi as f(slopes (H, 1), distances)."""

    @differentiable
    def changed(m: Node, *, queries: int, keys: int) -> Node:
        return f(m.reshape(-1, 1), distances(queries, keys).astype(m.value.dtype))

    return changed


def _nothing_beyond(q: Node, k: Node, causal: bool, attention_mask: Array | None) -> Array:
    return parts.seen(q, k, False, attention_mask)


def _upper_left(q: Node, k: Node, causal: bool, attention_mask: Array | None) -> Array:
    own = numpy.arange(k.shape[-2]) <= numpy.arange(q.shape[-2])[:, None]
    return (own if causal else True) & parts.seen(q, k, False, attention_mask)


def _mistakes(*found: tuple[str, str, Any], of: Function) -> list[Mutant]:
    return [Mutant(identity, of, about, f) for identity, about, f in found]


MUTANTS = [
    *_mistakes(
        ("T5-REL/attention-no-bias", "relative attention without the bias", biased(join=lambda s, b, q: s + 0.0 * b)),
        ("T5-REL/attention-subtracted", "relative attention with the bias subtracted",
         biased(join=lambda s, b, q: s - b)),
        ("T5-REL/attention-bias-scaled", "relative attention with the bias divided by √D, as the products are",
         biased(join=lambda s, b, q: s + b * q.shape[-1] ** -0.5)),
        ("T5-REL/attention-unscaled", "relative attention without the 1/√D scale",
         biased(join=lambda s, b, q: s * q.shape[-1] ** 0.5 + b)),
        ("T5-REL/attention-transposed", "relative attention with key and query exchanged in the bias: r[t - s + S - 1]",
         biased(places=lambda T, S: _places(S, T).T)),
        ("T5-REL/attention-one-off", "relative attention with the bias of the next distance",
         biased(places=lambda T, S: numpy.minimum(_places(T, S) + 1, T + S - 2))),
        ("T5-REL/attention-from-the-first", "relative attention with the distances of queries that stand first, not "
         "last", biased(places=lambda T, S: numpy.minimum(_places(T, S) + S - T, T + S - 2) if S > T
                        else _places(T, S))),
        ("T5-REL/attention-one-row", "relative attention with the bias of the last query for all of them",
         biased(places=lambda T, S: numpy.broadcast_to(numpy.arange(S), (T, S)))),
        ("T5-REL/attention-first-head", "relative attention with the bias of the first head for all of them",
         biased(use=lambda r: r[:1] + 0.0 * r)),
        ("T5-REL/attention-after-softmax", "relative attention with the bias added after the softmax",
         biased(join=lambda s, b, q: s, after=lambda P, b: P + b)),
        ("T5-REL/attention-multiplied", "relative attention with the scores multiplied by the bias",
         biased(join=lambda s, b, q: s * b)),
        ("T5-REL/attention-causal-ignored", "relative attention without the causal mask", biased(seen=_nothing_beyond)),
        ("T5-REL/attention-top-left", "relative attention with the causal mask aligned top-left",
         biased(seen=_upper_left)),
        ("T5-REL/attention-allowed-ignored", "relative attention that ignores `allowed`",
         biased(seen=lambda q, k, causal, attention_mask: parts.seen(q, k, causal, None))),
        ("T5-REL/back-attention-no-bias", "relative attention with no gradient for the bias", biased(use=constant)),
        ("T5-REL/back-attention-averaged", "relative attention whose bias has the mean of its scores' gradients",
         gradients(biased_attention, _of_the_last_query)),
        ("T5-REL/back-attention-batch-mean", "relative attention whose bias has the mean of the batch's gradients",
         gradients(biased_attention, _over_batch)),
        ("T5-REL/back-attention-bias-scaled", "relative attention whose bias has its gradient divided by √D",
         gradients(biased_attention, lambda d, a, dy: (*d[:3], d[3] * a[0].shape[-1] ** -0.5))),
        of=biased_attention,
    ),
    *_t5("causal", t5_bias_causal, _causal, _bidirectional, lambda K: K),
    *_t5("bidirectional", t5_bias_bidirectional, _bidirectional, _causal, lambda K: K // 2),
    *_mistakes(
        ("T5-REL/bidirectional-one-side", "T5's bias (bidirectional) with the same rows on both sides",
         table(lambda d, K, far: bucket(abs(d), K // 2, far))),
        ("T5-REL/bidirectional-zero-after", "T5's bias (bidirectional) with distance 0 counted to the keys after it",
         table(lambda d, K, far: bucket(abs(d), K // 2, far) + K // 2 * (d >= 0))),
        ("T5-REL/bidirectional-not-halved", "T5's bias (bidirectional) with the buckets of a side not halved",
         table(lambda d, K, far: numpy.minimum(bucket(abs(d), K, far) + K // 2 * (d > 0), K - 1))),
        of=t5_bias_bidirectional,
    ),
    *_mistakes(
        ("LONG/alibi-positive", "ALiBi with its sign turned: far keys are raised", slopes(lambda m, d: m * abs(d))),
        ("LONG/alibi-signed", "ALiBi with m (s - t), not |s - t|: later keys are raised", slopes(lambda m, d: m * d)),
        ("LONG/alibi-past-alone", "ALiBi without a penalty for later keys",
         slopes(lambda m, d: m * numpy.minimum(d, 0))),
        ("LONG/alibi-heads-reversed", "ALiBi with the slopes from the last head to the first",
         slopes(lambda m, d: m[::-1] * -abs(d))),
        ("LONG/alibi-one-slope", "ALiBi with the first head's slope for all", slopes(lambda m, d: m[:1] * -abs(d)
                                                                                    + 0.0 * m)),
        ("LONG/alibi-squared", "ALiBi with the distance squared", slopes(lambda m, d: m * -d * d)),
        ("LONG/alibi-from-the-first", "ALiBi with distances from the first place: the cache is forgotten",
         slopes(lambda m, d: m * -abs(d), _from_the_first)),
        ("LONG/alibi-one-off", "ALiBi whose nearest key is at distance 1", slopes(lambda m, d: m * -(abs(d) + 1))),
        ("LONG/alibi-logarithm", "ALiBi with the logarithm of the distance",
         slopes(lambda m, d: m * -numpy.log1p(abs(d)))),
        ("LONG/back-alibi-positive", "ALiBi with the gradient of the slopes turned",
         gradients(alibi, lambda d, a, dy: -d)),
        ("LONG/back-alibi-frozen", "ALiBi with no gradient for the slopes", gradients(alibi, lambda d, a, dy: 0 * d)),
        of=alibi,
    ),
]  # fmt: skip
