"""Mistakes of min-p and of the repetition penalty."""

from __future__ import annotations

from refllm.spec.logit_filters import min_p, repetition_penalty
from refllm.verify.mutants.bank import Edited, Edits, edit

RELATIVE, KEPT = "relative = exp(logits - top(logits))", 'return where(relative >= share, logits, float("-inf"))'
SEEN = "seen = one_hot(ids, logits.shape[-1]).any(axis=-2)"
PENALISED = "return where(seen, where(logits > 0, logits / penalty, logits * penalty), logits)"


def where_(condition: str) -> Edits:
    """Other tokens that stay."""
    return edit(min_p, KEPT, f'return where({condition}, logits, float("-inf"))')


def penalised(new: str) -> Edits:
    return edit(repetition_penalty, PENALISED, f"return where(seen, {new}, logits)")


def seen(new: str) -> Edits:
    return edit(repetition_penalty, SEEN, f"seen = {new}")


# fmt: off
MUTANTS = [
    Edited("MINP/of-logits", "min-p that compares logits instead of probabilities",
           where_("logits >= share * top(logits)"), "https://github.com/sgl-project/sglang-jax/pull/1563"),
    Edited("MINP/absolute", "min-p that keeps probabilities of at least the share, whatever the largest is",
           where_("softmax(logits)[0] >= share")),
    Edited("MINP/absolute-but-one", "min-p that keeps probabilities of at least the share, whatever the largest "
           "is, and the largest always", where_("(softmax(logits)[0] >= share) | (logits == top(logits))")),
    Edited("MINP/to-zero", "min-p that sets the others to 0 instead of -infinity",
           edit(min_p, KEPT, "return where(relative >= share, logits, 0 * top(logits))"),
           "https://github.com/sgl-project/sglang-jax/pull/1563"),
    Edited("MINP/above", "min-p that keeps what is above the border, not what is on it", where_("relative > share")),
    Edited("MINP/complement", "min-p that takes the share for what is left out", where_("relative >= 1 - share")),
    Edited("MINP/least", "min-p relative to the least probability",
           edit(min_p, RELATIVE, "relative = exp(logits + top(-logits))")),
    Edited("MINP/one-largest", "min-p with one largest probability for all rows",
           edit(min_p, RELATIVE, "relative = exp(logits - top(logits.reshape(-1)))")),
    Edited("MINP/no-shift", "min-p by e^z without the shift, which overflows",
           edit(min_p, RELATIVE, "relative = exp(logits) / top(exp(logits))")),
    Edited("MINP/removed-kept", "min-p that keeps what it should leave out", where_("relative < share")),
    Edited("REP/divided", "a penalty that divides negative logits too, which makes them more probable",
           penalised("logits / penalty"), "https://github.com/huggingface/transformers/issues/2302"),
    Edited("REP/multiplied", "a penalty that multiplies every logit", penalised("logits * penalty")),
    Edited("REP/reversed", "a penalty that multiplies positive logits and divides negative ones",
           penalised("where(logits < 0, logits / penalty, logits * penalty)")),
    Edited("REP/subtracted", "a penalty that is subtracted", penalised("logits - penalty")),
    Edited("REP/each-time", "a penalty for each time that a token was there",
           seen("one_hot(ids, logits.shape[-1]).any(axis=-2)\n"
                "penalty = penalty ** one_hot(ids, logits.shape[-1]).sum(axis=-2)")),
    Edited("REP/log-probabilities", "a penalty of log-probabilities instead of logits: no one is positive",
           edit(repetition_penalty, PENALISED, "z = log_softmax(logits)[0]\nreturn where(seen, z * penalty, z)")),
    Edited("REP/last-alone", "a penalty of the last token alone",
           seen("one_hot(ids[..., -1:], logits.shape[-1]).any(axis=-2)"),
           "https://github.com/OpenNMT/CTranslate2/issues/615"),
    Edited("REP/unseen", "a penalty of the tokens that were not there",
           seen("~one_hot(ids, logits.shape[-1]).any(axis=-2)")),
    Edited("REP/padding-is-last", "padding of -1 that counts as the last token of the vocabulary",
           seen("one_hot(ids % logits.shape[-1], logits.shape[-1]).any(axis=-2)")),
    Edited("REP/one-context", "a penalty with the tokens of all rows for each",
           seen("one_hot(ids.reshape(-1), logits.shape[-1]).any(axis=0)")),
]
