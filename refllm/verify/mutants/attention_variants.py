"""Mistakes of attention with windows, packed documents, soft caps, sinks, the log-sum-exp and normed queries."""

from __future__ import annotations

from refllm.spec.log_sum_exp import attention_with_lse, log_sum_exp, merge_attention
from refllm.spec.packed import packed_attention, packed_positions
from refllm.spec.query_key_norm import normed_attention
from refllm.spec.sink import sink_attention
from refllm.spec.sliding_window import sliding_window_attention
from refllm.spec.soft_cap import capped_attention, soft_cap
from refllm.verify.mutants.bank import Edited, Edits, Function, edit

G = "https://github.com/"
SEEN = "seen = (0 <= distance) & (distance < window)"
PAST = "past = keys <= queries + len(keys) - len(queries)"
BLOCK = "seen[first:end, key_first:key_end] = past if causal else everywhere(past.shape)"
CAPPED = "s, soft_cap_back = soft_cap(q @ swap(k) / sqrt(D), cap=cap)"
MASKED = "s = masked(s, causal=causal, attention_mask=attention_mask)"
WEIGHTS = "P, softmax_back = softmax(s)"
NOTHING = "nothing = spread(sink[:, None, None], (*s.shape[:-1], 1))"
WITH_SINK = "P, softmax_back = softmax(concatenate([s, nothing], axis=-1))"
SCORES = "s = q @ swap(k) / sqrt(D)"
L = 'l = where(Z == 0, float("-inf"), top(x) + log(where(Z == 0, 1, Z)))[..., 0]'
L_OF_SCORES = "l, log_sum_exp_back = log_sum_exp(s)"
BOTH = "ds = softmax_back(dP) + log_sum_exp_back(dl)"
MERGED = "y = w[..., :1] * y1 + w[..., 1:] * y2"
QUERIES, KEYS = "nq, query_back = rms_norm(q, gq, eps=eps)", "nk, key_back = rms_norm(k, gk, eps=eps)"
NORMED = "y, attention_back = attention(nq, nk, v, causal=causal, attention_mask=attention_mask)"


def seen(new: str) -> Edits:
    return edit(sliding_window_attention, SEEN, f"seen = {new}")


def block(new: str) -> Edits:
    return edit(packed_attention, BLOCK, f"seen[first:end, key_first:key_end] = {new}")


def weights(f: Function, new: str) -> Edits:
    return edit(f, WEIGHTS, f"P = {new}")


