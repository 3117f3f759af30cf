"""Mistakes of matrix products."""

from __future__ import annotations

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.products import linear, matmul, product
from refllm.verify.mutants.bank import Edits, edit

TERMS = "for terms in tiles(K, TILE):"
ADDED = "accumulators += left @ right"
STORED = "y[rows, columns] = accumulators"
COPIED = "left[:, :width], right[:width] = a[rows, terms], c[terms, columns]"
BUFFERS = "left, right = zeros((len(accumulators), TILE), a), zeros((TILE, accumulators.shape[1]), a)"
BIAS = "if bias is not None:\n    accumulators += bias[columns]"
DW = "dW = product(swap(as_rows(x)), as_rows(dy))"
DX = "dx = product(as_rows(dy), swap(W))"
DB = "db += as_rows(dy)[rows].sum(axis=0)"
PARTS = "for rows in tiles(len(as_rows(dy)), TILE):"

G = "https://github.com/"


def _in_slices(ends: str, split: str) -> Edits:
    """The sum of a slice of the terms is stored in a narrow type where it ends, and these are added up."""
    return edit(
        product, TERMS, f"total = 0 * accumulators\n{TERMS}",
        ADDED, f"{ADDED}\nif ({split}) and ({ends}):\n"
        '    total, accumulators = total + narrow(accumulators, "bfloat16"), 0 * accumulators',
        BIAS, f"accumulators = accumulators + total\n{BIAS}",
    )  # fmt: skip


