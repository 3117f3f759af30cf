"""Mistakes of label smoothing, of the contrastive loss and its vectors, and of the L2 penalty."""

from __future__ import annotations

from refllm.spec.contrastive import direction, info_nce, mean_pool
from refllm.spec.cross_entropy import smoothed_cross_entropy
from refllm.spec.squared_error import l2_penalty
from refllm.verify.mutants.bank import Edited, Edits, edit

SMOOTHED = "losses = -((1 - smoothing) * pick(log_p, index) + smoothing * mean(where(nothing, 0, log_p))[..., 0])"
TOLD, EVERY, MEAN = (
    "pick(log_p, index)",
    "sum(where(nothing, 0, log_p), keepdims=False)",
    "mean(where(nothing, 0, log_p))[..., 0]",
)
FIRST = "where(nothing, 0, log_p)[..., 0]"
REDUCED = "y, reduced_back = reduced(where(counted, losses, 0), reduction, int(counted.sum()))"
T, SMOOTHED_BACK = (
    "t = where(one_hot(index, V), w * (1 - smoothing), 0) + w * smoothing / V",
    "return where(counted[..., None], w * exp(log_p) - t, 0)",
)
DIRECTIONS, S = "(n, n_back), (m, m_back) = direction(a), direction(b)", "s = n @ swap(m) / temperature"
LOSS = 'y, loss_back = cross_entropy(s, targets=arange(len(a)), ignore=None, reduction="mean")'
L2, L2_BACK = "return strength / 2 * total(w * w), l2_penalty_back", "return strength * w * dy"
POOLED = "return sum(where(counted, h, 0), axis=-2, keepdims=False) / count, mean_pool_back"
COUNTED = "counted = (everywhere(h.shape[:-1]) if token_mask is None else token_mask)[..., None]"


def smoothed(new: str) -> Edits:
    return edit(smoothed_cross_entropy, SMOOTHED, f"losses = -({new})")


def similarity(new: str) -> Edits:
    return edit(info_nce, S, f"s = {new}")


def loss(new: str) -> Edits:
    return edit(info_nce, LOSS, new)


def penalty(new: str) -> Edits:
    return edit(l2_penalty, L2, f"return {new}, l2_penalty_back")


def pooled(new: str) -> Edits:
    return edit(mean_pool, POOLED, f"return {new}, mean_pool_back")


