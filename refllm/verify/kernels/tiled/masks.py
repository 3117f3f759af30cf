"""Other masks and scales than the right ones: on both ways, or on one of them, which then disagree."""

from __future__ import annotations

from collections.abc import Iterator

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.flash import backward, forward, scores
from refllm.verify.kernels.mistakes.attention import CAUSAL, MASK, PRODUCT, WINDOW
from refllm.verify.mutants.bank import Edits, edit

Lines = tuple[str, str, str, str]  # an id, what it is in words, the line of `scores`, and what stands in its place
ALLOWED, IF_WINDOW = "if allowed is not None:", "if window is not None:"
BROADCAST = "mask = numpy.broadcast_to(allowed, (*allowed.shape[:-2], T, S))"
SCALE = "(1 / math.sqrt(D))"
SKIP = "if causal and keys.start > rows.stop - 1 + S - T:"
ALL_FORWARD, ALL_BACK = edit(forward, f"{SKIP}\n    break", "pass"), edit(backward, f"{SKIP}\n    continue", "pass")
LATER = tuple(  # of which a query sees keys of tiles after its own
    f"causal-{name}"
    for name in ("never", "top-left", "one-more", "turned", "offset-turned", "square-alone", "without-other", "zero",
                 "by-a-number", "by-tile", "key-of-tile", "not-in")
)  # fmt: skip

_CAUSAL = {  # who is seen: words, condition
    "strict": ("a causal mask without the diagonal (key < query)", "key < row + S - T"),
    "one-more": ("a causal mask that lets each query see the key after its own", "key <= row + S - T + 1"),
    "two-fewer": ("a causal mask that is two keys short", "key < row + S - T - 1"),
    "top-left": ("a causal mask aligned at the first key, without S - T", "key <= row"),
    "offset-turned": ("a causal mask with T - S where S - T should stand", "key <= row + T - S"),
    "turned": ("a causal mask turned around (key >= query)", "key >= row + S - T"),
    "by-tile-place": (
        "a causal mask that counts queries and keys from the begin of their tiles",
        "key - keys.start <= row - rows.start + S - T",
    ),
    "query-of-tile": (
        "a causal mask that counts queries from the begin of their tile",
        "key <= row - rows.start + S - T",
    ),
    "key-of-tile": ("a causal mask that counts keys from the begin of their tile", "key - keys.start <= row + S - T"),
}
_ONLY = {  # when there is a mask at all: words, condition
    "never": ("no causal mask", "False"),
    "not-in-last-tile": ("a causal mask that the last tile of keys has not", "causal and keys.stop < S"),
    "last-tile-alone": ("a causal mask that the last tile of keys alone has", "causal and keys.stop == S"),
    "last-of-each-alone": (
        "a causal mask that the last tile of keys of each tile of queries alone has, though the diagonal crosses two",
        "causal and keys.stop >= min(S, rows.stop + S - T)",
    ),
    "first-crossed-alone": (
        "a causal mask that the first tile of keys alone has which the diagonal of a tile of queries crosses",
        "causal and keys.start <= rows.start + S - T + 1 <= keys.stop",
    ),
    "not-in-first-tile": ("a causal mask that the first tile of keys has not", "causal and keys.start > 0"),
    "not-in-last-queries": ("a causal mask that the last tile of queries has not", "causal and rows.stop < T"),
    "square-alone": ("no causal mask where T is not S", "causal and T == S"),
    "after-queries-of-number": (
        "a causal mask for the tiles of keys from that of the query's number on alone, without S - T",
        "causal and keys.start >= rows.start",
    ),
    "whole-tiles": (
        "no causal mask in the tile that the diagonal begins in",
        "causal and keys.start > rows.start + S - T",
    ),
    "whole-tiles-of-last": (
        "no causal mask in tiles that the last query of the tile sees as a whole",
        "causal and keys.stop > rows.stop + S - T",
    ),
    "without-other-mask": ("no causal mask where there is another mask", "causal and allowed is None"),
}
_FLAT = "flat = mask.reshape(-1, T, S)\nN, M = math.prod(q.shape[:-2]), max(len(flat), 1)\n"
_PUT = "mask = flat[number % M].reshape(*q.shape[:-2], T, S)\n" + MASK


