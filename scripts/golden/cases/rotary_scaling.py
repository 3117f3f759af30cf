"""L1: rotary positions on a part of the head, and beyond the length of training."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw


def partial_rotary() -> list[Case]:
    def case(slug: str, about: str, shape: tuple[int, ...], turned: int, positions: Any, layout: str = "halves",
             base: float = 10000.0) -> Case:  # fmt: skip
        id = f"ROPE-PART/{slug}"
        keywords = {"positions": np.array(positions), "base": base, "turned": turned, "layout": layout}
        return Case(id, "partial_rotary", about, {"x": Draw(id).normal(*shape)}, keywords)

    return [
        case("quarter", "4 of 16 entries: the frequencies are base^(-2i/4)", (3, 16), 4, [1, 2, 9]),
        case("half", "4 of 8", (4, 8), 4, range(4)),
        case("interleaved", "neighbours are pairs: 4 of 8", (4, 8), 4, range(4), "interleaved"),
        case("interleaved-quarter", "4 of 16 as neighbours", (3, 16), 4, [1, 2, 9], "interleaved"),
        case("odd-rest", "6 of 9 entries: the head need not be even", (3, 9), 6, [0, 5, 7]),
        case("one-pair", "one pair of 6: its angle is the position", (3, 6), 2, [1, 2, 3]),
        case("all", "all entries: `rotary_halves`", (3, 6), 6, [1, 2, 3]),
        case("heads", "the same positions in every head", (2, 2, 3, 8), 4, range(3)),
        case("own-per-row", "positions (B, 1, T)", (2, 2, 3, 8), 4, [[[0, 1, 2]], [[5, 6, 9]]]),
        case("base-500000", "another base", (2, 8), 4, [3, 900], base=500000.0),
        case("far", "positions about 16000", (2, 12), 6, [4095, 16383]),
    ]  # fmt: skip


def _case(operation: str, slug: str, about: str, width: int, base: float, **how: Any) -> Case:
    kind = operation.partition("_")[0]
    keywords = {"width": width, "base": base, **how}
    return Case(f"ROPE-SCALE/{kind}-{slug}", operation, about, {}, keywords, gradient=False)


def linear_frequencies() -> list[Case]:
    def case(slug: str, about: str, width: int, base: float, factor: float) -> Case:
        return _case("linear_frequencies", slug, about, width, base, factor=factor)

    return [
        case("four", "the frequencies divided by 4: not multiplied, and not the base", 8, 10000.0, 4.0),
        case("one", "a factor of 1: as trained", 8, 10000.0, 1.0),
        case("half", "a factor below 1: shorter", 8, 10000.0, 0.5),
        case("uneven", "a factor of 2.7", 6, 10000.0, 2.7),
        case("one-pair", "D = 2: 1 / factor", 2, 10000.0, 8.0),
        case("base-500000", "another base", 8, 500000.0, 8.0),
        case("base-one-million", "Gemma 3's global layers: base 1e6, factor 8, D = 32", 32, 1e6, 8.0),
        case("head", "a head of 64", 64, 10000.0, 2.0),
    ]


def ntk_frequencies() -> list[Case]:
    def case(slug: str, about: str, width: int, base: float, factor: float) -> Case:
        return _case("ntk_frequencies", slug, about, width, base, factor=factor)

    return [
        case("four", "the first frequency stays 1, the last is divided by 4", 8, 10000.0, 4.0),
        case("one", "a factor of 1: as trained", 8, 10000.0, 1.0),
        case("half", "a factor below 1", 8, 10000.0, 0.5),
        case("uneven", "a factor of 2.7", 6, 10000.0, 2.7),
        case("two-pairs", "D = 4: the exponent D / (D - 2) is 2", 4, 10000.0, 8.0),
        case("base-500000", "another base", 8, 500000.0, 8.0),
        case("head", "a head of 64", 64, 10000.0, 8.0),
        case("large-factor", "a factor of 32", 16, 10000.0, 32.0),
    ]


def yarn_frequencies() -> list[Case]:
    def case(slug: str, about: str, width: int, base: float, factor: float, original: int, fast: float = 32.0,
             slow: float = 1.0) -> Case:  # fmt: skip
        how = {"factor": factor, "original": original, "beta_fast": fast, "beta_slow": slow}
        return _case("yarn_frequencies", slug, about, width, base, **how)

    return [
        case("llama-2", "a head of 64 trained on 4096 places, factor 16", 64, 10000.0, 16.0, 4096),
        case("llama-2-32", "factor 32: the scale is 0.1 ln 32 + 1", 64, 10000.0, 32.0, 4096),
        case("qwen", "base 1e6, 32768 places, factor 4", 64, 1e6, 4.0, 32768),
        case("narrow", "a head of 8: pairs are few, and the borders whole numbers", 8, 10000.0, 4.0, 2048),
        case("other-betas", "borders of 16 and 2 turns", 32, 10000.0, 8.0, 4096, 16.0, 2.0),
        case("close-betas", "borders between the same two pairs: a step", 16, 10000.0, 8.0, 4096, 3.0, 2.9),
        case("short", "trained on 128 places: only the first pair makes 16 turns", 16, 10000.0, 4.0, 128, 16.0, 1.0),
        case("none-fast", "trained on 64 places: no pair makes 32 turns, the first border is 0", 16, 10000.0, 4.0, 64),
        case("all-stay", "trained on 2^21 places: every pair makes more than 32 turns and stays", 8, 10000.0, 4.0,
             2**21),
        case("beyond-the-last", "every pair makes more than one turn: the line would end at pair 6, and there are "
             "four", 8, 100.0, 4.0, 4096),
        case("beyond-the-width", "the line would end at pair 12 and ends at 7, the width less 1", 8, 10.0, 4.0, 4096,
             128.0),
        case("none-slow", "trained on 6 places: no pair makes a turn, and all but the first are divided", 16, 10000.0,
             4.0, 6),
        case("one", "a factor of 1: as trained, scale 1", 16, 10000.0, 1.0, 2048),
        case("below-one", "a factor of 1/2: the scale stays 1", 16, 10000.0, 0.5, 2048),
        case("base-500000", "another base", 32, 500000.0, 8.0, 8192),
    ]  # fmt: skip


def llama3_frequencies() -> list[Case]:
    def case(slug: str, about: str, width: int, base: float = 500000.0, factor: float = 8.0, original: int = 8192,
             low: float = 1.0, high: float = 4.0) -> Case:  # fmt: skip
        how = {"factor": factor, "original": original, "low_factor": low, "high_factor": high}
        return _case("llama3_frequencies", slug, about, width, base, **how)

    return [
        case("3-1", "Llama 3.1: D = 128, base 500000, factor 8, trained on 8192 places", 128),
        case("3-2", "Llama 3.2: D = 64, factor 32", 64, factor=32.0),
        case("narrow", "a head of 8", 8),
        case("wide-band", "a band from 1 to 64 turns: many pairs lie in it", 32, high=64.0),
        case("low-two", "the band from 2 to 16 turns", 32, low=2.0, high=16.0),
        case("all-stay", "trained on 2^30 places: every pair stays", 8, original=2**30),
        case("all-divided", "trained on 4 places: every pair is divided", 8, original=4),
        case("one", "a factor of 1: as trained", 32, factor=1.0),
        case("base-10000", "another base", 32, base=10000.0),
        case("uneven", "a factor of 2.7, 5000 places", 16, factor=2.7, original=5000),
    ]  # fmt: skip
