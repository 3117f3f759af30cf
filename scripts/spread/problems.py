"""The operations that the spread is calibrated with: shapes at which sums are long, and inputs of every profile.

    for problem in problems(): for profile in problem.profiles: inputs, cotangents = problem.drawn(profile)

Keywords and names are those of the golden files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.sized.profiles import made

PROFILES = ("normal", "positive", "peaked", "offset", "low", "wide", "outlier")
SEED = 20261129
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """An operation: the shapes of the inputs that have the profile, and those of the others with a recipe of their own.

    `inputs` keeps the order of the arguments; a recipe without a profile has that of the problem.
    """

    name: str
    operation: str
    inputs: Mapping[str, Any]
    keywords: Mapping[str, Any]
    outputs: Mapping[str, Shape]  # the shape of each cotangent; none: there are no gradients
    profiles: tuple[str, ...] = PROFILES

    def drawn(self, profile: str) -> tuple[dict[str, Any], dict[str, Array]]:
        """The inputs as trees, and the cotangents, which are positive where all is."""
        inputs = {name: _tree(name, part, profile) for name, part in self.inputs.items()}
        of_dy = "positive" if profile == "positive" else "normal"
        dys = {name: _one(f"d{name}", {"shape": shape}, of_dy) for name, shape in self.outputs.items()}
        return inputs, dys


def _tree(name: str, part: Any, profile: str) -> Any:
    if isinstance(part, Mapping) and "shape" not in part:
        return {key: _tree(f"{name}.{key}", branch, profile) for key, branch in part.items()}
    return _one(name, part if isinstance(part, Mapping) else {"shape": part}, profile)


def _one(name: str, recipe: Mapping[str, Any], profile: str) -> Array:
    return made({"profile": profile, **recipe, "shape": list(recipe["shape"])}, SEED, name)


def weight(*shape: int) -> dict[str, Any]:
    """A matrix whose product with a row has about the size of the row."""
    return {"profile": "normal", "shape": shape, "exponent": -round(numpy.log2(shape[-2]) / 2)}


def plain(*shape: int, exponent: int = 0) -> dict[str, Any]:
    return {"profile": "normal", "shape": shape, "exponent": exponent}


def positive(*shape: int, exponent: int = 0) -> dict[str, Any]:
    return {"profile": "positive", "shape": shape, "exponent": exponent}


def problems() -> Iterator[Problem]:
    """Every operation of the sized cases."""
    yield from _products()
    yield from _rows()
    yield from _elements()
    yield from _attention()
    yield from _others()


def _products() -> Iterator[Problem]:
    yield Problem("matmul", "matmul", {"x": (9, 16381), "W": (16381, 6)}, {}, {"y": (9, 6)})
    yield Problem("matmul, long sum over rows", "matmul", {"x": (4099, 9), "W": (9, 13)}, {}, {"y": (4099, 13)})
    yield Problem("linear", "linear", {"x": (33, 1027), "W": (1027, 65), "b": (65,)}, {}, {"y": (33, 65)})
    ids = {"ids": _ids((7, 523), 37)}
    yield Problem("embedding", "embedding", {"E": (37, 40)}, ids, {"y": (7, 523, 40)})


def _rows() -> Iterator[Problem]:
    yield Problem("softmax", "softmax", {"x": (9, 16385)}, {}, {"y": (9, 16385)})
    yield Problem("log_softmax", "log_softmax", {"x": (9, 4097)}, {}, {"y": (9, 4097)})
    how = {"targets": _ids((33,), 4099), "ignore": None, "reduction": "mean"}
    yield Problem("cross_entropy", "cross_entropy", {"logits": (33, 4099)}, how, {"y": ()})
    some = {"targets": _ids((17,), 32000), "ignore": int(_ids((17,), 32000)[3]), "reduction": "sum"}
    yield Problem("cross_entropy, ignored", "cross_entropy", {"logits": (17, 32000)}, some, {"y": ()})
    smooth = {**how, "smoothing": 0.1}
    yield Problem("smoothed_cross_entropy", "smoothed_cross_entropy", {"logits": (33, 4099)}, smooth, {"y": ()})
    norm = {"x": (65, 4099), "g": plain(4099), "b": plain(4099)}
    yield Problem("layer_norm", "layer_norm", norm, {"eps": 1e-5}, {"y": (65, 4099)})
    yield Problem("layer_norm, wide rows", "layer_norm", _norm(5, 16384), {"eps": 1e-5}, {"y": (5, 16384)})
    rms = {"x": (65, 4099), "g": positive(4099)}
    yield Problem("rms_norm", "rms_norm", rms, {"eps": 1e-6}, {"y": (65, 4099)})
    wide = {"x": (5, 16384), "g": positive(16384)}
    yield Problem("rms_norm, wide rows", "rms_norm", wide, {"eps": 1e-6}, {"y": (5, 16384)})


def _norm(rows: int, width: int) -> dict[str, Any]:
    return {"x": (rows, width), "g": plain(width), "b": plain(width)}


def _elements() -> Iterator[Problem]:
    for name in ("relu", "gelu_erf", "gelu_tanh", "silu", "tanh"):
        yield Problem(name, name, {"x": (129, 65)}, {}, {"y": (129, 65)})
    yield Problem("multiply", "multiply", {"a": (33, 65), "b": (33, 65)}, {}, {"y": (33, 65)})
    mask = {"keep": made({"profile": "bits", "shape": [33, 65], "chance": 200}, SEED, "keep"), "rate": 0.1}
    yield Problem("dropout", "dropout", {"x": (33, 65)}, mask, {"y": (33, 65)})


def _attention() -> Iterator[Problem]:
    def of(name: str, T: int, S: int, D: int, causal: bool, allowed: Any = None, batch: int = 3) -> Problem:
        shapes = {"q": (batch, T, D), "k": (batch, S, D), "v": (batch, S, D)}
        how = {"causal": causal, "allowed": allowed}
        return Problem(name, "attention", shapes, how, {"y": (batch, T, D)})

    yield of("attention", 129, 257, 64, False)
    yield of("attention, wide heads", 65, 130, 256, False)
    yield of("attention, causal", 257, 257, 80, True)
    yield of("attention, cached", 7, 515, 96, True)
    yield of("attention, long", 33, 2049, 64, False, batch=1)
    mask = made({"profile": "bits", "shape": [3, 129, 129], "chance": 128}, SEED, "allowed") | numpy.eye(
        129, dtype=bool
    )
    yield of("attention, masked", 129, 129, 40, False, mask)
    bias = {"q": (5, 65, 64), "k": (5, 129, 64), "v": (5, 129, 64), "r": plain(5, 193)}
    how = {"causal": False, "allowed": None}
    yield Problem("relative_attention", "relative_attention", bias, how, {"y": (5, 65, 64)})
    for layout in ("halves", "interleaved"):
        turn = {"positions": numpy.array([0, 1, 2, 511, 4095, 131071, 131070]), "base": 10000.0}
        yield Problem(f"rotary_{layout}", f"rotary_{layout}", {"x": (3, 7, 128)}, turn, {"y": (3, 7, 128)})


def _others() -> Iterator[Problem]:
    p = {"W1": weight(65, 257), "b1": plain(257), "W2": weight(257, 65), "b2": plain(65)}
    layer = {"x": (33, 65), "p": p}
    yield Problem("feed_forward", "feed_forward", layer, {"activation": "gelu_tanh"}, {"y": (33, 65)})
    gated = {"x": (33, 65), "p": {"Wg": weight(65, 257), "W1": weight(65, 257), "W2": weight(257, 65)}}
    yield Problem("gated_feed_forward", "gated_feed_forward", gated, {"activation": "silu"}, {"y": (33, 65)})
    state = {"h": plain(4, 40, exponent=-2), "c": plain(4, 40, exponent=-2)}
    weights = {"Wx": weight(33, 160), "Wh": weight(40, 160), "b": plain(160, exponent=-2)}
    cells = {"x": (4, 33, 33), **state, **weights}
    yield Problem("lstm", "lstm", cells, {"valid": None}, {"y": (4, 33, 40), "c_T": (4, 40)})
    step = {"step": 10, "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.01}
    size = 10001
    moments = {"p": plain(size), "g": (size,), "m": plain(size, exponent=-3), "v": positive(size, exponent=-6)}
    yield Problem("adamw", "adamw", moments, step, {})
    arrays = {"g": {"0": (33, 1025), "1": (129,)}}
    yield Problem("clip_by_global_norm", "clip_by_global_norm", arrays, {"clip": 1.0}, {})


def _ids(shape: Shape, size: int) -> Array:
    return made({"profile": "integers", "shape": list(shape), "below": size}, SEED, f"ids{size}")