# fmt: off
MISTAKES = [
    Mistake("matmul/last-terms-lost", "a product that leaves out the terms after the last whole tile of K",
            edit(product, TERMS, "for terms in tiles(K // TILE * TILE, TILE):"), G + "triton-lang/triton/issues/630"),
    Mistake("matmul/last-tile-lost", "a product that stops one tile of K too early",
            edit(product, TERMS, "for terms in tiles(max(K - TILE, 0), TILE):")),
    Mistake("matmul/first-terms-alone", "a product over the first 1,024 terms alone",
            edit(product, TERMS, "for terms in tiles(min(K, 1024), TILE):")),
    Mistake("matmul/stale-tile", "a product whose last, partial tile of K still holds the numbers of the tile before, "
            "or is moved back so that it is whole",
            edit(product, "left[:, width:] = 0", "")),
    *(
        Mistake(f"matmul/stale-tile-of-{stages}-stages",
                f"a product with {stages} tiles of K in shared memory in turn, whose last, partial one still holds the "
                f"numbers of {stages} tiles before",
                edit(product, BUFFERS, f"stages = [({BUFFERS.partition(' = ')[2]}) for _ in range({stages})]",
                     COPIED, f"left, right = stages[terms.start // TILE % {stages}]\n{COPIED}",
                     "left[:, width:] = 0", ""))
        for stages in (2, 3, 4)
    ),
    Mistake("matmul/terms-twice", "a product whose last tile of K is moved back to be whole, so that terms count twice",
            edit(product, COPIED, "first = max(min(terms.start, K - TILE), 0)\nwidth = min(TILE, K)\n"
                 "left[:, :width], right[:width] = a[rows, first : first + width], c[first : first + width, columns]")),
    Mistake("matmul/accumulator-overwritten", "a product whose accumulators are overwritten, not added to",
            edit(product, ADDED, "accumulators = left @ right")),
    Mistake("matmul/first-tile-not-cleared", "a product whose accumulators still hold the tile before",
            edit(product, "for columns in tiles(N, 2 * TILE):\n"
                 "accumulators = zeros((rows.stop - rows.start, columns.stop - columns.start), a)",
                 "accumulators = zeros((rows.stop - rows.start, 2 * TILE), a)\nfor columns in tiles(N, 2 * TILE):\n"
                 "    accumulators = accumulators[:, : columns.stop - columns.start]")),
    Mistake("matmul/bfloat16-accumulator", "a product whose accumulators are bfloat16",
            edit(product, ADDED, 'accumulators = narrow(accumulators + left @ right, "bfloat16")')),
    Mistake("matmul/float16-accumulator", "a product whose accumulators are float16",
            edit(product, ADDED, 'accumulators = narrow(accumulators + left @ right, "float16")'),
            G + "NVIDIA/cutlass/issues/1188"),
    Mistake("matmul/float16-tiles-stored", "a product whose partial sums are stored in float16 between two parts of K",
            edit(product, ADDED, "accumulators += left @ right\nif terms.stop == max(K // 2 // TILE, 1) * TILE:\n"
                 '    accumulators = narrow(accumulators, "float16")')),
    Mistake("matmul/slices-in-bfloat16",
            "a product in slices of 512 terms, whose sums are bfloat16 before they are added",
            _in_slices("terms.stop % 512 == 0 or terms.stop == K", "K > 512"),
            G + "modular/modular/issues/7165"),
    Mistake("matmul/parts-in-bfloat16",
            "a product in 2 parts of its terms, whose sums are bfloat16 before they are added",
            _in_slices("terms.stop % (-(-K // 2 // TILE) * TILE) == 0 or terms.stop == K", "K >= 2 * TILE")),
    Mistake("matmul/last-columns-unwritten", "a product that does not write the columns after the last whole tile",
            edit(product, STORED, "if columns.stop % (2 * TILE) == 0:\n    " + STORED),
            G + "triton-lang/triton/issues/5990"),
    Mistake("matmul/last-rows-unwritten", "a product that does not write the rows after the last whole tile",
            edit(product, "for rows in tiles(M, 2 * TILE):", "for rows in tiles(M // TILE * TILE, 2 * TILE):")),
    Mistake("matmul/tile-transposed", "a product whose square tiles are written transposed",
            edit(product, STORED, "square = len(accumulators) == accumulators.shape[1]\n"
                 "y[rows, columns] = accumulators.T if square else accumulators")),
    Mistake("matmul/strides-unread", "a product that reads a transposed second factor as if its rows followed",
            edit(product, "(M, K), N = a.shape, c.shape[-1]",
                 '(M, K), N = a.shape, c.shape[-1]\nc = c.ravel(order="K").reshape(c.shape)'),
            G + "ROCm/aiter/issues/5292"),
    Mistake("matmul/strides-unread-of-first", "a product that reads a transposed first factor as if its rows followed",
            edit(product, "(M, K), N = a.shape, c.shape[-1]",
                 '(M, K), N = a.shape, c.shape[-1]\na = a.ravel(order="K").reshape(a.shape)')),
    Mistake("matmul/index-overflow", "a product whose places overflow their integer (32 bits there, 16 in this model)",
            edit(product, STORED, "place = numpy.arange(rows.start, rows.stop)[:, None] * N\n"
                 "place = wrapped(place + numpy.arange(columns.start, columns.stop), 16)\n"
                 "y.reshape(-1)[place[place >= 0]] = accumulators[place >= 0]"), G + "triton-lang/triton/issues/832"),
    Mistake("matmul/rows-of-another-width", "a product whose output rows are as far apart as those of K",
            edit(product, STORED, "place = numpy.arange(rows.start, rows.stop)[:, None] * K\n"
                 "place = place + numpy.arange(columns.start, columns.stop)\n"
                 "y.reshape(-1)[place[place < y.size]] = accumulators[place < y.size]")),
    Mistake("matmul/split-not-added", "a weight gradient of which only the last part of the rows remains",
            edit(matmul, DW, "half = len(as_rows(x)) // 2\ndW = product(swap(as_rows(x)[half:]), as_rows(dy)[half:])")),
    Mistake("matmul/split-twice", "a weight gradient in which the row at the border of two parts counts twice",
            edit(matmul, DW, "half = len(as_rows(x)) // 2\ndW = product(swap(as_rows(x)[: half + 1]), "
                 "as_rows(dy)[: half + 1]) + product(swap(as_rows(x)[half:]), as_rows(dy)[half:])")),
    Mistake("matmul/gradient-in-bfloat16", "an input gradient that passes through bfloat16",
            edit(matmul, DX, 'dx = narrow(product(as_rows(dy), swap(W)), "bfloat16")')),
    Mistake("matmul/one-batch-alone", "a weight gradient of the first batch alone",
            edit(matmul, DW, "one = x.shape[-2] if x.ndim > 2 else max(len(x) - 1, 0)\n"
                 "dW = product(swap(as_rows(x)[:one]), as_rows(dy)[:one])")),
    Mistake("linear/bias-in-every-tile", "a linear map that adds its bias once for each tile of K",
            edit(product, ADDED, "accumulators += left @ right + (0 if bias is None else bias[columns])",
                 BIAS, "")),
    Mistake("linear/bias-not-in-last-tile", "a linear map without its bias in the last, partial tile of columns",
            edit(product, "if bias is not None:", "if bias is not None and columns.stop % (2 * TILE) == 0:")),
    Mistake("linear/bias-by-row-of-tile", "a linear map whose bias begins again in every tile of columns",
            edit(product, "accumulators += bias[columns]",
                 "accumulators += bias[: columns.stop - columns.start]")),
    Mistake("linear/bias-gradient-tail-lost", "a bias gradient without the rows after the last whole tile",
            edit(linear, PARTS, "for rows in tiles(len(as_rows(dy)) // TILE * TILE, TILE):")),
    Mistake("linear/bias-gradient-overwritten", "a bias gradient of the last tile of rows alone",
            edit(linear, DB, "db = as_rows(dy)[rows].sum(axis=0)")),
    Mistake("linear/bias-gradient-in-bfloat16", "a bias gradient that is added up in bfloat16",
            edit(linear, DB, 'db = narrow(db + as_rows(dy)[rows].sum(axis=0), "bfloat16")')),
]
