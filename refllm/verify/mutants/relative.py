"""Mistakes of what attention adds for the distance of key and query: T5's buckets, ALiBi, and the adding."""

from __future__ import annotations

from refllm.spec.attention import biased_attention
from refllm.spec.relative import alibi, t5_bias_bidirectional, t5_bias_causal
from refllm.verify.mutants.bank import Edited, Edits, Function, edit

MASKED = "s = masked(s, causal=causal, attention_mask=attention_mask)"
PLACE = "place = arange(S) - arange(T)[:, None] + T - 1"
WEIGHTS = "P, softmax_back = softmax(s)"
SCORES, Y = "s = q @ swap(k) / sqrt(D) + r[:, place]", "y = P @ v"
DBIAS = "dbias = sum(ds.reshape(-1, H, T, S), axis=0, keepdims=False)"
DR = "dr = scatter_add(place, dbias.swapaxes(0, 2).swapaxes(0, 1), r.shape[-1]).T"
GRADIENTS = "return ds @ k / sqrt(D), swap(ds) @ q / sqrt(D), dv, dr"
FAR, SLOPED = "far = like(abs(arange(1 - keys, queries)), m)", "return -(m[:, None] * far), alibi_back"
SLOPED_BACK = "return -sum(dr * far, keepdims=False)"


def biased(old: str, new: str, *more: str) -> Edits:
    return edit(biased_attention, old, new, *more)


def _t5(name: str, f: Function, other: Function, line: str, n: str, K: str) -> list[Edited]:
    """The mistakes that both forms have in common: the line that looks up the bucket of n among K."""
    bucket, result = f"bucket({n}, {K}, farthest)", "return _rows_for(E, buckets)"

    def by(new: str) -> Edits:
        return edit(f, line.format(bucket), line.format(new))

    def summed(scatter: str) -> Edits:
        return edit(f, result, f"def {scatter}_back(dr):\n    return {scatter}(integers(buckets), dr.T, len(E))\n\n"
                    f"return _rows_for(E, buckets)[0], {scatter}_back")  # fmt: skip

    def over(distances: str) -> Edits:
        return edit(f, line.format(bucket), line.format(bucket).replace("distances(queries, keys)", distances))

    found: list[tuple[str, str, Edits]] = [
        ("other-form", "in the other form",
         edit(f, result, f"return {other.__name__}(E, queries=queries, keys=keys, farthest=farthest)")),
        ("past-and-future-swapped", "with past and future swapped", over("[-d for d in distances(queries, keys)]")),
        ("from-the-first", "with distances from the first place: the cache is forgotten",
         over("range(1 - queries, keys)")),
        ("one-off", "with distances one too large", by(f"bucket({n} + 1, {K}, farthest)")),
        ("exact-one-more", "with one more bucket of a single distance: the border is not below but at half",
         by(f"(min({n} + 1, {K} - 1) if {n} == {K} // 2 else {bucket})")),
        ("rounded", "with the logarithm rounded to the nearest bucket instead of down",
         by(f"bucket_by(round, {n}, {K}, farthest)")),
        ("rounded-up", "with the logarithm rounded up", by(f"bucket_by(math.ceil, {n}, {K}, farthest)")),
        ("linear", "with buckets that grow linearly up to `farthest`", by(f"min({n} * {K} // farthest, {K} - 1)")),
        ("clipped", "with a bucket for every distance, the far ones in the last", by(f"min({n}, {K} - 1)")),
        ("log-of-distance", "with ln(n) / ln(farthest), not both divided by half of the buckets",
         by(f"({n} if {n} < {K} // 2 else "
            f"min({K} // 2 + int(log({n}) / log(farthest) * ({K} - {K} // 2) + 1e-9), {K} - 1))")),
        ("farthest-fixed", "with 128 for the farthest distance whatever is asked for", by(f"bucket({n}, {K}, 128)")),
        ("quarter-exact", "with a quarter of the buckets for single distances instead of half",
         by(f"bucket_by(math.floor, {n}, {K}, farthest, near=max(1, {K} // 4))")),
        ("heads-reversed", "with the columns of the table for the heads from the last to the first",
         edit(f, result, "return _rows_for(E[:, ::-1], buckets)")),
        ("back-assigned", "whose table's gradient is assigned, not added: the last distance of a bucket alone counts",
         summed("scatter_last")),
        ("back-averaged", "whose table's gradient is averaged over the distances of a bucket", summed("scatter_mean")),
    ]  # fmt: skip
    return [Edited(f"T5-REL/{name}-{slug}", f"T5's bias ({name}) {about}", e) for slug, about, e in found]


