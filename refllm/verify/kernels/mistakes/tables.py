"""Mistakes of tables, rotary positions and updates."""

from __future__ import annotations

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.tables import embedding
from refllm.verify.kernels.turns import rotary_halves, rotary_interleaved, turned
from refllm.verify.kernels.updates import adamw, clip_by_global_norm, sum_of_squares
from refllm.verify.mutants.bank import edit

ADDED = "numpy.add.at(dE, index[part], given[part])"
PARTS = "for part in tiles(len(index), TILE):\n" + ADDED
READ = "y[part] = E[index[part]]"
ANGLES = "angles = positions[rows, None] * frequencies"
FREQUENCIES = "frequencies = base ** (-numpy.arange(0, D, 2) / D)"
TABLE = "c, s = numpy.cos(angles).astype(x.dtype), (sign * numpy.sin(angles)).astype(x.dtype)"
V, M = (
    "new_v[block] = beta2 * second[block] + (1 - beta2) * gradient[block] ** 2",
    "m_hat = new_m[block] / (1 - beta1**step)",
)
NEW_M = "new_m[block] = beta1 * first[block] + (1 - beta1) * gradient[block]"
FLAT = "parameter, gradient, first, second = (x.reshape(-1) for x in (p, g, m, v))"
P = "new_p[block] = decayed - lr * (m_hat / (numpy.sqrt(v_hat) + eps))"
ARRAYS, CHUNKS = "for x in g:", "for part in tiles(x.size, BLOCK):"
SUMMED = "squares = squares + (x[part] ** 2).sum()"

