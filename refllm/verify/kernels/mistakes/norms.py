"""Mistakes of the norms of rows."""

from __future__ import annotations

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.norms import layer_norm, rms_norm, statistics
from refllm.verify.mutants.bank import Edits, edit

SQUARES = "squares += ((rows[:, columns] - mean) ** 2).sum(axis=1, keepdims=True)"
TOTAL = "total += rows[:, columns].sum(axis=1, keepdims=True)"
MEAN, R = "mean = total / N", "r = 1 / numpy.sqrt(squares / N + eps)"
Y = "y[:, columns] = (rows[:, columns] - mean) * r * g[columns] + b[columns]"
DG, DB = "dg += (given[part] * n[part]).sum(axis=0)", "db += given[part].sum(axis=0)"
PARTS = "for part in tiles(len(rows), TILE):"
DX = "dx[:, columns] = r * (dn - first - n[:, columns] * second)"
RMS = "squares += (rows[:, columns] ** 2).sum(axis=1, keepdims=True)"
RMS_Y = "y[:, columns] = rows[:, columns] * r * g[columns]"
RMS_DX = "dx[:, columns] = r * (given[:, columns] * g[columns] - n[:, columns] * dot)"
OF_BLOCKS = ".mean(axis=1, keepdims=True) * N / -(-N // BLOCK)"  # as if all blocks were as long as each other
MERGED = (
    "own = rows[:, columns].mean(axis=1, keepdims=True)\n"
    "squares += ((rows[:, columns] - own) ** 2).sum(axis=1, keepdims=True) + min(BLOCK, N) * (own - mean) ** 2"
)
PADDED = "squares += -N % BLOCK * mean**2"
FIRST_PASS = "for columns in tiles(N, BLOCK):\ntotal += rows[:, columns].sum(axis=1, keepdims=True)"

WHOLE = "min(BLOCK, N)"  # places that a partial block is taken to have
MERGES = (  # of blocks: by how much of its distance the mean moves, and how much the square of that counts
    ("blocks-merged-as-whole", "the mean and the squares of its last, partial block as those of a whole one",
     f"{WHOLE} / (count + {WHOLE})", f"count * {WHOLE} / (count + {WHOLE})"),
    ("squares-merged-as-whole", "blocks in whose squares the last, partial one counts as a whole one",
     "n / (count + n)", f"count * {WHOLE} / (count + {WHOLE})"),
    ("means-merged-as-whole", "blocks in whose mean the last, partial one counts as a whole one; the squares are right",
     f"{WHOLE} / (count + {WHOLE})", "count * n / (count + n)"),
    ("distance-from-new-mean", "blocks with the distance from the mean that the block is already in", "n / (count + n)",
     "count * n / (count + n) * (count / (count + n)) ** 2"),
    ("distance-by-own-length", "blocks with the distance of the means by the length of the block", "n / (count + n)",
     "n * (count > 0)"),
    ("distance-by-all", "blocks with the distance of the means by the lengths of both over that of the row",
     "n / (count + n)", "count * n / N"),
    ("distance-as-half", "blocks as if all before were as long as the block", "n / (count + n)", "n / 2 * (count > 0)"),
    ("means-exchanged", "blocks whose mean moves by the share of those before", "count / (count + n) if count else 1",
     "count * n / (count + n)"),
    ("means-averaged", "blocks whose mean is each time half of that so far and half of the block's",
     "0.5 if count else 1", "count * n / (count + n)"),
)  # fmt: skip


def _merged(moves: str, counts: str) -> Edits:
    """The mean of each block and the squares around it, merged with those before."""
    return edit(
        statistics, MEAN,
        "count, mean, merged = 0, zeros(total.shape, rows), zeros(total.shape, rows)\n"
        "for columns in tiles(N, BLOCK):\n"
        "    own, n = rows[:, columns].mean(axis=1, keepdims=True), columns.stop - columns.start\n"
        "    squares_here = ((rows[:, columns] - own) ** 2).sum(axis=1, keepdims=True)\n"
        f"    merged = merged + squares_here + (own - mean) ** 2 * ({counts})\n"
        f"    mean = mean + (own - mean) * ({moves})\n"
        "    count += n", R, "r = 1 / numpy.sqrt(merged / N + eps)",
    )  # fmt: skip


