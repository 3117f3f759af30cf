"""L1: RMS norm, the gate, rotary positions, repeated heads, biases by distance and attention with one."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw
from golden.cases.layers import GRID, NEAR


def rms_norm() -> list[Case]:
    def case(slug: str, about: str, x: Any, eps: float = 1e-6) -> Case:
        id = f"T5-REL/rms-{slug}"
        x = np.array(x, dtype=np.float64)
        g = Draw(id).normal(x.shape[-1])
        return Case(id, "rms_norm", about, {"x": x, "g": g}, {"eps": eps})

    def normal(slug: str, *shape: int, **spread: float) -> np.ndarray:
        return Draw(f"T5-REL/rms-{slug} x").normal(*shape, **spread)

    return [
        case("vector", "one row of five", normal("vector", 5)),
        case("rows", "over the last axis, row by row; a mean far from 0 stays", normal("rows", 3, 4, offset=2.0)),
        case("square", "a square: the wrong axis has the right shape", normal("square", 3, 3)),
        case("batch", "two leading dimensions; the gradient of g sums over both", normal("batch", 2, 2, 3)),
        case("one-wide", "C = 1: the sign of x times g", normal("one", 3, 1)),
        case("zero-row", "a row of zeros gives zeros, not NaN; the row beside it is not harmed",
             [[0.0] * 3, [1, -2, 4]]),
        case("tiny", "mean squares of about 1e-6: eps decides, and its place inside the root shows",
             normal("tiny", 3, 4, scale=1e-3)),
        case("large-eps", "eps = 0.25 inside the root, not beside it", normal("large-eps", 2, 4), eps=0.25),
        case("large", "numbers of thousands: eps is nothing", normal("large", 2, 4, scale=4096.0)),
        case("wide", "C = 16", normal("wide", 1, 16)),
        case("eps-1e-5", "eps = 1e-5 (Llama 2), mean squares of about 1e-6", normal("eps-1e-5", 2, 4, scale=1e-3),
             eps=1e-5),
        case("eps-1e-3", "eps = 1e-3, mean squares of about 1e-4", normal("eps-1e-3", 2, 4, scale=1e-2), eps=1e-3),
        case("eps-1e-8", "eps = 1e-8, mean squares of about 1e-8", normal("eps-1e-8", 2, 4, scale=1e-4), eps=1e-8),
        case("no-rows", "an empty batch has empty answers and a gradient of zeros for the gain", np.zeros((0, 4))),
    ]  # fmt: skip


def silu() -> list[Case]:
    def case(slug: str, about: str, x: np.ndarray) -> Case:
        return Case(f"FFN/silu-{slug}", "silu", about, {"x": x}, {})

    return [
        case("grid", "from -8 to 8", GRID),
        case("near-zero", "where it differs most from GELU and ReLU", NEAR),
        case("batch", "any shape", Draw("FFN/silu-batch").normal(2, 2, 3, scale=2.0)),
        case("large", "far out: 0 on the left, x on the right, never NaN", np.array([-1000.0, -100.0, 100.0, 1000.0])),
    ]


def multiply() -> list[Case]:
    def case(slug: str, about: str, *shape: int) -> Case:
        draw = Draw(f"FFN/multiply-{slug}")
        return Case(f"FFN/multiply-{slug}", "multiply", about, {"a": draw.normal(*shape), "b": draw.normal(*shape)}, {})

    return [case("vector", "element by element", 5), case("batch", "three dimensions", 2, 2, 3)]


# --- rotary positions ------------------------------------------------------------------------------------------------


def _rotary(layout: str) -> list[Case]:
    def case(slug: str, about: str, shape: tuple[int, ...], positions: Any, base: float = 10000.0) -> Case:
        id = f"LONG/rotary-{layout}-{slug}"
        keywords = {"positions": np.array(positions), "base": base}
        return Case(id, f"rotary_{layout}", about, {"x": Draw(id).normal(*shape)}, keywords)

    other = "(2i, 2i + 1)" if layout == "halves" else "(i, i + D/2)"
    return [
        case("from-zero", f"positions 0 to 3; the pairs are not {other}", (4, 8), range(4)),
        case("square", "as many positions as entries", (6, 6), range(6)),
        case("from-seven", "positions 7 to 9, as after a cache of seven", (3, 6), [7, 8, 9]),
        case("one-pair", "D = 2: both layouts are one", (3, 2), [0, 1, 5]),
        case("heads", "the same positions in every head of (B, H, T, D)", (2, 2, 3, 4), range(3)),
        case("own-per-row", "positions (B, 1, T): every sentence has its own, shared by its heads", (2, 2, 3, 4),
             [[[0, 1, 2]], [[0, 0, 1]]]),
        case("per-entry", "positions (B, T) of x (B, T, D), in no order", (2, 3, 4), [[3, 0, 9], [2, 2, 1]]),
        case("base-500000", "the base of Llama 3", (3, 8), [1, 30, 900], base=500000.0),
        case("context-131072", "positions up to 131071, as in Llama 3.1: a float32 angle has lost its turn",
             (3, 8), [65537, 100003, 131071], base=500000.0),
        case("context-131072-base-10000", "the same with the base of 2021", (3, 8), [65537, 100003, 131071]),
        case("far", "positions about 16000: an angle of thousands needs all of its digits", (4, 8),
             [1000, 4095, 16000, 16383]),
        case("far-base-500000", "the same with the base of Llama 3", (2, 8), [8191, 131071], base=500000.0),
    ]  # fmt: skip


def rotary_halves() -> list[Case]:
    return _rotary("halves")


def rotary_interleaved() -> list[Case]:
    return _rotary("interleaved")


# --- heads that are shared -------------------------------------------------------------------------------------------


def repeat_heads() -> list[Case]:
    def case(slug: str, about: str, shape: tuple[int, ...], groups: int) -> Case:
        id = f"LONG/repeat-{slug}"
        return Case(id, "repeat_heads", about, {"k": Draw(id).normal(*shape)}, {"groups": groups})

    return [
        case("two-of-two", "heads 0, 0, 1, 1 and not 0, 1, 0, 1; the gradients of a group are summed", (2, 3, 2), 2),
        case("one-head", "one key head for all queries", (1, 2, 3), 3),
        case("batch", "(B, G, S, D)", (2, 3, 2, 2), 2),
        case("one-group", "as many key heads as query heads: the identity", (3, 2, 2), 1),
    ]


# --- a bias by distance ----------------------------------------------------------------------------------------------


def _t5(form: str) -> list[Case]:
    def case(slug: str, about: str, K: int, H: int, queries: int, keys: int, farthest: int) -> Case:
        id = f"T5-REL/{form}-{slug}"
        keywords = {"queries": queries, "keys": keys, "farthest": farthest}
        return Case(id, f"t5_bias_{form}", about, {"E": Draw(id).normal(K, H)}, keywords)

    shown = 4 if form == "causal" else 8
    return [
        case("square", "as many queries as keys", shown, 2, 4, 4, 6),
        case("cache", "one query after many keys: the query is the last of them", shown, 2, 1, 6, 16),
        case("more-keys", "T < S", shown, 1, 3, 7, 5),
        case("more-queries", "T > S: the first queries stand before every key", shown, 2, 5, 3, 6),
        case("one-token", "a single distance, 0", shown, 3, 1, 1, 8),
        case("beyond", "distances beyond `farthest` share the last row", shown, 1, 2, 24, 8),
        case("many-rows", "more rows than distances: the last rows have no gradient", 4 * shown, 2, 3, 3, 40),
        case("published", "32 rows and 128, as published: distances 8, 16, 32, 64, 128 on the borders", 32, 1, 2, 140,
             128),
    ]  # fmt: skip


def t5_bias_causal() -> list[Case]:
    return _t5("causal")


def t5_bias_bidirectional() -> list[Case]:
    return _t5("bidirectional")


def alibi() -> list[Case]:
    def case(slug: str, about: str, m: list[float], queries: int, keys: int) -> Case:
        keywords = {"queries": queries, "keys": keys}
        return Case(f"LONG/alibi-{slug}", "alibi", about, {"m": np.array(m)}, keywords)

    return [
        case("square", "the distance counts on both sides of the query", [0.25, 0.0625], 3, 3),
        case("cache", "one query after five keys", [0.5, 0.25, 0.125], 1, 6),
        case("more-keys", "T < S", [0.5], 2, 5),
        case("more-queries", "T > S", [1.0, 0.5], 4, 2),
        case("uneven", "slopes in no order, one of them 0", [0.375, 0.0, 0.75], 2, 3),
    ]


def relative_attention() -> list[Case]:
    def case(
        slug: str, about: str, *, T: int, S: int, D: int, E: int, H: int, batch: tuple[int, ...] = (),
        causal: bool = False, allowed: Any = None, scale: float = 1.0,
    ) -> Case:  # fmt: skip
        id = f"T5-REL/attention-{slug}"
        draw = Draw(id)
        inputs = {
            "q": draw.normal(*batch, H, T, D),
            "k": draw.normal(*batch, H, S, D),
            "v": draw.normal(*batch, H, S, E),
            "r": draw.normal(H, T + S - 1, scale=scale),
        }
        allowed = None if allowed is None else np.array(allowed, dtype=bool)
        return Case(id, "relative_attention", about, inputs, {"causal": causal, "allowed": allowed})

    return [
        case("square", "an entry of r for every distance, which every query shares", T=3, S=3, D=2, E=2, H=2),
        case("causal", "causal: the entries of later keys have no gradient", T=4, S=4, D=3, E=2, H=1, causal=True),
        case("cache", "causal with T < S, as with a cache", T=2, S=5, D=2, E=2, H=2, causal=True),
        case("one-query", "one new token after four cached ones", T=1, S=5, D=2, E=1, H=2, causal=True),
        case("more-queries", "T > S; the first queries see nothing", T=4, S=2, D=2, E=2, H=1, causal=True),
        case("batch", "the gradient of r sums over the batch", T=2, S=2, D=2, E=2, H=3, batch=(2,)),
        case("padding", "a mask (B, 1, 1, S)", T=2, S=3, D=2, E=2, H=2, batch=(2,), causal=True,
             allowed=[[[[True, True, False]]], [[[False, True, True]]]]),
        case("large", "biases of tens outweigh every score", T=2, S=3, D=2, E=2, H=1, scale=8.0),
        case("unequal-widths", "d_v differs from d_k; the bias is not scaled", T=3, S=4, D=16, E=1, H=1),
        case("long", "causal over 66 queries, beyond a tile of 64", T=66, S=66, D=1, E=1, H=1, causal=True),
        case("long-keys", "520 keys, beyond a tile of 512: the bias goes on where the tile ends", T=2, S=520, D=1, E=1,
             H=1, causal=True),
    ]  # fmt: skip