CAUSAL_BUCKETS = "buckets = [{} for d in distances(queries, keys)]"
BUCKETS = "buckets = [{} + half * (d > 0) for d in distances(queries, keys)]"
BOTH_SIDES = BUCKETS.format("bucket(abs(d), half, farthest)")

# fmt: off
MUTANTS = [
    Edited("T5-REL/attention-no-bias", "relative attention without the bias",
           biased(SCORES, "s = q @ swap(k) / sqrt(D)")),
    Edited("T5-REL/attention-subtracted", "relative attention with the bias subtracted",
           biased(SCORES, "s = q @ swap(k) / sqrt(D) - r[:, place]")),
    Edited("T5-REL/attention-bias-scaled", "relative attention with the bias divided by √D, as the products are",
           biased(SCORES, "s = (q @ swap(k) + r[:, place]) / sqrt(D)")),
    Edited("T5-REL/attention-unscaled", "relative attention without the 1/√D scale",
           biased(SCORES, "s = q @ swap(k) + r[:, place]")),
    Edited("T5-REL/attention-transposed", "relative attention with key and query exchanged in the bias: r[t - s + S "
           "- 1]",
           biased(PLACE, "place = arange(T)[:, None] - arange(S) + S - 1")),
    Edited("T5-REL/attention-one-off", "relative attention with the bias of the next distance",
           biased(PLACE, "place = (arange(S) - arange(T)[:, None] + T).clip(0, T + S - 2)")),
    Edited("T5-REL/attention-from-the-first", "relative attention with the distances of queries that stand first, not "
           "last", biased(PLACE, "place = (arange(S) - arange(T)[:, None] + max(S, T) - 1).clip(0, T + S - 2)")),
    Edited("T5-REL/attention-one-row", "relative attention with the bias of the last query for all of them",
           biased(PLACE, "place = spread(arange(S), (T, S))")),
    Edited("T5-REL/attention-first-head", "relative attention with the bias of the first head for all of them",
           biased(SCORES, "s = q @ swap(k) / sqrt(D) + r[:1, place]")),
    Edited("T5-REL/attention-after-softmax", "relative attention with the bias added after the softmax",
           biased(SCORES, "s = q @ swap(k) / sqrt(D)", Y, "y = (P + r[:, place]) @ v")),
    Edited("T5-REL/attention-multiplied", "relative attention with the scores multiplied by the bias",
           biased(SCORES, "s = q @ swap(k) / sqrt(D) * r[:, place]")),
    Edited("T5-REL/attention-causal-ignored", "relative attention without the causal mask",
           biased(MASKED, MASKED.replace("causal=causal", "causal=False"))),
    Edited("T5-REL/attention-top-left", "relative attention with the causal mask aligned top-left",
           biased(MASKED, MASKED.replace("causal=causal", "causal=False"),
                  WEIGHTS, 's = where(arange(S) <= arange(T)[:, None] if causal else True, s, float("-inf"))\n'
                  + WEIGHTS)),
    Edited("T5-REL/attention-allowed-ignored", "relative attention that ignores `allowed`",
           biased(MASKED, MASKED.replace("=attention_mask", "=None"))),
    Edited("T5-REL/back-attention-no-bias", "relative attention with no gradient for the bias",
           biased(GRADIENTS, "return ds @ k / sqrt(D), swap(ds) @ q / sqrt(D), dv, 0 * r")),
    Edited("T5-REL/back-attention-averaged", "relative attention whose bias has the mean of its scores' gradients",
           biased(DR, DR.replace("scatter_add", "scatter_mean"))),
    Edited("T5-REL/back-attention-batch-mean", "relative attention whose bias has the mean of the batch's gradients",
           biased(DBIAS, f"{DBIAS} / len(ds.reshape(-1, H, T, S))")),
    Edited("T5-REL/back-attention-bias-scaled", "relative attention whose bias has its gradient divided by √D",
           biased(GRADIENTS, f"{GRADIENTS} / sqrt(D)")),
    *_t5("causal", t5_bias_causal, t5_bias_bidirectional, CAUSAL_BUCKETS, "max(-d, 0)", "len(E)"),
    *_t5("bidirectional", t5_bias_bidirectional, t5_bias_causal, BUCKETS, "abs(d)", "half"),
    Edited("T5-REL/bidirectional-one-side", "T5's bias (bidirectional) with the same rows on both sides",
           edit(t5_bias_bidirectional, BOTH_SIDES, CAUSAL_BUCKETS.format("bucket(abs(d), half, farthest)"))),
    Edited("T5-REL/bidirectional-zero-after", "T5's bias (bidirectional) with distance 0 counted to the keys after it",
           edit(t5_bias_bidirectional, BOTH_SIDES, BOTH_SIDES.replace("d > 0", "d >= 0"))),
    Edited("T5-REL/bidirectional-not-halved", "T5's bias (bidirectional) with the buckets of a side not halved",
           edit(t5_bias_bidirectional, BOTH_SIDES, CAUSAL_BUCKETS.format(
               "min(bucket(abs(d), len(E), farthest) + half * (d > 0), len(E) - 1)"))),
    Edited("LONG/alibi-positive", "ALiBi with its sign turned: far keys are raised",
           edit(alibi, SLOPED, "return m[:, None] * far, alibi_back")),
    Edited("LONG/alibi-signed", "ALiBi with m (s - t), not |s - t|: later keys are raised",
           edit(alibi, FAR, "far = like(-arange(1 - keys, queries), m)")),
    Edited("LONG/alibi-past-alone", "ALiBi without a penalty for later keys",
           edit(alibi, FAR, "far = like(-arange(1 - keys, queries).clip(max=0), m)")),
    Edited("LONG/alibi-heads-reversed", "ALiBi with the slopes from the last head to the first",
           edit(alibi, SLOPED, "return -(m[::-1, None] * far), alibi_back")),
    Edited("LONG/alibi-one-slope", "ALiBi with the first head's slope for all",
           edit(alibi, SLOPED, "return -(m[:1, None] * far) + 0 * m[:, None], alibi_back")),
    Edited("LONG/alibi-squared", "ALiBi with the distance squared",
           edit(alibi, SLOPED, "return -(m[:, None] * far * far), alibi_back")),
    Edited("LONG/alibi-from-the-first", "ALiBi with distances from the first place: the cache is forgotten",
           edit(alibi, FAR, "far = like(abs(arange(1 - queries, keys)), m)")),
    Edited("LONG/alibi-one-off", "ALiBi whose nearest key is at distance 1",
           edit(alibi, FAR, "far = like(abs(arange(1 - keys, queries)) + 1, m)")),
    Edited("LONG/alibi-logarithm", "ALiBi with the logarithm of the distance",
           edit(alibi, SLOPED, "return -(m[:, None] * log(1 + far)), alibi_back")),
    Edited("LONG/back-alibi-positive", "ALiBi with the gradient of the slopes turned",
           edit(alibi, SLOPED_BACK, "return sum(dr * far, keepdims=False)")),
    Edited("LONG/back-alibi-frozen", "ALiBi with no gradient for the slopes", edit(alibi, SLOPED_BACK, "return 0 * m")),
]
