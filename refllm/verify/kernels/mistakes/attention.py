"""Mistakes of attention in tiles."""

from __future__ import annotations

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.flash import attended, backward, forward, scores, sliding_window_attention
from refllm.verify.kernels.heads import repeat_heads
from refllm.verify.mutants.bank import edit

NEW, SHIFT = "new = numpy.maximum(top, s.max(axis=-1, keepdims=True))", "shift = numpy.where(new == -INFINITY, 0, new)"
Z, SUMS = "Z = Z * rescale + P.sum(axis=-1, keepdims=True)", "sums = sums * rescale"
PV, Y = "sums = sums + P @ v[..., keys, :]", "y[..., rows, :] = sums / numpy.where(Z == 0, 1, Z)"
PRODUCT = "s = q[..., rows, :] @ swap(k[..., keys, :]) * (1 / math.sqrt(D))"
SKIP = "if causal and keys.start > rows.stop - 1 + S - T:"
NO_OFFSET = "if causal and keys.start > rows.stop - 1:"
CAUSAL = "s = numpy.where(key <= row + S - T, s, -INFINITY)"
WINDOW = "s = numpy.where(key > row + S - T - window, s, -INFINITY)"
TOP = "top = numpy.full((*q.shape[:-2], rows.stop - rows.start, 1), -INFINITY, q.dtype)"
MASK = "s = numpy.where(mask[..., rows, keys], s, -INFINITY)"
DELTA = "delta = (dy * y).sum(axis=-1, keepdims=True)"
DK, DV = "dk_here += swap(ds) @ q[..., rows, :] * scale", "dv_here += swap(P) @ dy[..., rows, :]"
DQ, DS = "dq[..., rows, :] += ds @ k[..., keys, :] * scale", "ds = P * (dP - delta[..., rows, :])"
P_BACK = "P = numpy.exp(scores(q, k, rows, keys, causal, allowed, window, kind) - L[..., rows, None])"

