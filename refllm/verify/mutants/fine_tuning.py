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


# fmt: off
MUTANTS = [
    # low-rank adapters
    Edited("FINETUNE/low-rank-alpha-alone", "an adapter scaled by alpha instead of alpha / r", scale("alpha")),
    Edited("FINETUNE/low-rank-no-scale", "an adapter that is not scaled", scale("1.0")),
    Edited("FINETUNE/low-rank-root", "an adapter scaled by alpha / √r, as rank-stabilised adapters are",
           scale("alpha / A.shape[-1] ** 0.5")),
    Edited("FINETUNE/low-rank-whole-numbers", "an adapter scaled by alpha // r: whole numbers are divided",
           scale("alpha // A.shape[-1]")),
    Edited("FINETUNE/low-rank-width", "an adapter scaled by alpha over the width of the input instead of the rank",
           scale("alpha / A.shape[0]")),
    Edited("FINETUNE/low-rank-scales-both", "an adapter whose scale goes over the trained matrix too",
           edit(low_rank_linear, "y = x @ W + scale * (z @ B)", "y = scale * (x @ W + z @ B)")),
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
    Edited("COMPRESS/int8-one-scale", "8-bit weights with one scale for the matrix",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)",
                "s = spread(top(largest), largest.shape) / LARGEST + is_zero(largest)")),
    Edited("COMPRESS/int8-signed-largest", "8-bit weights whose scale is the largest weight, not the largest size",
           edit(quantised, LARGEST, "largest = top(swap(W))[:, 0]")),
    Edited("COMPRESS/int8-zeros", "8-bit weights with 0 / 0 in a channel of zeros",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)", "s = largest / LARGEST")),
    Edited("COMPRESS/int8-small-eps", "8-bit weights with a scale of at least 1e-5",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)",
                "s = where(largest / LARGEST > 1e-5, largest / LARGEST, 1e-5)")),
]