# fmt: off
MUTANTS = [
    Edited("CE/smoothed-others", "label smoothing by eps/(V - 1) to the other classes alone",
           smoothed(f"(1 - smoothing) * {TOLD} + smoothing / max(1, V - 1) * ({EVERY} - {TOLD})")),
    Edited("CE/smoothed-too-much", "label smoothing with eps/(V - 1) for every class",
           smoothed(f"(1 - smoothing) * {TOLD} + smoothing / max(1, V - 1) * {EVERY}")),
    Edited("CE/smoothed-uniform-over-all", "label smoothing whose uniform part is divided by all places, ignored ones "
           "too, and its other part by those that count",
           edit(smoothed_cross_entropy, REDUCED,
                "told, _ = reduced(where(counted, -(1 - smoothing) * pick(log_p, index), 0), reduction, "
                "int(counted.sum()))\n"
                "every, _ = reduced(where(counted, -smoothing * mean(where(nothing, 0, log_p))[..., 0], 0), reduction, "
                "losses.size)\ny = told + every"),
           "https://github.com/pytorch/pytorch/pull/69511"),
    Edited("CE/smoothed-others-but-one", "label smoothing by eps/(V - 2) to the other classes, as if one were padding",
           smoothed(f"(1 - smoothing) * {TOLD} + smoothing / max(1, V - 2) * ({EVERY} - {TOLD})"),
           "https://github.com/OpenNMT/OpenNMT-py/issues/1463"),
    Edited("CE/smoothed-first-is-padding", "label smoothing by eps/(V - 2) to the other classes but class 0, taken for "
           "padding", smoothed(f"((1 - smoothing) * {TOLD} + smoothing / max(1, V - 2) * ({EVERY} - {TOLD} - {FIRST}))"
           " * (index != 0)"), "https://github.com/harvardnlp/annotated-transformer/issues/39"),
    Edited("CE/smoothed-not-shared", "label smoothing with eps, not eps/V, for every class",
           smoothed(f"(1 - smoothing) * {TOLD} + smoothing * {EVERY}")),
    Edited("CE/smoothed-target-whole", "label smoothing that leaves the target its whole weight",
           smoothed(f"{TOLD} + smoothing * {MEAN}")),
    Edited("CE/smoothed-swapped", "label smoothing with eps and 1 - eps exchanged",
           smoothed(f"smoothing * {TOLD} + (1 - smoothing) * {MEAN}")),
    Edited("CE/smoothed-none", "label smoothing that does not smooth", smoothed(TOLD)),
    Edited("CE/smoothed-entropy", "label smoothing with the sign of its uniform part turned",
           smoothed(f"(1 - smoothing) * {TOLD} - smoothing * {MEAN}")),
    Edited("CE/smoothed-ignored-too", "label smoothing whose uniform part counts ignored places",
           edit(smoothed_cross_entropy, REDUCED, REDUCED.replace("losses, 0", f"losses, -smoothing * {MEAN}")),
           "https://github.com/pytorch/pytorch/issues/73205"),
    Edited("CE/smoothed-mean-over-all", "label smoothing averaged over all places, ignored ones too",
           edit(smoothed_cross_entropy, REDUCED, REDUCED.replace("int(counted.sum())", "losses.size"))),
    Edited("CE/smoothed-mean-of-sentences", "label smoothing averaged per sentence first, then over the sentences",
           edit(smoothed_cross_entropy, REDUCED, 'losses = where(counted, losses, 0)\n'
                'if reduction == "mean" and losses.ndim > 1:\n'
                "    losses = sum(losses, keepdims=False) / counted.sum(axis=-1).clip(1)\n"
                "    counted = everywhere(losses.shape)\n"
                "y, reduced_back = reduced(losses, reduction, int(counted.sum()))")),
    Edited("CE/smoothed-sum-for-mean", "label smoothing summed where the mean is asked for",
           edit(smoothed_cross_entropy, REDUCED, REDUCED.replace("int(counted.sum())", "1"))),
    Edited("CE/back-smoothed-not-uniform", "label smoothing whose gradient leaves out the uniform part",
           edit(smoothed_cross_entropy, T, "t = where(one_hot(index, V), w * (1 - smoothing), 0)",
                SMOOTHED_BACK, "return where(counted[..., None], (1 - smoothing) * w * exp(log_p) - t, 0)")),
    Edited("CTR/shift-along-columns", "InfoNCE shifted by the maximum of every column, not of the row",
           loss(LOSS.replace("cross_entropy(s,", "cross_entropy(s - down(top, s),")),
           "https://github.com/AdaptiveMotorControlLab/CEBRA/issues/48"),
    Edited("CTR/no-temperature", "InfoNCE without the temperature", similarity("n @ swap(m)")),
    Edited("CTR/temperature-multiplied", "InfoNCE with the similarity multiplied by the temperature",
           similarity("n @ swap(m) * temperature")),
    Edited("CTR/temperature-of-negatives", "InfoNCE that divides the negatives alone by the temperature, not the "
           "positives",
           similarity("where(one_hot(arange(len(a)), len(a)), n @ swap(m), n @ swap(m) / temperature)"),
           "https://github.com/RElbers/info-nce-pytorch/issues/17"),
    Edited("CTR/temperature-of-positives", "InfoNCE that divides the positives alone by the temperature",
           similarity("where(one_hot(arange(len(a)), len(a)), n @ swap(m) / temperature, n @ swap(m))")),
    Edited("CTR/temperature-root", "InfoNCE divided by the root of the temperature",
           similarity("n @ swap(m) / sqrt(temperature)")),
    Edited("CTR/not-normalised", "InfoNCE of products, not of cosines", edit(info_nce, DIRECTIONS, "n, m = a, b")),
    Edited("CTR/one-normalised", "InfoNCE with the rows of a normalised and those of b not",
           edit(info_nce, DIRECTIONS, "(n, n_back), m = direction(a), b")),
    Edited("CTR/squared-lengths", "InfoNCE divided by the squares of the lengths",
           edit(info_nce, DIRECTIONS, "n, m = a / sum(a * a), b / sum(b * b)")),
    Edited("CTR/distances", "InfoNCE of negative squared distances",
           similarity("(2 * (a @ swap(b)) - sum(a * a) - swap(sum(b * b))) / temperature")),
    Edited("CTR/positive-excluded", "InfoNCE whose denominator leaves out the positive",
           loss("others = where(one_hot(arange(len(a)), len(a)), 0, exp(s))\n"
                "y = total(log(sum(others)[..., 0]) - pick(s, arange(len(a)))) / len(a) if len(a) > 1 else 0 * "
                "total(s)")),
    Edited("CTR/other-way", "InfoNCE with the rows of a as the negatives: the softmax over the wrong axis",
           loss(LOSS.replace("cross_entropy(s,", "cross_entropy(swap(s),"))),
    Edited("CTR/both-ways", "InfoNCE averaged over both directions",
           loss(f"{LOSS}\ny = (y + {LOSS.partition(' = ')[2].replace('(s,', '(swap(s),')}[0]) / 2")),
    Edited("CTR/next-row", "InfoNCE whose positive is the next row",
           loss(LOSS.replace("arange(len(a))", "(arange(len(a)) + 1) % len(a)"))),
    Edited("CTR/positive-alone", "InfoNCE without its negatives: the similarity alone",
           loss("y = -total(pick(s, arange(len(a)))) / len(a)")),
    Edited("CTR/back-lengths-constant", "InfoNCE whose gradient takes the lengths for constants",
           edit(direction, "return where(squares == 0, 0, (dn - n * sum(n * dn)) / size)", "return dn / size")),
    Edited("CTR/own-batch-too", "InfoNCE with the other rows of a among the negatives",
           edit(info_nce, S, f'{S}\nsame = one_hot(arange(len(a)), len(a))\n'
                'own = where(same, float("-inf"), n @ swap(n) / temperature)\ns = concatenate([s, own], axis=-1)')),
    Edited("CTR/both-batches", "InfoNCE over the rows of both batches, each with all the others as negatives",
           edit(info_nce, S, "N, z = len(a), concatenate([n, m], axis=0)\n"
                'own = one_hot(arange(2 * N), 2 * N)\ns = where(own, float("-inf"), z @ swap(z) / temperature)',
                LOSS, LOSS.replace("arange(len(a))", "(arange(2 * N) + N) % (2 * N)"))),
    Edited("CTR/back-one-side", "InfoNCE with no gradient for b",
           edit(info_nce, "return n_back(ds @ m), m_back(swap(ds) @ n)", "return n_back(ds @ m), 0 * b")),
    Edited("L2/not-halved", "the L2 penalty without the factor 1/2", penalty("strength * total(w * w)")),
    Edited("L2/mean", "the L2 penalty with the mean of the squares instead of the sum",
           penalty("strength / 2 * total(w * w) / w.size")),
    Edited("L2/root", "the L2 penalty as the norm instead of its square", penalty("strength * sqrt(total(w * w))")),
    Edited("L2/absolute", "the L1 penalty: absolute values instead of squares",
           penalty("strength * total(where(w > 0, w, -w))")),
    Edited("L2/strength-squared", "the L2 penalty with its strength squared",
           penalty("strength * strength / 2 * total(w * w)")),
    Edited("L2/back-doubled", "the L2 penalty with the gradient 2 strength w",
           edit(l2_penalty, L2_BACK, "return 2 * strength * w * dy")),
    Edited("L2/back-cotangent-ignored", "the L2 penalty whose gradient takes dy for 1",
           edit(l2_penalty, L2_BACK, "return strength * w")),
    Edited("CTR/pool-all", "a text's vector as the mean over all tokens, padding too",
           edit(mean_pool, COUNTED, "counted = everywhere(h.shape[:-1])[..., None]")),
    Edited("CTR/pool-padding-in-divisor", "a text's vector as the sum of its tokens, divided by the padded length",
           pooled("sum(where(counted, h, 0), axis=-2, keepdims=False) / h.shape[-2]")),
    Edited("CTR/pool-sum", "a text's vector as the sum over its tokens",
           pooled("sum(where(counted, h, 0), axis=-2, keepdims=False)")),
    Edited("CTR/pool-first", "a text's vector as that of its first token", pooled("h[..., 0, :]")),
    Edited("CTR/pool-nan-if-nothing", "a text's vector that is NaN without a valid token",
           edit(mean_pool, "count = like(counted.sum(axis=-2).clip(1), h)", "count = like(counted.sum(axis=-2), h)")),
    Edited("CTR/back-pool-sum", "a text's vector whose gradient is not divided by the number of tokens",
           edit(mean_pool, "return where(counted, (dy / count)[..., None, :], 0)",
                "return where(counted, dy[..., None, :], 0)")),
]
