"""Mistakes of attention: the scale, the masks, the softmax, and the gradient."""

from __future__ import annotations

from refllm.spec.attention import attention
from refllm.verify.mutants.bank import Edited, Edits, edit

SCORES = "s = q @ swap(k) / sqrt(D)"
CAUSAL = 's = where(arange(S) <= arange(T)[:, None] + S - T, s, float("-inf"))'
ALLOWED = 's = where(attention_mask, s, float("-inf"))'
WEIGHTS = "P, softmax_back = softmax(s)"
FORBIDDEN = 's == float("-inf")'


def scores(new: str) -> Edits:
    return edit(attention, SCORES, f"s = {new}")


def weights(new: str) -> Edits:
    return edit(attention, WEIGHTS, f"P = {new}")


def causal(new: str) -> Edits:
    """Another mask of the past."""
    return edit(attention, CAUSAL, f's = where({new}, s, float("-inf"))')


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Edited("ATT/no-scale", "attention without the 1/√d_k scale", scores("q @ swap(k)"),
           G + "mlc-ai/mlc-llm/pull/3426"),
    Edited("ATT/scale-d-k", "attention scaled by 1/d_k instead of 1/√d_k, or by 1/√d_k twice",
           scores("q @ swap(k) / D")),
    Edited("ATT/scale-model-width", "attention scaled by the width of all heads instead of one head's (E3)",
           scores("q @ swap(k) / sqrt(D * (q.shape[-3] if q.ndim > 2 else 1))"),
           G + "karpathy/ng-video-lecture/pull/6"),
    Edited("ATT/scale-inverse", "attention with the scores multiplied by √d_k instead of divided",
           scores("q @ swap(k) * sqrt(D)"), G + "esceptico/perceiver-io/issues/9"),
    Edited("ATT/scale-fourth-root", "attention scaled by d_k^(-1/4), as if the keys were scaled as well",
           scores("q @ swap(k) / sqrt(sqrt(D))")),
    Edited("ATT/scale-keys", "attention scaled by the root of the number of keys instead of d_k",
           scores("q @ swap(k) / sqrt(S)")),
    Edited("ATT/scale-value-width", "attention scaled by the root of d_v, the width of the values",
           scores("q @ swap(k) / sqrt(v.shape[-1])")),
    Edited("ATT/scale-after-softmax", "attention with the scale applied after the softmax",
           edit(attention, SCORES, "s = q @ swap(k)", "y = P @ v", "y = P @ v / sqrt(D)"),
           G + "FrancescoSaverioZuppichini/ViT/issues/2"),
    Edited("ATT/negative-scores", "attention with the sign of the scores turned", scores("-(q @ swap(k)) / sqrt(D)")),
    Edited("ATT/softmax-over-queries", "attention with the softmax over the queries instead of the keys",
           weights("swap(softmax(swap(s))[0])"),
           G + "labmlai/annotated_deep_learning_paper_implementations/issues/146"),
    Edited("ATT/not-normalised", "attention with weights that are not divided by their sum",
           weights("exp(s - top(s))")),
    Edited("ATT/one-more-in-the-sum", "attention with 1 added to the sum of the exponentials",
           weights("exp(s) / (sum(exp(s)) + 1)")),
    Edited("ATT/one-more-after-the-shift", "attention with 1 added to the sum of the shifted exponentials",
           weights("exp(s - top(s)) / (sum(exp(s - top(s))) + 1)"), G + "kyegomez/AttentionIsOFFByOne/issues/5"),
    Edited("ATT/no-shift", "attention without the shift by the row maximum: exp overflows",
           weights("exp(s) / sum(exp(s))"), dtype="float32"),
    Edited("ATT/base-two", "attention with powers of 2 instead of e", weights("softmax(s * log(2))[0]")),
    Edited("ATT/weights-transposed", "attention with the weights transposed (where they are square)",
           edit(attention, "y = P @ v", "y = (swap(P) if T == S else P) @ v")),
    Edited("ATT-MASK/strict", "attention with the causal mask one short: no query sees its own token",
           causal("arange(S) < arange(T)[:, None] + S - T")),
    Edited("ATT-MASK/one-too-many", "attention with the causal mask one too far: the next token is seen",
           causal("arange(S) <= arange(T)[:, None] + S - T + 1"), G + "flashinfer-ai/flashinfer/pull/348"),
    Edited("ATT-MASK/top-left", "attention with the causal mask aligned top-left: cached keys are not seen",
           causal("arange(S) <= arange(T)[:, None]"), G + "onnx/onnx/pull/8068"),
    Edited("ATT-MASK/only-the-future", "attention with the causal mask turned over: a query sees the future",
           causal("arange(S) >= arange(T)[:, None] + S - T")),
    Edited("ATT-MASK/causal-ignored", "attention without the causal mask",
           edit(attention, f"if causal:\n    {CAUSAL}", "")),
    Edited("ATT-MASK/causal-needs-allowed", "attention that is causal only if `allowed` is given too",
           edit(attention, "if causal:", "if causal and attention_mask is not None:"),
           G + "facebookresearch/xformers/issues/103"),
    Edited("ATT-MASK/allowed-ignored", "attention that ignores `allowed`: padding is attended",
           edit(attention, f"if attention_mask is not None:\n    {ALLOWED}", "")),
    Edited("ATT-MASK/causal-replaces-allowed", "attention that ignores `allowed` where it is causal",
           edit(attention, "if attention_mask is not None:", "if attention_mask is not None and not causal:")),
    Edited("ATT-MASK/either", "attention with the masks joined by or: a key needs the leave of one",
           edit(attention, CAUSAL, "past = arange(S) <= arange(T)[:, None] + S - T\n"
                "attention_mask = past if attention_mask is None else past | attention_mask")),
    Edited("ATT-MASK/allowed-inverted", "attention with `allowed` inverted: true taken for forbidden",
           edit(attention, ALLOWED, 's = where(~attention_mask, s, float("-inf"))')),
    Edited("ATT-MASK/allowed-transposed", "attention with `allowed` over the queries instead of the keys",
           edit(attention, ALLOWED, 's = where(swap(attention_mask) if T == S else attention_mask, s, float("-inf"))'),
           G + "lsdefine/attention-is-all-you-need-keras/issues/16"),
    Edited("ATT-MASK/after-softmax", "attention with the mask applied after the softmax",
           weights(f"where({FORBIDDEN}, 0, softmax(q @ swap(k) / sqrt(D))[0])"),
           G + "huggingface/pytorch-image-models/pull/2236"),
    Edited("ATT-MASK/allowed-multiplied", "attention whose weights are multiplied by `allowed` after the softmax, and "
           "are no longer 1 together",
           edit(attention, ALLOWED, "pass", WEIGHTS, "P, softmax_back = softmax(s)\n"
                "P = P if attention_mask is None else where(attention_mask, P, 0)")),
    Edited("ATT-MASK/zero-scores", "attention with forbidden scores set to 0 instead of -infinity",
           weights(f"softmax(where({FORBIDDEN}, 0, s))[0]")),
    Edited("ATT-MASK/added", "attention with the boolean mask added to the scores, as 0 and 1",
           weights(f"softmax(q @ swap(k) / sqrt(D) - ({FORBIDDEN}))[0]"), G + "huggingface/transformers/issues/41443"),
    Edited("ATT-MASK/minus-ten", "attention with forbidden scores lowered by 10 instead of infinity",
           weights(f"softmax(q @ swap(k) / sqrt(D) - 10 * ({FORBIDDEN}))[0]")),
    Edited("ATT-MASK/minus-ten-thousand", "attention with -10000 added to forbidden scores: a row with no key left "
           "attends all", weights(f"softmax(q @ swap(k) / sqrt(D) - 10000 * ({FORBIDDEN}))[0]")),
    Edited("ATT-MASK/uniform-if-nothing", "attention whose row with no key left is the mean of all values",
           weights(f"softmax(where({FORBIDDEN}, -1e30, s))[0]"), G + "microsoft/onnxruntime/pull/28958"),
    Edited("ATT-MASK/nan-if-nothing", "attention whose row with no key left is NaN",
           weights("exp(s - top(s)) / sum(exp(s - top(s)))"), G + "robertknight/rten/pull/1321"),
    Edited("ATT/back-normaliser-constant", "attention with the gradient ds = P dP, without - P Σ P dP",
           edit(attention, "ds = softmax_back(dP)", "ds = P * dP")),
    Edited("ATT/back-sum-over-queries", "attention with Σ P dP of the gradient taken over the queries",
           edit(attention, "ds = softmax_back(dP)", "ds = P * (dP - sum(P * dP, axis=-2))")),
    Edited("ATT/back-query-unscaled", "attention with dq not multiplied by 1/√d_k",
           edit(attention, "dq = ds @ k / sqrt(D)", "dq = ds @ k")),
    Edited("ATT/back-key-unscaled", "attention with dk not multiplied by 1/√d_k",
           edit(attention, "dk = swap(ds) @ q / sqrt(D)", "dk = swap(ds) @ q")),
    Edited("ATT/back-scaled-twice", "attention with dq and dk multiplied by 1/√d_k twice",
           edit(attention, "ds = softmax_back(dP)", "ds = softmax_back(dP) / sqrt(D)")),
    Edited("ATT/back-query-key-swapped", "attention with dq and dk swapped (where they have one shape)",
           edit(attention, "return dq, dk, dv", "return (dk, dq, dv) if T == S else (dq, dk, dv)")),
    Edited("ATT/back-keys-detached", "attention with no gradient to the keys",
           edit(attention, "return dq, dk, dv", "return dq, 0 * dk, dv")),
    Edited("ATT/back-scores-detached", "attention with no gradient through the weights: only dv",
           edit(attention, "return dq, dk, dv", "return 0 * dq, 0 * dk, dv")),
    Edited("ATT/back-values-untransposed", "attention with dv = P dy instead of Pᵀ dy (where P is square)",
           edit(attention, "dv = swap(P) @ dy", "dv = (P if T == S else swap(P)) @ dy")),
]
