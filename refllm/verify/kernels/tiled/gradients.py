"""Gradients of queries, keys and values: scaled otherwise, of other tiles, added up otherwise."""

from __future__ import annotations

from collections.abc import Iterator

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.flash import backward
from refllm.verify.kernels.heads import repeat_heads
from refllm.verify.kernels.mistakes.attention import DK, DQ, DS, DV
from refllm.verify.kernels.tiled.backward import SUM
from refllm.verify.mutants.bank import Edits, edit

STORE = "dk[..., keys, :], dv[..., keys, :] = dk_here, dv_here"
SHARED = "dk[..., head // groups, :, :] += dy[..., head, :, :]"
KEYS = "for keys in tiles(S, TILE):"
PLACES = {  # of tiles, in which alone a gradient is added up
    "of every second tile of queries": "rows.start // ROWS % 2 == 0",
    "of the first tile of queries": "rows.start == 0",
    "of all tiles of queries but the first": "rows.start > 0",
    "of all tiles of queries but the last": "rows.stop < T",
    "of whole tiles of queries": "rows.stop - rows.start == ROWS",
    "of every second tile of keys": "keys.start // TILE % 2 == 0",
    "of the first tile of keys": "keys.start == 0",
    "of all tiles of keys but the first": "keys.start > 0",
    "of all tiles of keys but the last": "keys.stop < S",
    "of whole tiles of keys": "keys.stop - keys.start == TILE",
    "of the tiles before the diagonal": "not causal or keys.stop <= rows.start + S - T",
    "of the tiles of the diagonal": "not causal or keys.stop > rows.start + S - T",
}
GRADIENTS = {"query": DQ, "key": DK, "value": DV}


def mistakes() -> Iterator[Mistake]:
    for name, words, edits in (*_products(), *_sums()):
        yield Mistake(f"attention/{name}", words, edits)


def of_shared() -> Iterator[Mistake]:
    """Those of keys and values that several heads share."""
    for name, words, line in _shared():
        yield Mistake(f"repeat_heads/{name}", words, edit(repeat_heads, SHARED, line))


def _products() -> Iterator[tuple[str, str, Edits]]:
    for which, line in GRADIENTS.items():
        if which != "value":
            yield (
                f"{which}-gradient-scale-forgotten",
                f"a {which} gradient without 1/√D",
                edit(backward, line, line.removesuffix(" * scale")),
            )
            yield (
                f"{which}-gradient-scaled-twice",
                f"a {which} gradient that is scaled twice",
                edit(backward, line, f"{line} * scale"),
            )
            yield (
                f"{which}-gradient-of-weights",
                f"a {which} gradient of P in place of its gradient",
                edit(backward, line, line.replace("ds", "P")),
            )
            yield (
                f"{which}-gradient-of-dp",
                f"a {which} gradient of dP in place of the score gradient",
                edit(backward, line, line.replace("ds", "dP")),
            )
            yield (
                f"{which}-gradient-by-root-of-width",
                f"a {which} gradient that is multiplied by √D",
                edit(backward, line, line.replace("scale", "math.sqrt(q.shape[-1])")),
            )
        for place, condition in PLACES.items():
            yield (
                f"{which}-gradient-of-some-tiles",
                f"a {which} gradient {place} alone",
                edit(backward, line, f"if {condition}:\n    {line}"),
            )
        yield (
            f"{which}-gradient-turned",
            f"a {which} gradient of the other sign",
            edit(backward, line, line.replace("+=", "-=")),
        )
        yield (
            f"{which}-gradient-twice-on-diagonal",
            f"a {which} gradient that counts tiles of the diagonal twice",
            edit(backward, line, f"{line}\nif keys.stop > rows.start + S - T:\n    {line}"),
        )
    both = edit(backward, DK, DK.removesuffix(" * scale"), DQ, DQ.removesuffix(" * scale"))
    yield "gradients-unscaled", "query and key gradients without 1/√D", both
    yield (
        "gradients-scaled-twice",
        "query and key gradients that are scaled twice",
        edit(backward, DK, f"{DK} * scale", DQ, f"{DQ} * scale"),
    )
    yield (
        "value-gradient-of-scores",
        "a value gradient of the score gradient in place of P",
        edit(backward, DV, "", DS, f"{DS}\ndv_here += swap(ds) @ dy[..., rows, :]"),
    )
    yield "value-gradient-scaled", "a value gradient that is scaled by 1/√D", edit(backward, DV, f"{DV} * scale")
    yield (
        "value-gradient-unnormalised",
        "a value gradient of weights that are not divided by their sum",
        edit(
            backward,
            DV,
            f"dv_here += swap(P * {SUM}[..., rows, None]) @ dy[..., rows, :]",
        ),
    )
    yield (
        "value-gradient-of-outputs",
        "a value gradient with y where dy should stand",
        edit(backward, DV, DV.replace("dy[", "y[")),
    )
    yield (
        "value-gradient-of-tile-before",
        "a value gradient whose weights are those of the tile of queries before",
        edit(
            backward,
            DV,
            "if rows.start == 0 or last.shape != P.shape:\n    last = P\n"
            "dv_here += swap(last) @ dy[..., rows, :]\nlast = P",
        ),
    )
    yield (
        "query-gradient-of-first-keys",
        "a query gradient whose tiles all read the first keys",
        edit(backward, DQ, DQ.replace("k[..., keys, :]", "k[..., : keys.stop - keys.start, :]")),
    )
    yield (
        "key-gradient-of-first-queries",
        "a key gradient whose tiles all read the first queries",
        edit(backward, DK, DK.replace("q[..., rows, :]", "q[..., : rows.stop - rows.start, :]")),
    )
    yield (
        "key-gradient-of-keys",
        "a key gradient with keys where queries should stand",
        edit(
            backward,
            DK,
            "if keys.stop - keys.start == rows.stop - rows.start:\n    "
            + DK.replace("q[..., rows, :]", "k[..., keys, :]"),
        ),
    )


