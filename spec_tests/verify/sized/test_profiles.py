"""Laws of the generator and its profiles: eight bits, exact in bfloat16, the same from whichever side they are made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.verify.sized import generator, probes, profiles
from refllm.verify.sized.profiles import BOOLEANS, INTEGERS, PROFILES

FLOATS = sorted(set(PROFILES) - {*INTEGERS, *BOOLEANS})
SEEDS = st.integers(0, 2**64 - 1)
SHAPES = st.lists(st.integers(0, 9), max_size=4).map(tuple)


def recipe(profile: str, shape: tuple[int, ...], **more: Any) -> dict[str, Any]:
    rows = math.prod(shape[:-1])
    own: dict[str, dict[str, Any]] = {
        "constant": {"value": 3}, "integers": {"below": 7}, "listed": {"values": list(range(math.prod(shape)))},
        "bits": {"chance": 192}, "lengths": {"lengths": [r % 5 for r in range(rows)]},
        "documents": {"borders": [0, 2, 5]},
    }  # fmt: skip
    return {"profile": profile, "shape": list(shape), **own.get(profile, {}), **more}


@given(st.sampled_from(FLOATS), SEEDS, SHAPES, st.integers(-20, 20))
def test_numbers_have_eight_significant_bits_and_are_exact_in_bfloat16(
    profile: str, seed: int, shape: tuple[int, ...], exponent: int
) -> None:
    x = profiles.made(
        recipe(profile, shape, exponent=max(exponent, 0) if profile == "subnormal" else exponent), seed, "x"
    )
    finite = x[np.isfinite(x)]
    mantissa = np.frexp(finite)[0] * 256
    np.testing.assert_array_equal(mantissa, np.rint(mantissa))
    halves = finite.astype("float32").view("uint32") & 0xFFFF
    assert not halves.any()
    np.testing.assert_array_equal(finite.astype("float32"), finite)


@given(st.sampled_from(sorted(PROFILES)), SEEDS, SHAPES)
def test_a_tensor_has_the_shape_and_the_dtype_of_its_profile(profile: str, seed: int, shape: tuple[int, ...]) -> None:
    x = profiles.made(recipe(profile, shape), seed, "inputs.x")
    dtype = "int64" if profile in INTEGERS else "bool" if profile in BOOLEANS else "float64"
    assert (x.shape, str(x.dtype)) == (shape, dtype)


@given(SEEDS, st.integers(0, 1 << 40), st.integers(0, 50))
def test_words_are_the_same_in_whatever_pieces_they_are_made(seed: int, first: int, cut: int) -> None:
    start = generator.stream(seed, "inputs.x")
    whole = generator.words(start, first, 50)
    parts = [generator.words(start, first, cut), generator.words(start, first + cut, 50 - cut)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_words_are_those_of_splitmix64() -> None:
    """The published first outputs of the generator that begins at 0 (Vigna's splitmix64.c)."""
    assert [int(w) for w in generator.words(0, 0, 2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_tensors_of_other_names_and_seeds_are_others() -> None:
    made = [profiles.made(recipe("normal", (64,)), seed, name) for seed in (1, 2) for name in ("inputs.q", "inputs.k")]
    assert all((x != y).any() for i, x in enumerate(made) for y in made[:i])


@pytest.mark.parametrize(
    ("profile", "mean", "deviation"), [("normal", 0, 1.154), ("positive", 1.008, 0.577), ("offset", 7.859, 0.0716)]
)
def test_a_profile_has_the_mean_and_the_deviation_that_is_said(profile: str, mean: float, deviation: float) -> None:
    x = profiles.made(recipe(profile, (400, 500)), 5, "inputs.x")
    assert abs(x.mean() - mean) < 0.01 * deviation + 1e-3
    assert abs(x.std() / deviation - 1) < 0.01


def test_every_row_has_one_outlier_and_some_rows_are_masked_whole() -> None:
    x = profiles.made(recipe("outlier", (300, 33)), 5, "inputs.x")
    assert ((abs(x) == 1020).sum(axis=1) == 1).all()
    masked = np.isneginf(profiles.made(recipe("masked", (300, 33)), 5, "inputs.x"))
    assert 0 < masked.all(axis=1).sum() < 150
    assert 0.15 < masked[~masked.all(axis=1)].mean() < 0.35


def test_subnormal_numbers_are_below_the_least_normal_one_of_float32() -> None:
    x = profiles.made(recipe("subnormal", (1000,)), 5, "inputs.x")
    assert (x != 0).all()
    assert abs(x).max() < 2.0**-126


@given(SEEDS, st.lists(st.integers(1, 3000), max_size=4).map(tuple))
def test_probes_are_places_of_the_tensor_with_every_kind_of_corner(seed: int, shape: tuple[int, ...]) -> None:
    found = probes.probes(shape, seed, "outputs.y")
    places = np.array(np.unravel_index(found, shape)).T if shape else np.zeros((64, 0))
    assert found.shape == (probes.COUNT,)
    ends = np.array([n - 1 for n in shape])
    assert all(((row == 0) | (row == ends)).all() for row in places[: probes.CORNERS])


def test_probes_meet_the_borders_of_tiles() -> None:
    found = probes.probes((2049,), 3, "outputs.y")[probes.CORNERS : probes.BORDERS]
    assert ((found % 32 == 0) | (found % 32 == 31) | (found == 2048)).all()
    assert len(set(found.tolist())) > 12


def test_there_are_no_probes_where_there_is_nothing() -> None:
    assert not len(probes.probes((3, 0), 1, "outputs.y"))