# fmt: off
WINDOWS = [
    Edited("WIN/one-more", "a sliding window of one key more: window keys before the query, and the query",
           seen("(0 <= distance) & (distance <= window)"), G + "huggingface/transformers/issues/39408"),
    Edited("WIN/one-less", "a sliding window of one key less",
           seen("(0 <= distance) & (distance < max(1, window - 1))")),
    Edited("WIN/ignored", "a sliding window that is ignored: plain causal attention", seen("0 <= distance"),
           G + "unslothai/unsloth/pull/8253"),
    Edited("WIN/not-causal", "a sliding window without the causal mask: the future is seen",
           seen("distance < window")),
    Edited("WIN/both-sides", "a sliding window on both sides of the query",
           seen("(-window < distance) & (distance < window)")),
    Edited("WIN/future-band", "a sliding window that forbids as many keys of the future as it has, and nothing else",
           seen("~((distance < 0) & (-distance <= window))"), G + "huggingface/transformers/issues/41184"),
    Edited("WIN/top-left", "a sliding window counted from the query's number instead of its place among the keys",
           edit(sliding_window_attention, "distance = arange(T)[:, None] + S - T - arange(S)",
                "distance = arange(T)[:, None] - arange(S)")),
    Edited("WIN/last-keys", "a sliding window of the last keys of all for every query",
           seen("(0 <= distance) & (arange(S) >= S - window)")),
    Edited("WIN/blocks", "a sliding window that jumps in blocks instead of sliding",
           seen("(0 <= distance) & (arange(S) // window == (arange(T)[:, None] + S - T) // window)")),
    Edited("WIN/replaces-allowed", "a sliding window that replaces the mask of padding",
           edit(sliding_window_attention, "seen = seen & attention_mask", "seen = seen | (0 * attention_mask > 0)")),
]
PACKED = [
    Edited("PACK/no-borders", "packed documents that see each other",
           edit(packed_attention, BLOCK,
                "seen[:] = arange(S) <= arange(T)[:, None] + S - T if causal else everywhere((T, S))"),
           G + "axolotl-ai-cloud/axolotl/issues/1375"),
    Edited("PACK/earlier-documents", "packed documents that see the ones before them",
           edit(packed_attention, BLOCK, f"{BLOCK}\nseen[first:end, :key_first] = True")),
    Edited("PACK/causal-ignored", "packed documents without the causal mask", block("True")),
    Edited("PACK/always-causal", "packed documents that are causal although nobody asks for it", block("past")),
    Edited("PACK/top-left", "packed documents with the causal mask of each aligned top-left",
           edit(packed_attention, PAST, "past = keys <= queries")),
    *(Edited(f"PACK/offset-of-{name}", f"packed documents whose causal masks are all moved by {words}",
             edit(packed_attention, PAST, f"past = keys <= queries + {new}"))
      for name, words, new in (
          ("longest", "the longest keys less the longest queries",
           "max(b - a for a, b in pairwise(key_borders)) - max(b - a for a, b in pairwise(borders))"),
          ("whole", "S - T, not by the lengths of each", "S - T"),
          ("first", "the lengths of the first", "(key_borders[1] - borders[1])"),
      )),
    Edited("PACK/whole-row-causal", "packed documents with the causal mask of the whole row",
           edit(packed_attention, PAST, "past = keys + key_first <= queries + first + S - T")),
    Edited("PACK/whole-row-top-left", "packed documents with the causal mask of the whole row, aligned top-left",
           edit(packed_attention, PAST, "past = keys + key_first <= queries + first")),
    Edited("PACK/query-borders", "packed documents with the borders of the queries for the keys too",
           edit(packed_attention, "T, S = q.shape[-2], k.shape[-2]",
                "T, S = q.shape[-2], k.shape[-2]\nkey_borders = borders.clip(0, S)")),
    Edited("PACK/last-missing", "packed documents without the last one: the last border is not the end of one",
           edit(packed_attention,
                "for (first, end), (key_first, key_end) in zip(pairwise(borders), pairwise(key_borders), strict=True):",
                "for (first, end), (key_first, key_end) in zip(pairwise(borders[:-1]), pairwise(key_borders[:-1]), "
                "strict=True):")),
    Edited("PACK/padding-attends-all", "packed documents whose padding attends everything",
           edit(packed_attention, "seen = ~everywhere((T, S))",
                "seen = (arange(T) >= borders[-1])[:, None] & everywhere((T, S))")),
    Edited("PACK/positions-run-on", "positions that run on over the borders of documents",
           edit(packed_positions, "positions[t] = t - first", "positions[t] = t"),
           G + "huggingface/nanoVLM/issues/201"),
    Edited("PACK/positions-from-one", "positions of packed documents from 1",
           edit(packed_positions, "positions[t] = t - first", "positions[t] = t - first + 1")),
    Edited("PACK/positions-one-late", "positions that begin anew one token after the border",
           edit(packed_positions, "positions[t] = t - first", "positions[t] = t - first - 1 if t > first else first")),
    Edited("PACK/positions-by-document", "the number of the document instead of the position in it",
           edit(packed_positions, "positions[t] = t - first", "positions[t] = list(borders).index(first)")),
    Edited("PACK/positions-padding-goes-on", "positions that go on in the padding",
           edit(packed_positions, "positions = [0] * places",
                "positions = [max(0, int(t - borders[-1])) for t in range(places)]")),
]
CAPS = [
    Edited("CAP/none", "scores or logits that are not capped",
           edit(soft_cap, "return cap * t, soft_cap_back", "return x, soft_cap_back")),
    Edited("CAP/product-of-x", "a soft cap x tanh(x / cap) instead of cap tanh(x / cap)",
           edit(soft_cap, "return cap * t, soft_cap_back", "return x * t, soft_cap_back"),
           G + "unslothai/unsloth-zoo/pull/593"),
    Edited("CAP/not-multiplied", "a soft cap tanh(x / cap), not multiplied by the cap",
           edit(soft_cap, "return cap * t, soft_cap_back", "return t, soft_cap_back")),
    Edited("CAP/not-divided", "a soft cap cap tanh(x), not divided by the cap",
           edit(soft_cap, "t = tanh(x / cap)", "t = tanh(x)")),
    Edited("CAP/hard", "a hard cap: cut off at the cap instead of bent",
           edit(soft_cap, "return cap * t, soft_cap_back",
                "return where(x > cap, cap, where(x < -cap, -cap, x)), soft_cap_back")),
    Edited("CAP/fifty", "a soft cap of 50 whatever is asked for",
           edit(soft_cap, "t = tanh(x / cap)", "cap = 50\nt = tanh(x / cap)")),
    Edited("CAP/gradient-passes", "a soft cap whose gradient passes unchanged",
           edit(soft_cap, "return dy * (1 - t * t)", "return dy")),
    Edited("CAP/gradient-of-the-value", "a soft cap whose gradient takes the capped value for the tanh",
           edit(soft_cap, "return dy * (1 - t * t)", "return dy * (1 - cap * t * cap * t)")),
    Edited("CAP/gradient-times-cap", "a soft cap whose gradient is multiplied by the cap",
           edit(soft_cap, "return dy * (1 - t * t)", "return dy * cap * (1 - t * t)")),
    Edited("CAP/attention-not-capped", "attention that leaves the cap out",
           edit(capped_attention, CAPPED, "s = q @ swap(k) / sqrt(D)")),
    Edited("CAP/attention-before-the-scale", "attention that caps the product before it is divided by √d_k",
           edit(capped_attention, CAPPED, "s = soft_cap(q @ swap(k), cap=cap)[0] / sqrt(D)")),
    Edited("CAP/attention-no-scale", "attention with a cap and without 1/√d_k",
           edit(capped_attention, CAPPED, "s = soft_cap(q @ swap(k), cap=cap)[0]")),
    Edited("CAP/attention-after-the-mask", "attention that caps after the mask: a forbidden key has the weight of -cap",
           weights(capped_attention, 'softmax(where(s == float("-inf"), -cap, s))[0]')),
    Edited("CAP/attention-of-the-weights", "attention that caps the weights instead of the scores",
           edit(capped_attention, CAPPED, "s = q @ swap(k) / sqrt(D)", "y = P @ v",
                "y = soft_cap(P, cap=cap)[0] @ v")),
    Edited("CAP/attention-gradient-not-capped", "attention with a cap that its gradient does not know",
           edit(capped_attention, "dproduct = soft_cap_back(ds)", "dproduct = ds")),
    Edited("CAP/attention-causal-ignored", "attention with a cap and without the causal mask",
           edit(capped_attention, MASKED, MASKED.replace("causal=causal", "causal=False"))),
]
SINKS = [
    Edited("SINK/ignored", "a sink that is not there: plain attention",
           edit(sink_attention, WITH_SINK, "P = softmax(s)[0]"), G + "NVIDIA/TransformerEngine/issues/2541"),
    Edited("SINK/zero", "a sink of the logit 0 instead of the learnt one: 1 more in the sum",
           edit(sink_attention, NOTHING, "nothing = spread(0 * sink[:, None, None], (*s.shape[:-1], 1))")),
    Edited("SINK/scaled", "a sink that is divided by √d_k like the scores",
           edit(sink_attention, NOTHING, "nothing = spread(sink[:, None, None] / sqrt(D), (*s.shape[:-1], 1))")),
    Edited("SINK/first-head", "a sink that is the first head's for all",
           edit(sink_attention, NOTHING, "nothing = spread(sink[:1, None, None], (*s.shape[:-1], 1))")),
    Edited("SINK/added-to-the-sum", "a sink that is added to the sum itself instead of its exponential",
           edit(sink_attention, WITH_SINK, "P = exp(s - top(s)) / (sum(exp(s - top(s))) + sink[:, None, None])")),
    Edited("SINK/after-the-shift", "a sink whose exponential is added to the shifted sum without the shift",
           edit(sink_attention, WITH_SINK, "P = exp(s - top(s)) / (sum(exp(s - top(s))) + exp(nothing))")),
    Edited("SINK/per-query", "a sink by the number of the query instead of the head (where they are as many)",
           edit(sink_attention, NOTHING, "each = sink[:, None, None] if s.shape[-2] != len(sink) else sink[:, None]\n"
                "nothing = spread(each, (*s.shape[:-1], 1))")),
    Edited("SINK/gradient-sign", "a sink whose gradient has the wrong sign",
           edit(sink_attention, "return dq, dk, dv, dsink", "return dq, dk, dv, -dsink")),
    Edited("SINK/gradient-none", "a sink that gets no gradient",
           edit(sink_attention, "return dq, dk, dv, dsink", "return dq, dk, dv, 0 * dsink")),
    Edited("SINK/gradient-without-it", "a sink that the gradient of the scores does not count",
           edit(sink_attention, "ds = softmax_back(concatenate([dP, 0 * P[..., S:]], axis=-1))",
                "ds = softmax_back(concatenate([dP, 0 * P[..., S:]], axis=-1))\n"
                "R = P[..., :S] / (1 - P[..., S:] + is_zero(1 - P[..., S:]))\n"
                "ds = concatenate([R * (dP - sum(R * dP)), ds[..., S:]], axis=-1)")),
    Edited("SINK/causal-ignored", "attention with a sink and without the causal mask",
           edit(sink_attention, MASKED, MASKED.replace("causal=causal", "causal=False"))),
]
LOGARITHMS = [
    Edited("LSE/no-shift", "a log-sum-exp without the shift by the largest: exp overflows",
           edit(log_sum_exp, "Z = sum(exp(x - top(x)))", "Z = sum(exp(x))",
                L, 'l = where(Z == 0, float("-inf"), log(where(Z == 0, 1, Z)))[..., 0]'), dtype="float32"),
    Edited("LSE/shift-not-added", "a log-sum-exp to which the largest number is not added back",
           edit(log_sum_exp, L, 'l = where(Z == 0, float("-inf"), log(where(Z == 0, 1, Z)))[..., 0]')),
    Edited("LSE/base-two", "a log-sum-exp in the logarithm to base 2",
           edit(log_sum_exp, L,
                'l = where(Z == 0, float("-inf"), (top(x) + log(where(Z == 0, 1, Z))) / log(2))[..., 0]')),
    Edited("LSE/largest", "the largest number in the place of the log-sum-exp",
           edit(log_sum_exp, L, 'l = where(Z == 0, float("-inf"), top(x))[..., 0]')),
    Edited("LSE/mean", "the logarithm of the mean of the exponentials",
           edit(log_sum_exp, L,
                'l = where(Z == 0, float("-inf"), top(x) + log(where(Z == 0, 1, Z)) - log(x.shape[-1]))[..., 0]')),
    Edited("LSE/empty-zero", "a log-sum-exp of nothing that is 0 instead of -∞",
           edit(log_sum_exp, L, "l = (top(x) + log(where(Z == 0, 1, Z)))[..., 0]")),
    Edited("LSE/empty-infinite", "a log-sum-exp of nothing that is +∞ instead of -∞",
           edit(log_sum_exp, L, L.replace('float("-inf")', 'float("inf")')), G + "Dao-AILab/flash-attention/pull/978"),
    Edited("LSE/empty-finite", "a log-sum-exp of nothing that is a large number below 0 instead of -∞",
           edit(log_sum_exp, L, L.replace('float("-inf")', "-1e30"))),
    Edited("LSE/gradient-of-the-largest", "a log-sum-exp whose gradient goes to the largest number alone",
           edit(log_sum_exp, "return softmax(x)[0] * dl[..., None]", "return (x == top(x)) * dl[..., None]")),
    Edited("LSE/attention-unscaled", "attention whose log-sum-exp is of the scores without 1/√d_k",
           edit(attention_with_lse, L_OF_SCORES, "l, _ = log_sum_exp(s * sqrt(D))")),
    Edited("LSE/attention-unmasked", "attention whose log-sum-exp counts forbidden keys",
           edit(attention_with_lse, L_OF_SCORES, "l, _ = log_sum_exp(q @ swap(k) / sqrt(D))")),
    Edited("LSE/attention-exponential", "attention that gives the sum of the exponentials, not its logarithm",
           edit(attention_with_lse, L_OF_SCORES, "l = exp(log_sum_exp(s)[0])")),
    Edited("LSE/attention-gradient-ignored", "attention whose log-sum-exp passes no gradient",
           edit(attention_with_lse, BOTH, "ds = softmax_back(dP)"), G + "Dao-AILab/flash-attention/issues/889"),
    Edited("LSE/attention-gradient-sign", "attention whose log-sum-exp passes its gradient with the wrong sign",
           edit(attention_with_lse, BOTH, "ds = softmax_back(dP) - log_sum_exp_back(dl)")),
    Edited("LSE/attention-gradient-even", "attention whose log-sum-exp passes its gradient without the weights",
           edit(attention_with_lse, BOTH, 'ds = softmax_back(dP) + where(s == float("-inf"), 0, dl[..., None])')),
    Edited("LSE/merge-mean", "parts that are merged by their mean", edit(merge_attention, MERGED, "y = (y1 + y2) / 2")),
    Edited("LSE/merge-sum", "parts that are merged by their sum", edit(merge_attention, MERGED, "y = y1 + y2")),
    Edited("LSE/merge-by-l", "parts that are merged by l instead of e^l",
           edit(merge_attention, MERGED,
                "y = (l1[..., None] * y1 + l2[..., None] * y2) / (l1[..., None] + l2[..., None])")),
    Edited("LSE/merge-exchanged", "parts that are merged with their weights exchanged",
           edit(merge_attention, MERGED, "y = w[..., 1:] * y1 + w[..., :1] * y2")),
    Edited("LSE/merge-l-added", "parts whose l are added up",
           edit(merge_attention, "l, log_sum_exp_back = log_sum_exp(parts)", "l = l1 + l2"),
           G + "zhuzilin/ring-flash-attention/issues/20"),
    Edited("LSE/merge-largest", "parts of which the larger l is kept",
           edit(merge_attention, "l, log_sum_exp_back = log_sum_exp(parts)", "l = where(l1 > l2, l1, l2)")),
    Edited("LSE/merge-base-two", "parts whose l, in natural logarithms, are merged as if they were to base 2",
           edit(merge_attention, "parts = stack([l1, l2], axis=-1)", "parts = stack([l1, l2], axis=-1) * log(2)",
                "l, log_sum_exp_back = log_sum_exp(parts)", "l = log_sum_exp(parts)[0] / log(2)"),
           G + "vllm-project/vllm/pull/28840"),
    Edited("LSE/merge-empty-nan", "parts without a key on both sides that give NaN: -∞ less -∞",
           edit(merge_attention, "w, softmax_back = softmax(parts)",
                "largest = where(l1 > l2, l1, l2)[..., None]\ne = exp(parts - largest)\nw = e / sum(e)",
                "l, log_sum_exp_back = log_sum_exp(parts)", "l = (largest + log(sum(e)))[..., 0]"),
           G + "flashinfer-ai/flashinfer/issues/4051"),
    Edited("LSE/merge-gradient-l", "parts whose weights pass no gradient",
           edit(merge_attention, "dparts = softmax_back(dw) + log_sum_exp_back(dl)", "dparts = log_sum_exp_back(dl)")),
]
NORMS = [
    Edited("QKN/queries-alone", "attention that norms queries and not keys", edit(normed_attention, KEYS, "nk = k")),
    Edited("QKN/keys-alone", "attention that norms keys and not queries", edit(normed_attention, QUERIES, "nq = q")),
    Edited("QKN/none", "attention without the norms", edit(normed_attention, QUERIES, "nq = q", KEYS, "nk = k")),
    Edited("QKN/all-heads", "attention that norms over all heads together instead of each by itself",
           edit(normed_attention, QUERIES,
                "h = q.shape[-3] if q.ndim > 2 else 1\n"
                "squares = sum(q * q) if h == 1 else sum(sum(q * q), axis=-3)\n"
                "nq = gq * q / sqrt(squares / (h * q.shape[-1]) + eps)"),
           G + "Alpha-VLLM/Lumina-T2X/issues/112"),
    Edited("QKN/unit-length", "attention that brings queries and keys to length 1 instead of √d_k",
           edit(normed_attention, NORMED,
                "y, _ = attention(nq / sqrt(q.shape[-1]), nk / sqrt(q.shape[-1]), v, causal=causal, "
                "attention_mask=attention_mask)")),
    Edited("QKN/no-scale", "attention of normed queries and keys without 1/√d_k",
           edit(normed_attention, NORMED,
                "y, _ = attention(nq * sqrt(q.shape[-1]), nk, v, causal=causal, attention_mask=attention_mask)")),
    Edited("QKN/values-too", "attention that norms the values too",
           edit(normed_attention, NORMED,
                "y, _ = attention(nq, nk, v / sqrt(mean(v * v) + eps), causal=causal, attention_mask=attention_mask)")),
    Edited("QKN/gradient-past-the-norm", "attention whose gradient goes past the norm of the queries",
           edit(normed_attention, "return dq, dk, dv, dgq, dgk", "return dnq, dk, dv, dgq, dgk")),
    Edited("QKN/gradient-gains-exchanged", "attention with the gradients of the two gains exchanged",
           edit(normed_attention, "return dq, dk, dv, dgq, dgk", "return dq, dk, dv, dgk, dgq")),
]
# fmt: on
MUTANTS = [*WINDOWS, *PACKED, *CAPS, *SINKS, *LOGARITHMS, *NORMS]
