"""Mistakes of the weights of several experts, and of the z-loss."""

from __future__ import annotations

from refllm.spec.top_experts import among_largest, top_experts, z_loss
from refllm.verify.mutants.bank import Edited, Edits, edit

CHOSEN, WEIGHTS = "K = where(chosen, P, 0)", "y = K / s if renormalise else K"
LARGER = "larger = (other > one) | ((other == one) & (place < place[:, None]))"
KEPT = "return larger.sum(axis=-1) < k"
SLOPES = "dK = (dy - sum(dy * y)) / s if renormalise else dy"
LOSS = "return strength * total(where(counted, l * l, 0)) / count, z_loss_back"
COUNT, LOG_Z = "count = max(1, int(counted.sum()))", "l, log_sum_exp_back = log_sum_exp(logits)"
Z_BACK = "dl = where(counted, dy * (2 * strength / count) * l, 0)"


def weights(new: str) -> Edits:
    return edit(top_experts, WEIGHTS, f"y = {new}")


def loss(new: str) -> Edits:
    return edit(z_loss, LOSS, f"return {new}, z_loss_back")


# fmt: off
MUTANTS = [
    Edited("TOPK/not-renormalised", "weights of the chosen experts that are not divided by their sum", weights("K"),
           "https://github.com/pytorch/torchtitan/issues/1448"),
    Edited("TOPK/always-renormalised", "weights of the chosen experts that are divided by their sum unasked",
           weights("K / s")),
    Edited("TOPK/scores", "scores as the weights of the chosen experts where they are not renormalised",
           edit(top_experts, CHOSEN, "K = where(chosen, P if renormalise else scores, 0)"),
           "https://github.com/sgl-project/sglang/pull/35160"),
    Edited("TOPK/softmax-twice", "a softmax of the chosen probabilities instead of their share of the sum",
           weights('softmax(where(chosen, P, float("-inf")))[0] if renormalise else K')),
    Edited("TOPK/over-tokens-for-one", "the weight of one chosen expert divided by the sum over all tokens",
           weights("K / (s if k > 1 else total(K)) if renormalise else K"),
           "https://github.com/databricks/megablocks/pull/87"),
    Edited("TOPK/sigmoid", "sigmoids of the scores instead of their softmax",
           edit(top_experts, "P, softmax_back = softmax(scores)", "P = sigmoid(scores)")),
    Edited("TOPK/even", "chosen experts with one weight each", weights("where(chosen, 0 * K + s / chosen.sum(axis=-1)"
           "[..., None], 0) / (s if renormalise else 1)")),
    Edited("TOPK/one-more", "k + 1 experts", edit(among_largest, KEPT, "return larger.sum(axis=-1) <= k")),
    Edited("TOPK/one-less", "k - 1 experts", edit(among_largest, KEPT, "return larger.sum(axis=-1) < max(1, k - 1)")),
    Edited("TOPK/ties", "every expert that is equal to the k-th", edit(among_largest, LARGER, "larger = other > one")),
    Edited("TOPK/last-of-equals", "of experts with equal scores the last instead of the first",
           edit(among_largest, LARGER, "larger = (other > one) | ((other == one) & (place > place[:, None]))")),
    Edited("TOPK/smallest", "the k experts with the smallest scores",
           edit(among_largest, LARGER, "larger = (other < one) | ((other == one) & (place < place[:, None]))")),
    Edited("TOPK/back-sum-constant", "renormalised weights whose gradient takes the sum for a constant",
           edit(top_experts, SLOPES, "dK = dy / s if renormalise else dy")),
    Edited("TOPK/back-to-all", "weights whose gradient reaches the probabilities of experts that were not chosen",
           edit(top_experts, "return softmax_back(where(chosen, dK, 0))", "return softmax_back(dK)")),
    Edited("TOPK/back-without-softmax", "weights whose gradient leaves out the softmax",
           edit(top_experts, "return softmax_back(where(chosen, dK, 0))", "return where(chosen, dK, 0)")),
    Edited("ZLOSS/not-squared", "a z-loss of log Z, not of its square",
           loss("strength * total(where(counted, l, 0)) / count")),
    Edited("ZLOSS/square-of-mean", "a z-loss of the square of the mean instead of the mean of the squares",
           loss("strength * total(where(counted, l, 0)) * total(where(counted, l, 0)) / count / count")),
    Edited("ZLOSS/sum", "a z-loss summed over the tokens, not averaged",
           loss("strength * total(where(counted, l * l, 0))")),
    Edited("ZLOSS/no-strength", "a z-loss without its strength",
           loss("total(where(counted, l * l, 0)) / count")),
    Edited("ZLOSS/half", "a z-loss with half of the square",
           loss("strength / 2 * total(where(counted, l * l, 0))"
           " / count")),
    Edited("ZLOSS/without-the-shift", "a z-loss that forgets to add what was subtracted before the exponential",
           edit(z_loss, LOG_Z, "l = log(sum(exp(logits - top(logits)), keepdims=False))")),
    Edited("ZLOSS/of-logits", "a z-loss of the logits' squares instead of that of log Z",
           loss("strength * total(where(counted[..., None], logits * logits, 0)) / count")),
    Edited("ZLOSS/counts-padding", "a z-loss that divides by all places, padding among them",
           edit(z_loss, COUNT, "count = max(1, counted.size)")),
    Edited("ZLOSS/sums-padding", "a z-loss that sums over the padding too",
           loss("strength * total(l * l) / count")),
    Edited("ZLOSS/back-half", "a z-loss whose gradient lacks the 2 of the square",
           edit(z_loss, Z_BACK, "dl = where(counted, dy * (strength / count) * l, 0)")),
    Edited("ZLOSS/back-of-log-z", "a z-loss whose gradient is that of log Z",
           edit(z_loss, Z_BACK, "dl = where(counted, dy * (2 * strength / count), 0)")),
]
