"""The softmax on the way, its state, and keys that are split among several: what is lost or counted twice."""

from __future__ import annotations

from collections.abc import Iterator

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.flash import attended, forward
from refllm.verify.kernels.mistakes.attention import NEW, PV, SHIFT, SKIP, SUMS, TOP, Y, Z
from refllm.verify.mutants.bank import Edits, edit

RESCALE, P = "rescale = numpy.exp(top - shift)", "P = numpy.exp(s - shift)"
STATE = "shift, Z, sums = zeros(top.shape, q), zeros(top.shape, q), zeros((*top.shape[:-1], v.shape[-1]), q)"
ZEROS = "zeros(top.shape, q)"
CALL = "y, L = forward(q, k, v, causal, allowed, None, kind)"
S = "s = scores(q, k, rows, keys, causal, allowed, window, kind)"
RISES = ("5.545177444479562", "8", "1", "2", "4", "10", "2.772588722239781", "11.090354888959125", "16", "0.5", "20")
TILES = {  # in which tiles of keys
    "at every second tile of keys": "keys.start // TILE % 2 == 0",
    "at every other second tile of keys": "keys.start // TILE % 2 == 1",
    "in all tiles of keys but the last": "keys.stop < S",
    "at the second tile of keys alone": "keys.start <= TILE",
    "from the third tile of keys on": "keys.start > TILE",
    "in whole tiles of keys alone": "keys.stop - keys.start == TILE",
    "at every fourth tile of keys": "keys.start // TILE % 4 == 0",
    "before the diagonal alone": "keys.stop <= rows.start + S - T or not causal",
}
OF = {"sum and output": (RESCALE, RESCALE), "output": (SUMS, SUMS), "sum": (Z, Z)}


def mistakes() -> Iterator[Mistake]:
    for name, words, edits in (*_rescaled(), *_states(), *_maxima(), *_weights(), *_split()):
        yield Mistake(f"attention/{name}", f"attention {words}", edits)


def _only(of: str, condition: str) -> Edits:
    """What is rescaled where a condition holds alone."""
    chosen = f"numpy.where({condition}, rescale, 1)"
    line = {
        "sum and output": f"{RESCALE}\nrescale = {chosen}",
        "output": f"sums = sums * {chosen}",
        "sum": f"Z = Z * {chosen} + P.sum(axis=-1, keepdims=True)",
    }[of]
    return edit(forward, OF[of][0], line)


def _rescaled() -> Iterator[tuple[str, str, Edits]]:
    for of in OF:
        for rise in RISES:
            words = f"whose {of} so far is rescaled only where the maximum rises by more than {float(rise):.4g}"
            yield "lazy-rescale", words, _only(of, f"new - top > {rise}")
        for words, condition in TILES.items():
            yield "rescaled-sometimes", f"whose {of} so far is rescaled {words}", _only(of, condition)
    yield "rescale-turned", "that rescales by the inverse", edit(forward, RESCALE, "rescale = numpy.exp(shift - top)")
    yield (
        "rescale-twice",
        "whose output so far is rescaled twice",
        edit(forward, SUMS, "sums = sums * rescale * rescale"),
    )
    yield (
        "rescale-late",
        "that rescales its output with the new tile in it",
        edit(forward, PV, "sums = sums + (P @ v[..., keys, :]) * rescale"),
    )
    yield (
        "sum-rescale-late",
        "that rescales its sum with the new tile in it",
        edit(forward, Z, "Z = (Z + P.sum(axis=-1, keepdims=True)) * rescale"),
    )
    yield (
        "rescale-of-one-before",
        "whose output so far is rescaled by the factor of the tile before",
        edit(forward, STATE, f"{STATE}\nold = 1", SUMS, "sums, old = sums * old, rescale"),
    )
    from_last = "numpy.exp(last - shift)"
    for what, old in (("sum and output so far are", RESCALE), ("sum so far is", Z), ("output so far is", SUMS)):
        new = f"rescale = {from_last}" if old == RESCALE else old.replace("rescale", from_last)
        yield (
            "rescale-from-last-tile",
            f"whose {what} rescaled from the maximum of the tile before, not from that of all before",
            edit(
                forward,
                TOP,
                f"{TOP}\nlast = top",
                old,
                new,
                "top = new",
                "last, top = s.max(axis=-1, keepdims=True), new",
            ),
        )
    yield (
        "rescale-to-base-2",
        "whose rescaling is to the base 2",
        edit(forward, RESCALE, "rescale = numpy.exp2(top - shift)"),
    )
    yield (
        "rescale-of-first-row",
        "that rescales all queries of a tile as the first",
        edit(forward, RESCALE, "rescale = numpy.exp(top - shift)[..., :1, :]"),
    )
    for bound in ("0.5", "0.00390625", "1e-3", "0.000244140625", "1e-4", "1.52587890625e-05", "1e-6", "1e-8"):
        words = f"whose rescaling is at least {float(bound):.4g}"
        yield (
            "rescale-bounded",
            words,
            edit(forward, RESCALE, f"rescale = numpy.maximum(numpy.exp(top - shift), {bound})"),
        )