def mistakes() -> Iterator[Mistake]:
    for name, words, old, new in (*_of_causal(), *_of_masks(), *_of_windows(), *_of_scales()):
        operation = "sliding_window_attention" if old in (WINDOW, IF_WINDOW) else "attention"
        there = edit(scores, old, new)
        if name.startswith(LATER):
            more = f"{words}, in all tiles"
            yield from _on_ways(f"{operation}/{name}-everywhere", more, there, there + ALL_FORWARD, there + ALL_BACK)
            words = f"{words}, in the tiles that it reads up to the diagonal"
        yield from _on_ways(f"{operation}/{name}", words, there, there, there)


def _on_ways(id: str, words: str, there: Edits, forward: Edits, back: Edits) -> Iterator[Mistake]:
    """On both ways, and on one of them."""
    both = there + tuple(each for each in (*forward, *back) if each not in there)
    yield Mistake(id, f"attention with {words}", both)
    if "by-a-number" in id:  # the log-sum-exp knows nothing of it: its weights are 0 in the gradient
        return
    of_gradient = f"attention whose gradient recomputes its weights with {words}"
    yield Mistake(f"{id}-in-gradient", of_gradient, back, within="backward")
    yield Mistake(
        f"{id}-in-value", f"attention whose value, and not its gradient, has {words}", forward, within="forward"
    )


def _of_causal() -> Iterator[Lines]:
    for name, (words, condition) in _CAUSAL.items():
        yield f"causal-{name}", words, CAUSAL, f"s = numpy.where({condition}, s, -INFINITY)"
    for name, (words, condition) in _ONLY.items():
        yield f"causal-{name}", words, "if causal:", f"if {condition}:"
    yield "causal-zero", "scores of 0, not -∞, where the causal mask forbids", CAUSAL, CAUSAL.replace("-INFINITY", "0")
    for number in ("-10000.0", "-1e9", "-100.0"):
        words = f"scores of {float(number):g}, not -∞, where the causal mask forbids"
        yield "causal-by-a-number", words, CAUSAL, CAUSAL.replace("-INFINITY", number)


def _of_masks() -> Iterator[Lines]:
    yield "mask-forgotten", "no mask but the causal one", ALLOWED, "if False:"
    yield "mask-not-if-causal", "no other mask where it is causal", ALLOWED, "if allowed is not None and not causal:"
    yield "mask-zero", "scores of 0, not -∞, where the mask forbids", MASK, MASK.replace("-INFINITY", "0")
    for name, words, condition in (
        ("not-in-last-tile", "a mask that the last tile of keys does not read", "keys.stop < S"),
        ("not-in-first-tile", "a mask that the first tile of keys does not read", "keys.start > 0"),
        ("not-in-last-queries", "a mask that the last tile of queries does not read", "rows.stop < T"),
        ("partial-tile-alone", "a mask that a partial tile of keys alone reads", "keys.stop - keys.start < TILE"),
        ("whole-tiles-alone", "a mask that whole tiles of keys alone read", "keys.stop - keys.start == TILE"),
    ):
        yield f"mask-{name}", words, ALLOWED, f"if allowed is not None and {condition}:"
    for name, words, read in (
        ("of-first-query", "a mask whose first row all queries read", "mask[..., :1, keys]"),
        ("of-last-query", "a mask whose last row all queries read", "mask[..., -1:, keys]"),
        (
            "turned-around",
            "a mask of which rows and columns are exchanged",
            "(swap(mask) if T == S else mask)[..., rows, keys]",
        ),
        ("key-of-tile", "a mask read from the first key on in every tile", "mask[..., rows, : keys.stop - keys.start]"),
        (
            "query-of-tile",
            "a mask read from the first query on in every tile",
            "mask[..., : rows.stop - rows.start, keys]",
        ),
        (
            "tile-before",
            "a mask of the tile of keys before",
            "mask[..., rows, max(keys.start - TILE, 0) :][..., : keys.stop - keys.start]",
        ),
        ("one-key-on", "a mask read one key further on", "numpy.roll(mask, -1, axis=-1)[..., rows, keys]"),
        ("one-key-before", "a mask read one key before", "numpy.roll(mask, 1, axis=-1)[..., rows, keys]"),
    ):
        yield f"mask-{name}", words, MASK, f"s = numpy.where({read}, s, -INFINITY)"
    for name, words, number in (
        (
            "by-head",
            "a mask that goes by the head where it is one of the batch",
            "numpy.arange(N) % q.shape[-3 % q.ndim]",
        ),
        (
            "by-quotient",
            "the mask n // (the number of masks) for the batch and head n, counted through",
            "numpy.arange(N) // M",
        ),
        ("of-next", "the mask of the next batch", "numpy.arange(N) // max(N // M, 1) + 1"),
        ("of-one-before", "the mask of the batch before", "numpy.arange(N) // max(N // M, 1) - 1"),
        ("of-last", "the mask of the last batch for all", "numpy.arange(N) * 0 - 1"),
        ("from-behind", "masks in the order from the last to the first", "-1 - numpy.arange(N) // max(N // M, 1)"),
    ):
        yield f"mask-{name}", words, MASK, f"{_FLAT}number = {number}\n{_PUT}"