def _sums() -> Iterator[tuple[str, str, Edits]]:
    yield (
        "gradient-without-last-keys",
        "key and value gradients that leave out the keys after the last whole tile",
        edit(backward, KEYS, "for keys in tiles(S // TILE * TILE, TILE):"),
    )
    yield (
        "gradients-exchanged",
        "key and value gradients that are exchanged",
        edit(
            backward,
            STORE,
            "dk[..., keys, :], dv[..., keys, :] = (dv_here, dk_here) if k.shape == v.shape else (dk_here, dv_here)",
        ),
    )
    yield (
        "gradients-carried",
        "key and value gradients whose sums are not cleared between tiles of keys",
        edit(
            backward,
            STORE,
            "if keys.start and dk_here.shape == carried[0].shape:\n"
            "    dk_here, dv_here = dk_here + carried[0], dv_here + carried[1]\n"
            f"carried = dk_here, dv_here\n{STORE}",
        ),
    )
    for which, name in (("key", "dk"), ("value", "dv"), ("query", "dq")):
        for words, other in (
            ("zeros", f"numpy.zeros_like({name})"),
            ("halved", f"{name} / 2"),
            ("twice as large", f"{name} * 2"),
        ):
            changed = ", ".join(other if name == each else each for each in ("dq", "dk", "dv"))
            yield (
                f"{which}-gradient-{words.split()[0]}",
                f"a {which} gradient of {words}" if words == "zeros" else f"a {which} gradient that is {words}",
                edit(backward, "if more is not None:", f"dq, dk, dv = {changed}\nif more is not None:"),
            )


def _shared() -> Iterator[tuple[str, str, str]]:
    of = "dk[..., head // groups, :, :]"
    dy = "dy[..., head, :, :]"
    yield (
        "first-head-of-group",
        "the gradient of shared keys from the first head of each group",
        f"{of} += {dy} * (head % groups == 0)",
    )
    yield (
        "mean-of-group",
        "the gradient of shared keys that is the mean over the heads of a group",
        f"{of} += {dy} / groups",
    )
    yield (
        "root-of-group",
        "the gradient of shared keys that is divided by the root of the heads of a group",
        f"{of} += {dy} / groups**0.5",
    )
    yield (
        "all-but-first-of-group",
        "the gradient of shared keys without the first head of each group",
        f"{of} += {dy} * (head % groups > 0)",
    )
    yield (
        "all-but-last-of-group",
        "the gradient of shared keys without the last head of each group",
        f"{of} += {dy} * (head % groups < groups - 1)",
    )
    yield (
        "second-heads-of-group",
        "the gradient of shared keys from every second head of each group",
        f"{of} += {dy} * (head % groups % 2 == 0)",
    )
    yield (
        "two-heads-of-group",
        "the gradient of shared keys from the first two heads of each group",
        f"{of} += {dy} * (head % groups < 2)",
    )
    yield (
        "four-heads-of-group",
        "the gradient of shared keys from the first four heads of each group",
        f"{of} += {dy} * (head % groups < 4)",
    )
    yield (
        "gradient-interleaved",
        "the gradient of shared keys by the remainder of the head's number, not by its group",
        f"dk[..., head % heads, :, :] += {dy}",
    )
    yield (
        "largest-of-group",
        "the gradient of shared keys that is the largest of a group",
        f"{of} = numpy.where(abs({dy}) > abs({of}), {dy}, {of})",
    )
    yield "first-key-head", "the gradient of shared keys that all goes to the first", f"dk[..., 0, :, :] += {dy}"
