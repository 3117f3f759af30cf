"""Mistakes of fine-tuning and compression: low-rank adapters, distillation, weights of 8 bits."""

from __future__ import annotations

from refllm.spec.distillation import distillation_loss
from refllm.spec.low_rank import low_rank_linear
from refllm.spec.quantised import quantised
from refllm.verify.mutants.bank import Edited, Edits, edit

SCALE = "scale = alpha / A.shape[-1]"
LOSS = "y = (1 - share) * hard + share * temperature**2 * soft"
SOFT_BACK = "dscaled, _ = soft_back(share * temperature**2 * dy)"
LARGEST = "largest = top(swap(where(W < 0, -W, W)))[:, 0]"


def scale(new: str) -> Edits:
    return edit(low_rank_linear, SCALE, f"scale = {new}")


def loss(new: str) -> Edits:
    """Another mixture, with its own gradient."""
    return edit(distillation_loss, LOSS, f"y = {new}")


G = "https://github.com/"
# fmt: off
MUTANTS = [
    # low-rank adapters
    Edited("FINETUNE/low-rank-alpha-alone", "an adapter scaled by alpha instead of alpha / r", scale("alpha"),
           G + "rasbt/LLMs-from-scratch/issues/821"),
    Edited("FINETUNE/low-rank-no-scale", "an adapter that is not scaled", scale("1.0"),
           G + "hao-ai-lab/FastVideo/pull/870"),
    Edited("FINETUNE/low-rank-root", "an adapter scaled by alpha / √r, as rank-stabilised adapters are",
           scale("alpha / A.shape[-1] ** 0.5")),
    Edited("FINETUNE/low-rank-whole-numbers", "an adapter scaled by alpha // r: whole numbers are divided",
           scale("alpha // A.shape[-1]")),
    Edited("FINETUNE/low-rank-width", "an adapter scaled by alpha over the width of the input instead of the rank",
           scale("alpha / A.shape[0]")),
    Edited("FINETUNE/low-rank-scales-both", "an adapter whose scale goes over the trained matrix too",
           edit(low_rank_linear, "y = x @ W + scale * (z @ B)", "y = scale * (x @ W + z @ B)")),
    Edited("FINETUNE/low-rank-twice", "an adapter that is added twice: beside a matrix into which it was merged",
           edit(low_rank_linear, SCALE, "scale = 2 * alpha / A.shape[-1]"), G + "EricLBuehler/candle-lora/issues/26"),
    Edited("FINETUNE/low-rank-alone", "an adapter in the place of the trained matrix instead of beside it",
           edit(low_rank_linear, "y = x @ W + scale * (z @ B)", "y = scale * (z @ B)")),
    Edited("FINETUNE/low-rank-gradient-unscaled-a", "an adapter whose gradient of A lacks the scale",
           edit(low_rank_linear, "dz = scale * (dy @ swap(B))", "dz = dy @ swap(B)")),
    Edited("FINETUNE/low-rank-gradient-unscaled-b", "an adapter whose gradient of B lacks the scale",
           edit(low_rank_linear, "dB = scale * (swap(flat(z)) @ flat(dy))", "dB = swap(flat(z)) @ flat(dy)")),
    Edited("FINETUNE/low-rank-gradient-trained-alone", "an adapter through which no gradient reaches the input",
           edit(low_rank_linear, "dx = dy @ swap(W) + dz @ swap(A)", "dx = dy @ swap(W)")),
    # distillation
    Edited("COMPRESS/distil-no-square", "distillation without T²: the teacher says less the higher the temperature",
           loss("(1 - share) * hard + share * soft")),
    Edited("COMPRESS/distil-temperature-once", "distillation with T instead of T²",
           loss("(1 - share) * hard + share * temperature * soft")),
    Edited("COMPRESS/distil-shares-exchanged", "distillation with the shares of teacher and labels exchanged",
           loss("share * hard + (1 - share) * temperature**2 * soft")),
    Edited("COMPRESS/distil-square-on-both", "distillation with T² on the labels' loss too",
           loss("temperature**2 * ((1 - share) * hard + share * soft)")),
    Edited("COMPRESS/distil-added", "distillation that adds the teacher's part to the whole of the labels'",
           loss("hard + share * temperature**2 * soft")),
    Edited("COMPRESS/distil-mean-over-classes", "distillation with the mean over the classes instead of their sum",
           loss("(1 - share) * hard + share * temperature**2 * soft / logits.shape[-1]"), G + "HikariTJU/LD/issues/74"),
    Edited("COMPRESS/distil-divergence-over-classes", "distillation by the divergence from the teacher, averaged over "
           "the classes too", loss("(1 - share) * hard + share * temperature**2 / logits.shape[-1] * (soft + "
           "sum(q * log(where(q == 0, 1, q)), keepdims=False))"), G + "facebookresearch/deit/issues/61"),
    Edited("COMPRESS/distil-not-the-logarithm", "distillation by q (log q - p'), with the student's probabilities in "
           "the place of their logarithms", loss("(1 - share) * hard + share * temperature**2 * "
           "sum(q * (log(where(q == 0, 1, q)) - softmax(logits / temperature)[0]), keepdims=False)")),
    Edited("COMPRESS/distil-reversed", "distillation by the divergence from the student instead of from the teacher",
           loss("(1 - share) * hard + share * temperature**2 * (soft_cross_entropy(log(where(q == 0, 1, q)), "
           "softmax(logits / temperature)[0], reduction='none')[0] + sum(softmax(logits / temperature)[0] * "
           "log_softmax(logits / temperature)[0], keepdims=False))")),
    Edited("COMPRESS/distil-teacher-twice", "distillation that holds the teacher against itself",
           edit(distillation_loss, 'soft, soft_back = soft_cross_entropy(logits / temperature, q, reduction="none")',
                'soft, soft_back = soft_cross_entropy(like(teacher, logits) / temperature, q, reduction="none")'),
           G + "labmlai/annotated_deep_learning_paper_implementations/issues/66"),
    Edited("COMPRESS/distil-labels-softened", "distillation that softens the student for the labels too",
           edit(distillation_loss, "logits, targets=targets, ignore=None, smoothing=smoothing, reduction=\"none\"",
                "logits / temperature, targets=targets, ignore=None, smoothing=smoothing, reduction=\"none\"")),
    Edited("COMPRESS/distil-teacher-not-softened", "distillation that softens the student alone",
           edit(distillation_loss, "q, _ = softmax(like(teacher, logits) / temperature)",
                "q, _ = softmax(like(teacher, logits))")),
    Edited("COMPRESS/distil-student-not-softened", "distillation that softens the teacher alone",
           edit(distillation_loss, 'soft, soft_back = soft_cross_entropy(logits / temperature, q, reduction="none")',
                'soft, soft_back = soft_cross_entropy(logits, q, reduction="none")',
                "return hard_back((1 - share) * dy) + dscaled / temperature",
           "return hard_back((1 - share) * dy) + dscaled")),
    Edited("COMPRESS/distil-gradient-no-square", "distillation whose gradient lacks T²",
           edit(distillation_loss, SOFT_BACK, "dscaled, _ = soft_back(share * dy)")),
    Edited("COMPRESS/distil-gradient-not-softened", "distillation whose gradient is not divided by the temperature",
           edit(distillation_loss, "return hard_back((1 - share) * dy) + dscaled / temperature",
                "return hard_back((1 - share) * dy) + dscaled")),
    # 8 bits
    Edited("COMPRESS/int8-half-up", "8-bit weights with halves rounded up instead of to the even number",
           edit(quantised, "return nearest(W / s), s",
                "return nearest(W / s + (W / s - nearest(W / s) == 0.5) * 0.25), s")),
    Edited("COMPRESS/int8-cut", "8-bit weights that are cut towards zero instead of rounded",
           edit(quantised, "return nearest(W / s), s", "return integers((W / s).tolist()), s")),
    Edited("COMPRESS/int8-128", "8-bit weights with max|W| / 128 as their scale",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)", "s = largest / 128 + is_zero(largest)")),
    Edited("COMPRESS/int8-128-wraps", "8-bit weights with max|W| / 128 as their scale, whose 128 becomes -128",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)", "s = largest / 128 + is_zero(largest)",
                "return nearest(W / s), s", "return where(nearest(W / s) > 127, -128, nearest(W / s)), s")),
    Edited("COMPRESS/int8-of-rows", "8-bit weights with a scale of every input instead of every output",
           edit(quantised, LARGEST, "largest = top(where(W < 0, -W, W))",
                "return nearest(W / s), s", "return nearest(W / s), s[:, 0]")),
    Edited("COMPRESS/int8-scale-not-divided", "8-bit weights that give max|W| for their scale, not max|W| / 127",
           edit(quantised, "return nearest(W / s), s", "return nearest(W / s), largest + is_zero(largest)")),
    Edited("COMPRESS/int8-scale-inverse", "8-bit weights that give 127 / max|W| for their scale",
           edit(quantised, "return nearest(W / s), s", "return nearest(W / s), 1 / s")),
    Edited("COMPRESS/int8-range", "8-bit weights whose scale is (max W - min W) / 255",
           edit(quantised, LARGEST, "largest = (top(swap(where(W > 0, W, 0))) + top(swap(where(W < 0, -W, 0))))[:, 0]",
                "s = largest / LARGEST + is_zero(largest)", "s = largest / 255 + is_zero(largest)",
                "return nearest(W / s), s", "q = nearest(W / s)\n"
                "return where(q > 127, 127, where(q < -128, -128, q)), s")),
    Edited("COMPRESS/int8-one-scale", "8-bit weights with one scale for the matrix",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)",
                "s = spread(top(largest), largest.shape) / LARGEST + is_zero(largest)")),
    Edited("COMPRESS/int8-signed-largest", "8-bit weights whose scale is the largest weight, not the largest size",
           edit(quantised, LARGEST, "largest = top(swap(W))[:, 0]")),
    Edited("COMPRESS/int8-signed-largest-cut-off", "8-bit weights whose scale is the largest weight, not the largest "
           "size, cut off at -127 and 127",
           edit(quantised, LARGEST, "largest = top(swap(W))[:, 0]",
                "return nearest(W / s), s", "q = nearest(W / s)\n"
                "return where(q > 127, 127, where(q < -127, -127, q)), s"),
           "https://github.com/siliconflow/onediff/pull/893"),
    *(Edited(f"COMPRESS/int8-at-least-{small}", f"8-bit weights with max|W| of at least {small}",
             edit(quantised, "s = largest / LARGEST + is_zero(largest)",
                  f"s = where(largest < {small}, {small}, largest) / LARGEST"))
      for small in ("1e-5", "1e-8", "1e-12")),
    Edited("COMPRESS/int8-zeros", "8-bit weights with 0 / 0 in a channel of zeros",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)", "s = largest / LARGEST")),
    Edited("COMPRESS/int8-small-eps", "8-bit weights with a scale of at least 1e-5",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)",
                "s = where(largest / LARGEST > 1e-5, largest / LARGEST, 1e-5)")),
]
