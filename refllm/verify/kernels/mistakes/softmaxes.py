"""Mistakes of softmax and its logarithm."""

from __future__ import annotations

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.softmaxes import log_softmax, online, softmax, where_nothing
from refllm.verify.mutants.bank import edit

RESCALED = "Z = Z * numpy.exp(top - shift)"
TOP = "top, Z = numpy.full((len(rows), 1), -INFINITY, rows.dtype), zeros((len(rows), 1), rows)"
SUMMED = "Z = Z + numpy.exp(block - shift).sum(axis=1, keepdims=True)"
WRITTEN = "p[:, columns] = numpy.exp(rows[:, columns] - shift) / where_nothing(Z)"
DOT = "dot += (p[:, columns] * dy[:, columns]).sum(axis=1, keepdims=True)"
DX = "dx[:, columns] = p[:, columns] * (dy[:, columns] - dot)"
LOG = "y[:, columns] = rows[:, columns] - shift - numpy.log(where_nothing(Z))"
LOG_TOTAL = "total += given[:, columns].sum(axis=1, keepdims=True)"
LOG_DX = "dx[:, columns] = given[:, columns] - numpy.exp(y[:, columns]) * total"


G = "https://github.com/"
# fmt: off
MISTAKES = [
    Mistake("softmax/first-columns-alone", "a softmax whose sum is over the first 1,024 columns",
            edit(online, "for columns in tiles(rows.shape[1], BLOCK):",
                 "for columns in tiles(min(rows.shape[1], 1024), BLOCK):"),
            G + "NVIDIA/FasterTransformer/issues/663"),
    Mistake("softmax/tail-not-summed", "a softmax whose sum leaves out the columns after the last whole block of 32",
            edit(online, "for columns in tiles(rows.shape[1], BLOCK):",
                 "for columns in tiles(rows.shape[1] // 32 * 32, BLOCK):")),
    Mistake("softmax/tail-unwritten", "a softmax that does not write the columns after the last whole vector of four",
            edit(softmax, WRITTEN, "columns = slice(columns.start, columns.stop // 4 * 4)\n" + WRITTEN)),
    Mistake("softmax/tail-of-32-unwritten", "a softmax that does not write the columns after whole blocks of 32",
            edit(softmax, WRITTEN, "columns = slice(columns.start, columns.stop // 32 * 32)\n" + WRITTEN)),
    Mistake("softmax/no-rescale", "a softmax whose sum is not rescaled when a later block has a larger number",
            edit(online, RESCALED, "Z = Z * (top > -INFINITY)")),
    Mistake("softmax/block-before-rescaled",
            "a softmax whose sum of the block before alone is rescaled, not the sum so far",
            edit(online, TOP, TOP + "\nlast = 0 * Z", RESCALED,
                 "Z = Z - last + last * numpy.where(top == -INFINITY, 0, numpy.exp(top - shift))",
                 SUMMED, "last = numpy.exp(block - shift).sum(axis=1, keepdims=True)\nZ = Z + last")),
    Mistake("softmax/rescaled-from-last-block",
            "a softmax whose sum is rescaled from the maximum of the block before, not from that of all before",
            edit(online, TOP, TOP + "\nlast = top", RESCALED, "Z = Z * numpy.exp(last - shift)",
                 "top = new", "last, top = block.max(axis=1, keepdims=True), new")),
    Mistake("softmax/written-block-before-rescaled",
            "a softmax of one pass that rescales what it has written in the block before alone, not in all before",
            edit(softmax, WRITTEN, "so_far = rows[:, : columns.stop + BLOCK].max(axis=1, keepdims=True)\n"
                 "so_far = numpy.where(so_far == -INFINITY, 0, so_far)\n" + WRITTEN.replace("- shift", "- so_far"))),
    Mistake("softmax/written-not-rescaled",
            "a softmax of one pass that does not rescale what it has written when the maximum rises",
            edit(softmax, WRITTEN, "so_far = rows[:, : columns.stop].max(axis=1, keepdims=True)\n"
                 "so_far = numpy.where(so_far == -INFINITY, 0, so_far)\n" + WRITTEN.replace("- shift", "- so_far"))),
    Mistake("softmax/lanes-by-their-sums",
            "a softmax whose 4 lanes, every fourth column each, add their sums without their maxima",
            edit(online, "return shift, Z", "for lane in range(4):\n    part = rows[:, lane::4]\n"
                 "    own = part.max(axis=1, keepdims=True, initial=-INFINITY)\n"
                 "    own = numpy.where(own == -INFINITY, 0, own)\n"
                 "    Z = Z * (lane > 0) + numpy.exp(part - own).sum(axis=1, keepdims=True)\nreturn shift, Z")),
    Mistake("softmax/parts-by-their-sums",
            "a softmax whose blocks' sums are added without their maxima",
            edit(online, RESCALED, "own = block.max(axis=1, keepdims=True)\n"
                 "own = numpy.where(own == -INFINITY, 0, own)",
                 SUMMED, "Z = Z + numpy.exp(block - own).sum(axis=1, keepdims=True)")),
    Mistake("softmax/rescale-turned-round", "a softmax whose sum is rescaled by the inverse factor",
            edit(online, RESCALED, "Z = Z * numpy.where(top == -INFINITY, 0, numpy.exp(shift - top))")),
    Mistake("softmax/maximum-of-first-block", "a softmax that is shifted by the maximum of its first block",
            edit(online, "new = numpy.maximum(top, block.max(axis=1, keepdims=True))",
                 "new = block.max(axis=1, keepdims=True) if columns.start == 0 else top")),
    Mistake("softmax/maximum-from-zero", "a softmax whose maximum begins with 0, in which rows far below it vanish",
            edit(online, TOP, TOP.replace("-INFINITY", "0")),
            G + "microsoft/onnxruntime/pull/2786"),
    Mistake("softmax/padding-counted", "a softmax whose last block is padded with 0, not with -∞",
            edit(online, SUMMED, SUMMED + "\nif block.shape[1] % 32:\n"
                 "    Z = Z + (32 - block.shape[1] % 32) * numpy.exp(-shift)")),
    Mistake("softmax/nothing-minus-nothing", "a softmax in which (-∞) - (-∞) makes NaN of a row or block of -∞",
            edit(online, "shift = numpy.where(new == -INFINITY, 0, new)", "shift = new"),
            G + "tracel-ai/burn/pull/4697"),
    Mistake("softmax/nothing-by-nothing", "a softmax in which 0 / 0 makes NaN of a row of only -∞",
            edit(where_nothing, "return numpy.where(Z == 0, 1, Z).astype(Z.dtype)", "return Z"),
            G + "iree-org/iree/issues/24175"),
    Mistake("softmax/bfloat16-sum", "a softmax whose sum is added up in bfloat16",
            edit(online, SUMMED, 'Z = narrow(Z + numpy.exp(block - shift).sum(axis=1, keepdims=True), "bfloat16")')),
    Mistake("softmax/float16-sum", "a softmax whose sum is added up in float16",
            edit(online, SUMMED, 'Z = narrow(Z + numpy.exp(block - shift).sum(axis=1, keepdims=True), "float16")'),
            G + "sonos/tract/pull/2586"),
    Mistake("softmax/fast-exponential", "a softmax whose exponentials have 11 bits",
            edit(online, SUMMED, 'Z = Z + narrow(numpy.exp(block - shift), "float16").sum(axis=1, keepdims=True)')),
    Mistake("softmax/power-of-two-constant", "a softmax by powers of 2 whose log₂ e has three digits",
            edit(softmax, WRITTEN, "p[:, columns] = 2 ** (1.44 * (rows[:, columns] - shift)) / where_nothing(Z)")),
    Mistake("softmax/one-sum-for-all-rows", "a softmax whose rows share the sum of the first",
            edit(softmax, "shift, Z = online(rows)", "shift, Z = online(rows)\nZ[1::2] = Z[:-1:2]")),
    Mistake("softmax/every-second-row", "a softmax that writes every second row",
            edit(softmax, WRITTEN, "p[::2, columns] = (numpy.exp(rows[:, columns] - shift) / where_nothing(Z))[::2]")),
    Mistake("softmax/dot-of-last-block", "a softmax gradient with the product of its last block alone",
            edit(softmax, DOT, "dot = (p[:, columns] * dy[:, columns]).sum(axis=1, keepdims=True)")),
    Mistake("softmax/dot-of-first-columns", "a softmax gradient with the product of its first 1,024 columns",
            edit(softmax, DOT, "kept = slice(columns.start, min(columns.stop, 1024))\n"
                 "dot += (p[:, kept] * dy[:, kept]).sum(axis=1, keepdims=True)")),
    Mistake("softmax/dot-in-block", "a softmax gradient in which every block takes the product of itself",
            edit(softmax, DX, "own = (p[:, columns] * dy[:, columns]).sum(axis=1, keepdims=True)\n"
                 "dx[:, columns] = p[:, columns] * (dy[:, columns] - own)")),
    Mistake("softmax/dot-in-float16", "a softmax gradient whose product is added up in float16",
            edit(softmax, DOT, 'dot = narrow(dot + (p[:, columns] * dy[:, columns]).sum(axis=1, keepdims=True), '
                 '"float16")')),
    Mistake("softmax/gradient-tail-unwritten", "a softmax gradient whose last, partial block is not written",
            edit(softmax, DX, "if columns.stop % 4 == 0:\n    " + DX)),
    Mistake("log_softmax/logarithm-of-softmax", "the logarithm of a softmax, which is -∞ where that vanishes",
            edit(log_softmax, LOG, "y[:, columns] = numpy.log(numpy.exp(rows[:, columns] - shift) / "
                 "where_nothing(Z))")),
    Mistake("log_softmax/maximum-from-zero", "a log-softmax whose maximum begins with 0",
            edit(online, TOP, TOP.replace("-INFINITY", "0")),
            G + "mit-han-lab/tinyengine/issues/107"),
    Mistake("log_softmax/logarithm-in-bfloat16", "a log-softmax whose logarithm of the sum is bfloat16",
            edit(log_softmax, LOG, 'y[:, columns] = rows[:, columns] - shift - narrow(numpy.log(where_nothing(Z)), '
                 '"bfloat16")')),
    Mistake("log_softmax/gradient-total-of-last-block", "a log-softmax gradient with the total of its last block",
            edit(log_softmax, LOG_TOTAL, "total = given[:, columns].sum(axis=1, keepdims=True)")),
    Mistake("log_softmax/gradient-total-of-first-columns",
            "a log-softmax gradient with the total of its first 1,024 columns",
            edit(log_softmax, LOG_TOTAL,
                 "total += given[:, columns.start : min(columns.stop, 1024)].sum(axis=1, keepdims=True)")),
    Mistake("log_softmax/gradient-from-logits", "a log-softmax gradient with exponentials of the unnormalised row",
            edit(log_softmax, LOG_DX, "dx[:, columns] = given[:, columns] - numpy.exp(rows[:, columns] - shift) * "
                 "total")),
]
