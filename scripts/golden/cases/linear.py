"""L1: linear maps, the projection into heads, embeddings and positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw


def _linear(id: str, about: str, x: tuple[int, ...], out: int, *, bias: bool, **more: Any) -> Case:
    draw = Draw(id)
    inputs = {"x": draw.normal(*x), "W": draw.normal(x[-1], out)} | ({"b": draw.normal(out)} if bias else {})
    return Case(id, "linear" if bias else "matmul", about, inputs, {}, **more)


def linear() -> list[Case]:
    return [
        _linear("FFN/linear-vector", "no leading dimension", (3,), 2, bias=True),
        _linear("FFN/linear-rows", "W is (in, out): y = x W + b", (4, 3), 5, bias=True),
        _linear("FFN/linear-square", "a square W hides no transpose here: x W is not x W^T", (2, 3), 3, bias=True),
        _linear(
            "FFN/linear-batch",
            "two leading dimensions; the gradients of W and b sum over both",
            (2, 3, 4),
            2,
            bias=True,
        ),
        _linear("FFN/linear-no-rows", "an empty batch: gradients of zeros for W and b", (0, 3), 2, bias=True),
        _linear("FFN/linear-one-by-one", "every axis has one element", (1, 1), 1, bias=True),
        _linear("LMHEAD/linear-to-vocabulary", "the output layer h W + b, vocabulary 7", (3, 4), 7, bias=True),
    ]


def matmul() -> list[Case]:
    E = Draw("EMB/e7-one-hot").normal(4, 3)
    onehot = np.eye(4)[[2, 0]]
    return [
        _linear("LMHEAD/matmul-vector", "no leading dimension", (3,), 2, bias=False),
        _linear("LMHEAD/matmul-rows", "the output layer without a bias, vocabulary 7", (3, 4), 7, bias=False),
        _linear("LMHEAD/matmul-square", "x W is not x W^T", (2, 3), 3, bias=False),
        _linear("LMHEAD/matmul-no-rows", "an empty batch: a gradient of zeros for W", (0, 3), 4, bias=False),
        _linear("LMHEAD/matmul-batch", "two leading dimensions", (2, 2, 3), 4, bias=False),
        Case(
            "EMB/e7-one-hot",
            "matmul",
            "e_w = onehot(w) W_e: w is one-hot, so the product is row w of W_e (rows 2 and 0), not w times a matrix",
            {"x": onehot, "W": E},
            {},
            erratum="E7",
        ),
    ]


def _heads(id: str, about: str, x: tuple[int, ...], *, heads: int, parts: int, width: int) -> Case:
    draw = Draw(id)
    out = heads * parts * width
    inputs = {"x": draw.normal(*x), "W": draw.normal(x[-1], out), "b": draw.normal(out)}
    return Case(id, "heads", about, inputs, {"heads": heads, "parts": parts})


def heads() -> list[Case]:
    return [
        _heads("MHA/heads-qkv", "columns are q, k, v; inside each, head by head", (3, 4), heads=2, parts=3, width=2),
        _heads("MHA/heads-one", "one head: a plain split in three", (2, 3), heads=1, parts=3, width=3),
        _heads("MHA/heads-batch", "(B, T, C) -> (B, H, T, D), T != H", (2, 3, 2), heads=2, parts=3, width=1),
        _heads(
            "MHA/heads-as-many-as-tokens",
            "T = H: an axis left unswapped keeps the shape",
            (2, 4),
            heads=2,
            parts=2,
            width=3,
        ),
        _heads("MHA/heads-wide", "H D different from C, three heads", (2, 2), heads=3, parts=1, width=2),
    ]


def _embedding(id: str, about: str, V: int, C: int, ids: Any, **more: Any) -> Case:
    return Case(id, "embedding", about, {"E": Draw(id).normal(V, C)}, {"ids": np.array(ids, np.int64)}, **more)


def embedding() -> list[Case]:
    return [
        _embedding("EMB/rows", "row w of the table; rows not asked for have a zero gradient", 5, 3, [4, 0, 2]),
        _embedding("EMB/repeated", "a word that stands three times collects three gradients", 4, 2, [1, 3, 1, 1]),
        _embedding("EMB/batch", "ids (B, T) -> (B, T, C), with repeats across the batch", 6, 3, [[0, 5, 1], [1, 1, 4]]),
        _embedding("EMB/scalar", "one id, no leading dimension", 3, 4, 2),
        _embedding("EMB/width-one", "C = 1", 3, 1, [2, 2, 0]),
        _embedding(
            "EMB/e7-row",
            "the same rows as the one-hot product EMB/e7-one-hot defines: ids 2 and 0",
            4,
            3,
            [2, 0],
            erratum="E7",
        ),
    ]


def _sinusoidal(id: str, about: str, positions: Any, width: int, **more: Any) -> Case:
    return Case(
        id,
        "sinusoidal",
        about,
        {"p": np.array(positions, dtype=np.float64)},
        {"width": width},
        **more,
    )


def sinusoidal() -> list[Case]:
    return [
        _sinusoidal("PE-SIN/first-positions", "position 0 is (0, 1, 0, 1 ...)", [0, 1, 2, 3], 6),
        _sinusoidal("PE-SIN/width-two", "one pair: sin p and cos p", [0, 1, 5], 2),
        _sinusoidal("PE-SIN/width-eight", "the exponent is 2i/d with the pair's i, not the column's", [1, 7, 30], 8),
        _sinusoidal("PE-SIN/beyond-a-hundred", "positions beyond 100", [101, 128, 511 - 1, 1000], 4),
        _sinusoidal("PE-SIN/ten-thousand", "positions near 10000: the angle needs all its digits", [4992, 9984], 6),
        _sinusoidal("PE-SIN/fractions", "positions need not be whole", [0.5, 1.25, 3.75], 4),
        _sinusoidal(
            "PE-SIN/e5-position-one",
            "not sin(p/sqrt d) + cos(p/sqrt d), one number for all dimensions",
            [1],
            4,
            erratum="E5",
            printed={"value": 1.3570081004945758},
        ),
    ]


def _add(id: str, about: str, x: tuple[int, ...], S: int, positions: Any, **more: Any) -> Case:
    draw = Draw(id)
    inputs = {"x": draw.normal(*x), "P": draw.normal(S, x[-1])}
    return Case(id, "add_positions", about, inputs, {"positions": np.array(positions, np.int64)}, **more)


def add_positions() -> list[Case]:
    return [
        _add("PE-LRN/prefix", "T < S: unused rows have a zero gradient", (3, 2), 5, [0, 1, 2]),
        _add("PE-LRN/offset", "decoding after a cache: positions start at 3", (2, 3), 6, [3, 4]),
        _add(
            "PE-LRN/shared-by-batch",
            "positions (T,) serve a whole batch, whose gradients add up",
            (2, 3, 2),
            4,
            [0, 1, 2],
        ),
        _add(
            "PE-LRN/own-per-sentence",
            "positions (B, T): left padding shifts the second sentence",
            (2, 3, 2),
            4,
            [[0, 1, 2], [0, 0, 1]],
        ),
        _add(
            "PE-LRN/e12-one-row-per-position",
            "the table has one row a position (4), not one a vocabulary entry (9)",
            (4, 3),
            4,
            [0, 1, 2, 3],
            erratum="E12",
            printed={"rows": 9},
        ),
    ]