def _states() -> Iterator[tuple[str, str, Edits]]:
    """A sum or an output that is not cleared is rescaled by exp(-∞) = 0 unless the maximum is kept too."""
    sum_of_one = STATE.replace("Z, sums = zeros(top.shape, q), zeros(top.shape, q)", f"Z, sums = {ZEROS}, {ZEROS} + 1")
    for start in ("0", "-1.0", "-10.0", "1.0"):
        yield (
            "maximum-and-sum-begin",
            f"whose maximum begins with {float(start):g} and whose sum with 1",
            edit(forward, TOP, TOP.replace("-INFINITY", start), STATE, sum_of_one),
        )
    begin, old = "rows.start == 0 or rows.stop - rows.start < ROWS", "before = (top, Z, sums) if rows.start else None\n"
    kept = {
        "maximum and sum": "top, Z = before[:2]",
        "maximum and output": "top, sums = before[0], before[2]",
        "state": "top, Z, sums = before",
    }
    for what, line in kept.items():
        yield (
            "state-kept",
            f"whose {what} is not cleared between tiles of queries",
            edit(forward, TOP, old + TOP, STATE, f"{STATE}\nif not ({begin}):\n    {line}"),
        )


def _maxima() -> Iterator[tuple[str, str, Edits]]:
    yield (
        "maximum-of-last-tile",
        "that keeps the maximum of the last tile, and shifts by the one so far",
        edit(forward, "top = new", "top = s.max(axis=-1, keepdims=True)"),
    )
    yield "maximum-never-kept", "that never keeps a new maximum", edit(forward, "top = new", "top = top")
    yield (
        "maximum-of-first-tile",
        "that keeps the maximum of the first tile",
        edit(forward, "top = new", "top = new if keys.start == 0 else top"),
    )
    yield (
        "maximum-unshifted",
        "whose exponentials are not shifted by the maximum",
        edit(forward, SHIFT, "shift = numpy.zeros_like(new)"),
    )
    yield (
        "maximum-of-old",
        "whose exponentials are shifted by the maximum before this tile",
        edit(forward, P, "P = numpy.exp(s - numpy.where(top == -INFINITY, shift, top))"),
    )
    yield (
        "maximum-of-tile-in-weights",
        "whose exponentials are shifted by the maximum of their tile",
        edit(
            forward, P, "own = s.max(axis=-1, keepdims=True)\nP = numpy.exp(s - numpy.where(own == -INFINITY, 0, own))"
        ),
    )


