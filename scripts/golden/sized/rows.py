"""Sized cases of what works row by row: softmax, losses, norms; and number by number: activations, dropout."""

from __future__ import annotations

from collections.abc import Iterator

from golden.sized.recipe import Asked, bits, by, integers, listed, normal, of

# rows below, at and above multiples of 32, 64, 128 and 1,024, and no multiple of 4; what is in them
SOFTMAX = [
    ((5, 31), "normal"), ((4, 32), "normal"), ((7, 33), "peaked"), ((3, 5, 63), "normal"), ((33, 64), "peaked"),
    ((3, 65), "offset"), ((3, 127), "wide"), ((4, 128), "positive"), ((2, 129), "outlier"), ((129, 129), "masked"),
    ((3, 1000), "normal"), ((2, 1023), "peaked"), ((3, 1024), "normal"), ((3, 1025), "normal"), ((5, 1025), "peaked"),
    ((3, 1025), "subnormal"), ((3, 1031), "masked"), ((2, 2047), "outlier"), ((2, 2049), "wide"), ((3, 4097), "offset"),
    ((2, 16383), "outlier"), ((2, 16384), "normal"), ((1, 32000), "peaked"), ((1025, 7), "normal"),
    ((0, 1025), "normal"), ((9, 129), "low"), ((3, 1025), "low"),
]  # fmt: skip
LOG_SOFTMAX = [SOFTMAX[n] for n in (0, 2, 4, 6, 8, 9, 11, 13, 14, 16, 18, 19, 21, 24, 25, 26)]
LOG_SUM_EXP = [SOFTMAX[n] for n in (1, 2, 5, 9, 13, 14, 18, 21, 25, 26)]
NORMS = [
    ((7, 31), "normal"), ((5, 32), "normal"), ((33, 33), "offset"), ((3, 5, 63), "wide"), ((65, 64), "normal"),
    ((3, 65), "outlier"), ((5, 127), "offset"), ((129, 128), "normal"), ((3, 129), "positive"), ((3, 1000), "normal"),
    ((5, 1023), "offset"), ((4, 1024), "outlier"), ((3, 1025), "normal"), ((3, 1025), "subnormal"), ((7, 2049), "wide"),
    ((2, 4097), "offset"), ((2, 16383), "outlier"), ((2, 16384), "normal"), ((1023, 5), "normal"),
    ((0, 1025), "normal"), ((9, 17), "offset"), ((65, 31), "offset"), ((129, 260), "outlier"),
]  # fmt: skip
NUMBERS = [
    ((1025,), "normal"), ((33, 65), "peaked"), ((3, 1023), "wide"), ((2, 2049), "subnormal"), ((1, 16385), "positive"),
    ((129, 129), "outlier"), ((2, 3, 5, 67), "offset"), ((0, 33), "normal"),
]  # fmt: skip


def _width(n: int) -> str:
    """What is special about a row of this length."""
    for tile in (1024, 128, 64, 32):
        for more, word in ((-1, "one below a multiple"), (0, "a multiple"), (1, "one above a multiple")):
            if n > tile // 2 and (n - more) % tile == 0:
                return f"rows of {n:,}, {word} of {tile:,}"
    return f"rows of {n:,}"


def softmax() -> Iterator[Asked]:
    for shape, profile in SOFTMAX:
        yield Asked("softmax", f"{by(shape)}-{profile}", _width(shape[-1]), {"x": of(profile, *shape)})


def log_softmax() -> Iterator[Asked]:
    for shape, profile in LOG_SOFTMAX:
        yield Asked("log_softmax", f"{by(shape)}-{profile}", _width(shape[-1]), {"x": of(profile, *shape)})


def log_sum_exp() -> Iterator[Asked]:
    for shape, profile in LOG_SUM_EXP:
        yield Asked("log_sum_exp", f"{by(shape)}-{profile}", _width(shape[-1]), {"x": of(profile, *shape)})


# What is drawn among many seldom falls behind the last whole tile.
EDGES = [
    (33, [32, 31, 0]), (257, [256, 255, 128]), (1025, [1024, 1023, 32, 31]), (4097, [4096, 4095]),
    (32000, [31999, 16384]),
]  # fmt: skip


def cross_entropy() -> Iterator[Asked]:
    shapes = [
        ((5, 31), "normal", "mean"),
        ((33, 33), "peaked", "none"),
        ((3, 7, 65), "normal", "mean"),
        ((129, 127), "wide", "sum"),
        ((9, 1000), "offset", "mean"),
        ((5, 1023), "outlier", "none"),
        ((7, 1025), "normal", "mean"),
        ((7, 1025), "peaked", "none"),
        ((3, 4097), "normal", "sum"),
        ((3, 32000), "normal", "mean"),
        ((3, 50257), "peaked", "mean"),
        ((2, 128256), "normal", "mean"),
        ((2, 128256), "outlier", "none"),
        ((1025, 7), "normal", "mean"),
        ((0, 1025), "normal", "none"),
        ((9, 257), "low", "mean"),
    ]
    for shape, profile, reduction in shapes:
        for ignore in (None, -100) if shape[0] in (7, 129, 1025) else (None if shape[0] in (2, 5, 0) else -100,):
            targets = integers(*shape[:-1], below=shape[-1], **({} if ignore is None else {"instead": ignore}))
            yield Asked(
                "cross_entropy",
                f"{by(shape)}-{profile}-{reduction}{'' if ignore is None else '-ignored'}",
                f"{_width(shape[-1])}{'' if ignore is None else '; one place in eight does not count'}",
                {"logits": of(profile, *shape)},
                {"targets": targets, "ignore": ignore, "reduction": reduction},
            )
    for V, at_edges in EDGES:
        yield Asked(
            "cross_entropy",
            f"{len(at_edges)}x{V}-normal-none-edges",
            f"{_width(V)}; targets at the borders of tiles, the last column among them",
            {"logits": of("normal", len(at_edges), V)},
            {"targets": listed(*at_edges), "ignore": None, "reduction": "none"},
        )
    yield Asked(
        "cross_entropy",
        "9x33-normal-mean-ignored-0",
        "the label 0 does not count",
        {"logits": normal(9, 33)},
        {"targets": integers(9, below=33, instead=0), "ignore": 0, "reduction": "mean"},
    )
    yield Asked(
        "cross_entropy",
        "5x65-normal-mean-nothing",
        "no place counts",
        {"logits": normal(5, 65)},
        {"targets": listed(*[-100] * 5), "ignore": -100, "reduction": "mean"},
        meets=("empty_mean",),
    )