G = "https://github.com/"
# fmt: off
MISTAKES = [
    Mistake("attention/no-rescale", "attention whose output so far is not rescaled when the maximum rises",
            edit(forward, SUMS, "sums = sums * 1")),
    Mistake("attention/tile-before-rescaled",
            "attention whose output of the tile before alone is rescaled when the maximum rises, not the output so far",
            edit(forward, TOP, TOP + "\nlast = 0", SUMS, "sums = sums - last + last * rescale",
                 PV, "last = P @ v[..., keys, :]\nsums = sums + last")),
    Mistake("attention/maximum-from-zero", "attention whose maximum begins with 0, where rows far below it vanish",
            edit(forward, TOP, TOP.replace("-INFINITY", "0"))),
    Mistake("attention/sum-not-rescaled", "attention whose sum so far is not rescaled when the maximum rises",
            edit(forward, Z, "Z = Z + P.sum(axis=-1, keepdims=True)")),
    Mistake("attention/maximum-of-tile", "attention whose maximum is that of the last tile, and the rescaling with it",
            edit(forward, NEW, "new = s.max(axis=-1, keepdims=True)",
                 "rescale = numpy.exp(top - shift)", "rescale = numpy.exp(numpy.minimum(top - shift, 0))")),
    Mistake("attention/last-keys-lost", "attention that leaves out the keys after the last whole tile",
            edit(forward, "for keys in tiles(S, TILE):", "for keys in tiles(S // TILE * TILE if S > TILE else S, "
                 "TILE):")),
    Mistake("attention/padded-keys-counted", "attention in which keys beyond the end, with score 0, count in the sum",
            edit(forward, Z, Z + " + (-S % TILE if keys.stop == S and not causal else 0) * numpy.exp(-shift)")),
    Mistake("attention/last-queries-unwritten", "attention that does not write the queries after the last whole tile",
            edit(forward, "for rows in tiles(T, ROWS):", "for rows in tiles(T // ROWS * ROWS, ROWS):")),
    Mistake("attention/diagonal-tile-skipped", "causal attention that skips the tile in which the diagonal ends",
            edit(forward, "if causal and keys.start > rows.stop - 1 + S - T:",
                 "if causal and 0 < keys.start > rows.stop - TILE + S - T:")),
    Mistake("attention/offset-in-whole-tiles",
            "causal attention that skips tiles of keys by S - T rounded down to whole tiles",
            edit(forward, SKIP, "if causal and keys.start > rows.start + (S - T) // TILE * TILE:")),
    Mistake("attention/tiles-without-offset",
            "causal attention that counts its tiles of keys without S - T, where a cache holds the first keys",
            edit(forward, SKIP, NO_OFFSET) + edit(backward, SKIP, NO_OFFSET)),
    Mistake("attention/tiles-without-offset-in-value",
            "causal attention that counts its tiles of keys without S - T on the way there alone",
            edit(forward, SKIP, NO_OFFSET)),
    Mistake("attention/tiles-without-offset-in-gradient",
            "a causal gradient that counts its tiles of keys without S - T, where a cache holds the first keys",
            edit(backward, SKIP, NO_OFFSET)),
    Mistake("attention/mask-in-tiles-of-equal-number",
            "causal attention that masks within the tiles of equal number alone, as if T were S",
            edit(scores, "if causal:", "if causal and keys.start == rows.start:")),
    Mistake("attention/tiles-as-if-square",
            "causal attention that masks within the tiles of equal number alone, and skips others, as if T were S",
            edit(forward, SKIP, "if causal and keys.start > rows.start + (S - T) // TILE * TILE:")
            + edit(scores, "if causal:", "if causal and keys.start == rows.start:")),
    Mistake("attention/causal-top-left", "causal attention aligned at the first key, where there are more keys",
            edit(scores, CAUSAL, "s = numpy.where(key <= row, s, -INFINITY)")
            + edit(forward, SKIP, NO_OFFSET) + edit(backward, SKIP, NO_OFFSET),
            G + "Dao-AILab/flash-attention/issues/282"),
    Mistake("attention/causal-strict", "causal attention whose queries do not see their own key",
            edit(scores, CAUSAL, "s = numpy.where(key < row + S - T, s, -INFINITY)")),
    Mistake("attention/causal-by-tile", "causal attention that masks whole tiles alone",
            edit(scores, CAUSAL, "s = numpy.where(key // TILE <= (row + S - T) // TILE, s, -INFINITY)")),
    Mistake("attention/causal-row-of-tile", "causal attention that counts its queries from the begin of each tile",
            edit(scores, CAUSAL, "s = numpy.where(key - keys.start <= row - rows.start + max(keys.start < rows.start, "
                 "0) * TILE, s, -INFINITY)")),
    Mistake("attention/width-cut", "attention whose scores come from the first 64 columns of a head",
            edit(scores, PRODUCT, PRODUCT.replace("q[..., rows, :]", "q[..., rows, :64]")
                 .replace("k[..., keys, :]", "k[..., keys, :64]")), G + "triton-lang/triton/issues/621"),
    Mistake("attention/width-tail-lost", "attention whose scores leave out columns of a head after a multiple of 32",
            edit(scores, PRODUCT, PRODUCT.replace("q[..., rows, :]", "q[..., rows, : D // 32 * 32 or D]")
                 .replace("k[..., keys, :]", "k[..., keys, : D // 32 * 32 or D]"))),
    Mistake("attention/values-cut", "attention that writes the first 64 columns of a head",
            edit(forward, Y, "y[..., rows, :64] = (sums / numpy.where(Z == 0, 1, Z))[..., :64]"),
            G + "NVIDIA/FasterTransformer/issues/89"),
    Mistake("attention/scale-of-padded-width", "attention scaled by the root of the width rounded up to a power of 2",
            edit(scores, PRODUCT, PRODUCT.replace("math.sqrt(D)", "math.sqrt(1 << (D - 1).bit_length())"))),
    Mistake("attention/scale-twice", "attention scaled once on the queries and once on the scores",
            edit(scores, PRODUCT, PRODUCT.replace("math.sqrt(D)", "D"))),
    Mistake("attention/mask-stride", "attention whose mask is read as if its rows had the length of T",
            edit(scores, MASK, "flat = mask.reshape(*mask.shape[:-2], -1)\n"
                 "s = numpy.where(flat[..., (row * T + key) % (T * S)], s, -INFINITY)")),
    Mistake("attention/mask-of-first", "attention in which every batch reads the mask of the first",
            edit(scores, MASK, "first = mask.reshape(-1, T, S)[0]\ns = numpy.where(first[rows, keys], s, -INFINITY)")),
    Mistake("attention/mask-by-remainder",
            "attention whose batch and head n, counted through, reads the mask n % (the number of masks)",
            edit(scores, MASK, "flat = mask.reshape(-1, T, S)\n"
                 "number = numpy.arange(math.prod(q.shape[:-2])) % max(len(flat), 1)\n"
                 "mask = flat[number].reshape(*q.shape[:-2], T, S)\n" + MASK)),
    Mistake("attention/mask-turned", "attention that forbids what its mask allows",
            edit(scores, MASK, "s = numpy.where(mask[..., rows, keys], -INFINITY, s)")),
    Mistake("attention/mask-added", "attention that adds a boolean mask to its scores as 0 or 1",
            edit(scores, MASK, "s = s + mask[..., rows, keys]"), G + "huggingface/transformers/pull/41443"),
    Mistake("attention/nothing-minus-nothing", "attention in which (-∞) - (-∞) makes NaN of a tile without a key",
            edit(forward, SHIFT, "shift = new"), G + "flashinfer-ai/flashinfer/pull/4401"),
    Mistake("attention/nothing-by-nothing", "attention in which 0 / 0 makes NaN of a row without a key",
            edit(forward, Y, "y[..., rows, :] = sums / Z"), G + "robertknight/rten/pull/1321"),
    Mistake("attention/masked-by-a-number", "attention that masks by -10,000 added, so that empty rows have a mean",
            edit(scores, MASK, "s = numpy.where(mask[..., rows, keys], s, -10000.0)")),
    Mistake("attention/float16-weights", "attention whose weights are float16",
            edit(forward, PV, 'sums = sums + narrow(P, "float16") @ v[..., keys, :]')),
    Mistake("attention/tf32-weights", "attention whose weights are cut to tf32",
            edit(forward, PV, 'sums = sums + narrow(P, "tf32") @ v[..., keys, :]')),
    Mistake("attention/bfloat16-output", "attention whose output so far is bfloat16",
            edit(forward, PV, 'sums = narrow(sums + P @ v[..., keys, :], "bfloat16")')),
    Mistake("attention/float16-scores", "attention whose scores are float16",
            edit(scores, PRODUCT, "s = narrow(q[..., rows, :] @ swap(k[..., keys, :]) * (1 / math.sqrt(D)), "
                 '"float16")')),
    Mistake("attention/fast-exponential", "attention whose exponentials have 8 bits",
            edit(forward, "P = numpy.exp(s - shift)", 'P = narrow(numpy.exp(s - shift), "bfloat16")')),
    Mistake("attention/sum-without-last-tile", "attention whose sum leaves out its last tile of keys",
            edit(forward, Z, "Z = Z * rescale + (P.sum(axis=-1, keepdims=True) if keys.stop < S or S <= TILE else 0)")),
    Mistake("attention/stale-values", "attention whose last tile reads the values of the tile before",
            edit(forward, PV, "old = v[..., keys, :] if keys.stop < S or S <= TILE else "
                 "v[..., keys.start - TILE : keys.stop - TILE, :]\nsums = sums + P @ old")),
    Mistake("attention/query-tiles-share-a-sum", "attention whose sum is not cleared between tiles of queries",
            edit(forward, "y[..., rows, :] = sums / numpy.where(Z == 0, 1, Z)",
                 "y[..., rows, :] = sums / (numpy.where(Z == 0, 1, Z) + (rows.start > 0))")),
    Mistake("attention/denominator-one-more", "attention with 1 added to its sum after the shift",
            edit(forward, Y, "y[..., rows, :] = sums / (1 + Z)"), G + "kyegomez/AttentionIsOFFByOne/issues/5"),
    Mistake("attention/key-gradient-overwritten", "a key gradient of the last tile of queries alone",
            edit(backward, DK, DK.replace("+=", "="))),
    Mistake("attention/value-gradient-overwritten", "a value gradient of the last tile of queries alone",
            edit(backward, DV, DV.replace("+=", "="))),
    Mistake("attention/query-gradient-overwritten", "a query gradient of the last tile of keys alone",
            edit(backward, DQ, DQ.replace("+=", "="))),
    Mistake("attention/query-gradient-lost-updates", "a query gradient that loses every second tile of keys",
            edit(backward, DQ, "if keys.start // TILE % 2 == 0:\n    " + DQ)),
    Mistake("attention/gradient-tail", "key and value gradients without the queries after the last whole tile",
            edit(backward, "for rows in tiles(T, ROWS):", "for rows in tiles(T // ROWS * ROWS, ROWS):")),
    Mistake("attention/no-delta", "a score gradient without the sum over dy y",
            edit(backward, DS, "ds = P * dP")),
    Mistake("attention/delta-of-first-columns", "a score gradient whose sum over dy y takes the first 32 columns",
            edit(backward, DELTA, "delta = (dy * y)[..., :32].sum(axis=-1, keepdims=True)")),
    Mistake("attention/key-gradient-unscaled", "a key gradient without 1/√D",
            edit(backward, DK, "dk_here += swap(ds) @ q[..., rows, :]")),
    Mistake("attention/gradient-without-mask", "a gradient whose weights do not know the mask",
            edit(backward, P_BACK, P_BACK.replace("causal, allowed", "causal, None")
                 .replace("numpy.exp(scores", "numpy.exp(0 * L[..., rows, None] + scores"))),
    Mistake("attention/log-sum-exp-in-bfloat16", "a gradient whose log-sum-exp is bfloat16",
            edit(backward, P_BACK, P_BACK.replace("L[..., rows, None]", 'narrow(L[..., rows, None], "bfloat16")'))),
    Mistake("attention/log-sum-exp-of-maximum", "a gradient whose log-sum-exp is the maximum alone",
            edit(forward, "L[..., rows] = numpy.where(Z == 0, INFINITY, shift + numpy.log(numpy.where(Z == 0, 1, "
                 "Z)))[..., 0]", "L[..., rows] = numpy.where(Z == 0, INFINITY, shift)[..., 0]")),
    Mistake("attention/score-gradient-in-bfloat16", "a score gradient that is stored in bfloat16",
            edit(backward, DS, 'ds = narrow(P * (dP - delta[..., rows, :]), "bfloat16")')),
    Mistake("attention/all-read-first-head", "attention in which every batch and head reads the first one's keys",
            edit(attended, "y, L = forward(q, k, v, causal, allowed, None, kind)",
                 "k = numpy.broadcast_to(k.reshape(-1, *k.shape[-2:])[:1].reshape(*[1] * (k.ndim - 2), *k.shape[-2:]),"
                 " k.shape) if k.size else k\ny, L = forward(q, k, v, causal, allowed, None, kind)")),
    Mistake("sliding_window_attention/one-more", "a window with one key more",
            edit(scores, WINDOW, "s = numpy.where(key >= row + S - T - window, s, -INFINITY)")),
    Mistake("sliding_window_attention/whole-tiles", "a window that is rounded up to whole tiles",
            edit(scores, WINDOW, "s = numpy.where(key // TILE >= (row + S - T - window + 1) // TILE, s, -INFINITY)")),
    Mistake("sliding_window_attention/partial-tile-lost", "a window without the keys of its first, partial tile",
            edit(scores, WINDOW, "s = numpy.where(key // TILE * TILE > row + S - T - window, s, -INFINITY)")),
    Mistake("sliding_window_attention/forgotten-in-gradient", "a window that the gradient does not know",
            edit(sliding_window_attention, "return backward(q, k, v, y, L, dy, True, allowed, window)",
                 "return backward(q, k, v, y, L, dy, True, allowed, None)")),
    Mistake("repeat_heads/interleaved", "shared keys by the remainder of the head's number, not by its group",
            edit(repeat_heads, "y[..., head, :, :] = k[..., head // groups, :, :]",
                 "y[..., head, :, :] = k[..., head % heads, :, :]"),
            G + "XunhaoLai/native-sparse-attention-triton/issues/27"),
    Mistake("repeat_heads/one-head-of-group", "the gradient of shared keys from the last head of each group",
            edit(repeat_heads, "dk[..., head // groups, :, :] += dy[..., head, :, :]",
                 "dk[..., head // groups, :, :] = dy[..., head, :, :]"), G + "marin-community/levanter/pull/449"),
]
