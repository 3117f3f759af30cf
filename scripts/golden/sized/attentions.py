"""Sized cases of attention, its variants, rotations and groups of heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from golden.sized.recipe import Asked, bits, by, count, integers, listed, normal, of

EMPTY, ALIGNED = ("empty_row",), ("causal_alignment",)

# leading axes, queries, keys, width of a head, causal, profile of the queries
SHAPES: list[tuple[tuple[int, ...], int, int, int, bool, str]] = [
    ((2,), 31, 31, 32, False, "normal"), ((3,), 32, 32, 40, True, "normal"), ((5,), 33, 33, 64, True, "normal"),
    ((1, 3), 63, 63, 80, True, "normal"), ((1, 7), 64, 64, 96, False, "peaked"), ((3, 1), 65, 65, 64, True, "peaked"),
    ((3,), 127, 127, 65, True, "normal"), ((1, 3), 128, 128, 128, True, "normal"),
    ((3, 3), 129, 129, 40, True, "normal"),
    ((1,), 129, 129, 256, True, "normal"), ((1,), 65, 65, 256, False, "outlier"), ((5,), 257, 257, 33, True, "peaked"),
    ((1, 3), 255, 257, 64, True, "normal"), ((1,), 513, 513, 64, True, "normal"), ((1,), 511, 511, 40, False, "offset"),
    ((1,), 1023, 1023, 32, False, "normal"), ((1,), 1025, 1025, 64, True, "normal"),
    ((1,), 2049, 2049, 40, True, "normal"),
    # with a cache: fewer queries than keys
    ((3,), 1, 1025, 64, True, "normal"), ((1, 7), 1, 129, 128, True, "peaked"), ((3,), 5, 1029, 80, True, "normal"),
    ((1,), 33, 2049, 64, True, "normal"), ((3,), 17, 1023, 96, False, "normal"), ((2,), 65, 129, 40, True, "normal"),
    ((3,), 7, 4097, 32, True, "peaked"),
    # more queries than keys, one of either, none
    ((3,), 129, 33, 64, False, "normal"), ((3,), 33, 1, 40, False, "normal"), ((0, 3), 33, 33, 64, True, "normal"),
    ((3,), 0, 33, 64, False, "normal"), ((1025,), 3, 5, 8, True, "normal"),
    # scores far below 0: about -800 to -1,000
    ((3,), 65, 129, 64, False, "low"), ((1, 3), 129, 129, 40, True, "low"), ((7,), 1, 1025, 64, True, "low"),
    # more queries than keys, causal: the first queries have no key
    ((3,), 65, 33, 40, True, "normal"),
]  # fmt: skip


# texts of unequal length, the second one empty, with more queries than keys
TEXTS: tuple[tuple[int, ...], int, int] = ((2, 3), 65, 33)
PADDED = {"profile": "lengths", "shape": [2, 1, 1, 33], "lengths": [29, 0]}


def _padded(operation: str, D: int, more: dict[str, Any], how: dict[str, Any], words: str = "") -> Asked:
    """A variant of attention with a mask, which some rows leave without a key."""
    lead, T, S = TEXTS
    return Asked(
        operation,
        f"{by(lead)}x{T}x{S}x{D}-padded",
        f"{_about(T, S, D, False)}{words}, masked: texts of unequal length, one of them empty",
        {**_inputs(lead, T, S, D), **more},
        {**how, "causal": False, "allowed": PADDED},
        meets=EMPTY,
    )


def _about(T: int, S: int, D: int, causal: bool) -> str:
    return f"{T:,} queries, {S:,} keys, heads of {D}{', causal' if causal else ''}"


def _inputs(
    lead: tuple[int, ...], T: int, S: int, D: int, profile: str = "normal", E: int | None = None
) -> dict[str, Any]:
    if profile == "low":
        k = of("low", *lead, S, D, exponent=-3)
        return {"q": of("positive", *lead, T, D), "k": k, "v": normal(*lead, S, E or D)}
    return {"q": of(profile, *lead, T, D), "k": normal(*lead, S, D), "v": normal(*lead, S, E or D)}


def attention() -> Iterator[Asked]:
    for lead, T, S, D, causal, profile in SHAPES:
        yield Asked(
            "attention",
            f"{by(lead)}x{T}x{S}x{D}-{profile}{'-causal' if causal else ''}",
            _about(T, S, D, causal),
            _inputs(lead, T, S, D, profile),
            {"causal": causal, "allowed": None},
            meets=(ALIGNED if causal and T != S else ()) + (EMPTY if causal and S < T else ()),
        )
    yield Asked(
        "attention",
        "1x8193x8193x32-causal",
        "a context of 8,193",
        _inputs((1,), 8193, 8193, 32),
        {"causal": True, "allowed": None},
        slow=True,
    )
    yield Asked(
        "attention",
        "1x5x8193x64-causal",
        "five queries after a context of 8,193",
        _inputs((1,), 5, 8193, 64),
        {"causal": True, "allowed": None},
        slow=True,
        meets=ALIGNED,
    )
    masks: list[tuple[str, str, tuple[int, ...], int, int, dict[str, Any], bool]] = [
        ("bits", "each pair by itself", (3,), 65, 129, bits(65, 129), False),
        ("bits-own", "a mask for each head", (2, 3), 33, 65, bits(2, 3, 33, 65, chance=64), False),
        (
            "padded",
            "texts of unequal length, one of them empty",
            (3, 2),
            129,
            129,
            {"profile": "lengths", "shape": [3, 1, 1, 129], "lengths": [129, 65, 0]},
            False,
        ),
        (
            "padded-causal",
            "texts of unequal length, causal",
            (3, 1),
            257,
            257,
            {"profile": "lengths", "shape": [3, 1, 1, 257], "lengths": [257, 128, 33]},
            True,
        ),
        (
            "packed",
            "documents of uneven length",
            (3,),
            257,
            257,
            {"profile": "documents", "shape": [257, 257], "borders": [0, 1, 33, 64, 193]},
            False,
        ),
        (
            "packed-causal",
            "documents of uneven length, causal",
            (1,),
            1025,
            1025,
            {"profile": "documents", "shape": [1025, 1025], "borders": [0, 31, 32, 500, 1024]},
            True,
        ),
    ]
    for slug, about, lead, T, S, mask, causal in masks:
        empty = slug in ("bits-own", "padded")
        yield Asked(
            "attention",
            f"{by(lead)}x{T}x{S}x64-{slug}",
            f"masked: {about}",
            _inputs(lead, T, S, 64),
            {"causal": causal, "allowed": mask},
            meets=EMPTY if empty else (),
        )


def attention_with_lse() -> Iterator[Asked]:
    for lead, T, S, D, causal, profile in [SHAPES[n] for n in (2, 5, 12, 18, 20, 30)]:
        yield Asked(
            "attention_with_lse",
            f"{by(lead)}x{T}x{S}x{D}-{profile}",
            _about(T, S, D, causal),
            _inputs(lead, T, S, D, profile),
            {"causal": causal, "allowed": None},
            meets=ALIGNED if T != S else (),
        )
    yield _padded("attention_with_lse", 40, {}, {})


def packed_attention() -> Iterator[Asked]:
    for lead, borders, D, causal in [
        ((3,), (0, 1, 33, 64, 129), 40, True),
        ((1,), (0, 31, 32, 257), 64, False),
        ((1, 3), (0, 65, 193, 200), 96, True),
        ((1,), (0, 500, 1025), 32, True),
    ]:
        T = borders[-1] + (7 if D == 96 else 0)
        yield Asked(
            "packed_attention",
            f"{by(lead)}x{T}x{D}{'-causal' if causal else ''}",
            f"{len(borders) - 1} documents of uneven length in {T:,} places",
            _inputs(lead, T, T, D),
            {"borders": listed(*borders), "key_borders": listed(*borders), "causal": causal},
            meets=EMPTY if D == 96 else (),
        )
    # Documents with other keys than queries: fewer, more by another number in each, none at all.
    for borders, key_borders, causal in [
        ((0, 33, 34, 65), (0, 31, 96, 129), True),
        ((0, 17, 33, 33, 65), (0, 0, 64, 97, 129), False),
    ]:
        yield Asked(
            "packed_attention",
            f"2x65x129x40-own-borders{'-causal' if causal else ''}",
            f"{len(borders) - 1} documents, each of its own number of queries and of keys",
            _inputs((2,), borders[-1], key_borders[-1], 40),
            {"borders": listed(*borders), "key_borders": listed(*key_borders), "causal": causal},
            meets=EMPTY,
        )


def sliding_window_attention() -> Iterator[Asked]:
    for lead, T, S, D, window in [
        ((3,), 129, 129, 40, 33),
        ((1,), 257, 257, 64, 128),
        ((3,), 5, 1025, 64, 129),
        ((1,), 513, 513, 32, 1),
    ]:
        yield Asked(
            "sliding_window_attention",
            f"{by(lead)}x{T}x{S}x{D}-{window}",
            f"{_about(T, S, D, False)}, a window of {window}",
            _inputs(lead, T, S, D),
            {"window": window, "allowed": None},
        )
    for T, S, allowed in [(33, 65, bits(33, 65)), (65, 33, None)]:
        yield Asked(
            "sliding_window_attention",
            f"2x{T}x{S}x40-9{'-bits' if allowed else ''}",
            f"{_about(T, S, 40, False)}, a window of 9{', and a mask' if allowed else ''}",
            _inputs((2,), T, S, 40),
            {"window": 9, "allowed": allowed},
            meets=() if allowed else EMPTY,
        )


def relative_attention() -> Iterator[Asked]:
    for lead, T, S, D, causal in [
        ((1, 3), 65, 65, 40, True),
        ((2, 3), 33, 129, 64, False),
        ((1, 1), 513, 513, 32, True),
    ]:
        yield Asked(
            "relative_attention",
            f"{by(lead)}x{T}x{S}x{D}{'-causal' if causal else ''}",
            f"{_about(T, S, D, causal)}, and a bias",
            {**_inputs(lead, T, S, D), "r": normal(lead[-1], T + S - 1)},
            {"causal": causal, "allowed": None},
        )
    yield _padded("relative_attention", 32, {"r": normal(3, 97)}, {}, ", and a bias")


def capped_attention() -> Iterator[Asked]:
    for lead, T, S, D, profile in [
        ((3,), 65, 65, 64, "peaked"),
        ((1,), 257, 257, 96, "normal"),
        ((3,), 1, 1025, 64, "outlier"),
    ]:
        yield Asked(
            "capped_attention",
            f"{by(lead)}x{T}x{S}x{D}-{profile}",
            f"{_about(T, S, D, True)}, scores below 50",
            _inputs(lead, T, S, D, profile),
            {"cap": 50.0, "causal": True, "allowed": None},
            meets=ALIGNED if T != S else (),
        )
    yield Asked(
        "capped_attention",
        "3x65x65x64-normal-cap-2",
        f"{_about(65, 65, 64, True)}, scores below 2: a masked key at -2 shows, at -50 it hardly does",
        _inputs((3,), 65, 65, 64, "normal"),
        {"cap": 2.0, "causal": True, "allowed": None},
    )
    yield _padded("capped_attention", 40, {}, {"cap": 3.0}, ", scores below 3")


def sink_attention() -> Iterator[Asked]:
    for lead, T, S, D in [((1, 3), 65, 65, 64), ((2, 7), 33, 33, 40), ((1, 3), 1, 1025, 64)]:
        yield Asked(
            "sink_attention",
            f"{by(lead)}x{T}x{S}x{D}",
            f"{_about(T, S, D, True)}, and a sink",
            {**_inputs(lead, T, S, D), "sink": normal(lead[-1], exponent=1)},
            {"causal": True, "allowed": None},
            meets=ALIGNED if T != S else (),
        )
    yield _padded("sink_attention", 40, {"sink": normal(3, exponent=1)}, {}, ", and a sink")


def normed_attention() -> Iterator[Asked]:
    for lead, T, S, D, profile in [((1, 3), 65, 65, 96, "outlier"), ((3,), 33, 257, 128, "wide")]:
        yield Asked(
            "normed_attention",
            f"{by(lead)}x{T}x{S}x{D}-{profile}",
            f"{_about(T, S, D, True)}, queries and keys normed",
            {**_inputs(lead, T, S, D, profile), "gq": of("positive", D), "gk": of("positive", D)},
            {"eps": 1e-6, "causal": True, "allowed": None},
            meets=ALIGNED if T != S else (),
        )
    gains = {"gq": of("positive", 40), "gk": of("positive", 40)}
    yield _padded("normed_attention", 40, gains, {"eps": 0.125}, ", queries and keys normed")


def grouped_attention() -> Iterator[Asked]:
    for B, T, heads, kv, D, rotation in [
        (1, 33, 3, 3, 40, "rotary"),
        (3, 33, 7, 1, 32, "rotary"),
        (1, 65, 8, 1, 64, "rotary_interleaved"),
        (1, 129, 14, 2, 32, "rotary"),
        (2, 17, 16, 2, 40, "rotary"),
    ]:
        C, scale = 65, -3
        yield Asked(
            "grouped_attention",
            f"{B}x{T}-{heads}-{kv}x{D}-{rotation.replace('_', '-')}",
            f"{heads // kv} query heads a key head, {T} places",
            {
                "x": normal(B, T, C),
                "p.Wq": normal(C, heads * D, exponent=scale),
                "p.Wk": normal(C, kv * D, exponent=scale),
                "p.Wv": normal(C, kv * D, exponent=scale),
                "p.Wo": normal(heads * D, C, exponent=scale - 1),
            },
            {
                "heads": heads,
                "kv_heads": kv,
                "rotation": rotation,
                "positions": count(T, start=1000),
                "base": 10000.0,
                "causal": True,
                "allowed": None,
            },
        )
    yield Asked(
        "grouped_attention",
        "2x33-6-2x16-own-positions",
        "3 query heads a key head, positions of their own for each text, one of the texts shorter",
        {
            "x": normal(2, 33, 17),
            "p.Wq": normal(17, 96, exponent=-2),
            "p.Wk": normal(17, 32, exponent=-2),
            "p.Wv": normal(17, 32, exponent=-2),
            "p.Wo": normal(96, 17, exponent=-3),
        },
        {
            "heads": 6,
            "kv_heads": 2,
            "rotation": "rotary",
            "positions": integers(2, 33, below=2048),
            "base": 10000.0,
            "causal": False,
            "allowed": {"profile": "lengths", "shape": [2, 1, 1, 33], "lengths": [33, 19]},
        },
    )


def repeat_heads() -> Iterator[Asked]:
    for shape, groups in [((2, 33, 40), 7), ((1, 3, 129, 64), 8), ((3, 1, 65), 1)]:
        yield Asked(
            "repeat_heads",
            f"{by(shape)}-{groups}",
            f"{groups} query heads a key head",
            {"k": normal(*shape)},
            {"groups": groups},
        )


# --- rotations --------------------------------------------------------------------------------------------------------

TURNED = [
    ((3, 33, 64), 0, 10000.0), ((1, 3, 65, 40), 1000, 10000.0), ((3, 31, 80), 4095, 10000.0),
    ((1, 129, 96), 131072 - 129, 10000.0),
    ((3, 9, 128), 131072 - 9, 500000.0), ((1, 7, 256), 131071 - 6, 10000.0), ((2, 5, 1025, 8), 0, 10000.0),
]  # fmt: skip


def _turned(operation: str, which: list[int], **more: Any) -> Iterator[Asked]:
    for n in which:
        shape, start, base = TURNED[n]
        last = start + shape[-2] - 1
        yield Asked(
            operation,
            f"{by(shape)}-at-{last}",
            f"positions to {last:,}, heads of {shape[-1]}, base {base:g}",
            {"x": normal(*shape)},
            {"positions": count(shape[-2], start=start), "base": base, **more},
        )


def rotary_halves() -> Iterator[Asked]:
    return _turned("rotary_halves", [0, 1, 2, 3, 4, 5, 6])


def rotary_interleaved() -> Iterator[Asked]:
    return _turned("rotary_interleaved", [0, 1, 2, 3, 4, 5])


def partial_rotary() -> Iterator[Asked]:
    yield from _turned("partial_rotary", [1, 3], turned=24, layout="halves")
    yield from _turned("partial_rotary", [4], turned=32, layout="interleaved")