G = "https://github.com/"
# fmt: off
MISTAKES = [
    Mistake("embedding/lost-updates", "a gradient that loses updates of a row that occurs twice in a block",
            edit(embedding, ADDED, "dE[index[part]] += given[part]"), G + "tenstorrent/tt-metal/issues/6232"),
    Mistake("embedding/segment-overwritten",
            "a gradient of sorted ids in which a row over the border of two blocks of 128 keeps its last part alone",
            edit(embedding, PARTS, "order = numpy.argsort(index, kind=\"stable\")\n"
                 "for part in tiles(len(index), 128):\n"
                 "    held, at = numpy.unique(index[order[part]], return_inverse=True)\n"
                 "    own = zeros((len(held), C), E)\n"
                 "    numpy.add.at(own, at.reshape(-1), given[order[part]])\n"
                 "    dE[held] = own")),
    Mistake("embedding/last-update-alone", "a gradient in which the last occurrence of a row overwrites the others",
            edit(embedding, ADDED, "dE[index[part]] = given[part]"), G + "deeplearning4j/nd4j/issues/2153"),
    Mistake("embedding/stale-numbers", "a gradient whose last block reads the row numbers of the block before",
            edit(embedding, ADDED, "old = slice(part.start - TILE, part.stop - TILE) if part.stop == len(index) > "
                 "TILE else part\nnumpy.add.at(dE, index[old], given[part])"), G + "pytorch/pytorch/pull/187687"),
    Mistake("embedding/update-twice", "a gradient that adds the first number of each block twice",
            edit(embedding, ADDED, ADDED + "\nnumpy.add.at(dE, index[part][:1], given[part][:1])")),
    Mistake("embedding/tail-lost", "a gradient without the numbers after the last whole block",
            edit(embedding, PARTS, "for part in tiles(len(index) // TILE * TILE, TILE):\n    " + ADDED)),
    Mistake("embedding/tail-unwritten", "a table that does not write the numbers after the last whole block",
            edit(embedding, READ, "if part.stop % TILE == 0:\n    " + READ)),
    Mistake("embedding/bfloat16-sums", "a gradient that is added up in bfloat16",
            edit(embedding, ADDED, 'numpy.add.at(dE, index[part], given[part])\ndE = narrow(dE, "bfloat16")')),
    Mistake("embedding/gradient-not-cleared", "a gradient that is written where a row occurs, and nowhere else",
            edit(embedding, "given, dE = as_rows(dy), zeros(E.shape, E)",
                 "given, dE = as_rows(dy), unwritten(E.shape, E)\ndE[index] = 0")),
    Mistake("embedding/number-overflow", "a table whose row numbers are 16-bit numbers",
            edit(embedding, READ, "y[part] = E[wrapped(index[part], 16)]")),
    Mistake("embedding/place-overflow", "a table whose places overflow (32 bits there, 16 in this model)",
            edit(embedding, READ, "place = wrapped(index[part][:, None] * C + numpy.arange(C), 16)\n"
                 "y[part] = E.reshape(-1)[place % E.size]"), G + "flagos-ai/FlagGems/pull/4156"),
    Mistake("embedding/row-begin-overflow",
            "a table whose row begins are unsigned and overflow (32 bits there, 16 in this model)",
            edit(embedding, READ, "begin = index[part][:, None] * C % (1 << 16)\n"
                 "y[part] = E.reshape(-1)[(begin + numpy.arange(C)) % E.size]")),
    Mistake("embedding/columns-cut", "a table of which 32 columns are written",
            edit(embedding, READ, "y[part, :32] = E[index[part], :32]")),
    Mistake("rotary_halves/float32-angles", "rotary positions whose angles are float32",
            edit(turned, ANGLES, 'angles = narrow(narrow(frequencies, "float32") * positions[rows, None], "float32")'),
            G + "huggingface/transformers/pull/29285"),
    Mistake("rotary_halves/bfloat16-angles", "rotary positions whose angles are bfloat16",
            edit(turned, ANGLES, 'angles = narrow(positions[rows, None] * frequencies, "bfloat16")'),
            G + "EleutherAI/gpt-neox/issues/1003"),
    Mistake("rotary_halves/bfloat16-table", "rotary positions whose sines and cosines are bfloat16",
            edit(turned, TABLE, 'c, s = narrow(numpy.cos(angles), "bfloat16").astype(x.dtype), '
                 'narrow(sign * numpy.sin(angles), "bfloat16").astype(x.dtype)'),
            G + "KellerJordan/modded-nanogpt/issues/39"),
    Mistake("rotary_halves/float16-positions", "rotary positions that are float16 numbers",
            edit(turned, ANGLES, 'angles = narrow(1.0 * positions[rows, None], "float16") * frequencies')),
    *(
        Mistake(f"rotary_halves/recurrence-in-{dtype}",
                f"rotary positions of which each is that before turned once more, in {dtype}",
                edit(turned, FREQUENCIES,
                     f'{FREQUENCIES}\ncosines, sines = turned_on(positions, frequencies, "{dtype}")',
                     TABLE, "c, s = cosines[rows].astype(x.dtype), (sign * sines[rows]).astype(x.dtype)"))
        for dtype in ("float32", "float16", "bfloat16")
    ),
    Mistake("rotary_halves/short-table", "rotary positions that are taken modulo a table of 2,048",
            edit(turned, ANGLES, "angles = positions[rows, None] % 2048 * frequencies")),
    Mistake("rotary_halves/position-overflow", "rotary positions that are 16-bit numbers",
            edit(turned, ANGLES, "angles = wrapped(positions[rows, None], 16) * frequencies")),
    Mistake("rotary_halves/row-instead-of-position", "rotary positions that count the rows from 0",
            edit(turned, ANGLES, "angles = numpy.arange(rows.start, rows.stop)[:, None] * frequencies")),
    Mistake("rotary_halves/row-of-tile", "rotary positions that begin again in every tile",
            edit(turned, ANGLES, "angles = positions[: rows.stop - rows.start, None] * frequencies")),
    Mistake("rotary_halves/padded-width", "rotary frequencies of the width rounded up to a power of 2",
            edit(turned, FREQUENCIES, "frequencies = base ** (-numpy.arange(0, D, 2) / (1 << (D - 1).bit_length()))")),
    Mistake("rotary_halves/not-turned-back", "a rotary gradient that turns on, not back",
            edit(rotary_halves, "return turned(dy, positions, base, slice(0, half), slice(half, None), -1)",
                 "return turned(dy, positions, base, slice(0, half), slice(half, None), 1)")),
    Mistake("rotary_halves/in-place", "a rotation whose second half reads what the first has written",
            edit(turned, "y[..., rows, other] = b * c + a * s", "y[..., rows, other] = b * c + y[..., rows, one] * s")),
    Mistake("rotary_interleaved/halves", "pairs of halves where pairs of neighbours are asked for",
            edit(rotary_interleaved, "return turned(x, positions, base, slice(0, None, 2), slice(1, None, 2), 1), "
                 "rotary_interleaved_back", "half = x.shape[-1] // 2\nreturn turned(x, positions, base, slice(0, half),"
                 " slice(half, None), 1), rotary_interleaved_back")),
    Mistake("adamw/tail-unwritten", "an update that does not write the numbers after whole vectors of four",
            edit(adamw, P, "if (block.stop - block.start) % 4 == 0:\n    " + P)),
    Mistake("adamw/first-block-alone", "an update of the first 65,536 numbers",
            edit(adamw, P, "new_p[block] = parameter[block]\nif block.start < 65536:\n    " + P)),
    Mistake("adamw/index-overflow", "an update whose block numbers overflow (16 bits there, 8 in this model)",
            edit(adamw, P, "place = wrapped(block.start // THREADS, 8) * THREADS % (1 << 18)\n"
                 "new_p[place : place + block.stop - block.start] = decayed - lr * "
                 "(m_hat / (numpy.sqrt(v_hat) + eps))")),
    Mistake("adamw/float32-betas", "an update whose beta1 and beta2 are float32",
            edit(adamw, FLAT, "beta1, beta2 = float(numpy.float32(beta1)), float(numpy.float32(beta2))\n" + FLAT)),
    Mistake("adamw/float32-corrections", "an update whose beta1 and beta2 and their powers are float32",
            edit(adamw, FLAT, "beta1, beta2 = numpy.float32(beta1), numpy.float32(beta2)\n"
                 "first_kept, second_kept = (float(1 - beta ** numpy.float32(step)) for beta in (beta1, beta2))\n"
                 "beta1, beta2 = float(beta1), float(beta2)\n" + FLAT,
                 "m_hat = new_m[block] / (1 - beta1**step)", "m_hat = new_m[block] / first_kept",
                 "v_hat = new_v[block] / (1 - beta2**step)", "v_hat = new_v[block] / second_kept")),
    Mistake("adamw/float16-squares", "an update whose squares are float16",
            edit(adamw, V, 'new_v[block] = beta2 * second[block] + (1 - beta2) * narrow(gradient[block] ** 2, '
                 '"float16")')),
    Mistake("adamw/bfloat16-moment", "an update whose first moment is bfloat16",
            edit(adamw, NEW_M, 'new_m[block] = narrow(beta1 * first[block] + (1 - beta1) * gradient[block], '
                 '"bfloat16")')),
    Mistake("adamw/old-moment", "an update that reads the first moment before it is renewed",
            edit(adamw, M, "m_hat = first[block] / (1 - beta1**step)")),
    Mistake("adamw/moment-in-place", "a second moment that adds the square of the new first moment",
            edit(adamw, V, V.replace("gradient[block] ** 2", "new_m[block] ** 2"))),
    Mistake("adamw/correction-outside-root", "an update that divides √v, and not v, by 1 - β₂^t",
            edit(adamw, P,
                 "new_p[block] = decayed - lr * (m_hat / (numpy.sqrt(new_v[block]) / (1 - beta2**step) + eps))")),
    Mistake("adamw/step-of-eight-bits", "an update whose step is an 8-bit number",
            edit(adamw, M, "m_hat = new_m[block] / (1 - beta1 ** (step % 256))",
                 "v_hat = new_v[block] / (1 - beta2**step)", "v_hat = new_v[block] / (1 - beta2 ** (step % 256))")),
    Mistake("clip_by_global_norm/tail-lost", "a norm without the numbers of each array after its last whole block",
            edit(sum_of_squares, CHUNKS, "for part in tiles(x.size // BLOCK * BLOCK, BLOCK):")),
    Mistake("clip_by_global_norm/tail-of-long-lost",
            "a norm without the numbers after the last whole block of each array that has one",
            edit(sum_of_squares, CHUNKS,
                 "for part in tiles(x.size // BLOCK * BLOCK or x.size, BLOCK):")),
    Mistake("clip_by_global_norm/last-block-alone", "a norm of the last block of each array",
            edit(sum_of_squares, CHUNKS, "for part in list(tiles(x.size, BLOCK))[-1:]:")),
    Mistake("clip_by_global_norm/tail-overlaps",
            "a norm whose last block is moved back to be whole, where the numbers count twice",
            edit(sum_of_squares, SUMMED, "begin = max(0, part.stop - BLOCK)\n"
                 "squares = squares + (x[begin : part.stop] ** 2).sum()")),
    Mistake("clip_by_global_norm/short-arrays-lost", "a norm without the arrays that are shorter than a block",
            edit(clip_by_global_norm, ARRAYS, "for x in [x for x in g if x.size >= BLOCK]:")),
    Mistake("clip_by_global_norm/last-array-lost", "a norm without the last array",
            edit(clip_by_global_norm, ARRAYS, "for x in g[:-1]:")),
    Mistake("clip_by_global_norm/first-array-lost", "a norm without the first array",
            edit(clip_by_global_norm, ARRAYS, "for x in g[1:]:")),
    Mistake("clip_by_global_norm/array-twice", "a norm in which the last array counts twice",
            edit(clip_by_global_norm, ARRAYS, "for x in [*g, g[-1]]:")),
    Mistake("clip_by_global_norm/overwritten", "a norm that is that of the last array",
            edit(clip_by_global_norm, ARRAYS, "for x in g[-1:]:")),
    Mistake("clip_by_global_norm/joined-with-padding",
            "a norm of arrays joined in whole blocks, whose padding has the last number of its array",
            edit(sum_of_squares, SUMMED,
                 "squares = squares + (x[part] ** 2).sum() + (part.start - part.stop) % BLOCK * x[-1] ** 2")),
]
