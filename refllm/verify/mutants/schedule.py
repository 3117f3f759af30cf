"""Mistakes of the learning rate's schedule, and of clipping."""

from __future__ import annotations

from refllm.spec.update import clip_by_global_norm, warmup_cosine
from refllm.verify.mutants.bank import Edited, Edits, edit

UP = "return max_lr * step / warmup"
END = "if step >= total:\n    return min_lr"
DOWN = "return min_lr + (max_lr - min_lr) * (1 + cos(pi() * ratio(step - warmup, total - warmup))) / 2"
PART = "(1 + cos(pi() * ratio(step - warmup, total - warmup))) / 2"
NORM = "norm = sqrt(squares)"
CLIPPED = "factor = 1 if norm <= clip else clip / norm\nreturn norm, [where(norm <= clip, x, x * factor) for x in g]"


def warmed_up(new: str) -> Edits:
    return edit(warmup_cosine, UP, f"return {new}")


def down(new: str) -> Edits:
    return edit(warmup_cosine, DOWN, f"return {new}")


def norm(new: str) -> Edits:
    return edit(clip_by_global_norm, NORM, f"norm = {new}")


def clipped(new: str) -> Edits:
    return edit(clip_by_global_norm, CLIPPED, f"return norm, {new}")


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Edited("ADAMW/schedule-from-zero", "a schedule whose steps count from 0: the first rate is 0",
           edit(warmup_cosine, "if step < warmup:", "step = step - 1\nif step < warmup:"),
           G + "meta-pytorch/torchtune/issues/2010"),
    Edited("ADAMW/warmup-times-cosine", "a warm-up that is multiplied by a cosine which has run from the first step on",
           edit(warmup_cosine, f"if step < warmup:\n    {UP}",
                "share = (1 + cos(pi() * ratio(min(step, total), max(1, total)))) / 2\n"
                "share = min_lr + (max_lr - min_lr) * share\n"
                "return share * ratio(step, warmup) if step < warmup else share"),
           G + "facebookresearch/fairchem/pull/1967"),
    Edited("ADAMW/warmup-from-floor", "a warm-up that begins at the floor instead of 0",
           warmed_up("min_lr + (max_lr - min_lr) * step / warmup")),
    Edited("ADAMW/warmup-squared", "a warm-up that grows with the square of the step",
           warmed_up("max_lr * step * step / (warmup * warmup)")),
    Edited("ADAMW/cosine-over-total", "a cosine over (step - warmup) / total, which does not reach its end",
           down("min_lr + (max_lr - min_lr) * (1 + cos(pi() * ratio(step - warmup, total))) / 2")),
    Edited("ADAMW/total-after-warmup", "a cosine of `total` steps that follow on the warm-up",
           edit(warmup_cosine, END, "if step >= warmup + total:\n    return min_lr",
                DOWN, "return min_lr + (max_lr - min_lr) * (1 + cos(pi() * ratio(step - warmup, total))) / 2"),
           G + "huggingface/pytorch-image-models/issues/1242"),
    Edited("ADAMW/warmup-one-late", "a warm-up to peak (step + 1) / warmup", warmed_up("max_lr * (step + 1) / warmup")),
    Edited("ADAMW/warmup-over-one-more", "a warm-up to peak step / (warmup + 1)",
           warmed_up("max_lr * step / (warmup + 1)")),
    Edited("ADAMW/warmup-both-one-more", "a warm-up to peak (step + 1) / (warmup + 1)",
           warmed_up("max_lr * (step + 1) / (warmup + 1)")),
    Edited("ADAMW/no-warmup", "a schedule without a warm-up", warmed_up("max_lr")),
    Edited("ADAMW/cosine-from-start", "a cosine over all steps, the warm-up among them",
           down("min_lr + (max_lr - min_lr) * (1 + cos(pi() * ratio(step, total))) / 2")),
    Edited("ADAMW/cosine-to-zero", "a cosine that ends at 0 instead of the floor",
           edit(warmup_cosine, END, "if step >= total:\n    return 0.0", DOWN, f"return max_lr * {PART}")),
    Edited("ADAMW/floor-as-share", "a schedule that takes the floor for a share of the peak",
           edit(warmup_cosine, END, "if step >= total:\n    return max_lr * min_lr",
                DOWN, f"return max_lr * (min_lr + (1 - min_lr) * {PART})")),
    Edited("ADAMW/floor-added", "a cosine from peak + floor to the floor", down(f"min_lr + max_lr * {PART}")),
    Edited("ADAMW/cosine-clamped", "a cosine to 0 that is cut off at the floor", down(f"max(min_lr, max_lr * {PART})")),
    Edited("ADAMW/cosine-comes-back", "a cosine that rises again after the last step",
           edit(warmup_cosine, "if step >= total:", "if step >= total == warmup:")),
    Edited("ADAMW/whole-period", "a whole period of the cosine instead of half of one",
           edit(warmup_cosine, END, "if step >= total:\n    return max_lr", DOWN, DOWN.replace("pi()", "2 * pi()"))),
    Edited("ADAMW/quarter-period", "a quarter of the cosine's period",
           down("min_lr + (max_lr - min_lr) * cos(pi() / 2 * ratio(step - warmup, total - warmup))")),
    Edited("ADAMW/linear-decay", "a straight line down instead of a cosine",
           down("min_lr + (max_lr - min_lr) * (1 - ratio(step - warmup, total - warmup))")),
    Edited("ADAMW/divided-by-nothing", "a schedule that divides by total - warm-up where they are equal",
           edit(warmup_cosine, END, "if step >= total:\n    return min_lr if total > warmup else math.nan"),
           G + "deepspeedai/DeepSpeed/issues/8142"),
    Edited("ADAMW/constant", "a rate that stays at its peak", edit(warmup_cosine, END, "", DOWN, "return max_lr")),
    Edited("SGD/clip-each", "clipping of every array by its own norm",
           clipped("[x if sqrt(total(x * x)) <= clip else x * (clip / sqrt(total(x * x))) for x in g]"),
           G + "huggingface/transformers/issues/581"),
    Edited("SGD/clip-by-value", "clipping of every element by its value", clipped("[x.clip(-clip, clip) for x in g]")),
    Edited("SGD/clip-always", "gradients scaled to the limit even if their norm is below it",
           clipped("[x * (clip / norm) for x in g] if norm and clip < math.inf else g")),
    Edited("SGD/clip-never", "gradients that are not clipped", clipped("g")),
    Edited("SGD/clip-turned", "gradients multiplied by max(1, clip / norm)",
           clipped("[x * (clip / norm) for x in g] if 0 < norm < clip < math.inf else g")),
    Edited("SGD/clip-eps", "clipping by clip / (norm + 1e-6)",
           clipped("g if norm + 1e-6 <= clip else [x * (clip / (norm + 1e-6)) for x in g]")),
    Edited("SGD/clip-by-square", "clipping by the squared norm", norm("squares")),
    Edited("SGD/clip-sum-of-norms", "clipping by the sum of the arrays' norms",
           norm("total(stack([sqrt(total(x * x)) for x in g], axis=0))")),
    Edited("SGD/clip-largest-norm", "clipping by the largest norm of an array",
           norm("max(sqrt(total(x * x)) for x in g)")),
    Edited("SGD/clip-squares-squared", "clipping by the arrays' squared norms, squared once more: √(Σ |g|⁴)",
           norm("sqrt(total(stack([total(x * x) ** 2 for x in g], axis=0)))"), G + "paiml/entrenar/issues/311"),
    Edited("SGD/clip-fourth-powers", "clipping by the root of the sum of the fourth powers",
           norm("sqrt(total(stack([total(x * x * x * x) for x in g], axis=0)))")),
    Edited("SGD/clip-root-of-norms", "clipping by the root of the sum of the arrays' norms",
           norm("sqrt(total(stack([sqrt(total(x * x)) for x in g], axis=0)))")),
    Edited("SGD/clip-largest-entry", "clipping by the largest size of an element",
           norm("max([abs(y) for x in g for y in x.reshape(-1)], default=0 * squares)")),
    Edited("SGD/clip-absolute", "clipping by the sum of absolute values",
           norm("total(stack([total(abs(x)) for x in g], axis=0))")),
    Edited("SGD/clip-mean-square", "clipping by the root of the MEAN square",
           norm("sqrt(squares / len(concatenate([x.reshape(-1) for x in g], axis=0)))")),
    Edited("SGD/clip-norm-after", "clipping that reports the norm after it, not before",
           edit(clip_by_global_norm, CLIPPED,
                "return (norm, g) if norm <= clip else (norm * (clip / norm), [x * (clip / norm) for x in g])")),
]