def smoothed_cross_entropy() -> Iterator[Asked]:
    shapes: list[tuple[tuple[int, ...], str, str, int | None]] = [
        ((7, 33), "normal", "mean", -100),
        ((5, 129), "peaked", "none", None),
        ((9, 1025), "normal", "mean", -100),
        ((3, 1023), "offset", "sum", None),
        ((3, 32000), "normal", "mean", -100),
        ((2, 50257), "normal", "none", None),
        ((2, 128256), "peaked", "mean", None),
        ((9, 129), "low", "none", None),
        ((65, 33), "normal", "none", None),
    ]
    for shape, profile, reduction, ignore in shapes:
        how = {"smoothing": 0.5 if shape == (65, 33) else 0.125, "reduction": reduction}
        targets = integers(*shape[:-1], below=shape[-1], **({} if ignore is None else {"instead": ignore}))
        yield Asked(
            "smoothed_cross_entropy",
            f"{by(shape)}-{profile}-{reduction}",
            _width(shape[-1]),
            {"logits": of(profile, *shape)},
            {"targets": targets, "ignore": ignore, **how},
        )
    for V, at_edges in ((129, [128, 63, 64, 127, 0]), EDGES[2]):
        yield Asked(
            "smoothed_cross_entropy",
            f"{len(at_edges)}x{V}-normal-none-edges",
            f"{_width(V)}; targets at the borders of tiles, the last column among them",
            {"logits": of("normal", len(at_edges), V)},
            {"targets": listed(*at_edges), "ignore": None, "smoothing": 0.125, "reduction": "none"},
        )
    yield Asked(
        "smoothed_cross_entropy",
        "9x65-normal-sum-unsmoothed",
        "a smoothing of 0; the last label does not count",
        {"logits": normal(9, 65)},
        {"targets": integers(9, below=65, instead=64), "ignore": 64, "smoothing": 0.0, "reduction": "sum"},
    )


def layer_norm() -> Iterator[Asked]:
    for shape, profile in NORMS:
        C = shape[-1]
        yield Asked(
            "layer_norm",
            f"{by(shape)}-{profile}",
            _width(C),
            {"x": of(profile, *shape), "g": of("positive", C), "b": normal(C)},
            {"eps": 1e-5},
        )
    yield Asked(
        "layer_norm",
        "9x65-normal-large-eps",
        "rows of 65, an eps of 1/4",
        {"x": normal(9, 65), "g": of("positive", 65), "b": normal(65)},
        {"eps": 0.25},
    )


def rms_norm() -> Iterator[Asked]:
    for n, (shape, profile) in enumerate(NORMS):
        C = shape[-1]
        if n % 5 != 1:
            yield Asked(
                "rms_norm",
                f"{by(shape)}-{profile}",
                _width(C),
                {"x": of(profile, *shape), "g": normal(C)},
                {"eps": 1e-6},
            )
    yield Asked(
        "rms_norm",
        "9x65-normal-large-eps",
        "rows of 65, an eps of 1/4",
        {"x": normal(9, 65), "g": normal(65)},
        {"eps": 0.25},
    )


def _activation(operation: str, which: list[int]) -> Iterator[Asked]:
    for n in which:
        shape, profile = NUMBERS[n]
        about = f"{by(shape)} numbers: {'none at all' if 0 in shape else 'no multiple of 32'}"
        yield Asked(operation, f"{by(shape)}-{profile}", about, {"x": of(profile, *shape)})


def relu() -> Iterator[Asked]:
    return _activation("relu", [0, 2, 3, 4, 7])


def gelu_erf() -> Iterator[Asked]:
    return _activation("gelu_erf", [0, 1, 2, 3, 5, 6])


def gelu_tanh() -> Iterator[Asked]:
    return _activation("gelu_tanh", [0, 1, 2, 3, 5, 6, 7])


def silu() -> Iterator[Asked]:
    return _activation("silu", [0, 1, 2, 3, 4, 5, 6])


def tanh() -> Iterator[Asked]:
    return _activation("tanh", [0, 1, 2, 3, 6])


def dropout() -> Iterator[Asked]:
    for shape, profile, rate, chance in [
        ((1025,), "normal", 0.25, 192),
        ((33, 65), "wide", 0.1, 230),
        ((3, 1023), "outlier", 0.5, 128),
        ((2, 4097), "normal", 0.125, 224),
        ((5, 31), "subnormal", 0.5, 128),
        ((0, 65), "normal", 0.5, 128),
    ]:
        yield Asked(
            "dropout",
            f"{by(shape)}-{profile}",
            f"{by(shape)} numbers, of which some are dropped",
            {"x": of(profile, *shape)},
            {"keep": bits(*shape, chance=chance), "rate": rate},
        )
    yield Asked(
        "dropout",
        "3x129-normal-nothing-dropped",
        "387 numbers, of which none is dropped",
        {"x": normal(3, 129)},
        {"keep": bits(3, 129, chance=256), "rate": 0.0},
    )