def _of_windows() -> Iterator[Lines]:
    for name, words, condition in (
        ("short", "a window that is one key short", "key > row + S - T - window + 1"),
        ("longer", "a window that has one key more", "key >= row + S - T - window"),
        ("without-offset", "a window that forgets S - T", "key > row - window"),
        ("twice", "a window of twice its length", "key > row + S - T - 2 * window"),
        ("half", "a window of half its length", "key > row + S - T - window // 2"),
        (
            "of-tile",
            "a window that begins where that of the first query of the tile does",
            "key > rows.start + S - T - window",
        ),
        (
            "of-last-of-tile",
            "a window that begins where that of the last query of the tile does",
            "key > rows.stop - 1 + S - T - window",
        ),
    ):
        yield name, words, WINDOW, f"s = numpy.where({condition}, s, -INFINITY)"
    yield "forgotten", "no window", IF_WINDOW, "if False:"
    words = "scores of 0, not -∞, before the window"
    yield "zero", words, WINDOW, WINDOW.replace("-INFINITY", "0")


def _of_scales() -> Iterator[Lines]:
    for name, words, scale in (
        ("scale-forgotten", "scores without 1/√D", "1"),
        ("scale-of-width", "scores scaled by 1/D", "(1 / D)"),
        ("scale-turned", "scores multiplied by √D", "math.sqrt(D)"),
        ("scale-of-fourth-root", "scores scaled by 1/√√D", "D**-0.25"),
        ("scale-of-keys", "scores scaled by 1/√S", "(1 / math.sqrt(S))"),
        ("scale-of-queries", "scores scaled by 1/√T", "(1 / math.sqrt(T))"),
        (
            "scale-of-all-heads",
            "scores scaled by the root of the width of all heads",
            "(1 / math.sqrt(D * (q.shape[-3] if q.ndim > 2 else 1)))",
        ),
        ("scale-of-64", "scores scaled by 1/√64 whatever D is", "0.125"),
        ("scale-of-128", "scores scaled by 1/√128 whatever D is", "(1 / math.sqrt(128))"),
        (
            "scale-to-base-2",
            "scores in units of log 2 (times 1.4427) for an exponential to the base e",
            "(1.4426950408889634 / math.sqrt(D))",
        ),
        (
            "scale-from-base-2",
            "scores to the base e for an exponential to the base 2",
            "(0.6931471805599453 / math.sqrt(D))",
        ),
        (
            "scale-of-next-width",
            "scores scaled by the root of the width rounded up to a multiple of 32",
            "(1 / math.sqrt(-(-D // 32) * 32))",
        ),
    ):
        yield name, words, PRODUCT, PRODUCT.replace(SCALE, scale)


def skipped_before_windows() -> Iterator[Mistake]:
    """Tiles before a window that are left out by the window of another query than the first of a tile."""
    for name, words, begin in (
        ("by-last-query", "that begins with the tile of keys in which the window of a tile's last query begins",
         "max(rows.stop + S - T - window, 0) // TILE * TILE"),
        ("one-tile-late", "that leaves out the tile of keys in which the window of a tile's first query begins",
         "(max(rows.start + 1 + S - T - window, 0) // TILE + 1) * TILE * (rows.start + 1 + S - T > window)"),
        ("rounded-up", "that begins with the first whole tile of keys in the window of a tile's first query",
         "-(-max(rows.start + 1 + S - T - window, 0) // TILE) * TILE"),
    ):  # fmt: skip
        late = f"if window is not None and keys.start < {begin}:\n    continue"
        there = edit(forward, f"{SKIP}\n    break", f"{SKIP}\n    break\n{late}")
        back = edit(backward, f"{SKIP}\n    continue", f"{SKIP}\n    continue\n{late}")
        of = "sliding_window_attention"
        yield Mistake(f"{of}/skips-{name}", f"a window {words}", there + back)
        yield Mistake(f"{of}/skips-{name}-in-value", f"a window {words}, in the value alone", there)
        yield Mistake(f"{of}/skips-{name}-in-gradient", f"a window {words}, in the gradient alone", back)