G = "https://github.com/"
# fmt: off
MISTAKES = [
    Mistake("layer_norm/padding-in-variance", "a layer norm whose padding, which is 0, counts in the variance",
            edit(statistics, MEAN, MEAN + "\n" + PADDED), G + "triton-lang/triton/issues/9838"),
    *(
        Mistake(f"layer_norm/{name}", f"a layer norm that merges {words}", _merged(*of))
        for name, words, *of in MERGES
    ),
    Mistake("layer_norm/padded-width", "a layer norm whose mean divides by the width rounded up to 32",
            edit(statistics, MEAN, "mean = total / (-(-N // 32) * 32)")),
    Mistake("layer_norm/first-columns-alone", "a layer norm that reads and writes the first 1,024 columns",
            edit(layer_norm, "rows, y = as_rows(x), unwritten(as_rows(x).shape, x)\nN = rows.shape[1]",
                 "rows, y = as_rows(x), unwritten(as_rows(x).shape, x)\nN = min(rows.shape[1], 1024)"),
            G + "facebookresearch/xformers/issues/785"),
    Mistake("layer_norm/tail-not-in-mean", "a layer norm whose mean leaves out the columns after whole vectors of four",
            edit(statistics, FIRST_PASS, "for columns in tiles(N // 4 * 4, BLOCK):\n    " + TOTAL)),
    Mistake("layer_norm/tail-unwritten", "a layer norm that does not write its last, partial vector of four",
            edit(layer_norm, Y, "columns = slice(columns.start, columns.stop // 4 * 4)\n" + Y)),
    Mistake("layer_norm/tail-of-32-unwritten", "a layer norm that does not write the columns after whole blocks of 32",
            edit(layer_norm, Y, "columns = slice(columns.start, columns.stop // 32 * 32)\n" + Y)),
    Mistake("layer_norm/one-pass", "a layer norm whose variance is the mean of the squares less the square of the mean",
            edit(statistics, SQUARES, "squares += (rows[:, columns] ** 2).sum(axis=1, keepdims=True)",
                 R, "r = 1 / numpy.sqrt(numpy.maximum(squares / N - mean**2, 0) + eps)"),
            G + "tracel-ai/burn/issues/5607"),
    Mistake("layer_norm/sum-of-last-block", "a layer norm whose sum of squares is that of the last block",
            edit(statistics, SQUARES, SQUARES.replace("+=", "="))),
    Mistake("layer_norm/mean-of-block", "a layer norm whose deviations are from the mean of their block",
            edit(statistics, SQUARES, SQUARES.replace("- mean", "- rows[:, columns].mean(axis=1, keepdims=True)"))),
    Mistake("layer_norm/blocks-merged-as-equal",
            "a layer norm that merges the mean and the squares of a partial block as those of a whole one",
            edit(statistics, TOTAL, f"total += rows[:, columns]{OF_BLOCKS}", SQUARES, MERGED)),
    Mistake("layer_norm/mean-of-means", "a layer norm whose mean is that of the means of blocks",
            edit(statistics, TOTAL, f"total += rows[:, columns]{OF_BLOCKS}")),
    Mistake("layer_norm/unbiased", "a layer norm whose variance divides by one less",
            edit(statistics, R, "r = 1 / numpy.sqrt(squares / max(N - 1, 1) + eps)")),
    Mistake("layer_norm/eps-outside", "a layer norm that adds eps to the standard deviation",
            edit(statistics, R, "r = 1 / (numpy.sqrt(squares / N) + eps)")),
    Mistake("layer_norm/eps-in-sum", "a layer norm that adds eps to the sum before it is divided by the width",
            edit(statistics, R, "r = 1 / numpy.sqrt((squares + eps) / N)")),
    Mistake("layer_norm/bfloat16-mean", "a layer norm whose mean is bfloat16",
            edit(statistics, MEAN, 'mean = narrow(total / N, "bfloat16")')),
    Mistake("layer_norm/float16-squares", "a layer norm whose squares are added up in float16",
            edit(statistics, SQUARES, 'squares = narrow(squares + ((rows[:, columns] - mean) ** 2)'
                 '.sum(axis=1, keepdims=True), "float16")')),
    Mistake("layer_norm/fast-root", "a layer norm whose reciprocal root has 11 bits",
            edit(statistics, R, 'r = narrow(1 / numpy.sqrt(squares / N + eps), "float16")')),
    Mistake("layer_norm/gain-by-block", "a layer norm whose gain begins again in every block",
            edit(layer_norm, Y, "y[:, columns] = (rows[:, columns] - mean) * r * g[: columns.stop - columns.start] + "
                 "b[columns]")),
    Mistake("layer_norm/gain-gradient-lost", "a gain gradient of the last block of rows alone",
            edit(layer_norm, DG, DG.replace("+=", "="))),
    Mistake("layer_norm/gain-gradient-tail", "gain and bias gradients without the rows after whole blocks",
            edit(layer_norm, PARTS, "for part in tiles(len(rows) // TILE * TILE, TILE):")),
    Mistake("layer_norm/gain-gradient-twice", "a bias gradient that adds a block of rows twice",
            edit(layer_norm, DB, DB + "\ndb += given[part].sum(axis=0) if part.start == TILE else 0")),
    Mistake("layer_norm/gain-gradient-bfloat16", "a gain gradient that is added up in bfloat16",
            edit(layer_norm, DG, 'dg = narrow(dg + (given[part] * n[part]).sum(axis=0), "bfloat16")')),
    Mistake("layer_norm/no-second-mean", "a layer norm gradient without the mean of dn n",
            edit(layer_norm, DX, "dx[:, columns] = r * (dn - first)")),
    Mistake("layer_norm/gradient-means-of-one-row", "a layer norm gradient whose rows share one mean",
            edit(layer_norm, DX, "dx[:, columns] = r * (dn - first.mean() - n[:, columns] * second)"),
            G + "flagos-ai/FlagGems/pull/59"),
    Mistake("layer_norm/gradient-means-of-last-block", "a layer norm gradient whose means are those of the last block",
            edit(layer_norm, "first += dn.sum(axis=1, keepdims=True) / N",
                 "first = dn.sum(axis=1, keepdims=True) / N")),
    Mistake("layer_norm/gradient-means-of-first-columns",
            "a layer norm gradient whose means are sums over the first 1,024 columns",
            edit(layer_norm, "first += dn.sum(axis=1, keepdims=True) / N",
                 "dn = numpy.where(numpy.arange(columns.start, columns.stop) < 1024, dn, 0)\n"
                 "first += dn.sum(axis=1, keepdims=True) / N")),
    Mistake("rms_norm/tail-not-summed", "an RMS norm without the columns after whole vectors of four in its sum",
            edit(rms_norm, "for columns in tiles(N, BLOCK):\n" + RMS,
                 "for columns in tiles(N // 4 * 4, BLOCK):\n    " + RMS)),
    Mistake("rms_norm/tail-of-32-unwritten", "an RMS norm that does not write the columns after whole blocks of 32",
            edit(rms_norm, RMS_Y, "columns = slice(columns.start, columns.stop // 32 * 32)\n" + RMS_Y)),
    Mistake("rms_norm/padded-width", "an RMS norm that divides by the width rounded up to 32",
            edit(rms_norm, R, "r = 1 / numpy.sqrt(squares / (-(-N // 32) * 32) + eps)")),
    Mistake("rms_norm/eps-fixed", "an RMS norm whose eps is fixed at 1e-3",
            edit(rms_norm, R, "r = 1 / numpy.sqrt(squares / N + 1e-3)"), G + "ggml-org/llama.cpp/issues/2373"),
    Mistake("rms_norm/eps-in-sum", "an RMS norm that adds eps to the sum before it is divided by the width",
            edit(rms_norm, R, "r = 1 / numpy.sqrt((squares + eps) / N)")),
    Mistake("rms_norm/mean-of-means", "an RMS norm whose mean of the squares is that of the means of blocks",
            edit(rms_norm, RMS, f"squares += (rows[:, columns] ** 2){OF_BLOCKS}")),
    Mistake("rms_norm/bfloat16-squares", "an RMS norm whose squares are added up in bfloat16",
            edit(rms_norm, RMS, 'squares = narrow(squares + (rows[:, columns] ** 2).sum(axis=1, keepdims=True), '
                 '"bfloat16")')),
    Mistake("rms_norm/rounded-before-gain", "an RMS norm that rounds to bfloat16 before the gain",
            edit(rms_norm, RMS_Y, 'y[:, columns] = narrow(rows[:, columns] * r, "bfloat16") * g[columns]')),
    Mistake("rms_norm/every-second-row", "an RMS norm that writes every second row",
            edit(rms_norm, RMS_Y, "y[::2, columns] = (rows[:, columns] * r * g[columns])[::2]")),
    Mistake("rms_norm/gain-not-in-gradient", "an RMS norm gradient without its gain in the product",
            edit(rms_norm, "dot += (given[:, columns] * g[columns] * n[:, columns]).sum(axis=1, keepdims=True) / N",
                 "dot += (given[:, columns] * n[:, columns]).sum(axis=1, keepdims=True) / N")),
    Mistake("rms_norm/gradient-product-of-first-columns",
            "an RMS norm gradient whose product is a sum over the first 1,024 columns",
            edit(rms_norm, "dot += (given[:, columns] * g[columns] * n[:, columns]).sum(axis=1, keepdims=True) / N",
                 "kept = slice(columns.start, min(columns.stop, 1024))\n"
                 "dot += (given[:, kept] * g[kept] * n[:, kept]).sum(axis=1, keepdims=True) / N")),
    Mistake("rms_norm/gain-gradient-lost", "an RMS norm whose gain gradient is that of the last block of rows",
            edit(rms_norm, DG, DG.replace("+=", "="))),
]
