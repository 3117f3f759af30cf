"""Sized cases of matrix products: linear, feed-forward, experts, embedding, recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from golden.sized.recipe import Asked, bits, by, count, integers, listed, normal, of

# rows, inner width (the sum), columns
PRODUCTS = [
    ((3,), 31, 33, "normal"), ((5,), 32, 32, "normal"), ((33,), 33, 31, "normal"), ((65,), 64, 63, "wide"),
    ((63,), 65, 129, "normal"), ((127,), 127, 65, "positive"), ((129,), 128, 127, "normal"),
    ((128,), 129, 128, "outlier"),
    ((2, 3, 5), 67, 41, "normal"), ((257,), 96, 255, "normal"), ((17,), 1000, 33, "normal"), ((9,), 1023, 17, "offset"),
    ((7,), 1024, 19, "normal"), ((5,), 1025, 35, "positive"), ((3,), 2049, 33, "wide"), ((33,), 4097, 9, "normal"),
    ((3,), 8191, 17, "positive"), ((2,), 16383, 9, "outlier"), ((3,), 16384, 7, "normal"), ((5,), 16384, 5, "offset"),
    ((1025,), 17, 33, "normal"), ((1,), 1025, 1025, "normal"), ((1025,), 3, 1, "normal"), ((9,), 33, 65, "subnormal"),
    ((0,), 33, 65, "normal"), ((3,), 40, 32000, "normal"),
]  # fmt: skip


def _scale(K: int) -> int:
    """So that a sum of K products has a deviation near 1."""
    return -round(math.log2(K) / 2)


def _about(K: int) -> str:
    return f"sums of {K:,} products"


def matmul() -> Iterator[Asked]:
    for rows, K, N, profile in PRODUCTS:
        large = 100 if profile == "subnormal" else _scale(K)
        yield Asked(
            "matmul",
            f"{by(rows)}x{K}x{N}-{profile}",
            _about(K),
            {
                "x": of(profile, *rows, K),
                "W": of("positive" if profile == "positive" else "normal", K, N, exponent=large),
            },
        )


def linear() -> Iterator[Asked]:
    for rows, K, N, profile in [PRODUCTS[n] for n in (0, 2, 3, 4, 6, 8, 9, 11, 13, 14, 18, 20, 24)]:
        yield Asked(
            "linear",
            f"{by(rows)}x{K}x{N}-{profile}",
            f"{_about(K)}, and a bias",
            {"x": of(profile, *rows, K), "W": normal(K, N, exponent=_scale(K)), "b": normal(N)},
        )
    yield Asked(
        "linear",
        "2x48x50257-normal",
        "the scores of a vocabulary of 50,257",
        {"x": normal(2, 48), "W": normal(48, 50257, exponent=-3), "b": normal(50257)},
    )


def feed_forward() -> Iterator[Asked]:
    for T, C, F, activation in [(33, 65, 129, "gelu_tanh"), (5, 129, 257, "relu"), (3, 1025, 67, "gelu_erf")]:
        p = {"W1": (C, F), "b1": (F,), "W2": (F, C), "b2": (C,)}
        yield Asked(
            "feed_forward",
            f"{T}x{C}x{F}-{activation.replace('_', '-')}",
            f"a width of {C:,}, between {F}",
            {"x": normal(T, C)}
            | {f"p.{n}": normal(*s, exponent=_scale(s[0]) if len(s) > 1 else -2) for n, s in p.items()},
            {"activation": activation},
        )


def gated_feed_forward() -> Iterator[Asked]:
    for T, C, F, profile in [
        (5, 31, 33, "normal"),
        (33, 65, 127, "normal"),
        (7, 128, 344, "outlier"),
        (3, 129, 1025, "normal"),
        (2, 1025, 65, "positive"),
        (1025, 5, 7, "normal"),
    ]:
        yield Asked(
            "gated_feed_forward",
            f"{T}x{C}x{F}-{profile}",
            f"a width of {C:,}, between {F:,}",
            {
                "x": of(profile, T, C),
                "p.Wg": normal(C, F, exponent=_scale(C)),
                "p.W1": normal(C, F, exponent=_scale(C)),
                "p.W2": normal(F, C, exponent=_scale(F)),
            },
            {"activation": "silu"},
        )
    yield Asked(
        "gated_feed_forward",
        "9x33x65-normal-gelu-tanh",
        "a width of 33, between 65, gated by a GELU",
        {
            "x": normal(9, 33),
            "p.Wg": normal(33, 65, exponent=_scale(33)),
            "p.W1": normal(33, 65, exponent=_scale(33)),
            "p.W2": normal(65, 33, exponent=_scale(65)),
        },
        {"activation": "gelu_tanh"},
    )


# --- experts ----------------------------------------------------------------------------------------------------------


def gate() -> Iterator[Asked]:
    for T, E in [(33, 8), (1025, 5), (3, 129)]:
        yield Asked(
            "gate",
            f"{T}x{E}",
            f"{T:,} tokens, {E} experts",
            {"p": of("positive", T, E)},
            {"chosen": integers(T, below=E)},
        )
    yield Asked(
        "gate",
        "4x129-edges",
        "129 experts, the last one among the chosen",
        {"p": of("positive", 4, 129)},
        {"chosen": listed(128, 127, 64, 0)},
    )


def top_experts() -> Iterator[Asked]:
    for T, E, k, renormalise, seed in [
        (33, 8, 2, True, 2),
        (9, 64, 8, True, 0),
        (65, 8, 2, False, 1),
        (5, 129, 6, True, 0),
    ]:
        yield Asked(
            "top_experts",
            f"{T}x{E}-{k}{'-renormalised' if renormalise else ''}",
            f"{T} tokens to {k} of {E} experts each",
            {"scores": of("wide", T, E, exponent=-7)},
            {"k": k, "renormalise": renormalise},
            seed=seed,
        )
    yield Asked(
        "top_experts",
        "5x129-8-last",
        "5 tokens to 8 of 129 experts each, the last one among them",
        {"scores": of("wide", 5, 129, exponent=-7)},
        {"k": 8, "renormalise": False},
        seed=906,  # the last of the experts is chosen by two tokens, and no choice is near
    )
    for T, E, k, renormalise in [(33, 8, 2, True), (5, 129, 6, False)]:
        yield Asked(
            "top_experts",
            f"{T}x{E}-{k}-ties{'-renormalised' if renormalise else ''}",
            f"{T} tokens to {k} of {E} experts each, among equal scores",
            {"scores": of("offset", T, E)},
            {"k": k, "renormalise": renormalise},
        )


def load_balance() -> Iterator[Asked]:
    for B, T, E in [(3, 33, 8), (2, 1025, 5)]:
        yield Asked(
            "load_balance",
            f"{B}x{T}x{E}",
            f"{T:,} tokens, of which some do not count",
            {"p": of("positive", B, T, E)},
            {"chosen": integers(B, T, below=E), "valid": bits(B, T)},
        )
    for slug, valid in [("all", None), ("one-text", {"profile": "lengths", "shape": [2, 65], "lengths": [0, 65]})]:
        yield Asked(
            "load_balance",
            f"2x65x8-{slug}",
            f"65 tokens, {'which all count' if valid is None else 'and a text of which none counts'}",
            {"p": of("positive", 2, 65, 8)},
            {"chosen": integers(2, 65, below=8), "valid": valid},
        )


def dispatch() -> Iterator[Asked]:
    for T, C, E, K in [(33, 65, 4, 9), (65, 31, 8, 9), (1025, 9, 16, 65), (129, 129, 5, 33)]:
        yield Asked(
            "dispatch",
            f"{T}x{C}-{E}x{K}",
            f"{T:,} tokens into {E} experts with {K} places each",
            {"x": normal(T, C)},
            {"slots": _slots(T, E * K), "experts": E, "capacity": K},
        )


def combine() -> Iterator[Asked]:
    for T, C, E, K in [(33, 65, 4, 9), (31, 33, 8, 7), (1025, 9, 16, 65)]:
        yield Asked(
            "combine",
            f"{T}x{C}-{E}x{K}",
            f"{T:,} tokens from {E} experts with {K} places each",
            {"z": normal(E, K, C), "g": of("positive", T)},
            {"slots": _slots(T, E * K)},
        )


def _slots(T: int, places: int) -> dict[str, Any]:
    """Another place for every token; the number after the last is none."""
    return count(T, step=7919, modulus=places + 1)


def expert_matmul() -> Iterator[Asked]:
    for E, K, C, N in [(3, 33, 65, 31), (8, 5, 129, 33), (2, 1025, 9, 7), (5, 1, 1025, 3)]:
        yield Asked(
            "expert_matmul",
            f"{E}x{K}x{C}x{N}",
            f"{E} experts, sums of {C:,}",
            {"x": normal(E, K, C), "W": normal(E, C, N, exponent=_scale(C))},
        )
    yield Asked(
        "expert_matmul",
        "2x3x33x17x9",
        "2 texts, whose shares of the gradient of W are added up",
        {"x": normal(2, 3, 33, 17), "W": normal(3, 17, 9, exponent=_scale(17))},
    )


def expert_linear() -> Iterator[Asked]:
    for E, K, C, N in [(3, 33, 65, 31), (4, 129, 17, 65)]:
        yield Asked(
            "expert_linear",
            f"{E}x{K}x{C}x{N}",
            f"{E} experts, sums of {C:,}, and a bias",
            {"x": normal(E, K, C), "W": normal(E, C, N, exponent=_scale(C)), "b": normal(E, N)},
        )
    yield Asked(
        "expert_linear",
        "2x3x33x17x9",
        "2 texts, whose shares of the gradients of W and b are added up",
        {"x": normal(2, 3, 33, 17), "W": normal(3, 17, 9, exponent=_scale(17)), "b": normal(3, 9)},
    )


# --- tables of rows ---------------------------------------------------------------------------------------------------


def embedding() -> Iterator[Asked]:
    for V, C, shape, used, about in [
        (1025, 33, (3, 65), 1025, "a few repeated ids"),
        (257, 65, (5, 129), 3, "645 ids, three of them different"),
        (33, 31, (2, 4097), 33, "8,194 ids of 33 rows"),
        (7, 9, (16384,), 7, "16,384 ids of seven rows"),
        (1, 65, (2049,), 1, "one row 2,049 times"),
        (32000, 17, (129,), 32000, "a vocabulary of 32,000"),
        (50257, 9, (1025,), 50257, "a vocabulary of 50,257"),
        (128256, 5, (257,), 128256, "a vocabulary of 128,256"),
        (33, 65, (0,), 33, "no ids"),
    ]:
        yield Asked(
            "embedding",
            f"{V}x{C}-{by(shape)}",
            about,
            {"E": normal(V, C)},
            {"ids": integers(*shape, below=used)},
        )
    for V, ids in ((257, [256, 255, 128, 256]), (50257, [50256, 32768, 32767, 50256])):
        yield Asked(
            "embedding",
            f"{V}x5-{len(ids)}-edges",
            f"a vocabulary of {V:,}; ids at the borders of tiles, the last row among them",
            {"E": normal(V, 5)},
            {"ids": listed(*ids)},
        )


def add_positions() -> Iterator[Asked]:
    for shape, P in [((3, 65, 33), 1025), ((2, 1025, 9), 2049)]:
        yield Asked(
            "add_positions",
            f"{by(shape)}-{P}",
            f"{shape[-2]:,} places of {P:,}",
            {"x": normal(*shape), "P": normal(P, shape[-1])},
            {"positions": count(shape[-2], start=P - shape[-2])},
        )


# --- layers that go through time --------------------------------------------------------------------------------------


def _contracting(N: int) -> int:
    """So that a column of sizes adds up to about a half: what is carried on for many steps can be bounded."""
    return -math.ceil(math.log2(N)) - 1


def _recurrent(operation: str, gates: int, state: int, sizes: list[tuple[int, int, int, int, bool]]) -> Iterator[Asked]:
    for B, T, width, N, ragged in sizes:
        inputs = {"x": normal(B, T, width), "h": normal(B, N, exponent=-1)}
        inputs |= {"c": normal(B, N)} if state == 2 else {}
        inputs |= {
            "Wx": normal(width, gates * N, exponent=_scale(width)),
            "Wh": normal(N, gates * N, exponent=_contracting(N)),
        }
        inputs |= {"b": normal(gates * N)} | ({"c": normal(N)} if operation == "gru_reset_after" else {})
        lengths = {"profile": "lengths", "shape": [B, T], "lengths": [max(0, T - 7 * n) for n in range(B)]}
        yield Asked(
            operation,
            f"{B}x{T}x{width}x{N}{'-ragged' if ragged else ''}",
            f"{T} steps, a state of {N}{', texts of unequal length' if ragged else ''}",
            inputs,
            {"valid": lengths if ragged else None},
        )


def lstm() -> Iterator[Asked]:
    sizes = [(3, 5, 31, 33, False), (2, 33, 17, 65, True), (5, 9, 65, 31, True), (1, 129, 9, 33, False)]
    return _recurrent("lstm", 4, 2, [*sizes, (33, 3, 33, 129, True)])


def rnn() -> Iterator[Asked]:
    return _recurrent("rnn", 1, 1, [(3, 33, 31, 33, True), (1, 129, 65, 65, False), (65, 3, 9, 129, True)])


def gru_reset_after() -> Iterator[Asked]:
    return _recurrent("gru_reset_after", 3, 1, [(3, 17, 31, 33, True), (2, 65, 9, 65, False)])