def _weights() -> Iterator[tuple[str, str, Edits]]:
    yield "to-base-2", "whose exponentials are to the base 2", edit(forward, P, "P = numpy.exp2(s - shift)")
    all_to_2 = edit(forward, P, "P = numpy.exp2(s - shift)", RESCALE, "rescale = numpy.exp2(top - shift)")
    yield "all-to-base-2", "whose exponentials and rescaling are to the base 2", all_to_2
    yield (
        "empty-tile-of-ones",
        "in which a row of a tile without a key has weights of exp(0) = 1",
        edit(forward, P, "P = numpy.where(s.max(axis=-1, keepdims=True) == -INFINITY, 1, numpy.exp(s - shift))"),
    )
    yield (
        "empty-tile-so-far-of-ones",
        "in which a row without a key so far has weights of exp(0) = 1",
        edit(forward, P, "P = numpy.where(new == -INFINITY, 1, numpy.exp(s - shift))"),
    )
    yield (
        "empty-tile-nan",
        "in which a row of a tile without a key gives NaN",
        edit(
            forward, P, "P = numpy.where(s.max(axis=-1, keepdims=True) == -INFINITY, numpy.nan, numpy.exp(s - shift))"
        ),
    )
    unmasked = "numpy.exp(scores(q, k, rows, keys, {}, {}, {}, kind) - shift)"
    for name, words, how in (
        ("summed-before-causal", "whose sum is taken before the causal mask", ("False", "allowed", "window")),
        ("summed-before-mask", "whose sum is taken before the mask", ("causal", "None", "window")),
        ("summed-before-masks", "whose sum is taken before all masks", ("False", "None", "None")),
    ):
        total = f"Z = Z * rescale + {unmasked.format(*how)}.sum(axis=-1, keepdims=True)"
        yield name, words, edit(forward, Z, total, SKIP, "if False:")
        yield f"{name}-in-tiles", f"{words}, in the tiles that are read", edit(forward, Z, total)
    for name, words, line in (
        (
            "tile-without-sum",
            "that divides each tile by its own sum",
            "sums = sums + P @ v[..., keys, :] / P.sum(axis=-1, keepdims=True)",
        ),
        (
            "values-of-first-tile",
            "whose tiles all read the values of the first",
            "sums = sums + P @ v[..., : keys.stop - keys.start, :]",
        ),
        (
            "values-of-next-head",
            "that reads the values of the next head",
            "sums = sums + P @ numpy.roll(v, -1, axis=0)[..., keys, :].reshape(v[..., keys, :].shape)",
        ),
        (
            "last-key-of-tile-lost",
            "that leaves out the last key of each tile",
            "sums = sums + P[..., :-1] @ v[..., keys, :][..., :-1, :]",
        ),
        (
            "first-key-of-tile-lost",
            "that leaves out the first key of each tile",
            "sums = sums + P[..., 1:] @ v[..., keys, :][..., 1:, :]",
        ),
    ):
        yield name, words, edit(forward, PV, line)
    yield (
        "last-key-of-tile-lost",
        "whose weights and sum leave out the last key of each tile",
        edit(forward, P, f"{P}\nP[..., -1] = 0"),
    )
    yield (
        "first-key-of-tile-lost",
        "whose weights and sum leave out the first key of each tile",
        edit(forward, P, f"{P}\nP[..., 0] = 0"),
    )
    yield (
        "keys-of-tile-twice",
        "that counts the first key of each tile but the first twice",
        edit(forward, P, f"{P}\nP[..., 0] *= 1 + (keys.start > 0)"),
    )
    yield "output-times-sum", "whose output is not divided by its sum", edit(forward, Y, "y[..., rows, :] = sums")
    for number in ("1e-6", "1e-5", "1e-3", "1e-8"):
        yield (
            "denominator-of-eps",
            f"with {number} added to its sum",
            edit(forward, Y, f"y[..., rows, :] = sums / (Z + {number})"),
        )
    yield (
        "tail-read-as-zeros",
        "in which keys beyond the end, with score 0, count in the sum and the maximum",
        edit(
            forward,
            Z,
            Z + " + (-S % TILE if keys.stop == S else 0) * numpy.exp(-shift)",
            NEW,
            f"{NEW}\nnew = numpy.maximum(new, 0) if keys.stop == S and S % TILE else new",
        ),
    )


def _split() -> Iterator[tuple[str, str, Edits]]:
    """Keys in parts, each with its own softmax, put together in a wrong way."""
    for each, size in (
        ("in parts of a tile", "TILE"),
        *((f"in {n} parts", f"-(-k.shape[-2] // {n})") for n in (2, 4, 8, 3)),
        *((f"in parts of {n:,}", str(n)) for n in (512, 256, 128, 1024)),
    ):
        for name, words, lines in (
            ("mean", "whose outputs are averaged, without their log-sum-exp", "y = Y.mean(axis=0)"),
            ("sum", "whose outputs are added", "y = Y.sum(axis=0)"),
            ("last", "of which the last alone is kept", "y = Y[-1]"),
            ("first", "of which the first alone is kept", "y = Y[0]"),
            (
                "by-sums",
                "weighted by their sums, without their maxima",
                "w = numpy.exp(M - R)\ny = (Y * w).sum(axis=0) / w.sum(axis=0)",
            ),
            (
                "by-maxima",
                "weighted by their maxima, without their sums",
                "w = numpy.exp(R - R.max(axis=0))\ny = (Y * w).sum(axis=0) / w.sum(axis=0)",
            ),
            (
                "by-log-sum-exp",
                "weighted by their log-sum-exp itself",
                "y = numpy.where(M == -INFINITY, 0, Y * M).sum(axis=0) / numpy.where(M == -INFINITY, 0, M).sum(axis=0)",
            ),
            (
                "to-base-2",
                "weighted by 2 to the power of their log-sum-exp",
                "w = numpy.exp2(M - M.max(axis=0))\ny = (Y * w).sum(axis=0) / w.sum(axis=0)",
            ),
            (
                "from-base-2",
                "weighted by e to the power of their log-sum-exp to the base 2",
                "w = numpy.exp((M - M.max(axis=0)) / math.log(2))\ny = (Y * w).sum(axis=0) / w.sum(axis=0)",
            ),
            ("by-counts", "weighted by how many keys they see", "w = C / C.sum(axis=0)\ny = (Y * w).sum(axis=0)"),
            (
                "without-last",
                "of which the last is not merged",
                "w = numpy.exp(M - M.max(axis=0))\nw[-1] *= len(w) == 1\ny = (Y * w).sum(axis=0) / w.sum(axis=0)",
            ),
        ):
            yield (
                f"split-keys-{name}",
                f"over keys {each}, {words}",
                edit(
                    attended,
                    CALL,
                    f"{CALL}\nY, M, R, C = in_parts(q, k, v, causal, allowed, kind, {size})\n{lines}\n"
                    "y = numpy.where(numpy.isfinite(L)[..., None], y, 0)",
                ),
            )