def bounded() -> Iterator[Mistake]:
    """Walks over keys, or over queries in the gradient, whose begin or end is that of one query of a tile, of several
    documents or masks: tiles of keys are left out that another query of the tile sees."""
    seen = "{of}(allowed, rows.start, rows.stop, '{which}')"
    for name, which, words, condition in (
        ("begin-of-last", "last", "begins with the first key", f"keys.stop <= {seen}"),
        ("begin-of-last-exactly", "last", "begins with the first key itself, not with its tile,", ""),
        ("begin-of-middle", "middle", "begins with the first key", f"keys.stop <= {seen}"),
        ("begin-of-first-rounded-up", "first", "begins with the first whole tile of keys", f"keys.start < {seen}"),
        ("begin-of-last-rounded-up", "last", "begins with the first whole tile of keys", f"keys.start < {seen}"),
        ("end-of-first", "first", "ends with the last key", f"keys.start >= {seen}"),
        ("end-of-first-exactly", "first", "ends with the last key itself, not with its tile,", ""),
        ("end-of-middle", "middle", "ends with the last key", f"keys.start >= {seen}"),
        ("end-of-last-rounded-down", "last", "ends with the last whole tile of keys", f"keys.stop > {seen}"),
        ("end-of-first-rounded-down", "first", "ends with the last whole tile of keys", f"keys.stop > {seen}"),
    ):
        bound = "first_seen" if name.startswith("begin") else "last_seen"
        if condition:
            out = f"if allowed is not None and {condition.format(of=bound, which=which)}:\n    continue"
            there, back = (
                edit(forward, f"{SKIP}\n    break", f"{SKIP}\n    break\n{out}"),
                edit(backward, f"{SKIP}\n    continue", f"{SKIP}\n    continue\n{out}"),
            )
        else:
            sign = ">=" if bound == "first_seen" else "<"
            there = edit(scores, MASK, f"{MASK}\ns = numpy.where(key {sign} {seen.format(of=bound, which=which)}, s, "
                         "-INFINITY)")  # fmt: skip
            back = there
        about = f"a walk over keys that {words} that the mask allows to the {which} query of a tile"
        id = f"attention/walk-{name}"
        both = there + tuple(each for each in back if each not in there)
        yield Mistake(id, f"attention with {about}", both)
        yield Mistake(f"{id}-in-value", f"attention whose value, and not its gradient, has {about}", there,
                      within="forward")  # fmt: skip
        yield Mistake(f"{id}-in-gradient", f"attention whose gradient has {about}", back, within="backward")


def skipped() -> Iterator[Mistake]:
    """Tiles that are left out as one who takes T for S, or a query of the tile for another, leaves them out."""
    for name, words, condition in (
        (
            "without-offset",
            "that leaves out tiles of keys as if T were S, without S - T",
            "causal and keys.start > rows.stop - 1",
        ),
        (
            "by-first-query",
            "that leaves out tiles of keys after the first query of a tile",
            "causal and keys.start > rows.start + S - T",
        ),
        (
            "one-too-many",
            "that leaves out the tile of keys that begins with a tile's last query",
            "causal and keys.start >= rows.stop - 1 + S - T",
        ),
        (
            "one-tile-early",
            "that leaves out the last tile of keys that a tile of queries sees",
            "causal and keys.start > max(rows.stop - 1 + S - T - TILE, 0)",
        ),
        (
            "offset-turned",
            "that leaves out tiles of keys by T - S where S - T should stand",
            "causal and keys.start > rows.stop - 1 + T - S",
        ),
        (
            "also-not-causal",
            "that leaves out tiles after the diagonal where it is not causal",
            "keys.start > rows.stop - 1 + S - T",
        ),
        (
            "from-number-of-tiles",
            "that leaves out the tiles of keys from the number of the query's tile on",
            "causal and keys.start // TILE > rows.start // ROWS",
        ),
        ("last-tile", "that leaves out the last tile of keys", "keys.start > 0 and keys.stop == S"),
        ("first-tile", "that leaves out the first tile of keys", "keys.start == 0 and S > TILE"),
    ):
        leave = "continue" if "first-tile" in name else "break"
        there = edit(forward, f"{SKIP}\n    break", f"if {condition}:\n    {leave}")
        back = edit(backward, SKIP, f"if {condition}:")
        yield Mistake(f"attention/skips-{name}", f"attention {words}", there + back)
        yield Mistake(f"attention/skips-{name}-in-value", f"attention {words}, in the value alone", there)
        yield Mistake(f"attention/skips-{name}-in-gradient", f"attention {words}, in the gradient alone", back)
