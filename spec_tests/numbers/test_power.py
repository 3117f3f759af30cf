"""Right arithmetic in another order passes the limit, and mistakes that lose digits do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.numbers.plans import plan
from refllm.verify.sized.profiles import made

SEED = 7


def drawn(profile: str, *shape: int, name: str = "x") -> Array:
    return made({"profile": profile, "shape": list(shape)}, SEED, name)


def farthest(
    operation: str, inputs: dict[str, Array], keywords: dict[str, Any], y: Array, dtype: str, name: str = "fused"
) -> float:
    """The largest distance of y, in the limit."""
    how = plan(name, dtype)
    found = how.evaluate(operation, inputs, keywords)[0]["y"]
    deviation = how.deviation(found)
    with numpy.errstate(all="ignore"):
        z = numpy.where(y == found.value, 0, abs(y - found.value) / deviation)
    assert numpy.isfinite(deviation).all(), "every element is judged"
    return float(z.max()) / how.limit


def bfloat16(x: Array) -> Array:
    bits = numpy.asarray(x, numpy.float32).view(numpy.uint32).astype(numpy.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(numpy.uint32).view(numpy.float32)


# --- layer norm -------------------------------------------------------------------------------------------------------


def by_two_passes(x: Array) -> Array:
    c = x - x.mean(-1, keepdims=True)
    n: Array = c / numpy.sqrt((c * c).mean(-1, keepdims=True) + numpy.float32(1e-5))
    return n


def by_mean_square(x: Array) -> Array:
    mean = x.mean(-1, keepdims=True)
    variance = (x * x).mean(-1, keepdims=True) - mean * mean
    n: Array = (x - mean) / numpy.sqrt(variance + numpy.float32(1e-5))
    return n


def with_the_variance_of_one_less(x: Array) -> Array:
    n: Array = by_two_passes(x) * numpy.sqrt(numpy.float32(1 - 1 / x.shape[-1]))
    return n


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("profile", ["normal", "positive", "offset", "wide", "outlier"])
def test_a_layer_norm_is_right_and_one_by_the_mean_square_is_not(profile: str, dtype: str) -> None:
    x, one = drawn(profile, 9, 4099), numpy.ones(4099)
    inputs = {"x": x, "g": one, "b": 0 * one}

    def distance(f: Callable[[Array], Array]) -> float:
        y = f(x.astype(numpy.float32))
        stored = bfloat16(y) if dtype == "bfloat16" else y
        return farthest("layer_norm", inputs, {"eps": 1e-5}, stored.astype(float), dtype)

    assert distance(by_two_passes) < 1
    if profile == "offset" and dtype == "float32":  # below what a stored bfloat16 shows
        assert distance(by_mean_square) > 1
    if dtype == "float32":
        assert distance(with_the_variance_of_one_less) > 1


def in_one_accumulator(terms: Array) -> Array:
    """The sum of each row, one term after the other."""
    y: Array = numpy.cumsum(terms, axis=-1, dtype=terms.dtype)[..., -1:]
    return y


@pytest.mark.parametrize("profile", ["positive", "peaked"])
def test_a_gain_gradient_is_right_whose_rows_are_summed_in_one_accumulator_each(profile: str) -> None:
    """The squares of short numbers are cut off alike in every row, and small ones vanish beside the sum so far: the
    gradient of g adds up 65 equal errors. Without that in the spread it is 38 and 18 deviations off."""
    x, g, dy = drawn(profile, 65, 4099), drawn("positive", 4099, name="g"), drawn("positive", 65, 4099, name="dy")
    how = plan("fused", "float32")
    expected = how.evaluate("rms_norm", {"x": x, "g": g}, {"eps": 1e-6}, {"y": dy})[1]["g"]
    x, dy = x.astype(numpy.float32), dy.astype(numpy.float32)
    r = 1 / numpy.sqrt(in_one_accumulator(x * x) / numpy.float32(4099) + numpy.float32(1e-6))

    def far(n: Array) -> float:
        dg = (dy * n).sum(axis=0, dtype=numpy.float32)
        return float((abs(dg - expected.value) / how.deviation(expected)).max()) / how.limit

    assert far(x * r) < 1
    assert far(x * r * numpy.float32(1 + 2.0**-12)) > 1


# --- products and softmax ---------------------------------------------------------------------------------------------


def summed_in(terms: Array, rounded: Callable[[Array], Array], chain: int) -> Array:
    """The sum of each row by accumulators of so many terms, each partial sum rounded."""
    total = numpy.zeros(terms.shape[:-1], numpy.float32)
    for start in range(0, terms.shape[-1], chain):
        part = numpy.zeros(terms.shape[:-1], numpy.float32)
        for k in range(start, min(start + chain, terms.shape[-1])):
            part = rounded(part + terms[..., k])
        total = rounded(total + part)
    return total


@pytest.mark.parametrize("name", ["eager", "fused"])
@pytest.mark.parametrize("profile", ["normal", "positive", "wide"])
def test_sums_in_float32_are_right_and_sums_in_bfloat16_are_not(profile: str, name: str) -> None:
    x, W = drawn(profile, 5, 2051), drawn(profile, 2051, 3, name="W")
    terms = (x[:, None, :] * W.T).astype(numpy.float32)
    right = bfloat16(summed_in(terms, lambda y: y, 512)).astype(float)
    wrong = summed_in(terms, bfloat16, 512).astype(float)
    assert farthest("matmul", {"x": x, "W": W}, {}, right, "bfloat16", name) < 1
    assert farthest("matmul", {"x": x, "W": W}, {}, wrong, "bfloat16", name) > 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tiled_softmax_that_does_not_rescale_fails(dtype: str) -> None:
    """The exponentials of the first tile stay relative to its own largest score."""
    x = drawn("normal", 6, 1030)

    def tiled(rescales: bool) -> Array:
        largest, Z, parts = numpy.full((6, 1), -numpy.inf), numpy.zeros((6, 1)), []
        for start in range(0, x.shape[-1], 128):
            tile = x[:, start : start + 128]
            new = numpy.maximum(largest, tile.max(-1, keepdims=True))
            Z = Z * (numpy.exp(largest - new) if rescales else 1) + numpy.exp(tile - new).sum(-1, keepdims=True)
            largest = new
            parts.append(tile)
        y = (numpy.exp(numpy.concatenate(parts, axis=-1) - largest) / Z).astype(numpy.float32)
        return (bfloat16(y) if dtype == "bfloat16" else y).astype(float)

    assert farthest("softmax", {"x": x}, {}, tiled(rescales=True), dtype) < 1
    assert farthest("softmax", {"x": x}, {}, tiled(rescales=False), dtype) > 1


# --- rotary embedding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [4095, 131071])
def test_angles_in_float32_fail_at_far_positions(position: int) -> None:
    x, positions, half = drawn("normal", 1, 128), numpy.array([position]), numpy.arange(64)

    def turned(dtype: Any) -> Array:
        angle = positions.astype(dtype)[:, None] * (numpy.asarray(10000.0, dtype) ** (-half.astype(dtype) / 64))
        c, s = numpy.cos(angle).astype(numpy.float32), numpy.sin(angle).astype(numpy.float32)
        a, b = x[:, :64].astype(numpy.float32), x[:, 64:].astype(numpy.float32)
        return numpy.concatenate([a * c - b * s, b * c + a * s], axis=-1).astype(float)

    how = {"positions": positions, "base": 10000.0}
    assert farthest("rotary_halves", {"x": x}, how, turned(numpy.float64), "float32") < 1
    assert farthest("rotary_halves", {"x": x}, how, turned(numpy.float32), "float32") > 1
