"""Mistakes of cross-entropy over large vocabularies."""

from __future__ import annotations

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.losses import smoothed_cross_entropy
from refllm.verify.mutants.bank import edit

PICKED = "losses = numpy.log(Z)[:, 0] - (1 - smoothing) * (picked - shift[:, 0])"
COUNT = "count = max(1, int(counted.sum()))"
SHARE = "share = numpy.where(counted, share, 0)[:, None]"
DX = "dx[:, columns] = (p - target.astype(logits.dtype)) * share"
TARGET = "target = (1 - smoothing) * (places == index[:, None]) + smoothing / V"
MASKED = "losses = numpy.where(counted, losses, 0)"
SMOOTHED = "losses -= smoothing / V * (rows[:, columns] - shift).sum(axis=1)"
DIVIDED = 'share = zeros((len(rows),), logits) + numpy.reshape(dy, -1) / (count if reduction == "mean" else 1)'
WEIGHTS = (
    "blocks = list(tiles(len(rows), TILE))\n"
    "weight = numpy.array([1 / max(1, int(counted[part].sum())) for part in blocks for _ in range(len(rows))[part]])\n"
    'weight = weight / max(1, len(blocks)) if reduction == "mean" else 1'
)
SUM = 'return losses.sum() / (count if reduction == "mean" else 1), cross_entropy_back'

G = "https://github.com/"
# fmt: off
MISTAKES = [
    Mistake("cross_entropy/ignored-counted", "a mean that counts the ignored places",
            edit(smoothed_cross_entropy, COUNT, "count = max(1, len(rows))"), G + "chainer/chainer/pull/500"),
    Mistake("cross_entropy/ignored-costs", "a loss to which ignored places add the loss of label 0",
            edit(smoothed_cross_entropy, MASKED, "losses = losses + 0")),
    Mistake("cross_entropy/ignored-gradient-unwritten", "a loss that writes no gradient for ignored rows",
            edit(smoothed_cross_entropy, DX, "dx[counted, columns] = ((p - target.astype(logits.dtype)) * "
                 "share)[counted]")),
    Mistake("cross_entropy/ignored-gradient", "a loss whose ignored rows still have a gradient",
            edit(smoothed_cross_entropy, SHARE, "share = share[:, None]")),
    Mistake("cross_entropy/ignored-gradient-without-target",
            "a loss whose ignored rows have the gradient of a row without a target",
            edit(smoothed_cross_entropy, SHARE, "share = share[:, None]", TARGET,
                 TARGET.replace("(places == index[:, None])", "((places == index[:, None]) & counted[:, None])"))),
    Mistake("cross_entropy/target-in-first-block", "a loss that looks for its target in the first block of columns",
            edit(smoothed_cross_entropy, PICKED, PICKED.replace("picked",
                 "numpy.where(index < BLOCK, rows[number, index], 0)"))),
    Mistake("cross_entropy/target-overflow", "a loss whose targets are 16-bit numbers",
            edit(smoothed_cross_entropy, PICKED, PICKED.replace("picked", "rows[number, wrapped(index, 16)]"))),
    Mistake("cross_entropy/row-start-overflow", "a loss whose row begins overflow (32 bits there, 16 in this model)",
            edit(smoothed_cross_entropy, PICKED, PICKED.replace("picked",
                 "rows.reshape(-1)[wrapped(number * V, 16) % max(rows.size - V, 1) + index]")),
            G + "triton-lang/triton/issues/1058"),
    Mistake("cross_entropy/target-subtracted-in-every-block", "a gradient that subtracts 1 once a block of columns",
            edit(smoothed_cross_entropy, TARGET, "target = (1 - smoothing) * (places % BLOCK == index[:, None] % "
                 "BLOCK) + smoothing / V")),
    Mistake("cross_entropy/gradient-tail", "a gradient without the columns after the last whole block of 32",
            edit(smoothed_cross_entropy, "for columns in tiles(V, BLOCK):\n"
                 "places = numpy.arange(columns.start, columns.stop)",
                 "for columns in tiles(V // 32 * 32, BLOCK):\n"
                 "    places = numpy.arange(columns.start, columns.stop)")),
    Mistake("cross_entropy/probabilities-in-float16", "a gradient whose probabilities are float16",
            edit(smoothed_cross_entropy, "p = numpy.exp(rows[:, columns] - shift) / Z",
                 'p = narrow(numpy.exp(rows[:, columns] - shift) / Z, "float16")')),
    Mistake("cross_entropy/mean-gradient-not-divided", "a mean whose gradient is that of the sum",
            edit(smoothed_cross_entropy, DIVIDED,
                 "share = zeros((len(rows),), logits) + numpy.reshape(dy, -1)")),
    Mistake("cross_entropy/gradient-of-all-places", "a mean whose gradient is divided by all places, ignored ones too",
            edit(smoothed_cross_entropy, DIVIDED, DIVIDED.replace("count if", "max(1, len(rows)) if"))),
    Mistake("cross_entropy/value-of-all-places",
            "a mean that is divided by all places, ignored ones too, and whose gradient is not",
            edit(smoothed_cross_entropy, SUM, SUM.replace("count if", "max(1, len(rows)) if"))),
    Mistake("cross_entropy/mean-of-means", "a mean that is that of the means of blocks of rows",
            edit(smoothed_cross_entropy, COUNT, f"{COUNT}\n{WEIGHTS}",
                 DIVIDED, "share = (zeros((len(rows),), logits) + numpy.reshape(dy, -1)) * weight",
                 SUM, "return (losses * weight).sum(), cross_entropy_back")),
    Mistake("cross_entropy/one-cotangent-for-all", "a gradient that reads the first row's cotangent for every row",
            edit(smoothed_cross_entropy, SHARE, "share = share[:1] if share.size else share\n"
                 "share = numpy.where(counted, share, 0)[:, None]"), G + "linkedin/Liger-Kernel/issues/968"),
    Mistake("cross_entropy/total-in-bfloat16", "losses that are added up in bfloat16",
            edit(smoothed_cross_entropy, SUM, SUM.replace("losses.sum()", 'narrow(losses, "bfloat16").sum()'))),
    Mistake("smoothed_cross_entropy/padded-vocabulary", "smoothing over a vocabulary that is rounded up to 64",
            edit(smoothed_cross_entropy, SMOOTHED, SMOOTHED.replace("/ V", "/ (-(-V // 64) * 64)"))),
    Mistake("smoothed_cross_entropy/first-block", "smoothing whose sum of the logits is that of the last block",
            edit(smoothed_cross_entropy, SMOOTHED, "if columns.stop == V:\n    " + SMOOTHED)),
    Mistake("smoothed_cross_entropy/gradient-unsmoothed", "smoothing that the gradient does not know",
            edit(smoothed_cross_entropy, TARGET, "target = 1.0 * (places == index[:, None])")),
]
